"""One MQTT connection: an asyncio protocol that reads many packets at once and answers them in one write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import cast

from api.transports.mqtt.batch import Batch
from api.transports.mqtt.decoding import decode
from api.transports.mqtt.dialect import CloseReason, Login, Peer, Refusal
from api.transports.mqtt.farewell import last_word, loudness
from api.transports.mqtt.handshake import Terms, accepted, refused, terms
from api.transports.mqtt.host import Admitted, Host, Owner
from api.transports.mqtt.incoming import Incoming
from api.transports.mqtt.outgoing import Outgoing, Queued
from api.transports.mqtt.packets import UNAVAILABLE, Connect, Disconnect, Publish, Will
from api.transports.mqtt.properties import stated
from api.transports.mqtt.reading import FULL, LOGIN, REFUSED, STOPPING, WRITE, Reading, peer_of
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.receiving import Receiver, called
from api.transports.mqtt.writing import Writing

_log = logging.getLogger("rulemill.mqtt")


class Connection(asyncio.Protocol):
    """A client from its first byte to the end of its last message. Also the `Session` its dialect is given."""

    def __init__(self, host: Host, listener: str) -> None:
        self.peer = Peer("", listener)
        self.client_id = ""
        self.away_since_ms = 0
        self.login: Login | None = None
        self.owner: Owner | None = None
        self.established = False
        self.closing: CloseReason | None = None
        self._host = host
        self._settings = host.settings
        self._counters = host.counters
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing of this connection is left, its session saved."""
        self._transport: asyncio.Transport
        self._reading = Reading(self._read)
        stalled = partial(self.close, CloseReason.SLOW_READER, "does not read", abort=True)
        self._writing = Writing(self._settings, self._counters, stalled)
        self._abort: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._will: Will | None = None
        self._terms = Terms()
        self._level = 4
        self._receiver: Receiver | None = None
        self._incoming = Incoming(
            host.submit,
            answered=self._answered,
            refused=self._on_refused,
            failed=partial(self.close, CloseReason.FAULT),
            wrong=partial(self.close, CloseReason.FORBIDDEN, code=Reason.PAYLOAD_FORMAT_INVALID),
            lost=self._on_lost,
        )
        self._outgoing = Outgoing(
            self._send_publish,
            partial(self.close, CloseReason.SLOW_READER, "too much waits for it"),
            partial(host.settled, self),
            self._on_unsendable,
            max_in_flight=self._settings.max_in_flight,
            max_waiting=self._settings.max_waiting,
        )

    # What the dialect may do.

    def send(
        self, topic: str, payload: bytes, qos: int = 1, acked: Callable[[], None] | None = None, *, asked: bool = False
    ) -> bool:
        """Publish to the client if one of its subscriptions takes `topic`, or it has `asked`; whether so."""
        if not self.established or self.closing is not None:
            return False
        return self._outgoing.send(topic, payload, qos, acked, asked=asked)

    def close(self, reason: CloseReason, detail: str = "", *, abort: bool = False, code: int = 0) -> None:
        """End the connection; what is written already is still sent, unless `abort`. `code` is for level 5."""
        if self.closing is not None:
            return
        self.closing = reason
        self._reading.end()
        if reason is CloseReason.PROTOCOL:
            self._counters.malformed += 1
        why = f"{reason}: {detail}" if detail else reason
        _log.log(loudness(reason), "MQTT client %r at %s: %s", self.client_id, self.peer.address, why)
        if abort or self._reading.paused & WRITE:
            self._transport.abort()
            return
        if self.established:
            self.write(last_word(self._terms, reason, detail, code))
        self._transport.close()
        self._abort = self._loop.call_later(self._settings.close_s, self._transport.abort)

    def leaves(self, packet: Disconnect) -> None:
        """The client goes; what it says last is how, and how long its session is to stay."""
        expiry_s = stated(packet.properties).session_expiry_s
        if expiry_s and not self._terms.expiry_s:
            self.close(CloseReason.PROTOCOL, "DISCONNECT with a session expiry after a CONNECT without")
            return
        if expiry_s is not None:
            self._host.keep(self, expiry_s)
        if packet.reason != Reason.DISCONNECT_WITH_WILL:
            self._will = None
        if packet.reason > Reason.DISCONNECT_WITH_WILL:
            words = stated(packet.properties).reason or ""
            _log.info("MQTT client %r leaves with code %#x %s", self.client_id, packet.reason, words)
        self.close(CloseReason.DISCONNECT)

    # What the server may do.

    def drain(self) -> None:
        """Read nothing more, and close as soon as everything read has its answer."""
        self._reading.pause(STOPPING)
        if not self.established or self._incoming.idle:
            self.close(CloseReason.STOPPING)

    def abandon(self) -> None:
        """End it at once, whatever is still on its way to the store."""
        self.close(CloseReason.STOPPING, abort=True)
        self._incoming.abandon()

    @property
    def unsent_bytes(self) -> int:
        """What was given to be sent and has not left yet."""
        return self._writing.buffered + self._outgoing.waiting_bytes

    def unsent(self) -> list[Queued]:
        """Publications the client has not acknowledged."""
        return self._outgoing.remaining()

    async def ended(self) -> None:
        """Wait, once the connection is lost, until the fate of what it published is known."""
        await self._incoming.ended()

    # What the transport does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer is there; it has `connect_s` to say who it is."""
        # By cast: uvloop's transports are no subclass of asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer_of(self._transport, self.peer.listener)
        self._reading.begin(self._transport)
        self._writing.begin(self._transport)
        if not self._host.attached(self):
            self.close(CloseReason.KICKED, "too many connections", abort=True)
            return
        late = partial(self.close, CloseReason.PROTOCOL, "no CONNECT in time", abort=True)
        self._reading.within(self._settings.connect_s, late)

    def data_received(self, data: bytes) -> None:
        """Bytes came: deal with all packets that are whole."""
        self._counters.bytes_received += len(data)
        self._reading.came(data)

    def pause_writing(self) -> None:
        """The peer does not read; neither do we, or its answers would pile up."""
        self._outgoing.pause()
        self._reading.pause(WRITE)
        self._writing.full()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._writing.end()
        self._reading.resume(WRITE)
        self._outgoing.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; what was received may still be stored."""
        if self.closing is None:
            self.closing = CloseReason.LOST
        self._outgoing.pause()
        self._reading.end()
        self._writing.end()
        for handle in (self._abort, self._opening):
            if handle is not None:
                handle.cancel()
        if self.established and self.login is not None:
            will = self._will
            if will is not None and self.login.honours_wills and self._receiver is not None:
                self._receiver.take([Publish(will.topic, will.payload, 0, 0, will.retain)])
            called(self.client_id, self.login.closed, self.closing)
        self._incoming.close()
        self._host.gone(self)

    # Reading.

    def _read(self, data: bytes) -> None:
        if self.closing is not None:
            return
        login, receiver = self.login, self._receiver
        if login is None or receiver is None:
            self._read_connect(data)
            return
        packets, consumed, needed, error = decode(data, login.max_payload, level=self._level)
        if consumed < len(data):
            self._reading.keep(data[consumed:], needed)
        if self._level == 5:
            misuse = receiver.misuse(packets)
            if misuse is not None:
                place, error = misuse
                packets = packets[:place]
        receiver.take(packets)
        if not self._incoming.idle:
            unconfirmed, size = self._incoming.unconfirmed
            if unconfirmed >= self._settings.max_unconfirmed or size >= self._settings.max_unconfirmed_bytes:
                self._reading.pause(FULL)
        if error is not None:
            self.close(CloseReason.PROTOCOL, str(error), code=error.code)

    def _read_connect(self, data: bytes) -> None:
        if data[0] != 0x10:
            self.close(CloseReason.PROTOCOL, "the first packet is not CONNECT")
            return
        packets, consumed, needed, error = decode(data, self._settings.max_connect_payload, at_most=1)
        if error is not None:
            if error.level == 5:
                self.write(refused(5, error.code))
            self.close(CloseReason.PROTOCOL, str(error))
            return
        self._reading.keep(data[consumed:], 2 if packets else needed)
        if packets:
            connect = packets[0]
            assert isinstance(connect, Connect)
            self._reading.in_time()
            self._reading.pause(LOGIN)
            self._opening = self._loop.create_task(self._open(connect))

    async def _open(self, connect: Connect) -> None:
        self.client_id = connect.client_id
        admitted: Admitted | Refusal
        try:
            async with asyncio.timeout(self._settings.login_s):
                admitted = await self._host.admit(self, connect)
        except TimeoutError:
            admitted = Refusal(UNAVAILABLE, "the login took too long")
        except Exception:
            _log.exception("MQTT login of %r from %s failed", connect.client_id, self.peer.address)
            admitted = Refusal(UNAVAILABLE, "the login failed")
        if self.closing is not None:
            return
        if isinstance(admitted, Refusal):
            self.write(refused(connect.level, admitted.code))
            self.close(CloseReason.LOGIN, f"code {admitted.code}: {admitted.reason}")
            return
        self._establish(connect, admitted)

    def _establish(self, connect: Connect, admitted: Admitted) -> None:
        login, self.client_id, opened, expiry_s = admitted
        self.login = login
        self._terms = terms(connect)
        self._level = connect.level
        self.away_since_ms = opened.left_ms
        self.established = True
        self._will = connect.will
        self._receiver = Receiver(
            self, login, self._terms, self._incoming, self._outgoing, set(opened.received), self._settings,
            self._counters,
        )  # fmt: skip
        if expiry_s:
            self._incoming.keep_in(partial(self._host.record, self))
        for topic_filter, qos in opened.subscriptions.items():
            self._outgoing.subscriptions.add(topic_filter, qos)
        self._counters.opened += 1
        self.write(accepted(connect, self.client_id, opened.present, expiry_s, login.max_payload, self._settings))
        self._host.established(self)
        self._outgoing.agree(self._terms)
        self._outgoing.restore(opened.queue)
        called(self.client_id, login.connected, self)
        for topic_filter, qos in opened.subscriptions.items():
            if self.closing is None:
                called(self.client_id, login.subscribed, topic_filter, qos)
        self._reading.watch(connect.keep_alive_s * 1.5, partial(self.close, CloseReason.KEEP_ALIVE))
        self._reading.resume(LOGIN)

    # Answering.

    def _answered(self, batch: Batch) -> None:
        paused = self._reading.paused
        if paused:
            self._reading.resume(REFUSED | FULL)
        if self.closing is None:
            self._counters.acked += batch.packets - batch.unacknowledged
            if batch.acks:
                self.write(bytes(batch.acks))
            if paused & STOPPING and not self._incoming.held.packets:
                self.close(CloseReason.STOPPING)

    def _on_refused(self) -> None:
        self._counters.refused += 1
        self._reading.pause(REFUSED)

    def _on_lost(self, batch: Batch) -> None:
        self._counters.dropped += batch.unacknowledged
        if batch.unacknowledged:
            lost = batch.unacknowledged
            _log.warning("MQTT client %r left %d publications of QoS 0 that could not be stored", self.client_id, lost)

    def _on_unsendable(self, topic: str, size: int) -> None:
        self._counters.dropped += 1
        _log.warning("MQTT client %r takes no packet of %d bytes: nothing sent to %r", self.client_id, size, topic)

    def _send_publish(self, packet: bytes) -> None:
        self._counters.sent += 1
        self.write(packet)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._writing.write(data)
