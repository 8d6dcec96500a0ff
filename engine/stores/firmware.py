"""Firmware images of products in Redis: what they are under one key, their bytes under another, read in pieces."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Final, cast

import msgspec
import redis.asyncio as redis

from engine.errors import BadInput, NotFound
from engine.message import now_ms
from engine.stores.registry import P

MAX_BYTES: Final = 16 * 1024 * 1024
"""Largest image."""
MAX_A_PRODUCT: Final = 20
"""Images a product may have: they all are in Redis's memory."""
PIECE_BYTES: Final = 256 * 1024

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an image; `md5` and `sha256` are in hex."""

    id: str
    size: int
    md5: str
    sha256: str
    created_ms: int


_decode = msgspec.json.Decoder(Image).decode


class Firmware:
    """The images of products. Whether a product exists, and whose it is, is the caller's to know."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def put(self, product: str, id: str, body: bytes) -> Image:
        """Store an image, in place of one of that id; raises BadInput for one that is empty, too large or too many."""
        if not _ID.fullmatch(id):
            raise BadInput("the id of a firmware has 1 to 64 letters, digits, _ . -", "/firmware")
        if not body:
            raise BadInput("the body, which is the image, is empty")
        if len(body) > MAX_BYTES:
            raise BadInput(f"an image has at most {MAX_BYTES} bytes")
        known = {image.id: image for image in await self.list(product)}
        if id not in known and len(known) >= MAX_A_PRODUCT:
            raise BadInput(f"a product has at most {MAX_A_PRODUCT} images: delete one first")
        made = Image(
            id=id, size=len(body), md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
            sha256=hashlib.sha256(body).hexdigest(), created_ms=now_ms(),
        )  # fmt: skip
        old = known.get(id)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(_bytes_key(product, made), body)
            pipe.hset(_images_key(product), id, msgspec.json.encode(made))
            if old is not None and old.md5 != made.md5:
                pipe.unlink(_bytes_key(product, old))
            await pipe.execute()
        return made

    async def list(self, product: str) -> list[Image]:
        """A product's images by id."""
        blobs = await self._client.hvals(_images_key(product))
        return sorted((_decode(blob) for blob in blobs), key=lambda image: image.id)

    async def get(self, product: str, id: str) -> Image:
        """What is known of an image; NotFound."""
        blob = await self._client.hget(_images_key(product), id)
        if blob is None:
            raise NotFound("firmware", id)
        return _decode(blob)

    async def delete(self, product: str, id: str) -> None:
        """Forget an image; NotFound."""
        image = await self.get(product, id)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hdel(_images_key(product), id)
            pipe.unlink(_bytes_key(product, image))
            await pipe.execute()

    async def read(self, product: str, image: Image, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (without it) in pieces; NotFound when the image was replaced meanwhile."""
        key = _bytes_key(product, image)
        for at in range(start, stop, PIECE_BYTES):
            end = min(at + PIECE_BYTES, stop)
            piece = cast(bytes, await self._client.getrange(key, at, end - 1))
            if len(piece) != end - at:
                raise NotFound("firmware", image.id)
            yield piece


def _images_key(product: str) -> str:
    return f"{P}firmware:{product}"


def _bytes_key(product: str, image: Image) -> str:
    return f"{P}firmware-bytes:{product}:{image.id}:{image.md5}"
