"""Persistent sessions in Redis, and the word that goes round when a client id is taken over.

A session is a hash at `rm:{reg}:session:<scope>:<client id>` (both percent-encoded): `s:<filter>` the QoS granted,
`q:<packet id>` a QoS 2 publication that was stored and not yet released, `owner` the connection that holds it and
`until` (ms) how long that is to be believed. Its queue is the list at the same key with `:queue`; a sorted set at
`rm:{reg}:sessions:<scope>` lists the sessions of a scope by last use. Only the owner may write, so that a connection
that was taken over cannot spoil what its successor does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.transports.mqtt.outgoing import Queued
from api.transports.mqtt.session_scripts import APPLY, BEAT, ENQUEUE, LEAVE, OPEN
from api.transports.mqtt.topics import Subscriptions
from engine.service import end_all

CHANNEL: Final = "rm:takeover"
COUNTER: Final = "rm:{reg}:takeover"
KEEP_S: Final = 86_400
"""How long a session outlives its connection (`G-11`)."""
QUEUE_LIMIT: Final = 100
"""Publications kept for an absent client, the oldest going first (`G-11`)."""
MAX_SESSIONS: Final = 1000
"""Persistent sessions per scope; one more makes the one unused for longest go."""
BEAT_S: Final = 60.0
BELIEVED_MS: Final = 180_000
"""How long an owner that no longer says anything is taken to be alive."""
RELEASE_WAIT_S: Final = 2.0
"""How long a successor waits for the old connection's last word."""

_log = logging.getLogger("rulemill.mqtt")


class Opened(NamedTuple):
    """What a session held when it was opened. `number` orders take-overs over all processes."""

    number: int
    present: bool = False
    subscriptions: Mapping[str, int] = {}
    received: frozenset[int] = frozenset()
    queue: Sequence[Queued] = ()
    left_ms: int = 0
    """Since when nobody was connected, as far as is known; 0 for a new session."""


class Holder(NamedTuple):
    """A connection that owns a session, which outlives it for `expiry_s`; 0: it is kept nowhere."""

    scope: str
    client_id: str
    owner: str
    expiry_s: int = KEEP_S


class SessionStore:
    """Persistent sessions of all scopes. Its methods raise `redis.exceptions.RedisError` or OSError when Redis fails.

    `redis` must give bytes (`decode_responses=False`).
    """

    def __init__(self, redis: Redis, *, keep_s: int = KEEP_S, beat_s: float = BEAT_S) -> None:
        self._redis = redis
        self.keep_s = keep_s
        """The longest that a session outlives its connection."""
        self._beat_s = beat_s
        self._open = redis.register_script(OPEN)
        self._apply = redis.register_script(APPLY)
        self._leave = redis.register_script(LEAVE)
        self._beat = redis.register_script(BEAT)
        self._enqueue = redis.register_script(ENQUEUE)
        self._tasks: list[asyncio.Task[None]] = []

    def start(
        self,
        taken_over: Callable[[int, str, str], None],
        held: Callable[[], Iterable[Holder]],
        lost: Callable[[Holder], None],
    ) -> None:
        """Begin to listen and to beat.

        `taken_over(number, scope, client id)` is called for every CONNECT anywhere, `held` asked which sessions are
        owned here, and `lost` told of one that somebody else owns now.
        """
        self._tasks = [asyncio.create_task(self._listen(taken_over)), asyncio.create_task(self._keep(held, lost))]

    async def stop(self) -> None:
        """End both."""
        await end_all(self._tasks)
        self._tasks = []

    async def open(self, holder: Holder, *, clean: bool) -> Opened:
        """Tell everybody of the new connection; then throw the session away (`clean`), own it and read it.

        Waits for an old owner to leave, but not for ever: then the session is taken. One that is not to outlive the
        connection is taken out of the store.
        """
        member = _member(holder)
        session, queue, index = _keys(holder)
        announcement: bytes = msgspec.msgpack.encode((holder.scope, holder.client_id))
        force, number, give_up = b"", 0, time.monotonic() + RELEASE_WAIT_S
        while True:
            now = time.time_ns() // 1_000_000
            answer: list[Any] = await self._open(
                [session, queue, index, COUNTER],
                [
                    holder.owner,
                    now,
                    now + BELIEVED_MS,
                    _held_s(holder) if holder.expiry_s else 0,
                    member,
                    int(clean),
                    force,
                    MAX_SESSIONS,
                    session.removesuffix(member),
                    announcement,
                    self.keep_s,
                ],
            )
            number = answer[0] or number
            announcement, clean = b"", False
            if not answer[1]:
                return _opened(number, answer[2], answer[3])
            await asyncio.sleep(0.05)
            force = b"1" if time.monotonic() > give_up else b""

    async def apply(self, holder: Holder, changes: Mapping[str, bytes]) -> bool:
        """Write fields (an empty value deletes); False when the session has another owner."""
        pairs: list[str | bytes] = []
        for field, value in changes.items():
            pairs += (field, value)
        return bool(await self._apply([_keys(holder)[0]], [holder.owner, _held_s(holder), *pairs]))

    async def settled(self, holder: Holder) -> None:
        """Forget the queue: the client has it."""
        await self._leave(_keys(holder), [holder.owner, _held_s(holder), "", "1", "", _member(holder)])

    async def leave(self, holder: Holder, queue: Sequence[Queued] | None) -> int:
        """Let go of the session, leaving this queue behind (None: the one that is there); how many had to be dropped.

        A session that somebody else owns by now is left alone.
        """
        kept = [msgspec.msgpack.encode(item) for item in (queue or ())[-QUEUE_LIMIT:]]
        replace = "" if queue is None else "1"
        now = time.time_ns() // 1_000_000
        fixed: list[str | int] = [holder.owner, holder.expiry_s, "1", replace, now, _member(holder)]
        await self._leave(_keys(holder), [*fixed, *kept])
        return len(queue or ()) - len(kept)

    async def enqueue(self, scope: str, topic: str, payload: bytes, qos: int) -> tuple[int, int]:
        """Keep a publication for the absent persistent sessions of a scope that want it at QoS 1.

        Gives how many sessions took it and how many older publications were dropped for it. To be called by one
        process, once for each publication.
        """
        if not qos:
            return 0, 0
        taken = dropped = 0
        members: list[Any] = await self._redis.zrange(_index(scope), 0, -1)
        for member in members:
            session = f"rm:{{reg}}:session:{quote(scope, safe='')}:{member.decode()}"
            subscriptions = Subscriptions()
            for name, granted in _opened(0, await self._redis.hgetall(session), ()).subscriptions.items():
                subscriptions.add(name, granted)
            if subscriptions.qos_for(topic) < 1:
                continue
            item = msgspec.msgpack.encode(Queued(topic, payload, 1))
            now = time.time_ns() // 1_000_000
            over = await self._enqueue([session, f"{session}:queue"], [now, QUEUE_LIMIT, item])
            if over >= 0:
                taken += 1
                dropped += over
        return taken, dropped

    async def _listen(self, taken_over: Callable[[int, str, str], None]) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    async for heard in pubsub.listen():
                        if heard["type"] == "message":
                            number, _, who = heard["data"].partition(b" ")
                            taken_over(int(number), *msgspec.msgpack.decode(who, type=tuple[str, str]))
            except (RedisError, OSError) as error:
                _log.warning("take-overs of MQTT client ids are not heard: %s", error)
            except (ValueError, msgspec.MsgspecError) as error:
                _log.warning("what came over %s is not a take-over: %s", CHANNEL, error)
            await asyncio.sleep(1)

    async def _keep(self, held: Callable[[], Iterable[Holder]], lost: Callable[[Holder], None]) -> None:
        while True:
            await asyncio.sleep(self._beat_s)
            with contextlib.suppress(RedisError, OSError):  # heard of by all who need Redis; tried again next time
                for holder in list(held()):
                    now = time.time_ns() // 1_000_000
                    beat: list[str | int] = [
                        holder.owner, now, now + BELIEVED_MS, _held_s(holder), _member(holder), self.keep_s,
                    ]  # fmt: skip
                    if not await self._beat(_keys(holder), beat):
                        lost(holder)


def subscription_field(topic_filter: str) -> str:
    """The field of a session that holds the QoS granted to a filter."""
    return f"s:{topic_filter}"


def received_field(packet_id: int) -> str:
    """The field of a session that holds a QoS 2 publication not yet released."""
    return f"q:{packet_id}"


def _held_s(holder: Holder) -> int:
    """How long a session stays without a sign of its owner: as long as that is believed, and its own time after it."""
    return holder.expiry_s + BELIEVED_MS // 1000


def _member(holder: Holder) -> str:
    return quote(holder.client_id, safe="")


def _index(scope: str) -> str:
    return f"rm:{{reg}}:sessions:{quote(scope, safe='')}"


def _keys(holder: Holder) -> list[str]:
    session = f"rm:{{reg}}:session:{quote(holder.scope, safe='')}:{_member(holder)}"
    return [session, f"{session}:queue", _index(holder.scope)]


def _opened(number: int, found: Any, queued: Sequence[bytes]) -> Opened:
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    subscriptions: dict[str, int] = {}
    received = []
    left_ms = 0
    for field, value in pairs:
        if field.startswith(b"s:"):
            subscriptions[field[2:].decode()] = int(value)
        elif field.startswith(b"q:"):
            received.append(int(field[2:]))
        elif field == b"left":
            left_ms = max(left_ms, int(value))
        elif field == b"until":
            # Its process died without a word: it was believed alive for so long after its last sign.
            left_ms = max(left_ms, int(value) - BELIEVED_MS)
    queue = [msgspec.msgpack.decode(item, type=Queued) for item in queued]
    return Opened(number, bool(found), subscriptions, frozenset(received), queue, left_ms)
