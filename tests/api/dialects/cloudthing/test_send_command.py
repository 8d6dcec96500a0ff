"""Commands from the management API to the bytes that a device gets."""

import base64

import pytest

from api.dialects.cloudthing.http import CloudThingHttp
from api.dialects.cloudthing.service import CloudThing
from api.transports.http import Front
from tests.api.flow.serving import FlowStack, T

pytestmark = pytest.mark.asyncio

RPC = f"{T}/devices/d1/rpc"


@pytest.mark.spec("CT-4", "CT-6", "CT-73", "CT-S7", "CT-S9", "G-26")
async def test_an_apps_command_has_the_method_as_its_id_and_the_params_as_its_payload(redis_url):
    async with FlowStack(redis_url) as stack:
        service = CloudThing(
            redis_url, auth=stack.auth, registry=stack.registry, intake=stack.intake, replies=stack.replies,
            commands=stack.commands, live=stack.live, answers=stack.answers, firmware=stack.firmware,
        )  # fmt: skip
        await service.start()
        try:
            await stack.device("d1", ct_token="T1")
            url = await stack.listen("ct_http", server="hypercorn", app=Front([CloudThingHttp(service)]))
            login = {"Authorization": "Basic " + base64.b64encode(b"d1:T1").decode()}
            client = await stack.client(url, headers=login)
            sent = ["ON", "", {"a": 1}, [1, None], 5, True, {"$base64": "/wA="}, {"$base64": "?"}]
            for params in sent:
                await stack.post(RPC, {"method": "set config", "params": params, "oneway": True}, 202)
            await stack.post(RPC, {"method": "bare", "oneway": True}, 202)
            await stack.idle()
            listed = (await client.get("/v1/d1/commands")).json()
            assert [(each["id"], each["payload"]) for each in listed] == [
                *[("set config", params) for params in sent],
                ("bare", {}),
            ]
            assert (await client.get("/v1/d1/commands")).status_code == 204
        finally:
            await service.stop()
