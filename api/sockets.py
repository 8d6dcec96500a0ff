"""Listening sockets: bound once by the parent, handed to the processes that serve them."""

from __future__ import annotations

import errno
import importlib.util
import socket
from collections.abc import Mapping

from engine.config import LISTENERS, Loaded, split_address
from engine.errors import Finding, InvalidDocument

DEFAULT_DOORS = ("http", "mqtt")
BACKLOG = 2048


def addresses(loaded: Loaded) -> dict[str, str]:
    """The doors that are to be open, by key: `http` and `mqtt` on 127.0.0.1, and every one that somebody named."""
    doors = {key: f"127.0.0.1:{LISTENERS[key].port}" for key in DEFAULT_DOORS}
    return {**doors, **loaded.settings.listeners}


def bind(
    doors: Mapping[str, str], named: frozenset[str], *, fall_back: bool
) -> tuple[dict[str, socket.socket], list[str]]:
    """Bind every door; the sockets by key, and notes about doors that had to go to another port.

    InvalidDocument names the setting of each address that cannot be had. Only doors that nobody named fall back.
    """
    sockets: dict[str, socket.socket] = {}
    notes: list[str] = []
    findings: list[Finding] = []
    for key, address in doors.items():
        listen = _listen_coap if LISTENERS[key].family == "coap" else _listen
        if listen is _listen_coap and importlib.util.find_spec("aiocoap") is None:
            findings.append(Finding(f"listeners.{key}", "needs the extra: pip install 'rulemill[coap]'"))
            continue
        try:
            sockets[key] = listen(address)
        except OSError as error:
            if fall_back and key not in named and error.errno == errno.EADDRINUSE:
                sockets[key] = listen(f"{split_address(address)[0]}:0")
                notes.append(f"{address} is taken: {key} is at {shown(sockets[key])}")
                continue
            hint = "" if error.errno != errno.EADDRINUSE else "; another program has it. Port 0 takes any free one"
            findings.append(Finding(f"RULEMILL_{_variable(key)}={address}", f"{error.strerror or error}{hint}"))
    if findings:
        for each in sockets.values():
            each.close()
        raise InvalidDocument(findings)
    return sockets, notes


def _variable(key: str) -> str:
    return key.upper() if key in DEFAULT_DOORS else f"LISTEN_{key.upper()}"


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off on what it accepts.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _listen_coap(address: str) -> socket.socket:
    """A UDP socket of both families, as aiocoap wants it: IPv4 comes mapped into IPv6."""
    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, socket.AF_INET6, socket.SOCK_DGRAM, 0, socket.AI_V4MAPPED)
    listening = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(found[0][4])
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def shown(listening: socket.socket) -> str:
    """`host:port` as a client on this machine can use it."""
    host, port = listening.getsockname()[:2]
    host = host.removeprefix("::ffff:")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def pack(sockets: Mapping[str, socket.socket]) -> str:
    """The argument that tells a child which descriptor is which door."""
    return ",".join(f"{key}={each.fileno()}" for key, each in sockets.items())


def unpack(text: str) -> dict[str, socket.socket]:
    """The sockets that `pack` told of."""
    found = {}
    for part in filter(None, text.split(",")):
        key, _, descriptor = part.partition("=")
        found[key] = socket.socket(fileno=int(descriptor))
        found[key].setblocking(False)
    return found
