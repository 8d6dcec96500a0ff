"""Who may, what paths there are, and what errors look like."""

from __future__ import annotations

import msgspec
import pytest

from api.flow.operations import OPERATIONS
from engine.stores.registry import Tenant
from tests.api.flow.serving import TOKEN, FlowStack, T

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer é"])
async def test_without_the_right_token_everything_is_401(stack: FlowStack, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    for path in (T, "/flow/v1/nowhere", "/metrics"):
        answer = await stack.anonymous.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["status"] == 401


async def test_every_operation_but_the_public_ones_wants_the_token(stack: FlowStack) -> None:
    for operation in OPERATIONS:
        path = operation.path.replace("{", "").replace("}", "")
        answer = await stack.anonymous.request(operation.method, path, content=b"{}")
        assert (answer.status_code == 401) == (not operation.public), operation.id


async def test_the_openapi_document_needs_no_token(stack: FlowStack) -> None:
    answer = await stack.anonymous.get("/flow/v1/openapi.json")
    assert answer.status_code == 200
    described = {(m.upper(), path) for path, methods in answer.json()["paths"].items() for m in methods}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}


async def test_unknown_paths_and_methods_are_problems(stack: FlowStack) -> None:
    assert (await stack.get("/flow/v1/nowhere", 404))["title"] == "Not Found"
    answer = await stack.flow.delete("/flow/v1/tenants")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.spec("G-27")
async def test_a_trailing_slash_and_the_content_type_mean_nothing(stack: FlowStack) -> None:
    answer = await stack.flow.put(
        f"{T}/secrets/one/", content=b'{"value": "x"}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 204
    assert (await stack.get(f"{T}/secrets/?unknown=1"))["secrets"] == ["one"]


@pytest.mark.parametrize(
    ("body", "pointer", "message"),
    [
        (b"", "", "not JSON: ends too early"),
        (b"{", "", "not JSON: ends too early"),
        (b"[]", "", "Expected `object`, got `array`"),
        (b'{"name": 5}', "/name", "Expected `str`, got `int`"),
        (b'{"name": "d", "credentials": [{"kind": "KEY"}]}', "/credentials/0/kind", "Invalid enum value 'KEY'"),
        (b'{"name": "d", "nmae": 1}', "", "Object contains unknown field `nmae`"),
        (b'{"name": "d", "external_id": "a b"}', "/external_id", "an external id has 1 to 64 letters"),
        (b'{"name": "d\\ud800"}', "", "not JSON"),
    ],
)
async def test_a_bad_body_is_400_with_the_place(stack: FlowStack, body: bytes, pointer: str, message: str) -> None:
    answer = await stack.flow.post(f"{T}/devices", content=body)
    assert answer.status_code == 400
    [fault] = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert message in fault["message"]


async def test_a_bad_query_parameter_is_named(stack: FlowStack) -> None:
    problem = await stack.get(f"{T}/devices?limit=many", 400)
    assert problem["errors"][0]["pointer"] == "?limit"
    assert (await stack.get(f"{T}/alarms?status=ODD", 400))["errors"][0]["pointer"] == "?status"
    assert (await stack.get(f"{T}/alarms?cursor=odd!", 400))["detail"] == "not a cursor"


async def test_a_body_that_is_too_large_is_413(stack: FlowStack) -> None:
    answer = await stack.flow.post(f"{T}/chains", content=b'"' + b"x" * (5 << 20) + b'"')
    assert answer.status_code == 413
    assert answer.json()["status"] == 413


async def test_a_refusing_ingress_is_503_with_a_time_to_wait(stack: FlowStack) -> None:
    await stack.device("d1")
    stack.ingress.closed_reason = "storage full"
    answer = await stack.flow.post(f"{T}/messages", content=b'{"device": "d1", "data": {"t": 1}}')
    stack.ingress.closed_reason = ""
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["detail"] == "storage full"


async def test_things_of_another_tenant_are_not_found(stack: FlowStack) -> None:
    device = await stack.device("d1", token="T1")
    await stack.put(f"{T}/products/p1", {}, 201)
    await stack.put(f"{T}/secrets/s1", {"value": "x"}, 204)
    await stack.registry.put_tenant(Tenant(name="other"))
    await stack.chains.ensure_default("other")
    other = "/flow/v1/tenants/other"
    one = f"{other}/devices/{device.id}"
    calls = [
        ("GET", one, None),
        ("GET", f"{other}/devices/{device.name}", None),
        ("DELETE", one, None),
        ("PUT", f"{one}/credentials", {"credentials": []}),
        ("POST", f"{one}/credentials/rotate", {"kind": "ACCESS_TOKEN"}),
        ("GET", f"{one}/attributes", None),
        ("PUT", f"{one}/attributes/SERVER", {"a": 1}),
        ("DELETE", f"{one}/attributes/SERVER?key=a", None),
        ("GET", f"{one}/points", None),
        ("GET", f"{one}/points/latest", None),
        ("GET", f"{one}/alarms/a", None),
        ("POST", f"{one}/alarms/a/clear", None),
        ("POST", f"{one}/rpc", {"method": "m"}),
        ("GET", f"{one}/commands", None),
        ("GET", f"{other}/alarms?device={device.id}", None),
        ("GET", f"{other}/tail?device={device.id}", None),
        ("POST", f"{other}/messages", {"device": device.id}),
        ("GET", f"{other}/products/p1", None),
        ("DELETE", f"{other}/secrets/s1", None),
    ]
    for method, path, body in calls:
        assert (await stack.ask(method, path, body, 404))["title"] == "Not Found", path
    assert (await stack.put(one, {"name": "mine"}, 409))["status"] == 409
    assert (await stack.put(f"{other}/products/p1", {}, 409))["status"] == 409
    assert (await stack.get(f"{T}/devices/{device.id}"))["credentials"] == ["ACCESS_TOKEN"]


async def test_nothing_exists_under_an_unknown_tenant(stack: FlowStack) -> None:
    for operation in OPERATIONS:
        if "{tenant}" not in operation.path or operation.makes_tenant:
            continue
        path = (
            operation.path.replace("{tenant}", "nobody").replace("{scope}", "SERVER").replace("{", "").replace("}", "")
        )
        bodies = {"put_secret": {"value": "x"}, "post_device": {"name": "d"}, "put_device": {"name": "d"}}
        bodies |= {"post_person": {"username": "a", "password": "secret-1"}}
        bodies |= {"set_credentials": {"credentials": []}, "rotate_credential": {"kind": "CT_TOKEN"}}
        bodies |= {"put_app": {"product": "p"}, "assign_product": {"firmware": "f"}, "assign_device": {"firmware": "f"}}
        bodies |= {"call_device": {"method": "m"}, "inject_message": {"device": "d"}, "dry_run": {"message": {}}}
        body = None if operation.body is None else msgspec.json.encode(bodies.get(operation.id, {}))
        query = "?key=a&device=d&start_ms=0&end_ms=1&function=mean"
        answer = await stack.flow.request(operation.method, path + query, content=body)
        assert (answer.status_code, "nobody" in answer.text) == (404, True), operation.id
