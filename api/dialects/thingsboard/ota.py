"""Firmware and software for devices, for every transport: which image a device has, and which part of it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.requests import int32
from engine.errors import BadInput, RulemillError
from engine.stores.firmware import Image, Kind
from engine.stores.registry import Device


class NotAssigned(RulemillError):
    """The device has no such package assigned whose bytes are here."""


class OtherPackage(RulemillError):
    """Another title or version than that of the package which is assigned."""


class Asked(NamedTuple):
    """A part of a package: the whole of it with a `size` of 0, else its chunk number `chunk`."""

    title: str
    version: str
    size: int
    chunk: int


class Part(NamedTuple):
    """Bytes `start` to `stop` (without it) of an image; none at all behind its end."""

    image: Image
    start: int
    stop: int


def read_query(query: Mapping[str, str]) -> Asked:
    """What a query asks for, `?title=&version=[&size=&chunk=]` (`TB-S35`, `TB-S36`). Raises BadInput."""
    for name in ("title", "version"):
        if not query.get(name):
            raise BadInput(f"{name} is missing")
    return Asked(query["title"], query["version"], _count(query, "size"), _count(query, "chunk"))


def part_of(image: Image, size: int, chunk: int) -> Part:
    """The part that a size and a number of chunks mean."""
    if size == 0:
        return Part(image, 0, image.size)
    start = min(size * chunk, image.size)
    return Part(image, start, min(start + size, image.size))


async def assigned(parts: Parts, device: Device, kind: Kind) -> Image:
    """The image that a device shall have. Raises NotAssigned, and redis errors."""
    found = (await parts.rollouts.of_device(device.id, device.product)).get(kind)
    image = None if found is None else await parts.firmware.find(device.product, found.image)
    if image is None or image.url:
        raise NotAssigned
    return image


async def wanted(parts: Parts, device: Device, kind: Kind, asked: Asked) -> Part:
    """The part of its image that a device asks for. Raises NotAssigned, OtherPackage, and redis errors."""
    image = await assigned(parts, device, kind)
    if (asked.title, asked.version) != (image.title, image.version):
        raise OtherPackage
    return part_of(image, asked.size, asked.chunk)


async def read(parts: Parts, device: Device, part: Part) -> bytes:
    """The bytes of a part in one piece: for parts that are not large. Raises NotFound, and redis errors."""
    pieces = [piece async for piece in parts.firmware.read(device.product, *part)]
    return b"".join(pieces)


def _count(query: Mapping[str, str], name: str) -> int:
    number = int32(query[name], name) if query.get(name) else 0
    if number < 0:
        raise BadInput(f"{name} is negative")
    return number
