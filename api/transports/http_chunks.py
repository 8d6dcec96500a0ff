"""Chunk extensions (RFC 9112, 7.1.1) on the connections of Hypercorn, whose HTTP/1.1 has no way to say them.

A `Chunk` is bytes that carry an extension. ASGI, Hypercorn and h11 hand it on as the object it is, and the writer of
chunked bodies that `install` puts into h11 writes the extension behind the chunk's size. Other servers, and HTTP/2,
send its bytes alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from h11 import SEND_BODY, _writers

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_UNSAYABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[\ud800-\udfff]")


class Chunk(bytes):
    """Bytes to be sent as one chunk with the extension `name=value`.

    Empty bytes are sent as nothing at all: an empty chunk would end the body. Raises ValueError for a value that no
    extension can hold (`sayable`).
    """

    extension: bytes

    def __new__(cls, data: bytes, name: str, value: str) -> Chunk:
        """Bytes with an extension; the name is a token."""
        if not _TOKEN.fullmatch(name) or not sayable(value):
            raise ValueError(f"not a chunk extension: {name!r}={value!r}")
        made = super().__new__(cls, data)
        if not _TOKEN.fullmatch(value):
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        made.extension = b";" + name.encode() + b"=" + value.encode()
        return made

    def __bytes__(self) -> Chunk:
        """Itself: Hypercorn makes bytes of every body."""
        return self


def sayable(value: str) -> bool:
    """Whether an extension can hold the value, as a token or a quoted string: no control character, and Unicode."""
    return _UNSAYABLE.search(value) is None


class ExtendedChunkedWriter(_writers.ChunkedWriter):
    """h11's writer of chunked bodies, with extensions."""

    def send_data(self, data: bytes, write: Callable[[bytes], Any]) -> None:
        """Write one chunk."""
        if not data:
            return
        extension = data.extension if isinstance(data, Chunk) else b""
        write(b"%x%b\r\n" % (len(data), extension))
        write(data)
        write(b"\r\n")


def install() -> None:
    """Have h11 write extensions, in all of this process; may be called twice.

    Fails when h11 keeps its writers elsewhere than known, so that no server starts that would lose them.
    """
    writers = _writers.WRITERS[SEND_BODY]
    if not isinstance(writers, dict) or writers.get("chunked") not in (_writers.ChunkedWriter, ExtendedChunkedWriter):
        raise RuntimeError("h11's writer of chunks is not where it was")
    writers["chunked"] = ExtendedChunkedWriter
