"""Firmware images of products, which their devices download."""

from __future__ import annotations

from typing import Final

import msgspec

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.stores.firmware import MAX_BYTES, Image


class FirmwareList(msgspec.Struct, frozen=True):
    """A product's images by id."""

    firmware: list[Image]


async def list_firmware(parts: Parts, call: Call) -> Answer:
    """All images of the product."""
    return Answer(200, FirmwareList(await parts.firmware.list(await _product(parts, call))))


async def get_firmware(parts: Parts, call: Call) -> Answer:
    """What is known of one image. Its bytes are the devices' to fetch."""
    return Answer(200, await parts.firmware.get(await _product(parts, call), call.path["firmware"]))


async def put_firmware(parts: Parts, call: Call) -> Answer:
    """Store an image, the bytes of the body as they are, in place of one of that id; at most 16 MiB."""
    product = await _product(parts, call)
    known = {image.id for image in await parts.firmware.list(product)}
    made = await parts.firmware.put(product, call.path["firmware"], call.body)
    return Answer(200 if made.id in known else 201, made)


async def delete_firmware(parts: Parts, call: Call) -> Answer:
    """Forget an image."""
    await parts.firmware.delete(await _product(parts, call), call.path["firmware"])
    return Answer(204)


async def _product(parts: Parts, call: Call) -> str:
    return (await parts.registry.product(call.tenant, call.path["product"])).id


_ALL: Final = BASE + "/tenants/{tenant}/products/{product}/firmware"
_ONE: Final = _ALL + "/{firmware}"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_firmware", summary="List a product's firmware images",
        handler=list_firmware, answers={200: FirmwareList},
    ),
    Operation(
        method="GET", path=_ONE, id="get_firmware", summary="Show what is known of a firmware image",
        handler=get_firmware, answers={200: Image},
    ),
    Operation(
        method="PUT", path=_ONE, id="put_firmware", summary="Upload a firmware image",
        handler=put_firmware, answers={200: Image, 201: Image}, body=bytes, max_body_bytes=MAX_BYTES,
    ),
    Operation(
        method="DELETE", path=_ONE, id="delete_firmware", summary="Delete a firmware image",
        handler=delete_firmware, answers={204: None},
    ),
)  # fmt: skip
