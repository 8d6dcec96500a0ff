"""ThingsBoard's MQTT device API: who logs in, and what their session may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from redis.exceptions import RedisError

from api.auth import Unknown, token_print
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.session import DeviceLogin, Shared
from api.live import Recheck
from api.transports.mqtt.dialect import Peer, Refusal
from api.transports.mqtt.packets import NOT_AUTHORISED, Connect
from engine.errors import Refused
from engine.stores.certificates import prints
from engine.stores.registry import ACCESS_TOKEN, MQTT_BASIC


class ThingsBoardMqtt:
    """The dialect: logs devices in by access token or MQTT_BASIC. `stop` ends what it watches.

    `by_certificate` is the same for clients that have proved to own a certificate, whatever their user name (`G-9`).
    """

    def __init__(self, parts: Parts) -> None:
        self.by_certificate = _ByCertificate(self._known_by)
        self._auth = parts.auth
        self._shared = Shared(parts, self._doubt)
        self._sessions = self._shared.sessions
        self._missed = Recheck("MQTT devices after a break", self._look_again)
        self._revoked = Recheck("credentials of MQTT devices", self._look_at_credentials)
        self._doubtful: set[str] = set()
        self._ends = [parts.live.on_lost(self._missed.ask), parts.auth.on_change(self._changed)]

    async def stop(self) -> None:
        """Watch nothing more."""
        for end in self._ends:
            end()
        self._ends = []
        await self._missed.stop()
        await self._revoked.stop()
        await self._shared.stop()

    async def login(self, connect: Connect, peer: Peer) -> DeviceLogin | Refusal:
        """Log a device in (`TB-X1`); code 5 for a wrong token, as the vendor's server has it (`G-10`)."""
        return await self._known_by(credentials(connect))

    async def _known_by(self, all_prints: Iterable[str]) -> DeviceLogin | Refusal:
        try:
            for print_ in all_prints:
                device = self._auth.known(print_)
                if isinstance(device, Unknown):
                    device = await self._auth.find(print_)
                if device is not None:
                    if device.enabled:
                        return DeviceLogin(self._shared, device, print_, await self._shared.encodings.find(device))
                    return Refusal(NOT_AUTHORISED, "the device is disabled")
        except RedisError as error:
            raise Refused(str(error)) from error
        return Refusal(NOT_AUTHORISED, "no device has this login", unknown=True)

    # Changes

    def _changed(self, device_id: str) -> None:
        carried = self._shared.carried
        if device_id:
            if device_id in self._sessions:
                self._doubt(device_id)
            gateways = carried.get(device_id, set())
        else:
            self._doubtful.update(self._sessions)
            self._revoked.ask()
            gateways = {each for gateways in carried.values() for each in gateways}
        for gateway in gateways:
            gateway.doubt(device_id)

    def _doubt(self, device_id: str) -> None:
        self._doubtful.add(device_id)
        self._revoked.ask()

    async def _look_at_credentials(self) -> None:
        """Log out whoever could not log in any more."""
        while self._doubtful:
            device_id = self._doubtful.pop()
            try:
                for login in list(self._sessions.get(device_id, ())):
                    await login.verify()
            except BaseException:
                self._doubtful.add(device_id)
                raise

    async def _look_again(self) -> None:
        for logins in list(self._sessions.values()):
            for login in list(logins):
                await login.catch_up()


class _ByCertificate:
    """Logs a device in by the certificate of its TLS connection."""

    def __init__(self, known_by: Callable[[Iterable[str]], Awaitable[DeviceLogin | Refusal]]) -> None:
        self._known_by = known_by

    async def login(self, connect: Connect, peer: Peer) -> DeviceLogin | Refusal:
        """The device of the certificate; code 5 where it is nobody's (`G-10`)."""
        return await self._known_by(prints(peer.certificate) if peer.certificate is not None else ())


def credentials(connect: Connect) -> Iterator[str]:
    """Under what a CONNECT may be known, likeliest first: its user name as a token, then MQTT_BASIC.

    MQTT_BASIC may name the client id, the user name or both, and a credential without a password takes any.
    """
    username = connect.username or ""
    if username:
        yield token_print(ACCESS_TOKEN, username)
    password = (connect.password or b"").decode(errors="replace")
    client_id = connect.client_id
    for client, user in ((client_id, username), ("", username), (client_id, "")):
        if client or user:
            for secret in dict.fromkeys((password, "")):
                yield token_print(MQTT_BASIC, client, user, secret)
