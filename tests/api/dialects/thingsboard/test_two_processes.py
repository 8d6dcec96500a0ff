"""Sessions of one device in two API processes: each gets what is for the device, and none of it twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engine.stores.registry import Device
from tests.api.dialects.thingsboard.site import Site
from tests.api.dialects.thingsboard.test_http_polls import polling, share
from tests.api.dialects.thingsboard.test_mqtt import ME, connected, said, subscribed
from tests.api.stack import TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


class Beside(Site):
    """Another process that serves what the first one has made."""

    async def device(self, name: str, **_: Any) -> Device:
        return await self.registry.device(TENANT, name)


@pytest_asyncio.fixture
async def other(site: Site) -> AsyncIterator[Site]:
    async with Beside(site.url, work=False) as made:
        yield made


@pytest.mark.spec("TB-S17", "TB-X1")
@pytest.mark.parametrize("oneway", [False, True])
async def test_a_command_goes_to_the_sessions_and_polls_of_both(site: Site, other: Site, oneway: bool) -> None:
    topic = ME + "rpc/request/"
    async with connected(site) as here, connected(other) as there, connected(other) as listens_to_nothing:
        for process, client in ((site, here), (other, there)):
            await subscribed(process, client, topic + "+")
        polls = [*await polling(site, "rpc", 2), *await polling(other, "rpc", 2)]
        await site.command("turn", "ON", oneway=oneway)
        for client in (here, there):
            assert await said(client) == (topic + "1", {"method": "turn", "params": "ON"})
        answers = [answer.json() for answer in await asyncio.gather(*polls)]
        assert answers == [{"id": 1, "method": "turn", "params": "ON"}] * 4
        await site.command("again", {})
        for client in (here, there):
            assert await said(client) == (topic + "2", {"method": "again", "params": {}})
        await listens_to_nothing.publish(ME + "telemetry", '{"a":1}', 1)
    assert (await site.get("rpc?timeout=100")).status_code == 408


@pytest.mark.spec("TB-S17")
async def test_what_was_given_in_one_process_is_not_given_again_in_the_other(site: Site, other: Site) -> None:
    for method in ("a", "b", "c"):
        await site.command(method, None)
        await site.idle()
    got = [(await process.get("rpc?timeout=2000")).json()["method"] for process in (site, other, site)]
    assert got == ["a", "b", "c"]
    for process in (site, other):
        assert (await process.get("rpc?timeout=100")).status_code == 408


@pytest.mark.spec("TB-S17", "TB-30")
async def test_a_change_goes_to_the_sessions_and_polls_of_both(site: Site, other: Site) -> None:
    topic = ME + "attributes"
    async with connected(site) as here, connected(other) as there:
        for process, client in ((site, here), (other, there)):
            await subscribed(process, client, topic)
        polls = [*await polling(site, "attributes/updates"), *await polling(other, "attributes/updates")]
        await share(site, a=1)
        assert [await said(client) for client in (here, there)] == [(topic, {"a": 1})] * 2
        assert [answer.json() for answer in await asyncio.gather(*polls)] == [{"a": 1}] * 2


async def test_the_hint_that_came_too_late_is_made_up_for(site: Site, other: Site) -> None:
    """A session that hears nothing of a command is given it when it looks, although the other has answered it."""
    topic = ME + "rpc/request/"
    async with connected(site) as here, connected(other) as there:
        for process, client in ((site, here), (other, there)):
            await subscribed(process, client, topic + "+")
        await other.live.stop()
        await site.command("turn", "ON")
        assert (await said(here))[0] == topic + "1"
        await here.publish(ME + "rpc/response/1", "{}", 1)
        await other.live.start()
        other.live._tell_lost()
        assert (await said(there))[0] == topic + "1"
        await until(lambda: _none_open(site))


async def _none_open(site: Site) -> bool:
    return not await site.commands.open(TENANT, site.d1.id)
