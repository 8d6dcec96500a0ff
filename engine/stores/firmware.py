"""Firmware and software of products in Redis: what they are under one key, their bytes under another, read in pieces.

CloudThing's devices fetch an image by its id, ThingsBoard's by title and version. The bytes may also lie elsewhere:
then there is only an address.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any, Final, Literal, cast, get_args

import msgspec
import redis.asyncio as redis
from msgspec import Meta

from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.stores.checksums import Algorithm, checksum
from engine.stores.register import P

MAX_BYTES: Final = 16 * 1024 * 1024
"""Largest image; larger ones lie elsewhere and have an address here."""
MAX_A_PRODUCT: Final = 20
"""Images a product may have: they all are in Redis's memory."""
MEMORY_SHARE: Final = 0.6
"""Of Redis's memory limit, that an upload may fill up to: messages need the rest."""
PIECE_BYTES: Final = 64 * 1024
"""Read at a time: a client that takes a piece in less than half a minute is not too slow."""

Kind = Literal["FIRMWARE", "SOFTWARE"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
PREFIXES: Final[Mapping[Kind, str]] = {"FIRMWARE": "fw", "SOFTWARE": "sw"}
"""What names of topics, attributes and telemetry about each kind begin with."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_SHOWN: Final = r"^[^\x00-\x1f\x7f]*$"
"""No control characters."""

Text = Annotated[str, Meta(max_length=255, pattern=_SHOWN)]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of an image when it is uploaded."""

    kind: Annotated[Kind, Meta(description="What it is good for.")] = "FIRMWARE"
    title: Annotated[Text, Meta(description="What devices know it by, with the version; empty: the product's id.")] = ""
    version: Annotated[Text, Meta(description="Empty: the image's id.")] = ""
    tag: Annotated[Text, Meta(description="Told to devices if there is one.")] = ""
    url: Annotated[
        str,
        Meta(
            max_length=1000,
            pattern=r"^([a-z][a-z0-9+.\-]*://[!-~]+)?$",
            description="Where the bytes are, if not here.",
        ),
    ] = ""
    algorithm: Annotated[Algorithm, Meta(description="How the checksum is made.")] = "SHA256"
    checksum: Annotated[
        str, Meta(max_length=128, pattern=r"^[0-9a-fA-F]*$", description="In hex; empty: it is worked out here.")
    ] = ""
    size: Annotated[int, Meta(ge=0, description="Bytes of what lies elsewhere; 0: unknown.")] = 0
    file_name: Annotated[
        str, Meta(max_length=255, pattern=r'^[^"\\;/\x00-\x1f\x7f-\U0010ffff]*$', description="Empty: the image's id.")
    ] = ""
    content_type: Annotated[str, Meta(max_length=127, pattern=r"^[\w.+\-]+/[\w.+\-]+$")] = "application/octet-stream"


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an image; checksums are in hex. With a `url` the bytes are there, and not here."""

    id: str
    size: int
    md5: str
    sha256: str
    created_ms: int
    kind: Kind = "FIRMWARE"
    title: str = ""
    version: str = ""
    tag: str = ""
    url: str = ""
    algorithm: Algorithm = "SHA256"
    checksum: str = ""
    file_name: str = ""
    content_type: str = "application/octet-stream"

    def same_as(self, other: Image) -> bool:
        """Whether a device would see no difference."""
        return msgspec.structs.replace(self, created_ms=other.created_ms) == other


_decode = msgspec.json.Decoder(Image).decode


class Firmware:
    """The images of products. Whether a product exists, and whose it is, is the caller's to know."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def put(self, product: str, id: str, body: bytes, about: About | None = None) -> Image:
        """Store an image, in place of one of that id.

        Raises BadInput for one that is empty, too large, too many or not what its checksum says, and Conflict when
        there is no room for it.
        """
        made = await self.describe(product, id, body, about or About())
        await self._make_sure_of_room(len(body))

        def change(known: Mapping[str, Image], pipe: Any) -> None:
            if id not in known and len(known) >= MAX_A_PRODUCT:
                raise BadInput(f"a product has at most {MAX_A_PRODUCT} images: delete one first")
            old = known.get(id)
            if body:
                pipe.set(_bytes_key(product, made), body)
            pipe.hset(_images_key(product), id, msgspec.json.encode(made))
            if old is not None and old.md5 != made.md5:
                pipe.unlink(_bytes_key(product, old))

        await self._change(product, change)
        return made

    async def describe(self, product: str, id: str, body: bytes, about: About) -> Image:
        """What `put` would make of it; raises BadInput."""
        if not _ID.fullmatch(id):
            raise BadInput("the id of a firmware has 1 to 64 letters, digits, _ . -", "/firmware")
        if len(body) > MAX_BYTES:
            raise BadInput(f"an image has at most {MAX_BYTES} bytes")
        if body and about.url:
            raise BadInput("an image has its bytes here or a url, not both", "?url")
        if not body and not about.url:
            raise BadInput("the body, which is the image, is empty")
        sums = {"MD5": "", "SHA256": "", about.algorithm: about.checksum.lower()}
        if body:
            sums = await asyncio.to_thread(_checksums, body, ("MD5", "SHA256", about.algorithm))
            if about.checksum and about.checksum.lower() != sums[about.algorithm]:
                raise BadInput(f"the body's {about.algorithm} is {sums[about.algorithm]}, not this", "?checksum")
        return Image(
            id=id, size=len(body) or about.size, md5=sums["MD5"], sha256=sums["SHA256"], created_ms=now_ms(),
            kind=about.kind, title=about.title or product, version=about.version or id, tag=about.tag, url=about.url,
            algorithm=about.algorithm, checksum=sums[about.algorithm], file_name=about.file_name or id,
            content_type=about.content_type,
        )  # fmt: skip

    async def list(self, product: str) -> list[Image]:
        """A product's images by id."""
        blobs = await self._client.hvals(_images_key(product))
        return sorted((_decode(blob) for blob in blobs), key=lambda image: image.id)

    async def find(self, product: str, id: str) -> Image | None:
        """What is known of an image, None if there is none."""
        blob = await self._client.hget(_images_key(product), id)
        return None if blob is None else _decode(blob)

    async def get(self, product: str, id: str) -> Image:
        """What is known of an image; NotFound."""
        found = await self.find(product, id)
        if found is None:
            raise NotFound("firmware", id)
        return found

    async def delete(self, product: str, id: str) -> None:
        """Forget an image; NotFound."""

        def change(known: Mapping[str, Image], pipe: Any) -> None:
            if id not in known:
                raise NotFound("firmware", id)
            pipe.hdel(_images_key(product), id)
            pipe.unlink(_bytes_key(product, known[id]))

        await self._change(product, change)

    async def read(self, product: str, image: Image, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (without it) in pieces; NotFound when the image was replaced meanwhile."""
        key = _bytes_key(product, image)
        for at in range(start, stop, PIECE_BYTES):
            end = min(at + PIECE_BYTES, stop)
            piece = cast(bytes, await self._client.getrange(key, at, end - 1))
            if len(piece) != end - at:
                raise NotFound("firmware", image.id)
            yield piece

    async def _change(self, product: str, change: Callable[[Mapping[str, Image], Any], None]) -> None:
        """Do in one step what `change`, given the product's images by id, queues; anew if somebody else was faster."""
        key = _images_key(product)
        # Its own types do not know what is done at once, as the key is watched.
        pipe: Any
        async with self._client.pipeline(transaction=True) as pipe:
            while True:
                await pipe.watch(key)
                blobs = await pipe.hvals(key)
                pipe.multi()
                change({image.id: image for image in map(_decode, blobs)}, pipe)
                try:
                    await pipe.execute()
                    return
                except redis.WatchError:
                    continue

    async def _make_sure_of_room(self, size: int) -> None:
        memory: dict[str, Any] = await self._client.info("memory")
        limit = int(memory.get("maxmemory", 0))
        if limit and int(memory["used_memory"]) + size > limit * MEMORY_SHARE:
            raise Conflict(f"no room for {size} bytes: Redis has {limit} for everything; delete images, or give a url")


def _checksums(body: bytes, algorithms: tuple[Algorithm, ...]) -> dict[str, str]:
    return {algorithm: checksum(algorithm, body) for algorithm in dict.fromkeys(algorithms)}


def _images_key(product: str) -> str:
    return f"{P}firmware:{product}"


def _bytes_key(product: str, image: Image) -> str:
    return f"{P}firmware-bytes:{product}:{image.id}:{image.md5}"
