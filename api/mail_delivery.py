"""How a mail leaves: through a mail server or, without one, as a file in a folder."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from api.private_file import write_private
from engine.config import Settings
from engine.errors import Finding, InvalidDocument

log = logging.getLogger("rulemill.mail")

TIMEOUT_S: Final = 30.0
_TOO_BIG: Final = 552
"""The one answer to the sender's address that is about the mail."""


class Unavailable(Exception):
    """The server is away, or wants nothing of us: no mail goes, until it does."""


class PutOff(Exception):
    """The server takes this mail later, perhaps."""


class Refusal(Exception):
    """The server will never take this mail."""


Deliver = Callable[[EmailMessage], None]
"""Sends one mail, and returns when somebody else answers for it; called in a thread. Raises the three above."""


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


def by_smtp(server: Server) -> Deliver:
    """Send through a mail server, with a connection for each mail: they are few."""

    def deliver(mail: EmailMessage) -> None:
        try:
            smtp = _connected(server)
        except (OSError, smtplib.SMTPException) as error:
            raise Unavailable(str(error)) from error
        try:
            _send(smtp, mail)
            # Taken. However the server says good-bye, the mail is not sent again.
            with contextlib.suppress(OSError, smtplib.SMTPException):
                smtp.quit()
        finally:
            smtp.close()

    return deliver


def _connected(server: Server) -> smtplib.SMTP:
    """A connection on which mails may be sent; raises smtplib's errors."""
    context = ssl.create_default_context()
    if server.tls:
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_S, context=context)
    else:
        smtp = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
    try:
        private = server.tls
        if not private:
            smtp.ehlo()
            if smtp.has_extn("starttls"):
                smtp.starttls(context=context)
                private = True
        if server.username:
            if not private and not _is_here(server.host):
                raise smtplib.SMTPException("the server offers no TLS, and a password is not sent in the clear")
            smtp.login(server.username, server.password)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _send(smtp: smtplib.SMTP, mail: EmailMessage) -> None:
    try:
        smtp.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        raise _judged(max(code for code, _ in error.recipients.values()), error) from error
    except smtplib.SMTPDataError as error:
        raise _judged(error.smtp_code, error) from error
    except smtplib.SMTPSenderRefused as error:
        # The sender is the same in all mails: a wrong setting, which somebody mends, must not lose them.
        kind = Refusal if error.smtp_code == _TOO_BIG else Unavailable
        raise kind(str(error)) from error
    except smtplib.SMTPNotSupportedError as error:
        raise Refusal(f"the server does not know addresses beyond ASCII: {error}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise Unavailable(str(error)) from error


def _judged(code: int, error: Exception) -> Exception:
    return Refusal(str(error)) if code >= 500 else PutOff(str(error))


def into(folder: Path) -> Deliver:
    """Write each mail into a file of a folder."""

    def deliver(mail: EmailMessage) -> None:
        path = folder / f"{mail['Message-ID'].strip('<>').split('@')[0]}.eml"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, bytes(mail).decode("ascii", "surrogateescape"))
        except OSError as error:
            raise Unavailable(str(error)) from error
        log.info("no mail server is set (smtp_url): a mail to %s is in %s", mail["To"], path)

    return deliver


def deliverer(settings: Settings) -> Deliver:
    """How mails are sent, as the settings say; InvalidDocument for a server that cannot be read."""
    if not settings.smtp_url:
        return into(settings.folder() / "mail")
    try:
        return by_smtp(server_of(settings.smtp_url))
    except ValueError as error:
        raise InvalidDocument([Finding("smtp_url", str(error))]) from error
