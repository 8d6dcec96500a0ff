"""A gateway's MQTT session: the devices that it speaks for, what it says of them and what it is sent for them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from redis.exceptions import RedisError

from api.deliveries import UNCONFIRMED
from api.device_record import device_record
from api.dialects.thingsboard.children import Found
from api.dialects.thingsboard.downlinks import Listening
from api.dialects.thingsboard.payload import UPDATES, update_of
from api.dialects.thingsboard.settings import DIALECT, MQTT
from api.dialects.thingsboard.topics import Down, Verdict
from api.live import Recheck
from api.transports.mqtt.dialect import Accepted, Drop
from api.transports.mqtt.reasons import Reason
from engine.errors import BadInput, Refused
from engine.message import Message, now_ms
from engine.stores.commands import Pending
from engine.stores.registry import Device

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

log = logging.getLogger("rulemill.thingsboard")

T = TypeVar("T")

ROOT: Final = "v1/gateway/"
SHOWN: Final = 5
"""How many of a publication's problems are told; the others are counted."""

Part = Callable[[Device, T], Sequence[Message]]
"""The messages of what a gateway says of one device; BadInput."""
Work = Callable[[Device, T], Awaitable[Sequence[Message]]]
"""The same where Redis is asked for it."""


class Gateway:
    """What a session has because its device is a gateway. `stop` ends it."""

    __slots__ = ("_announced", "_children", "_doubtful", "_rechecking", "_session", "_updating", "_wanted")

    def __init__(self, session: DeviceLogin) -> None:
        self._session = session
        self._announced: set[str] = set()
        """New devices that chains are being told of."""
        self._children: dict[str, Child] = {}
        self._wanted: Container[Down] = ()
        self._doubtful: set[str] = set()
        self._rechecking = Recheck("devices of a gateway", self._look_at_children)
        self._updating = Recheck("attributes of a gateway's devices", self.catch_up)

    def stop(self) -> None:
        """Listen for nobody any more."""
        self._rechecking.cancel()
        self._updating.cancel()
        for name in list(self._children):
            self.release(name)

    # What it says of its devices

    def say(self, entries: Mapping[str, T], make: Part[T], problems: dict[str, str]) -> Verdict:
        """Store what was said of devices, by their names. What holds for one of them has no bearing on the others."""
        devices: dict[str, Device] = {}
        for name in entries:
            device = self._known(name)
            if device is None:
                return Accepted(first=partial(self._find_and_say, entries, make, problems))
            devices[name] = device
        return Accepted(self._made(entries, make, devices, problems), refused=_refused(entries, problems))

    async def _find_and_say(self, entries: Mapping[str, T], make: Part[T], problems: Mapping[str, str]) -> Accepted:
        found = await self.take(dict.fromkeys(entries, ""))
        problems = {**problems, **found.problems}
        said = self._made(entries, make, found.devices, problems)
        return self._with_news(found.fresh, said, _refused(entries, problems))

    def _made(
        self, entries: Mapping[str, T], make: Part[T], devices: Mapping[str, Device], problems: dict[str, str]
    ) -> list[Message]:
        messages: list[Message] = []
        for name, device in devices.items():
            self._session.parts.intake.heard(device)
            try:
                messages += make(device, entries[name])
            except BadInput as error:
                problems[name] = str(error)
        return messages

    def do(self, entries: Mapping[str, T], work: Work[T], problems: dict[str, str], type: str = "") -> Verdict:
        """Do something for devices, by their names, that Redis is asked for; acknowledged when it is done."""
        return Accepted(first=partial(self._find_and_do, entries, work, problems, type))

    async def _find_and_do(
        self, entries: Mapping[str, T], work: Work[T], problems: Mapping[str, str], type: str
    ) -> Accepted:
        found = await self.take(dict.fromkeys(entries, type))
        problems = {**problems, **found.problems}
        messages: list[Message] = []
        for name, device in found.devices.items():
            self._session.parts.intake.heard(device)
            try:
                messages += await work(device, entries[name])
            except BadInput as error:
                problems[name] = str(error)
            except RedisError as error:
                raise Refused("Redis does not answer") from error
        return self._with_news(found.fresh, messages, _refused(entries, problems))

    def _with_news(self, fresh: Iterable[Device], said: Sequence[Message], refused: Drop | None) -> Accepted:
        """Tell chains of devices that they do not know of yet before what is said of them."""
        intake, gateway = self._session.parts.intake, self._session.device
        fresh = [device for device in fresh if device.id not in self._announced]
        self._announced |= {device.id for device in fresh}
        news = [
            intake.message(
                device, "ENTITY_CREATED", device_record(device), dialect=DIALECT, transport=MQTT,
                ts_ms=intake.stamp(device.id), metadata={"gatewayId": gateway.id, "gatewayName": gateway.name},
            )
            for device in fresh
        ]  # fmt: skip
        told = partial(self._session.shared.children.told, [device.id for device in fresh]) if fresh else None
        return Accepted([*news, *said], told, refused=refused)

    # Which devices it speaks for

    def _known(self, name: str) -> Device | None:
        return self._session.shared.children.known(self._session.device, name) if name in self._children else None

    async def take(self, types: Mapping[str, str]) -> Found:
        """Speak for these devices from now on, which are made where there are none. Raises Refused."""
        session, children = self._session, self._session.shared.children
        try:
            found = await children.find(session.device, types)
            for name, device in list(found.devices.items()):
                child = self._children.get(name)
                if child is None and len(self._children) >= session.parts.settings.gateway_max_devices:
                    found.problems[name] = "the gateway speaks for too many devices"
                    del found.devices[name]
                elif child is None or child.device.id != device.id:
                    await children.adopt(session.device, device)
                    self._add(device)
        except RedisError as error:
            raise Refused("Redis does not answer") from error
        return found._replace(fresh=[device for device in found.fresh if device.name in found.devices])

    def _add(self, device: Device) -> None:
        if not self._session.alive:
            return
        self.release(device.name)
        child = self._children[device.name] = Child(self._session, device)
        self._session.parts.intake.came(device, DIALECT, MQTT, holds=False)
        self._session.shared.carried.setdefault(device.id, set()).add(self)
        child.want(self._wanted, None)
        if self._session.away_since_ms and Down.CHILD_UPDATES in self._wanted:
            # G-11: what changed while the client of a persistent session was away.
            child.since_ms = self._session.away_since_ms
            self._updating.ask()

    def release(self, name: str) -> None:
        """Speak for a device no more."""
        child = self._children.pop(name, None)
        if child is None:
            return
        child.want((), None)
        self._session.parts.intake.went(child.device, DIALECT, MQTT, "released by its gateway", holds=False)
        carried = self._session.shared.carried
        gateways = carried.get(child.device.id, set())
        gateways.discard(self)
        if not gateways:
            carried.pop(child.device.id, None)

    def doubt(self, device_id: str) -> None:
        """A device was changed or deleted; empty: any may have been."""
        self._doubtful |= {
            name for name, child in self._children.items() if not device_id or child.device.id == device_id
        }
        self._rechecking.ask()

    async def _look_at_children(self) -> None:
        names, self._doubtful = self._doubtful, set()
        try:
            found = await self._session.parts.auth.find_names(self._session.device.tenant, list(names))
        except BaseException:
            self._doubtful |= names
            raise
        for name in names:
            child, device = self._children.get(name), found.get(name)
            if child is not None and (device is None or device.id != child.device.id or not device.enabled):
                self.release(name)

    # What it is sent for them

    def want(self, wanted: Container[Down], fresh: Down | None) -> None:
        """Give what the session subscribed to; `fresh` is what it has just asked for."""
        self._wanted = wanted
        for child in self._children.values():
            child.want(wanted, fresh)

    async def catch_up(self) -> None:
        """Tell the changes that may have been missed."""
        if Down.CHILD_UPDATES in self._wanted:
            for child in list(self._children.values()):
                await child.catch_up()


class Child:
    """A device that a gateway speaks for. It is listened for while the gateway wants to hear of its devices."""

    __slots__ = ("_commands", "_session", "_updates", "device", "since_ms")

    def __init__(self, session: DeviceLogin, device: Device) -> None:
        self._session = session
        self.device = device
        self.since_ms = now_ms()
        self._commands, self._updates = Listening(), Listening()

    def want(self, wanted: Container[Down], fresh: Down | None) -> None:
        """The same as `Gateway.want`."""
        live, deliveries, device = self._session.parts.live, self._session.shared.deliveries, self.device
        begun = self._commands.keep(Down.CHILD_COMMANDS in wanted, lambda: deliveries.attach(device, self._command))
        if begun or fresh is Down.CHILD_COMMANDS:
            # Those that stand in the queue come at once.
            deliveries.wake(device.id)
        if self._updates.keep(Down.CHILD_UPDATES in wanted, lambda: live.listen(device.id, self._heard)):
            self.since_ms = now_ms()

    async def catch_up(self) -> None:
        """Tell the changes that may have been missed."""
        device = self.device
        shared = (await self._session.parts.attributes.read(device.tenant, device.id))["SHARED"]
        since = {key: each.value for key, each in shared.items() if each.ts_ms >= self.since_ms}
        if since:
            self._tell("attributes", since)

    def _heard(self, kind: str, body: Any) -> None:
        if kind in UPDATES:
            self._tell("attributes", update_of(kind, body))

    def _command(self, entry: Pending) -> int:
        acked = self._session.shared.deliveries.confirmation(self.device, entry)
        data = {"id": entry.id, "method": entry.command.name, "params": entry.command.payload}
        sent = self._tell("rpc", data, acked)
        return UNCONFIRMED if sent and acked is not None else sent

    def _tell(self, topic: str, data: dict[str, Any], acked: Callable[[], None] | None = None) -> bool:
        payload = msgspec.json.encode({"device": self.device.name, "data": data})
        return self._session.send(ROOT + topic, payload, acked)


def _refused(entries: Mapping[str, Any], problems: Mapping[str, str]) -> Drop | None:
    """What is told of the devices whose part is not stored."""
    if not problems:
        return None
    total = len(entries.keys() | problems.keys())
    shown = "; ".join(f"{name[:60]!r}: {why}" for name, why in list(problems.items())[:SHOWN])
    return Drop(f"{len(problems)} of {total} devices: {shown}", Reason.PAYLOAD_FORMAT_INVALID)
