"""What a LoRaWAN network server tells of one device, in one form for all of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from engine.errors import BadInput
from nodes.codecs.records import resolve_time

Document = Mapping[str, Any]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An uplink, or with `event` something else that happened, `data` telling it."""

    dev_eui: str
    pointer: str
    """Where the DevEUI stands."""
    key: str = ""
    """What the same delivery has again, and no other of the device; empty: nothing."""
    ts_ms: int | None = None
    about: Mapping[str, str] = {}
    payload: bytes = b""
    decoded: Mapping[str, Any] | None = None
    """What the network's own codec made of the payload; None if it has none."""
    event: str = ""
    data: Any = None
    application_id: str = ""
    device_id: str = ""


def part(document: Document, name: str, pointer: str) -> Document:
    """An inner object; empty if it is not there. Raises BadInput for anything else."""
    found = document.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise BadInput("expected an object", f"{pointer}/{name}")
    return found


def text(document: Document, name: str, pointer: str) -> str:
    """A text; empty if it is not there. Raises BadInput for anything else."""
    found = document.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise BadInput("expected a text", f"{pointer}/{name}")
    return found


def count(document: Document, name: str, pointer: str) -> int:
    """A whole number; 0 if it is not there, as networks leave it out then. Raises BadInput for anything else."""
    found = document.get(name)
    if found is None:
        return 0
    if type(found) is not int:
        raise BadInput("expected a whole number", f"{pointer}/{name}")
    return found


def instant(document: Document, name: str, pointer: str) -> int | None:
    """A time in RFC 3339 as Unix milliseconds; None if it is not there. Raises BadInput for anything else."""
    found = text(document, name, pointer)
    return resolve_time(found, 0, f"{pointer}/{name}") if found else None


def octets(document: Document, name: str, pointer: str) -> bytes:
    """The bytes of a base64 text; none if it is not there. Raises BadInput for anything else."""
    try:
        return base64.b64decode(text(document, name, pointer), validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("not base64", f"{pointer}/{name}") from None


def scalars(document: Any, *paths: tuple[str, str]) -> dict[str, str]:
    """What stands at dotted paths as texts by name, as metadata wants them; what is not there, or no scalar, is not."""
    found = {}
    for name, path in paths:
        value = document
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            found[name] = str(value).lower()
        elif isinstance(value, (str, int, float)) and value != "":
            found[name] = str(value)
    return found


def strongest(entries: Any) -> Document:
    """Of the gateways that received an uplink the one that did so best; empty if none tells."""
    heard = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    return max(heard, key=_rssi, default={})


def _rssi(entry: Document) -> float:
    value = entry.get("rssi")
    return float(value) if isinstance(value, (int, float)) else -1e9


def leaves(document: Document) -> dict[str, Any]:
    """The scalars of a decoded payload by key, those of inner objects and arrays with the way there joined by `_`."""
    return dict(_leaves(document.items(), ""))


def _leaves(members: Iterable[tuple[Any, Any]], before: str) -> Iterable[tuple[str, Any]]:
    for name, value in members:
        if isinstance(value, Mapping):
            yield from _leaves(value.items(), f"{before}{name}_")
        elif isinstance(value, list):
            yield from _leaves(enumerate(value), f"{before}{name}_")
        elif value is not None:
            yield f"{before}{name}", value
