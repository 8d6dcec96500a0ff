"""What both connectors of the dialect share: who speaks, what messages their bytes become, and what follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from redis.exceptions import RedisError

from api.auth import DeviceAuth, token_print
from api.deliveries import Deliveries
from api.dialects.cloudthing.data import drafts
from api.dialects.cloudthing.deliveries import Receiver, give
from api.dialects.cloudthing.logins import Logins
from api.dialects.cloudthing.payloads import as_value
from api.dialects.cloudthing.products import Products
from api.dialects.cloudthing.tenants import Tenants
from api.intake import Intake
from api.keepalives import KeepAlives
from api.live import Live
from engine.message import Message, new_id
from engine.replies import Replies
from engine.service import end_all
from engine.stores.answers import Answers
from engine.stores.commands import Commands
from engine.stores.firmware import Firmware
from engine.stores.register import CHANNEL
from engine.stores.registry import CT_TOKEN, Device
from engine.stores.registry_store import Registry
from engine.wire import Subscriber

log = logging.getLogger("rulemill.cloudthing")

DIALECT: Final = "ct"
EVENT: Final = "DEVICE_EVENT"
COMMAND_RESPONSE: Final = "COMMAND_RESPONSE"
ANSWER_ATTEMPTS: Final = 5


class CloudThing:
    """The dialect without its transports. `event_timeout_s` is how long a device waits for the answer to an event."""

    def __init__(
        self,
        redis_url: str,
        *,
        auth: DeviceAuth,
        registry: Registry,
        intake: Intake,
        replies: Replies,
        commands: Commands,
        live: Live,
        answers: Answers,
        firmware: Firmware,
        event_timeout_s: float = 10.0,
    ) -> None:
        self.auth = auth
        self.intake = intake
        self.replies = replies
        self.commands = commands
        self.answers = answers
        self.firmware = firmware
        self.event_timeout_s = event_timeout_s
        self.products = Products(registry.product)
        self.tenants = Tenants(registry.tenant)
        self.deliveries: Deliveries[Receiver] = Deliveries(commands, live, give)
        self.logins = Logins()
        self.keepalives = KeepAlives()
        self.registry = registry
        self.live = live
        self._changes = Subscriber(redis_url, "ct-registry", [CHANNEL], self._changed, self._missed)
        self._ends: list[Callable[[], None]] = []
        self._under_way: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Hear of changes; raises redis ConnectionError when Redis is away."""
        await self._changes.start()
        self._ends = [self.auth.on_change(self._device_changed)]

    async def stop(self) -> None:
        """End what goes on in the background."""
        for end in self._ends:
            end()
        self._ends = []
        await self._changes.stop()
        self.keepalives.stop()
        await end_all(self._tasks)
        await self.deliveries.stop()
        await self.logins.stop()

    def _changed(self, _: str, payload: bytes) -> None:
        _number, what, id = payload.decode().split(" ", 2)
        if what == "product":
            for tenant in self.products.forget(id):
                self._read_product(tenant, id)
        elif what == "tenant":
            self.tenants.forget(id)

    def _missed(self) -> None:
        self.products.clear()
        self.tenants.clear()

    def _device_changed(self, id: str) -> None:
        if not id:
            self._missed()
        self.logins.changed(id)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background; it must deal with its own errors."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def data(self, device: Device, ct: str, body: bytes, transport: str, **more: Any) -> list[Message]:
        """The messages of a data call; raises BadInput. `more` goes to `Intake.message`."""
        formats = self.products.known(device.tenant, device.product)
        if formats is None:
            self._read_product(device.tenant, device.product)
        self.intake.heard(device)
        received_ms = self.intake.stamp(device.id)
        made = drafts(ct, body, received_ms, formats, device_id=device.external_id, product_id=device.product)
        message = self.intake.message
        return [
            message(
                device, each.type, each.data,
                dialect=DIALECT, transport=transport, ts_ms=each.ts_ms, metadata=each.metadata, **more,
            )
            for each in made
        ]  # fmt: skip

    def event(self, device: Device, event_id: str, body: bytes, transport: str, content_type: str, to: str) -> Message:
        """The message of an event, whose answer goes to `to` (CT-72); empty: to nobody."""
        metadata = {"eventId": event_id, "requestId": new_id(), "deviceId": device.external_id}
        if device.product:
            metadata["productId"] = device.product
        if content_type:
            metadata["contentType"] = content_type
        return self.intake.message(
            device, EVENT, as_value(body), dialect=DIALECT, transport=transport,
            ts_ms=self.intake.stamp(device.id), metadata=metadata, reply_to=to, awaited=bool(to),
        )  # fmt: skip

    def command_response(self, device: Device, command_id: str, body: bytes, transport: str) -> Message:
        """The message of a device's answer to a command."""
        return self.intake.message(
            device, COMMAND_RESPONSE, as_value(body), dialect=DIALECT, transport=transport,
            ts_ms=self.intake.stamp(device.id), metadata={"commandId": command_id, "deviceId": device.external_id},
        )  # fmt: skip

    async def answer(self, device: Device, command_id: str, body: bytes) -> bool:
        """Answer the oldest open command of that id (CT-S4); False if there is none."""
        for entry in await self.commands.open(device.tenant, device.id):
            if entry.command.name == command_id and entry.command.parked:
                return await self.commands.answer(device.tenant, device.id, entry.id, as_value(body))
        return False

    async def answer_soon(self, device: Device, command_id: str, body: bytes) -> None:
        """The same for a caller that does not wait: tried for a while, then told in the log."""
        for attempt in range(ANSWER_ATTEMPTS):
            try:
                if not await self.answer(device, command_id, body):
                    log.info("device %s answers a command %r that is not open", device.external_id, command_id)
                return
            except RedisError as error:
                reason = error
                await asyncio.sleep(2**attempt / 4)
        log.error("the answer of device %s to %r is lost: %s", device.external_id, command_id, reason)

    def recall(self, print_: str) -> None:
        """Have a credential at hand again, soon."""
        self._once(f"credential {print_[:20]}", lambda: self.auth.find(print_))

    def accepted(self, device: Device) -> None:
        """A message of the device was accepted: with the first one it is activated (CT-S14)."""
        if not device.activated_ms:
            self._once(f"device {device.id}", lambda: self.registry.activate(device))

    def _read_product(self, tenant: str, id: str) -> None:
        self._once(f"product {tenant}/{id}", lambda: self.products.find(tenant, id))

    def _once(self, what: str, call: Callable[[], Awaitable[object]]) -> None:
        """Make a call of the registry in the background, unless it is under way. It is made again when next needed."""
        if what not in self._under_way:
            self._under_way.add(what)
            self.spawn(self._call(what, call))

    async def _call(self, what: str, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except RedisError as error:
            log.warning("%s: %s", what, error)
        finally:
            self._under_way.discard(what)


def print_of(device_id: str, token: str) -> str:
    """What a device's credential is found by."""
    return token_print(CT_TOKEN, device_id, token)
