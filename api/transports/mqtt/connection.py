"""One MQTT connection: an asyncio protocol that reads many packets at once and answers them in one write."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from api.transports.mqtt.decoding import decode
from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Drop, Login, Peer, Refusal
from api.transports.mqtt.encoding import encode
from api.transports.mqtt.host import Admitted, Host, Owner
from api.transports.mqtt.incoming import Batch, Incoming
from api.transports.mqtt.outgoing import Outgoing, Queued
from api.transports.mqtt.packets import (
    ACCEPTED,
    PUBACK_HEAD,
    PUBCOMP_HEAD,
    PUBREC_HEAD,
    SUBSCRIPTION_REFUSED,
    UNAVAILABLE,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from api.transports.mqtt.sessions import received_field, subscription_field

_log = logging.getLogger("rulemill.mqtt")

_LOGIN, _REFUSED, _FULL, _WRITE, _STOPPING = 1, 2, 4, 8, 16
"""Reasons not to read the socket; any number of them at a time."""

_PINGRESP: Final = encode(Pingresp())
_LOUD: Final = frozenset({CloseReason.PROTOCOL, CloseReason.FORBIDDEN, CloseReason.SLOW_READER, CloseReason.FAULT})


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
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._rest = bytearray()
        self._needed = 2
        self._paused = 0
        self._heard_at = 0.0
        self._alive_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._abort: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._will: Will | None = None
        self._received: set[int] = set()
        self._incoming = Incoming(
            host.submit,
            answered=self._answered,
            refused=self._on_refused,
            failed=partial(self.close, CloseReason.FAULT),
            wrong=partial(self.close, CloseReason.FORBIDDEN),
            lost=self._on_lost,
        )
        self._outgoing = Outgoing(
            self._send_publish,
            partial(self.close, CloseReason.SLOW_READER, abort=True),
            partial(host.settled, self),
            max_in_flight=self._settings.max_in_flight,
            max_waiting=self._settings.max_waiting,
        )

    # What the dialect may do.

    def send(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Publish to the client if one of its subscriptions takes `topic`; whether one did."""
        if not self.established or self.closing is not None:
            return False
        return self._outgoing.send(topic, payload, qos)

    def close(self, reason: CloseReason, detail: str = "", *, abort: bool = False) -> None:
        """End the connection; what is written already is still sent, unless `abort`."""
        if self.closing is not None:
            return
        self.closing = reason
        if reason is CloseReason.PROTOCOL:
            self._counters.malformed += 1
        level = logging.WARNING if reason in _LOUD else logging.DEBUG
        why = f"{reason}: {detail}" if detail else reason
        _log.log(level, "MQTT client %r at %s: %s", self.client_id, self.peer.address, why)
        if abort or self._paused & _WRITE:
            self._transport.abort()
        else:
            self._transport.close()
            self._abort = self._loop.call_later(self._settings.close_s, self._transport.abort)

    # What the server may do.

    def drain(self) -> None:
        """Read nothing more, and close as soon as everything read has its answer."""
        self._pause(_STOPPING)
        if not self.established or self._incoming.idle:
            self.close(CloseReason.STOPPING)

    def abandon(self) -> None:
        """End it at once, whatever is still on its way to the store."""
        self.close(CloseReason.STOPPING, abort=True)
        self._incoming.abandon()

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
        tls = transport.get_extra_info("ssl_object")
        address = transport.get_extra_info("peername") or ""
        self.peer = Peer(
            f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address),
            self.peer.listener,
            tls is not None,
            tls.getpeercert(binary_form=True) if tls is not None else None,
        )
        self._transport.set_write_buffer_limits(high=self._settings.write_buffer)
        _keep_alive(transport.get_extra_info("socket"))
        if not self._host.attached(self):
            self.close(CloseReason.KICKED, "too many connections", abort=True)
            return
        self._heard_at = self._loop.time()
        late = partial(self.close, CloseReason.PROTOCOL, "no CONNECT in time", abort=True)
        self._timer = self._loop.call_later(self._settings.connect_s, late)

    def data_received(self, data: bytes) -> None:
        """Bytes came: deal with all packets that are whole."""
        self._heard_at = self._loop.time()
        self._counters.bytes_received += len(data)
        if self._rest or self._paused:
            self._rest += data
            if self._paused or len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest = bytearray()
        self._read(data)

    def eof_received(self) -> None:
        """Nothing more will come; the transport closes itself."""

    def pause_writing(self) -> None:
        """The peer does not read; neither do we, or its answers would pile up."""
        self._outgoing.pause()
        self._pause(_WRITE)
        stalled = partial(self.close, CloseReason.SLOW_READER, "does not read", abort=True)
        self._stall = self._loop.call_later(self._settings.write_stall_s, stalled)

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._stall is not None:
            self._stall.cancel()
        self._resume(_WRITE)
        self._outgoing.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; what was received may still be stored."""
        if self.closing is None:
            self.closing = CloseReason.LOST
        self._outgoing.pause()
        for handle in (self._timer, self._stall, self._abort, self._opening):
            if handle is not None:
                handle.cancel()
        if self.established and self.login is not None:
            if self._will is not None and self.login.honours_wills and self.closing is not CloseReason.DISCONNECT:
                will = self._will
                self._take([Publish(will.topic, will.payload, 0, 0, will.retain)])
            self._called(self.login.closed, self.closing)
        self._incoming.close()
        self._host.gone(self)

    # Reading.

    def _read(self, data: bytes) -> None:
        if self.closing is not None:
            return
        if self.login is None:
            self._read_connect(data)
            return
        packets, consumed, needed, error = decode(data, self.login.max_payload)
        if consumed < len(data):
            self._rest += data[consumed:]
            self._needed = needed
        self._take(packets)
        if error is not None:
            self.close(CloseReason.PROTOCOL, str(error))

    def _read_connect(self, data: bytes) -> None:
        if data[0] != 0x10:
            self.close(CloseReason.PROTOCOL, "the first packet is not CONNECT")
            return
        packets, consumed, needed, error = decode(data, self._settings.max_connect_payload, at_most=1)
        if error is not None:
            self.close(CloseReason.PROTOCOL, str(error))
            return
        self._rest += data[consumed:]
        self._needed = needed
        if packets:
            connect = packets[0]
            assert isinstance(connect, Connect)
            if self._timer is not None:
                self._timer.cancel()
            self._needed = 2
            self._pause(_LOGIN)
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
            self._write(encode(Connack(False, admitted.code)))
            self.close(CloseReason.LOGIN, f"code {admitted.code}: {admitted.reason}")
            return
        login, self.client_id, opened, persistent = admitted
        self.login = login
        self.away_since_ms = opened.left_ms
        self.established = True
        self._will = connect.will
        self._received = set(opened.received)
        if persistent:
            self._incoming.keep_in(partial(self._host.record, self))
        for topic_filter, qos in opened.subscriptions.items():
            self._outgoing.subscriptions.add(topic_filter, qos)
        self._counters.opened += 1
        self._write(encode(Connack(opened.present, ACCEPTED)))
        self._host.established(self)
        self._outgoing.restore(opened.queue)
        self._called(login.connected, self)
        for topic_filter, qos in opened.subscriptions.items():
            self._subscribed(topic_filter, qos)
        self._heard_at = self._loop.time()
        if connect.keep_alive_s:
            self._alive_s = connect.keep_alive_s * 1.5
            self._timer = self._loop.call_later(self._alive_s, self._check_alive)
        self._resume(_LOGIN)

    def _take(self, packets: list[Packet]) -> None:
        login, held = self.login, self._incoming.held
        assert login is not None
        publish, acks, messages = login.publish, held.acks, held.messages
        count = 0
        try:
            for packet in packets:
                if type(packet) is not Publish:
                    self._handle(packet)
                    if self.closing is not None:
                        break
                    continue
                qos = packet.qos
                count += 1
                if qos == 2 and packet.packet_id in self._received:
                    acks += PUBREC_HEAD + packet.packet_id.to_bytes(2, "big")
                    continue
                verdict = publish(packet.topic, packet.payload, qos, packet.retain)
                if type(verdict) is Accepted:
                    if verdict.first is not None:
                        held.firsts.append((len(messages), verdict.first))
                    messages += verdict.messages
                    if verdict.after is not None:
                        held.afters.append(verdict.after)
                elif type(verdict) is Drop:
                    self._counters.dropped += 1
                    _log.info("MQTT client %r: a publication was dropped: %s", self.client_id, verdict.reason)
                else:
                    assert type(verdict) is Close
                    self.close(CloseReason.FORBIDDEN, verdict.reason)
                    break
                held.bytes += len(packet.payload)
                if qos == 1:
                    acks += PUBACK_HEAD + packet.packet_id.to_bytes(2, "big")
                elif qos:
                    self._received.add(packet.packet_id)
                    acks += PUBREC_HEAD + packet.packet_id.to_bytes(2, "big")
                    held.changes[received_field(packet.packet_id)] = b"1"
                else:
                    held.unacknowledged += 1
        except Exception:
            _log.exception("MQTT client %r: a packet could not be dealt with", self.client_id)
            self.close(CloseReason.FAULT)
        held.packets += count
        self._counters.received += count
        incoming = self._incoming
        incoming.flush()
        if not incoming.idle:
            unconfirmed, size = incoming.unconfirmed
            if unconfirmed >= self._settings.max_unconfirmed or size >= self._settings.max_unconfirmed_bytes:
                self._pause(_FULL)

    def _handle(self, packet: Packet) -> None:
        handler = _HANDLERS.get(type(packet))
        if handler is None:
            self.close(CloseReason.PROTOCOL, f"an unexpected {type(packet).__name__.upper()}")
        else:
            handler(self, packet)

    def _on_puback(self, packet: Puback) -> None:
        self._outgoing.acknowledged(packet.packet_id)

    def _on_pubrel(self, packet: Pubrel) -> None:
        # In its place among the answers: the id is free only when the session no longer holds it.
        held = self._incoming.held
        if packet.packet_id in self._received:
            self._received.remove(packet.packet_id)
            held.changes[received_field(packet.packet_id)] = b""
        held.acks += PUBCOMP_HEAD + packet.packet_id.to_bytes(2, "big")
        held.packets += 1

    def _on_subscribe(self, packet: Subscribe) -> None:
        assert self.login is not None
        held, subscriptions = self._incoming.held, self._outgoing.subscriptions
        codes = bytearray()
        for topic_filter, asked in packet.filters:
            full = len(subscriptions) >= self._settings.max_subscriptions and topic_filter not in subscriptions
            allowed = SUBSCRIPTION_REFUSED
            if not full and len(topic_filter) <= self._settings.max_filter:
                allowed = self.login.may_subscribe(topic_filter)
            if allowed == SUBSCRIPTION_REFUSED:
                codes.append(allowed)
                continue
            granted = min(asked, allowed, 1)
            codes.append(granted)
            subscriptions.add(topic_filter, granted)
            held.changes[subscription_field(topic_filter)] = b"%d" % granted
            held.afters.append(partial(self._subscribed, topic_filter, granted))
        held.acks += encode(Suback(packet.packet_id, bytes(codes)))
        held.packets += 1

    def _on_unsubscribe(self, packet: Unsubscribe) -> None:
        held = self._incoming.held
        for topic_filter in packet.filters:
            if self._outgoing.subscriptions.remove(topic_filter):
                held.changes[subscription_field(topic_filter)] = b""
                held.afters.append(partial(self._unsubscribed, topic_filter))
        held.acks += encode(Unsuback(packet.packet_id))
        held.packets += 1

    def _on_pingreq(self, packet: Pingreq) -> None:
        self._write(_PINGRESP)

    def _on_disconnect(self, packet: Disconnect) -> None:
        self.close(CloseReason.DISCONNECT)

    # Answering.

    def _answered(self, batch: Batch) -> None:
        if self._paused & _REFUSED:
            self._resume(_REFUSED)
        if self._paused & _FULL:
            self._resume(_FULL)
        if self.closing is None:
            self._counters.acked += batch.packets - batch.unacknowledged
            if batch.acks:
                self._write(bytes(batch.acks))
            if self._paused & _STOPPING and not self._incoming.held.packets:
                self.close(CloseReason.STOPPING)

    def _on_refused(self) -> None:
        self._counters.refused += 1
        self._pause(_REFUSED)

    def _on_lost(self, batch: Batch) -> None:
        self._counters.dropped += batch.unacknowledged
        if batch.unacknowledged:
            lost = batch.unacknowledged
            _log.warning("MQTT client %r left %d publications of QoS 0 that could not be stored", self.client_id, lost)

    def _subscribed(self, topic_filter: str, qos: int) -> None:
        if self.closing is None and self.login is not None:
            self._called(self.login.subscribed, topic_filter, qos)

    def _unsubscribed(self, topic_filter: str) -> None:
        if self.closing is None and self.login is not None:
            self._called(self.login.unsubscribed, topic_filter)

    def _called(self, hook: Callable[..., None], *given: Any) -> None:
        try:
            hook(*given)
        except Exception:
            _log.exception("MQTT client %r: a hook of its dialect failed", self.client_id)

    def _send_publish(self, packet: bytes) -> None:
        self._counters.sent += 1
        self._write(packet)

    def _write(self, data: bytes) -> None:
        self._counters.bytes_sent += len(data)
        self._transport.write(data)

    # Reading or not, alive or not.

    def _pause(self, why: int) -> None:
        if not self._paused and self.closing is None:
            self._transport.pause_reading()
        self._paused |= why

    def _resume(self, why: int) -> None:
        if not self._paused & why:
            return
        self._paused &= ~why
        if not self._paused and self.closing is None:
            self._heard_at = self._loop.time()
            self._transport.resume_reading()
            if self._rest:
                self._loop.call_soon(self._read_rest)

    def _read_rest(self) -> None:
        if not self._paused and len(self._rest) >= self._needed:
            data = bytes(self._rest)
            self._rest = bytearray()
            self._read(data)

    def _check_alive(self) -> None:
        silent_s = self._loop.time() - self._heard_at
        if self._paused & ~_WRITE:
            # Nobody can be heard who is not listened to.
            silent_s = 0.0
        if silent_s >= self._alive_s:
            self.close(CloseReason.KEEP_ALIVE, abort=True)
        else:
            self._timer = self._loop.call_later(self._alive_s - silent_s, self._check_alive)


# What a client may send once it is connected, besides PUBLISH.
_HANDLERS: Final[dict[type, Callable[[Connection, Any], None]]] = {
    Puback: Connection._on_puback,
    Pubrel: Connection._on_pubrel,
    Subscribe: Connection._on_subscribe,
    Unsubscribe: Connection._on_unsubscribe,
    Pingreq: Connection._on_pingreq,
    Disconnect: Connection._on_disconnect,
}


def _keep_alive(sock: socket.socket | None) -> None:
    """Let the kernel find out about peers that vanished: a client may have switched MQTT's own keep-alive off."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120)
