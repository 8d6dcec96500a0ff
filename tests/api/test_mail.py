"""Mail from where it is handed over to a real mail server, through a real Redis."""

from __future__ import annotations

import asyncio
import logging
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis

from api import mail as mails
from api.mail import Mail
from api.mail_delivery import Deliver, by_smtp, deliverer, into, server_of
from engine.config import Settings
from engine.errors import InvalidDocument, Refused
from tests.api.smtp import MailServer, mail_server
from tests.certificates import certificate
from tests.engine.toy import until
from tests.services import free_port

pytestmark = pytest.mark.asyncio

LOOK_S = 0.02


@asynccontextmanager
async def sender(redis_url: str, deliver: Deliver) -> AsyncIterator[Mail]:
    async with redis.Redis.from_url(redis_url) as client:
        made = Mail(client, "rulemill@here.test", deliver, LOOK_S)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


def through(server: MailServer, user: str = "", scheme: str = "smtp") -> Deliver:
    return by_smtp(server_of(f"{scheme}://{user}127.0.0.1:{server.port}"))


async def waiting(redis_url: str) -> int:
    async with redis.Redis.from_url(redis_url) as client:
        return int(await client.xlen(mails.KEY) + await client.zcard(mails.ASIDE))


async def sent(redis_url: str, *many: tuple[str, str, str]) -> None:
    """Hand mails over without a sender."""
    async with redis.Redis.from_url(redis_url) as client:
        made = Mail(client, "rulemill@here.test", lambda mail: None)
        for each in many:
            await made.send(*each)


async def test_mails_go_once_in_order_and_whole(redis_url: str) -> None:
    async with mail_server() as server, sender(redis_url, through(server)) as mail:
        for n in range(5):
            await mail.send(f"ann{n}@x.org", f"Überschrift {n}", "Grüße,\n.\nauf Wiedersehen\n")
        await until(lambda: len(server.taken) == 5)
        assert server.to == [f"ann{n}@x.org" for n in range(5)]
        first = server.taken[0].mail
        assert (first["From"], first["To"], first["Subject"]) == ("rulemill@here.test", "ann0@x.org", "Überschrift 0")
        assert first.get_content() == "Grüße,\n.\nauf Wiedersehen\n"
        assert first["Date"].datetime.year > 2024
        assert len({str(each.mail["Message-ID"]) for each in server.taken}) == 5
        await until(lambda: nothing(redis_url))
        assert len(server.taken) == 5


async def nothing(redis_url: str) -> bool:
    return await waiting(redis_url) == 0


async def test_while_the_server_is_away_everything_waits(redis_url: str, caplog: Any) -> None:
    port = free_port()
    deliver = by_smtp(server_of(f"smtp://127.0.0.1:{port}"))
    async with sender(redis_url, deliver) as mail:
        for n in range(3):
            await mail.send(f"ann{n}@x.org", "s", "t")
        await until(lambda: "mails wait (tried again in" in caplog.text)
        assert await waiting(redis_url) == 3
        async with mail_server(port=port) as server:
            await until(lambda: len(server.taken) == 3)
            assert server.to == ["ann0@x.org", "ann1@x.org", "ann2@x.org"]


@pytest.mark.parametrize(("verb", "answer"), [("RCPT", "450 greylisted"), ("END", "451 later"), ("RCPT", "421 busy")])
async def test_a_mail_that_is_put_off_steps_aside(redis_url: str, verb: str, answer: str) -> None:
    await sent(redis_url, ("off@x.org", "s", "t"), ("next@x.org", "s", "t"))
    async with mail_server() as server:
        server.answers = {verb: [answer]}
        async with sender(redis_url, through(server)):
            await until(lambda: len(server.taken) == 2)
            assert sorted(server.to) == ["next@x.org", "off@x.org"]
            await until(lambda: nothing(redis_url))


async def test_one_that_is_put_off_for_ever_holds_nobody_up(redis_url: str, monkeypatch: Any, caplog: Any) -> None:
    await sent(redis_url, ("off@x.org", "s", "t"), ("next@x.org", "s", "t"))
    async with mail_server() as server:
        server.answers = {"RCPT": ["450 no"] * 2 + ["250 well"] + ["450 no"] * 50}
        async with sender(redis_url, through(server)):
            await until(lambda: server.verbs.count("RCPT") >= 4)
            assert await waiting(redis_url) == 1
            monkeypatch.setattr(mails, "TRIED_FOR_S", 0)
            await until(lambda: nothing(redis_url))
    assert "was tried for three days and is given up" in caplog.text
    assert len(server.taken) == 1


@pytest.mark.parametrize(
    ("verb", "answer"), [("RCPT", "550 nobody of that name"), ("END", "554 spam"), ("MAIL", "552 too big")]
)
async def test_a_mail_that_is_refused_is_dropped_and_told(redis_url: str, verb: str, answer: str, caplog: Any) -> None:
    await sent(redis_url, ("gone@x.org", "s", "t"), ("next@x.org", "s", "t"))
    async with mail_server() as server:
        server.answers = {verb: [answer]}
        async with sender(redis_url, through(server)):
            await until(lambda: nothing(redis_url))
        assert server.to == ["next@x.org"]
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "gone@x.org is refused for good" in record.getMessage()
    assert answer[4:] in record.getMessage()


@pytest.mark.parametrize(("verb", "answer"), [("MAIL", "553 who are you"), ("EHLO", "421 not now"), ("AUTH", "535 no")])
async def test_what_the_server_has_against_us_loses_no_mail(redis_url: str, verb: str, answer: str) -> None:
    await sent(redis_url, ("ann@x.org", "s", "t"), ("bob@x.org", "s", "t"))
    async with mail_server(auth=True) as server:
        # smtplib says HELO when EHLO fails, and tries each kind of login twice at most.
        server.answers = {verb: [answer] * 2, "HELO": ["421 not now"] * 2 if verb == "EHLO" else []}
        async with sender(redis_url, through(server, "user:secret@")):
            await until(lambda: len(server.taken) == 2)
        assert server.to == ["ann@x.org", "bob@x.org"]


@pytest.mark.parametrize("good_bye", ["421 no more", "250 what?", "", "500 bad"])
async def test_a_mail_that_was_taken_is_not_sent_again_for_a_bad_good_bye(redis_url: str, good_bye: str) -> None:
    await sent(redis_url, ("ann@x.org", "s", "t"))
    async with mail_server() as server:
        server.answers = {"QUIT": [good_bye]}
        async with sender(redis_url, through(server)):
            await until(lambda: nothing(redis_url))
        assert len(server.taken) == 1


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    cert, key = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_tls_and_login(redis_url: str, trusted: ssl.SSLContext, scheme: str) -> None:
    async with mail_server(trusted, starttls=scheme == "smtp", auth=True) as server:
        async with sender(redis_url, through(server, "us%40er:se%2Fcret@", scheme)) as mail:
            await mail.send("ann@x.org", "s", "t")
            await until(lambda: server.taken)
        assert (server.taken[0].tls, server.taken[0].login) == (True, "us@er se/cret")


async def test_a_server_with_a_strange_certificate_gets_nothing(
    redis_url: str, trusted: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    (tmp_path / "others").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", certificate(tmp_path / "others")[0])
    async with mail_server(trusted, starttls=True) as server, sender(redis_url, through(server)) as mail:
        await mail.send("ann@x.org", "s", "t")
        await until(lambda: "certificate verify failed" in caplog.text)
        assert (server.taken, await waiting(redis_url)) == ([], 1)


async def test_a_password_goes_to_no_other_machine_in_the_clear(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("api.mail_delivery._is_here", lambda host: False)
    async with mail_server(auth=True) as server, sender(redis_url, through(server, "user:secret@")) as mail:
        await mail.send("ann@x.org", "s", "t")
        await until(lambda: "a password is not sent in the clear" in caplog.text)
        assert "AUTH" not in server.verbs


async def test_nobody_writes_headers_or_adds_recipients(redis_url: str, caplog: Any) -> None:
    bad = ["a@x.org\r\nBcc: b@x.org", "a@x.org, b@x.org", "a,b@x.org", "<a@x.org>", "a", "", "a@", "a@[", "ä@x.org"]
    await sent(redis_url, *((to, "s", "t") for to in bad))
    await sent(redis_url, ("ann@x.org", "Hello\r\nBcc: b@x.org\r\n\r\nbody\x85\u2028", "t\r\n.\r\nQUIT\r\n"))
    async with mail_server() as server, sender(redis_url, through(server)):
        await until(lambda: nothing(redis_url))
    assert server.to == ["ann@x.org"]
    [taken] = server.taken
    assert sorted(taken.mail.keys()) == sorted({*taken.mail.keys()})
    assert taken.mail["Bcc"] is None
    assert taken.mail["Subject"] == "Hello Bcc: b@x.org body"
    assert taken.mail.get_content().splitlines() == ["t", ".", "QUIT"]
    assert caplog.text.count("is refused for good") == len(bad)


async def test_without_a_server_mails_are_files_of_their_owner(redis_url: str, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "rulemill.mail")
    folder = tmp_path / "deep" / "mail"
    async with sender(redis_url, into(folder)) as mail:
        await mail.send("ann@x.org", "Grüße", "hello")
        await mail.send("bob@x.org", "s", "t")
        await until(lambda: nothing(redis_url))
    files = sorted(folder.iterdir())
    assert [path.suffix for path in files] == [".eml", ".eml"]
    assert b"To: ann@x.org" in files[0].read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert str(files[0]) in caplog.text


async def test_several_senders_send_each_mail_once(redis_url: str) -> None:
    async with (
        mail_server() as server,
        sender(redis_url, through(server)) as one,
        sender(redis_url, through(server)) as two,
    ):
        await asyncio.gather(*(each.send(f"{n}@x.org", "s", "t") for n in range(10) for each in (one, two)))
        await until(lambda: nothing(redis_url))
        assert sorted(server.to) == sorted(f"{n}@x.org" for n in range(10) for _ in "12")


async def test_a_restart_keeps_what_waits_and_ends_what_is_under_way(redis_url: str) -> None:
    await sent(redis_url, ("ann@x.org", "s", "t"), ("bob@x.org", "s", "t"))
    async with mail_server() as server:
        server.hold = asyncio.Event()
        async with sender(redis_url, through(server)):
            await until(lambda: "DATA" in server.verbs)
            asyncio.get_running_loop().call_later(0.2, server.hold.set)
        assert (server.to, await waiting(redis_url)) == (["ann@x.org"], 1)
        async with sender(redis_url, through(server)):
            await until(lambda: len(server.taken) == 2)
        assert server.to == ["ann@x.org", "bob@x.org"]


async def test_no_more_wait_than_may(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mails, "MOST", 2)
    await sent(redis_url, ("a@x.org", "s", "t"), ("b@x.org", "s", "t"))
    with pytest.raises(Refused) as refused:
        await sent(redis_url, ("c@x.org", "s", "t"))
    assert refused.value.retry_after_s == 60


@pytest.mark.parametrize(
    "url", ["mail.example.org", "http://mail.example.org", "smtp://", "smtp://h:port", "smtp://h:0x"]
)
async def test_a_server_that_cannot_be_read_is_named_at_the_start(url: str) -> None:
    with pytest.raises(InvalidDocument, match="smtp_url"):
        deliverer(Settings(smtp_url=url))
