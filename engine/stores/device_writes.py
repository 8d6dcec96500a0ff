"""How a device is written: the record and all that it is found by, in one script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast

import msgspec
import redis.asyncio as redis
from msgspec.structs import replace

from engine.errors import NotFound
from engine.message import now_ms
from engine.stores import claims, handouts, rollouts
from engine.stores.register import Line, Name, P, Record, Register, undisturbed
from engine.stores.registry import Credential, Device, check_device, decode_device, device_key, fingerprint, names_of

UNANNOUNCED: Final = P + "unannounced"
"""Set of devices that no chain was told of yet: whoever made one died before."""


class DeviceWrites:
    """Writes of devices. Each looks again at what the device is when somebody else has changed it meanwhile."""

    def __init__(self, client: redis.Redis, register: Register) -> None:
        self._client, self._register = client, register

    async def put(
        self,
        device: Device,
        credentials: Sequence[Credential] | None,
        keep: Sequence[str],
        *,
        hands_out: bool,
        unannounced: bool,
    ) -> Device:
        """Create or change a device; with `credentials` given, they replace the ones it has, but those of kinds `keep`.

        `hands_out`: its product tells devices a credential that was set before. `unannounced`: no chain was told of
        it yet. Raises BadInput, and Conflict for what another device has.
        """
        return await undisturbed(lambda: self._put(device, credentials, keep, hands_out, unannounced))

    async def _put(
        self,
        device: Device,
        credentials: Sequence[Credential] | None,
        keep: Sequence[str],
        hands_out: bool,
        unannounced: bool,
    ) -> Device:
        blob, known = await self._read(device.id)
        check_device(device, known)
        device = _over(device, known, credentials, keep)
        names = names_of(device)
        lines = [] if known is None else _unlist(known)
        if hands_out and credentials and (known is None or await self._client.hexists(handouts.HANDOUTS, device.id)):
            lines.append(("HSET", handouts.HANDOUTS, device.id, msgspec.json.encode(credentials[0])))
        elif not hands_out and known is not None:
            lines.append(("HDEL", handouts.HANDOUTS, device.id))
        lines.append(_set(device))
        lines += [("HSET", name.key, name.field, device.id) for name in names]
        lines += _among_children("SADD", device)
        lines += rollouts.due_when_moved(device.id, device.product, known.product if known else "")
        if unannounced:
            lines.append(("SADD", UNANNOUNCED, device.id))
        await self._change(device.id, blob, lines, names)
        return device

    async def amend(self, tenant: str, id: str, amended: Callable[[Device], Device]) -> Device:
        """Change of a device what it is not found by; raises NotFound, and what `amended` does."""

        async def amend() -> Device:
            blob, known = await self._read(id)
            if known is None or known.tenant != tenant:
                raise NotFound("device", id)
            made = amended(known)
            if made != known:
                children = [*_among_children("SREM", known), *_among_children("SADD", made)]
                await self._change(id, blob, [*children, _set(made)])
            return made

        return await undisturbed(amend)

    async def delete(self, tenant: str, id: str) -> Device:
        """Forget a device and its credentials; raises NotFound."""

        async def delete() -> Device:
            blob, known = await self._read(id)
            if known is None or known.tenant != tenant:
                raise NotFound("device", id)
            lines = [
                *_unlist(known),
                ("DEL", device_key(id), f"{P}children:{id}", claims.key(id)),
                ("HDEL", handouts.HANDOUTS, id),
                ("SREM", UNANNOUNCED, id),
                *rollouts.gone(id),
            ]
            await self._change(id, blob, lines)
            return known

        return await undisturbed(delete)

    async def _read(self, id: str) -> tuple[bytes | None, Device | None]:
        """A device as it stands, and what that says."""
        blob = cast(bytes | None, await self._client.get(device_key(id)))
        return blob, None if blob is None else decode_device(blob)

    async def _change(self, id: str, blob: bytes | None, lines: Sequence[Line], names: Sequence[Name] = ()) -> None:
        await self._register.change("device", id, lines, record=Record(device_key(id), "", blob), names=names)


def _over(
    device: Device, known: Device | None, credentials: Sequence[Credential] | None, keep: Sequence[str]
) -> Device:
    """A device as it is written over what is known of it: with what only other changes say."""
    prints = known.credentials if known else []
    if credentials is not None:
        kept = [each for each in prints if each.partition(":")[0] in keep]
        made = [f"{credential.kind}:{fingerprint(device, credential)}" for credential in credentials]
        prints = list(dict.fromkeys([*kept, *made]))
    return replace(
        device, credentials=prints, created_ms=known.created_ms if known else now_ms(),
        activated_ms=known.activated_ms if known else 0, owner=known.owner if known else "",
        type=device.type or (known.type if known else ""),
    )  # fmt: skip


def _set(device: Device) -> Line:
    return ("SET", device_key(device.id), msgspec.json.encode(device))


def _unlist(device: Device) -> list[Line]:
    return [("HDEL", name.key, name.field) for name in names_of(device)] + _among_children("SREM", device)


def _among_children(command: str, device: Device) -> list[Line]:
    return [(command, f"{P}children:{device.parent}", device.id)] if device.parent else []
