"""What a device is sent over MQTT without having asked: commands, and changes of its shared attributes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

from api.deliveries import UNCONFIRMED
from api.dialects.thingsboard.encodings import Form
from api.dialects.thingsboard.payload import UPDATES
from api.dialects.thingsboard.topics import LONG, Down
from api.live import Recheck
from engine.errors import BadInput
from engine.message import now_ms
from engine.stores.commands import Pending

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

log = logging.getLogger("rulemill.thingsboard")

UPDATE_TOPICS: Final = (
    (LONG + "attributes", Form.OWN),
    ("v2/a", Form.OWN),
    ("v2/a/j", Form.JSON),
    ("v2/a/p", Form.PROTO),
)
COMMAND_TOPICS: Final = (
    (LONG + "rpc/request/", Form.OWN),
    ("v2/r/req/", Form.OWN),
    ("v2/r/req/j/", Form.JSON),
    ("v2/r/req/p/", Form.PROTO),
)


class Downlinks:
    """Listens for one session while it wants what is told. `stop` ends that."""

    __slots__ = ("_commands", "_session", "_updates", "_updates_since_ms", "_updating", "_wanted")

    def __init__(self, session: DeviceLogin) -> None:
        self._session = session
        self._updating = Recheck("attributes of an MQTT device", self.catch_up)
        self._updates_since_ms = 0
        self._wanted: Container[Down] = ()
        self._commands, self._updates = Listening(), Listening()

    def stop(self) -> None:
        """Listen no more."""
        self.want((), None)
        self._updating.cancel()

    def want(self, wanted: Container[Down], fresh: Down | None, away_since_ms: int = 0) -> None:
        """Give what the session subscribed to; `fresh` is what it has just asked for."""
        again, self._wanted = fresh in self._wanted, wanted
        session = self._session
        device, live, deliveries = session.device, session.parts.live, session.shared.deliveries
        self._commands.keep(Down.COMMANDS in wanted, lambda: deliveries.attach(device, self._send_command))
        self._updates.keep(Down.UPDATES in wanted, lambda: live.listen(device.id, self._heard))
        if fresh is Down.COMMANDS:
            # Those that stand in the queue come at once.
            deliveries.wake(device.id)
        elif fresh is Down.UPDATES and not again:
            self._updates_since_ms = away_since_ms or now_ms()
            if away_since_ms:
                # G-11: what changed while the client of a persistent session was away.
                self._updating.ask()

    async def catch_up(self) -> None:
        """Tell the changes that may have been missed while the bus was away."""
        if Down.UPDATES in self._wanted:
            device = self._session.device
            shared = (await self._session.parts.attributes.read(device.tenant, device.id))["SHARED"]
            since = {key: each.value for key, each in shared.items() if each.ts_ms >= self._updates_since_ms}
            if since:
                self._heard("attributes", since)

    def _heard(self, kind: str, body: Any) -> None:
        if kind in UPDATES:
            down = self._session.forms.down
            for topic, form in UPDATE_TOPICS:
                self._session.send(topic, down[form].update(kind, body))

    def _send_command(self, entry: Pending) -> int:
        session = self._session
        acked = session.shared.deliveries.confirmation(session.device, entry)
        for topic, form in COMMAND_TOPICS:
            try:
                payload = session.forms.down[form].command(entry)
            except BadInput as error:
                log.warning("command %d of device %s does not fit its product: %s", entry.id, session.device.id, error)
                continue
            if session.send(f"{topic}{entry.id}", payload, acked):
                return True if acked is None else UNCONFIRMED
        return False


class Listening:
    """Something that is listened to or not."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end: Callable[[], None] | None = None

    def keep(self, wanted: bool, begin: Callable[[], Callable[[], None]]) -> bool:
        """Begin or end it, where it is not as wanted; whether it began."""
        if wanted and self._end is None:
            self._end = begin()
            return True
        if not wanted and self._end is not None:
            self._end()
            self._end = None
        return False
