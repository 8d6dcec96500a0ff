"""Claiming (`TB-50`, `TB-S25`, `TB-S26`): a device opens a window with a secret, a user who knows it gets the device.

The functions are for every transport. What the chain is told never has the secret in it.
"""

from __future__ import annotations

import hmac
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from api.device_record import device_record
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.settings import DIALECT
from engine.errors import BadInput, Conflict, Refused
from engine.message import Message, now_ms
from engine.stores.registry import Device
from nodes.codecs.lenient_json import decode_lenient

ALLOWED: Final = "claimingAllowed"
"""Server attribute without which a device cannot be claimed where that is not allowed to all."""
DATA: Final = "claimingData"
"""Server attribute `{"secretKey", "expirationTime"}`: a window that an operator has opened."""

REQUEST: Final = "CLAIM_REQUEST"


class Wanted(NamedTuple):
    """What a device says when it opens a window."""

    secret: str
    duration_ms: int


class Response(StrEnum):
    """How a user's claim ends."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CLAIMED = "CLAIMED"


def read_claim(body: bytes, default_ms: int) -> Wanted:
    """The request in a body; both members, and the body itself, may be missing. Raises BadInput."""
    return wanted_of(_value(body), default_ms)


def wanted_of(value: Any, default_ms: int) -> Wanted:
    """The request that a JSON value is. Raises BadInput."""
    secret = _secret(value)
    duration_ms = value.get("durationMs")
    if duration_ms is None:
        duration_ms = 0
    if type(duration_ms) not in (int, float):
        raise BadInput("durationMs is not a number", "/durationMs")
    return Wanted(secret, int(duration_ms) if duration_ms >= 1 else default_ms)


def read_secret(body: bytes) -> str:
    """The secret in the body of a user's claim; all of it may be missing. Raises BadInput."""
    return _secret(_value(body))


def _value(body: bytes) -> Any:
    return decode_lenient(body) if body.strip() else {}


def _secret(value: Any) -> str:
    if type(value) is not dict:
        raise BadInput("a claim is an object")
    secret = value.get("secretKey")
    if type(secret) in (int, float):
        # A word without quotes may look like a number.
        secret = str(secret)
    if secret is not None and type(secret) is not str:
        raise BadInput("secretKey is not a text", "/secretKey")
    return secret or ""


async def open_window(parts: Parts, device: Device, wanted: Wanted, transport: str) -> list[Message]:
    """Let the device be claimed, which is durable when this returns; what is to be told the chain then.

    A window that is open stays as it is. Raises BadInput for a device that cannot be claimed, and redis errors.
    """
    known = await parts.registry.find_device(device.id)
    if known is None or known.owner:
        raise BadInput(f"Device [{device.name}] has been already claimed!")
    if not parts.settings.claim_by_default and not await _is_allowed(parts, device):
        raise BadInput(f"Device [{device.name}] may not be claimed: its server attribute {ALLOWED} is not true")
    await parts.claims.open(device.id, wanted.secret, wanted.duration_ms)
    return [
        parts.intake.message(
            device, REQUEST, {"durationMs": wanted.duration_ms}, dialect=DIALECT, transport=transport,
            ts_ms=parts.intake.stamp(device.id),
        )
    ]  # fmt: skip


async def claim(parts: Parts, device: Device, user: str, secret: str) -> tuple[Response, Device]:
    """Give a device to a user who knows the secret of its window; how that ended, and the device as it is then.

    A wrong secret ends the window: there is one try. Of several claims at once one is heard. A claim whose process died
    half way is ended when its user tries again. Raises Refused with nothing done, and redis errors.
    """
    if not await parts.claims.begin(device.id):
        return Response.CLAIMED, device
    try:
        return await _claim(parts, await parts.registry.find_device(device.id) or device, user, secret)
    finally:
        await parts.claims.end(device.id)


async def _claim(parts: Parts, device: Device, user: str, secret: str) -> tuple[Response, Device]:
    matches = await parts.claims.matches(device.id, secret)
    if matches is None:
        matches = await _matches_data(parts, device, secret)
    if matches is None:
        return (Response.CLAIMED if device.owner else Response.FAILURE), device
    if not matches:
        await parts.claims.close(device.id)
        return Response.FAILURE, device
    try:
        # His already while the window is open: whoever gave it to him died before the chain was told.
        was = user if device.owner == user else ""
        owned = await parts.registry.set_owner(device.tenant, device.id, user, was=was)
    except Conflict:
        await _end(parts, device)
        return Response.CLAIMED, device
    try:
        await _tell(parts, owned, "ENTITY_ASSIGNED", user)
    except Refused:
        await parts.registry.set_owner(device.tenant, device.id, "", was=user)
        raise
    await _end(parts, device)
    return Response.SUCCESS, owned


async def release(parts: Parts, device: Device) -> Device:
    """Take a device from its owner, so that it can be claimed anew; the device as it is then.

    Raises Refused with nothing done, and redis errors.
    """
    await parts.claims.close(device.id)
    owner = device.owner
    if not owner:
        return device
    if not parts.settings.claim_by_default:
        await parts.attributes.write(device.tenant, device.id, "SERVER", {ALLOWED: True})
    try:
        free = await parts.registry.set_owner(device.tenant, device.id, "", was=owner)
    except Conflict as error:
        raise Refused("the device is given to another just now") from error
    try:
        await _tell(parts, free, "ENTITY_UNASSIGNED", owner)
    except Refused:
        await parts.registry.set_owner(device.tenant, device.id, owner, was="")
        raise
    return free


async def _tell(parts: Parts, device: Device, type: str, user: str) -> None:
    word = "assignedCustomerId" if type == "ENTITY_ASSIGNED" else "unassignedCustomerId"
    message = parts.intake.message(
        device, type, device_record(device), dialect=DIALECT, transport="http",
        ts_ms=parts.intake.stamp(device.id), metadata={word: user},
    )  # fmt: skip
    await parts.intake.submit([message])


async def _end(parts: Parts, device: Device) -> None:
    await parts.claims.close(device.id)
    await parts.attributes.delete(device.tenant, device.id, "SERVER", (ALLOWED, DATA))


async def _is_allowed(parts: Parts, device: Device) -> bool:
    server = (await parts.attributes.read(device.tenant, device.id))["SERVER"]
    return ALLOWED in server and server[ALLOWED].value is True


async def _matches_data(parts: Parts, device: Device, secret: str) -> bool | None:
    """The same for a window that an operator has opened; None if there is none."""
    found = (await parts.attributes.read(device.tenant, device.id))["SERVER"].get(DATA)
    if found is None:
        return None
    try:
        value = msgspec.json.decode(found.value) if type(found.value) is str else found.value
    except msgspec.MsgspecError:
        return None
    if type(value) is not dict or type(value.get("expirationTime")) not in (int, float):
        return None
    known = value.get("secretKey")
    same = hmac.compare_digest(secret.encode(), (known if type(known) is str else "").encode())
    return same and value["expirationTime"] >= now_ms()
