"""Mail: kept durably when it is handed over, sent by one process at a time, in order, and tried again while it fails.

Without a mail server, mails become files in a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import smtplib
import ssl
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import redis.asyncio as redis

from api.alone import Alone
from engine.config import Settings
from engine.errors import Finding, InvalidDocument, Refused
from engine.stores.register import P

log = logging.getLogger("rulemill.mail")

KEY: Final = P + "mail"
MOST: Final = 10_000
"""Mails that may wait; with one more, whoever wants to send one is told to try again later."""
TRIED_FOR_S: Final = 3 * 86_400
LOOK_S: Final = 1.0
MOST_PAUSE_S: Final = 300.0
TIMEOUT_S: Final = 30.0


class Refusal(Exception):
    """The server will never take this mail."""


class Server(NamedTuple):
    """A mail server, of `smtp://user:password@host:587` (STARTTLS where it is offered) or `smtps://…`."""

    tls: bool
    host: str
    port: int
    username: str = ""
    password: str = ""


def server_of(url: str) -> Server:
    """The server of a URL; ValueError for one that names none."""
    parts: SplitResult = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("smtp_url is like smtp://user:password@mail.example.org:587, or begins with smtps://")
    tls = parts.scheme == "smtps"
    return Server(
        tls, parts.hostname, parts.port or (465 if tls else 587), unquote(parts.username or ""),
        unquote(parts.password or ""),
    )  # fmt: skip


class Mail:
    """Where mails are handed over, and the sender. `deliver` sends one, in a thread; see `by_smtp` and `into`."""

    def __init__(self, client: redis.Redis, sender: str, deliver: Callable[[EmailMessage], None]) -> None:
        self._client, self._from, self._deliver = client, sender, deliver
        self._alone = Alone(client, "mail", self._work)

    async def start(self) -> None:
        """Begin to send, in this process or another."""
        await self._alone.start()

    async def stop(self) -> None:
        """End; what waits is sent after the next start."""
        await self._alone.stop()

    async def send(self, to: str, subject: str, text: str) -> None:
        """Return when the mail is kept and will be sent. Refused when too many wait; raises redis errors."""
        if int(await self._client.xlen(KEY)) >= MOST:
            raise Refused("too many mails wait to be sent", 60)
        await self._client.xadd(KEY, {"to": to, "subject": subject, "text": text})

    async def _work(self) -> None:
        pause_s = LOOK_S
        while True:
            waiting: Any = await self._client.xrange(KEY, count=1)
            if not waiting:
                await asyncio.sleep(LOOK_S)
                continue
            id, fields = waiting[0]
            mail = self._made(id, {name.decode(): value.decode() for name, value in fields.items()})
            try:
                await asyncio.to_thread(self._deliver, mail)
            except Refusal as error:
                log.error("a mail to %s is refused for good: %s", mail["To"], error)
            except (OSError, smtplib.SMTPException) as error:
                since_s = time.time() - int(id.partition(b"-")[0]) / 1000
                if since_s < TRIED_FOR_S:
                    log.warning("a mail to %s waits (tried again in %g s): %s", mail["To"], pause_s, error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, MOST_PAUSE_S)
                    continue
                log.error("a mail to %s was tried for three days and is given up: %s", mail["To"], error)
            pause_s = LOOK_S
            await self._client.xdel(KEY, id)

    def _made(self, id: bytes, fields: dict[str, str]) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._from, _line(fields["to"])
        mail["Subject"] = _line(fields["subject"])
        mail["Date"] = formatdate(int(id.partition(b"-")[0]) / 1000)
        # The same at every attempt, so that one that was sent twice can be told.
        mail["Message-ID"] = f"<{id.decode()}@rulemill>"
        mail.set_content(fields["text"])
        return mail


def by_smtp(server: Server) -> Callable[[EmailMessage], None]:
    """Send through a mail server; what it raises may pass, but Refusal."""

    def deliver(mail: EmailMessage) -> None:
        context = ssl.create_default_context()
        kind: Any = smtplib.SMTP_SSL if server.tls else smtplib.SMTP
        more = {"context": context} if server.tls else {}
        with kind(server.host, server.port, timeout=TIMEOUT_S, **more) as smtp:
            if not server.tls:
                smtp.ehlo()
                if smtp.has_extn("starttls"):
                    smtp.starttls(context=context)
            if server.username:
                smtp.login(server.username, server.password)
            try:
                smtp.send_message(mail)
            except smtplib.SMTPRecipientsRefused as error:
                _judge(max(code for code, _ in error.recipients.values()), error)
            except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
                _judge(error.smtp_code, error)

    return deliver


def _judge(code: int, error: Exception) -> None:
    if code >= 500:
        raise Refusal(str(error)) from error
    raise error


def into(folder: Path) -> Callable[[EmailMessage], None]:
    """Write each mail into a file of a folder."""

    def deliver(mail: EmailMessage) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{mail['Message-ID'].strip('<>').split('@')[0]}.eml"
        path.write_bytes(bytes(mail))
        with contextlib.suppress(OSError):
            path.chmod(0o600)
        log.info("no mail server is set (smtp_url): a mail to %s is in %s", mail["To"], path)

    return deliver


def deliverer(settings: Settings) -> Callable[[EmailMessage], None]:
    """How mails are sent, as the settings say; InvalidDocument for a server that cannot be read."""
    if not settings.smtp_url:
        return into(settings.folder() / "mail")
    try:
        return by_smtp(server_of(settings.smtp_url))
    except ValueError as error:
        raise InvalidDocument([Finding("smtp_url", str(error))]) from error


def _line(text: str) -> str:
    """Text that stays in its header."""
    return " ".join(text.split())
