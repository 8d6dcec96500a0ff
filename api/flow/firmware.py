"""Firmware and software of products, which their devices download."""

from __future__ import annotations

from typing import Final

import msgspec

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.errors import Conflict
from engine.stores.firmware import MAX_BYTES, About, Image


class FirmwareList(msgspec.Struct, frozen=True):
    """A product's images by id."""

    firmware: list[Image]


async def list_firmware(parts: Parts, call: Call) -> Answer:
    """All images of the product."""
    return Answer(200, FirmwareList(await parts.firmware.list(await product_of(parts, call))))


async def get_firmware(parts: Parts, call: Call) -> Answer:
    """What is known of one image. Its bytes are the devices' to fetch."""
    return Answer(200, await parts.firmware.get(await product_of(parts, call), call.path["firmware"]))


async def put_firmware(parts: Parts, call: Call) -> Answer:
    """Store an image, the bytes of the body as they are, in place of one of that id; at most 16 MiB.

    With a `url` the body is empty: the bytes are there. An image that is assigned stays as it is: 409.
    """
    product, id, about = await product_of(parts, call), call.path["firmware"], call.query
    known = await parts.firmware.find(product, id)
    if known is not None and await parts.rollouts.is_assigned(product, id):
        if not (await parts.firmware.describe(product, id, call.body, about)).same_as(known):
            raise Conflict(f"firmware {id!r} is assigned: upload another one under another id")
        return Answer(200, known)
    made = await parts.firmware.put(product, id, call.body, about)
    return Answer(201 if known is None else 200, made)


async def delete_firmware(parts: Parts, call: Call) -> Answer:
    """Forget an image that is assigned to nobody."""
    product, id = await product_of(parts, call), call.path["firmware"]
    if await parts.rollouts.is_assigned(product, id):
        raise Conflict(f"firmware {id!r} is assigned: assign another one, or none, before")
    await parts.firmware.delete(product, id)
    return Answer(204)


async def product_of(parts: Parts, call: Call) -> str:
    """The id of the product in the path; NotFound."""
    return (await parts.registry.product(call.tenant, call.path["product"])).id


_ALL: Final = BASE + "/tenants/{tenant}/products/{product}/firmware"
_ONE: Final = _ALL + "/{firmware}"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_firmware", summary="List a product's firmware and software images",
        handler=list_firmware, answers={200: FirmwareList},
    ),
    Operation(
        method="GET", path=_ONE, id="get_firmware", summary="Show what is known of an image",
        handler=get_firmware, answers={200: Image},
    ),
    Operation(
        method="PUT", path=_ONE, id="put_firmware", summary="Upload an image, or say where it lies",
        handler=put_firmware, answers={200: Image, 201: Image}, query=About, body=bytes, max_body_bytes=MAX_BYTES,
        problems=(409,),
    ),
    Operation(
        method="DELETE", path=_ONE, id="delete_firmware", summary="Delete an image",
        handler=delete_firmware, answers={204: None}, problems=(409,),
    ),
)  # fmt: skip
