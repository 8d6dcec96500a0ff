"""Mail: kept durably when it is handed over, sent by one process at a time, in order, and tried again while it fails.

What keeps a mail from going tells who waits: while the server is away or refuses its client, all of them; when it puts
off one mail, that one steps aside and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Final, NamedTuple

import msgspec
import redis.asyncio as redis

from api.alone import Alone
from api.mail_delivery import Deliver, PutOff, Refusal, Unavailable
from engine.errors import Refused
from engine.stores.register import P

log = logging.getLogger("rulemill.mail")

KEY: Final = P + "mail"
ASIDE: Final = P + "mail-aside"
"""Mails that the server has put off, by when they are tried again."""
MOST: Final = 10_000
"""Mails that may wait; with one more, whoever wants to send one is told to try again later."""
TRIED_FOR_S: Final = 3 * 86_400
LOOK_S: Final = 1.0
MOST_PAUSE_S: Final = 300.0
STOP_S: Final = 1.5
"""How long the end waits for a mail under way, so that it is not sent again after the next start."""


class _Waiting(NamedTuple):
    """A mail that waits; `id` begins with the milliseconds at which it was handed over."""

    id: str
    to: str
    subject: str
    text: str
    pause_s: float = 0.0
    """The last pause after it was put off; 0 for one that never was."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Waiting).decode


class Mail:
    """Where mails are handed over, and the sender of `sender`. `look_s` is the shortest pause."""

    def __init__(self, client: redis.Redis, sender: str, deliver: Deliver, look_s: float = LOOK_S) -> None:
        self._client, self._from, self._deliver, self._look_s = client, sender, deliver, look_s
        self._alone = Alone(client, "mail", self._work)

    async def start(self) -> None:
        """Begin to send, in this process or another."""
        await self._alone.start()

    async def stop(self) -> None:
        """End; what waits is sent after the next start."""
        await self._alone.stop()

    async def send(self, to: str, subject: str, text: str) -> None:
        """Return when the mail is kept and will be sent. Refused when too many wait; raises redis errors."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.xlen(KEY)
            pipe.zcard(ASIDE)
            if sum(await pipe.execute()) >= MOST:
                raise Refused("too many mails wait to be sent", 60)
        await self._client.xadd(KEY, {"to": to, "subject": subject, "text": text})

    async def _work(self) -> None:
        pause_s = self._look_s
        while True:
            waiting = await self._next()
            if waiting is None:
                await asyncio.sleep(self._look_s)
                continue
            to = waiting.to
            try:
                mail = made(self._from, waiting)
                await self._hand_over(waiting, mail)
                await self._forget(waiting)
            except Unavailable as error:
                if not _too_old(waiting):
                    log.warning("mails wait (tried again in %g s), the first is to %s: %s", pause_s, to, error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, MOST_PAUSE_S)
                    continue
                log.error("a mail to %s was tried for three days and is given up: %s", to, error)
                await self._forget(waiting)
            except PutOff as error:
                if _too_old(waiting):
                    log.error("a mail to %s was tried for three days and is given up: %s", to, error)
                    await self._forget(waiting)
                else:
                    await self._set_aside(waiting, error)
            except Refusal as error:
                log.error("a mail to %s is refused for good: %s", to, error)
                await self._forget(waiting)
            pause_s = self._look_s

    async def _next(self) -> _Waiting | None:
        """The mail whose turn it is."""
        due: Any = await self._client.zrangebyscore(ASIDE, "-inf", time.time(), start=0, num=1)
        if due:
            return _decode(due[0])
        first: Any = await self._client.xrange(KEY, count=1)
        if not first:
            return None
        id, fields = first[0]
        values = {name.decode(): value.decode() for name, value in fields.items()}
        return _Waiting(id.decode(), values["to"], values["subject"], values["text"])

    async def _hand_over(self, waiting: _Waiting, mail: EmailMessage) -> None:
        """Deliver a mail, in a thread; when this is cancelled meanwhile, it still has a moment to end well."""
        under_way = asyncio.ensure_future(asyncio.to_thread(self._guarded, mail))
        try:
            await asyncio.shield(under_way)
        except asyncio.CancelledError:
            await asyncio.wait({under_way}, timeout=STOP_S)
            if under_way.done() and under_way.exception() is None:
                await self._forget(waiting)
            under_way.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise

    def _guarded(self, mail: EmailMessage) -> None:
        try:
            self._deliver(mail)
        except (Unavailable, PutOff, Refusal):
            raise
        except Exception as error:
            # Nothing that is in one mail may keep all others from going.
            raise Refusal(f"{type(error).__name__}: {error}") from error

    async def _forget(self, waiting: _Waiting) -> None:
        if waiting.pause_s:
            await self._client.zrem(ASIDE, _encode(waiting))
        else:
            await self._client.xdel(KEY, waiting.id)

    async def _set_aside(self, waiting: _Waiting, error: PutOff) -> None:
        pause_s = min(waiting.pause_s * 2 or self._look_s, MOST_PAUSE_S)
        log.warning("a mail to %s is put off (tried again in %g s): %s", waiting.to, pause_s, error)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xdel(KEY, waiting.id)
            pipe.zrem(ASIDE, _encode(waiting))
            pipe.zadd(ASIDE, {_encode(waiting._replace(pause_s=pause_s)): time.time() + pause_s})
            await pipe.execute()


def _handed_over_s(waiting: _Waiting) -> float:
    return int(waiting.id.partition("-")[0]) / 1000


def _too_old(waiting: _Waiting) -> bool:
    return time.time() - _handed_over_s(waiting) >= TRIED_FOR_S


def made(sender: str, waiting: _Waiting) -> EmailMessage:
    """The mail as it is sent; Refusal for an address that is none."""
    mail = EmailMessage()
    mail["From"] = _line(sender)
    try:
        mail["To"] = Address(addr_spec=_line(waiting.to))
    except Exception as error:  # what the parser of addresses raises is not told anywhere
        raise Refusal(f"the address cannot be written to: {error}") from error
    mail["Subject"] = _line(waiting.subject)
    mail["Date"] = formatdate(_handed_over_s(waiting))
    # The same at every attempt, so that one that was sent twice can be told.
    mail["Message-ID"] = f"<{waiting.id}@rulemill>"
    mail.set_content(waiting.text)
    return mail


def _line(text: str) -> str:
    """Text that stays in its header."""
    return " ".join(text.split())
