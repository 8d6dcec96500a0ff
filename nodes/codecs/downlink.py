"""What a command's payload is on the air: bytes, however a chain or an app writes them."""

from __future__ import annotations

import re
from typing import Any, Final

from nodes import BadInput
from nodes.codecs.formats import from_base64

_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*")


def payload_bytes(value: Any, pointer: str = "") -> bytes:
    """The bytes of a payload: text of hexadecimal digits, `{"hex": …}`, `{"raw_b64": …}` or bytes; raises BadInput."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict) and "raw_b64" in value:
        return from_base64(value["raw_b64"], f"{pointer}/raw_b64")
    if isinstance(value, dict) and "hex" in value:
        value, pointer = value["hex"], f"{pointer}/hex"
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise BadInput("a payload is hexadecimal digits, or an object with hex or raw_b64", pointer)
    return bytes.fromhex(value)
