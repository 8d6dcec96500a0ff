"""Where nodes may connect to: a name is resolved once, its addresses are checked, and one of those is connected to."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from nodes import BadInput

ALLOW_VARIABLE: Final = "RULEMILL_OUTWARD_ALLOW"
"""Networks, separated by commas, that nodes with `allow_private` may reach; read when a node is built."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses as text; raises OSError."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_SITE_LOCAL: Final = IPv6Network("fec0::/10")


class NotAllowed(BadInput):
    """The name leads to no address that a node may connect to."""


class Guard:
    """Names to addresses that may be connected to: public ones, and of the others those in `allowed`."""

    def __init__(self, allowed: Sequence[Network] = (), resolve: Resolve | None = None) -> None:
        self._allowed = tuple(allowed)
        self._resolve = resolve or _resolve

    @classmethod
    def from_environment(cls, allow_private: bool, environment: Mapping[str, str] | None = None) -> Guard:
        """A guard for a node: private addresses need both the node's `allow_private` and the server's permission."""
        if not allow_private:
            return cls()
        text = (os.environ if environment is None else environment).get(ALLOW_VARIABLE, "")
        try:
            return cls([ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()])
        except ValueError as error:
            raise BadInput(f"{ALLOW_VARIABLE}: {error}") from error

    async def addresses(self, host: str, port: int) -> list[str]:
        """Addresses to try, in order. Raises NotAllowed, or OSError when the name cannot be resolved now."""
        found = await self._resolve(host, port)
        good = [address for address in dict.fromkeys(found) if self.permits(address)]
        if not good:
            raise NotAllowed(f"{host} is {', '.join(found) or 'no address'}: nodes may not connect there")
        return good

    def permits(self, text: str) -> bool:
        """The address is public or explicitly allowed. What carries an IPv4 address inside is judged by that."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        inner = _carried(address)
        if any(one.version == net.version and one in net for net in self._allowed for one in (address, inner)):
            return True
        return inner.is_global and not (
            inner.is_multicast
            or inner.is_reserved
            or inner.is_unspecified
            or (isinstance(inner, IPv6Address) and inner in _SITE_LOCAL)
        )


def _carried(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or int(address) >> 32 == 0:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


async def _resolve(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
