"""Checksums of firmware, as devices of the ThingsBoard dialect verify them (`TB-S37`)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Final, Literal

import mmh3

Algorithm = Literal["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"]


def checksum(algorithm: Algorithm, body: bytes) -> str:
    """The checksum in hex. One that is a number (CRC32, MURMUR3) is written with its lowest byte first, as the
    vendor's server does."""
    return _MAKERS[algorithm](body)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _crc32(body: bytes) -> str:
    return zlib.crc32(body).to_bytes(4, "little").hex()


_MAKERS: Final[Mapping[Algorithm, Callable[[bytes], str]]] = {
    "MD5": _md5,
    "SHA256": lambda body: hashlib.sha256(body).hexdigest(),
    "SHA384": lambda body: hashlib.sha384(body).hexdigest(),
    "SHA512": lambda body: hashlib.sha512(body).hexdigest(),
    "CRC32": _crc32,
    "MURMUR3_32": lambda body: mmh3.mmh3_32(body).digest().hex(),
    "MURMUR3_128": lambda body: mmh3.mmh3_x64_128(body).digest().hex(),
}
