from __future__ import annotations

from ipaddress import ip_network

import pytest

from nodes import BadInput
from nodes.outward.addresses import Guard, NotAllowed

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "2001:db8::1",
    "no address",
    "",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not Guard().permits(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert Guard().permits(address)


def test_allowed_networks_are_permitted_whatever_form_the_address_has() -> None:
    guard = Guard([ip_network("127.0.0.0/8"), ip_network("::1/128")])
    assert guard.permits("127.0.0.1")
    assert guard.permits("::ffff:127.0.0.1")
    assert guard.permits("::1")
    assert not guard.permits("10.0.0.1")


def test_private_addresses_need_the_node_and_the_server() -> None:
    server = {"RULEMILL_OUTWARD_ALLOW": "10.0.0.0/8, 127.0.0.1"}
    assert Guard.from_environment(True, server).permits("10.0.0.1")
    assert Guard.from_environment(True, server).permits("127.0.0.1")
    assert not Guard.from_environment(True, server).permits("127.0.0.2")
    assert not Guard.from_environment(False, server).permits("10.0.0.1")
    assert not Guard.from_environment(True, {}).permits("10.0.0.1")


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(BadInput, match="RULEMILL_OUTWARD_ALLOW"):
        Guard.from_environment(True, {"RULEMILL_OUTWARD_ALLOW": "10.0.0.0/99"})


@pytest.mark.asyncio
async def test_a_name_keeps_only_its_good_addresses() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1", "8.8.8.8", "8.8.8.8", "::1"]

    assert await Guard(resolve=resolve).addresses("mixed.example", 80) == ["8.8.8.8"]


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0", "::1"])
async def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises((NotAllowed, OSError)):
        await Guard().addresses(host, 80)
