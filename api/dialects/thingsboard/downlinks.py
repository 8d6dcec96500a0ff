"""What a device is sent over MQTT without having asked: commands, and changes of its shared attributes."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

import msgspec

from api.dialects.thingsboard.rpc import CommandFeed
from api.dialects.thingsboard.topics import LONG, Down
from api.live import Recheck
from engine.message import now_ms
from engine.stores.commands import Pending

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

UPDATES: Final = (LONG + "attributes", "v2/a")
COMMANDS: Final = (LONG + "rpc/request/", "v2/r/req/")


class Downlinks:
    """Listens for one session while it wants what is told. `stop` ends that."""

    __slots__ = ("_feed", "_feeding", "_session", "_unlisten", "_updates_since_ms", "_updating", "_wanted")

    def __init__(self, session: DeviceLogin) -> None:
        self._session = session
        self._feed = CommandFeed(session.parts.commands, session.device, self._send_command)
        self._feeding = Recheck("commands of an MQTT device", self._feed.catch_up)
        self._updating = Recheck("attributes of an MQTT device", self.catch_up)
        self._updates_since_ms = 0
        self._wanted: Container[Down] = ()
        self._unlisten: Callable[[], None] | None = None

    def stop(self) -> None:
        """Listen no more."""
        self.want((), None)
        self._feeding.cancel()
        self._updating.cancel()

    def want(self, wanted: Container[Down], fresh: Down | None, away_since_ms: int = 0) -> None:
        """Give what the session subscribed to; `fresh` is what it has just asked for."""
        again, self._wanted = fresh in self._wanted, wanted
        self._listen(Down.COMMANDS in wanted or Down.UPDATES in wanted)
        if fresh is Down.COMMANDS:
            # Those that stand in the queue come at once.
            self._feeding.ask()
        elif fresh is Down.UPDATES and not again:
            self._updates_since_ms = away_since_ms or now_ms()
            if away_since_ms:
                # G-11: what changed while the client of a persistent session was away.
                self._updating.ask()

    async def catch_up(self) -> None:
        """Give what may have been missed while the bus was away."""
        if Down.COMMANDS in self._wanted:
            self._feeding.ask()
        if Down.UPDATES in self._wanted:
            device = self._session.device
            shared = (await self._session.parts.attributes.read(device.tenant, device.id))["SHARED"]
            since = {key: each.value for key, each in shared.items() if each.ts_ms >= self._updates_since_ms}
            if since:
                self._send_update(since)

    def _listen(self, wanted: bool) -> None:
        if wanted and self._unlisten is None:
            self._unlisten = self._session.parts.live.listen(self._session.device.id, self._heard)
        elif not wanted and self._unlisten is not None:
            self._unlisten()
            self._unlisten = None

    def _heard(self, kind: str, body: Any) -> None:
        if kind == "command":
            if Down.COMMANDS in self._wanted:
                self._feeding.ask()
        elif Down.UPDATES in self._wanted:
            self._send_update({"deleted": body} if kind == "attributes_deleted" else body)

    def _send_command(self, entry: Pending) -> bool:
        payload = msgspec.json.encode({"method": entry.command.name, "params": entry.command.payload})
        return any(self._session.send(f"{topic}{entry.id}", payload) for topic in COMMANDS)

    def _send_update(self, update: dict[str, Any]) -> None:
        payload = msgspec.json.encode(update)
        for topic in UPDATES:
            self._session.send(topic, payload)
