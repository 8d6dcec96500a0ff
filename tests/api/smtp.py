"""A mail server of a few lines on a free port, which answers as the test wants."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import NamedTuple, cast


class Taken(NamedTuple):
    """A mail that was taken, and how it came."""

    mail: EmailMessage
    recipient: str
    tls: bool
    login: str


class MailServer:
    """`answers` says how the next commands of a verb are answered, else as they should be; `QUIT` may be one."""

    def __init__(self, context: ssl.SSLContext | None = None, *, starttls: bool = False, auth: bool = False) -> None:
        self.taken: list[Taken] = []
        self.answers: dict[str, list[str]] = {}
        self.verbs: list[str] = []
        self.hold: asyncio.Event | None = None
        """Mails are answered only when it is set."""
        self.port = 0
        self._context, self._starttls, self._auth = context, starttls, auth

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls, login, recipient = self._context is not None and not self._starttls, "", ""
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb = line.split(" ")[0].upper()
            self.verbs.append(verb)
            answer = "250 well"
            if self.answers.get(verb):
                answer = self.answers[verb].pop(0)
            elif verb == "EHLO":
                more = ["SIZE 100000"] + ["STARTTLS"] * (self._starttls and not tls) + ["AUTH PLAIN"] * self._auth
                answer = "".join(f"250-{each}\r\n" for each in ["here", *more]) + "250 HELP"
            elif verb == "AUTH":
                login = base64.b64decode(line.split(" ")[2]).decode().replace("\0", " ").strip()
                answer = "235 welcome"
            elif verb == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                data = await reader.readuntil(b"\r\n.\r\n")
                if self.hold is not None:
                    await self.hold.wait()
                answer = (self.answers.get("END") or ["250 taken"]).pop(0)
                if answer.startswith("250"):
                    mail = cast(EmailMessage, message_from_bytes(_unstuffed(data), policy=policy.default))
                    self.taken.append(Taken(mail, recipient, tls, login))
            elif verb == "STARTTLS":
                answer = "220 begin"
            elif verb == "QUIT":
                answer = "221 bye"
            writer.write(answer.encode() + b"\r\n")
            if verb == "STARTTLS":
                assert self._context is not None
                await writer.drain()
                await writer.start_tls(self._context)
                tls = True
            if verb == "QUIT":
                break
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

    @property
    def to(self) -> list[str]:
        """The recipients, in the order their mails came."""
        return [each.recipient for each in self.taken]


def _unstuffed(data: bytes) -> bytes:
    """What stands before the last dot; other lines that begin with a dot were given a second one for the way."""
    return data[:-3].replace(b"\r\n..", b"\r\n.").replace(b"\r\n", b"\n")


@asynccontextmanager
async def mail_server(
    context: ssl.SSLContext | None = None, *, starttls: bool = False, auth: bool = False, port: int = 0
) -> AsyncIterator[MailServer]:
    """A running one; with a context it speaks TLS at once, or after STARTTLS."""
    made = MailServer(context, starttls=starttls, auth=auth)
    open_ones: set[asyncio.Task[None]] = set()

    def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(made.serve(reader, writer))
        open_ones.add(task)
        task.add_done_callback(lambda ended: (ended.cancelled() or ended.exception(), writer.close()))

    server = await asyncio.start_server(opened, "127.0.0.1", port, ssl=None if starttls else context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
