"""Payloads of events, commands and their answers: opaque bytes outside, values in chains (CT-6)."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec

from engine.errors import BadInput
from nodes.codecs.formats import from_base64
from nodes.codecs.values import decode_json


class Payload(NamedTuple):
    """Bytes for a device, and whether they are JSON."""

    body: bytes
    is_json: bool


def as_value(body: bytes) -> Any:
    """What a chain sees of a device's bytes: their JSON value, else `{"raw_b64": …, "hex": …}`."""
    try:
        return decode_json(body)
    except BadInput:
        return {"raw_b64": base64.b64encode(body).decode("ascii"), "hex": body.hex()}


def as_bytes(value: Any) -> Payload:
    """What a device gets of a value: bytes and text as they are, `{"raw_b64": …}` and `{"$base64": …}` as the bytes
    that they stand for, any other value as JSON."""
    if isinstance(value, bytes):
        return Payload(value, False)
    if isinstance(value, str):
        return Payload(value.encode(errors="replace"), False)
    encoded = _encoded(value) if isinstance(value, dict) else None
    if encoded is not None:
        try:
            return Payload(from_base64(encoded, ""), False)
        except BadInput:
            pass  # an object of that look, and nothing more
    return Payload(msgspec.json.encode(value), True)


def _encoded(value: dict[str, Any]) -> Any:
    """The base64 text of an object that stands for bytes, as chains (`raw_b64`) and devices (CT-S7) see it."""
    if "raw_b64" in value and value.keys() <= {"raw_b64", "hex", "bytes"}:
        return value["raw_b64"]
    return value.get("$base64") if value.keys() == {"$base64"} else None


def as_listed(value: Any) -> Any:
    """How a command's payload stands in the list of commands: its JSON value, else text, else `{"$base64": …}`
    (CT-S7)."""
    body, is_json = as_bytes(value)
    if is_json:
        return value
    try:
        return decode_json(body)
    except BadInput:
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"$base64": base64.b64encode(body).decode("ascii")}
