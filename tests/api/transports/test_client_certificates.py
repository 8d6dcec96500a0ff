"""TLS that asks for a client certificate and takes it whoever issued it, on both event loops, with others' clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from api.transports.client_certificates import AskingContext
from tests.certificates import Made, issued
from tests.services import require


class Echo(asyncio.Protocol):
    """Says back what it hears; "bye" ends the connection."""

    def __init__(self, peers: list[bytes | None]) -> None:
        self._peers = peers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        tls = transport.get_extra_info("ssl_object")
        self._peers.append(tls.getpeercert(binary_form=True))
        assert tls.cipher()[1] in ("TLSv1.2", "TLSv1.3")

    def data_received(self, data: bytes) -> None:
        if data == b"bye":
            self._transport.close()
        else:
            self._transport.write(data)


class Place:
    """A listening server. `peers` are the certificates of those who connected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = issued("localhost", authority=True)
        self.files = self.server.write(folder, "server")
        self.peers: list[bytes | None] = []
        self.port = 0

    def client(self, device: Made | None = None, *issuers: Made) -> ssl.SSLContext:
        """A client's context, with its certificate if it has one."""
        context = ssl.create_default_context(cafile=self.files[0])
        if device is not None:
            context.load_cert_chain(*device.write(self.folder, "device", *issuers))
        return context

    async def open(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")

    async def echo(self, context: ssl.SSLContext, data: bytes = b"hello") -> None:
        """A connection from its first byte to its last."""
        async with asyncio.timeout(10):
            reader, writer = await self.open(context)
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[Place]:
    place = Place(folder)
    server = await asyncio.get_running_loop().create_server(
        lambda: Echo(place.peers), "127.0.0.1", 0, ssl=AskingContext(*place.files)
    )
    place.port = server.sockets[0].getsockname()[1]
    try:
        yield place
    finally:
        server.close()
        await server.wait_closed()


async def with_and_without_a_certificate(tmp_path: Path) -> None:
    authority = issued("an authority nobody knows", authority=True)
    between = issued("one that it let issue", authority, authority=True)
    own, theirs, below = issued("device"), issued("device", authority), issued("device", between)
    async with listening(tmp_path) as place:
        await place.echo(place.client())
        await place.echo(place.client(own))
        await place.echo(place.client(theirs))
        await place.echo(place.client(theirs, authority))
        await place.echo(place.client(below, between, authority))
        assert place.peers == [None, own.der, theirs.der, theirs.der, below.der]


async def what_a_device_sends_along_does_not_count(tmp_path: Path) -> None:
    expired = issued("an authority of yesterday", authority=True, begins=-3, ends=-1)
    device = issued("device", expired)
    async with listening(tmp_path) as place:
        await place.echo(place.client(device, expired, issued("a stranger")))
        assert place.peers == [device.der]


async def a_certificate_out_of_its_time_is_refused(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        for begins, ends in ((-3, -1), (1, 2)):
            async with asyncio.timeout(10):
                reader, writer = await place.open(place.client(issued("device", begins=begins, ends=ends)))
                # In TLS 1.3 a client hears of it only after its own handshake, and on some loops no more than the end.
                with contextlib.suppress(ssl.SSLError):
                    assert await reader.read() == b""
                with contextlib.suppress(ssl.SSLError):
                    writer.close()
                    await writer.wait_closed()
        assert place.peers == []


async def much_at_once_in_either_version(tmp_path: Path) -> None:
    device = issued("device")
    async with listening(tmp_path) as place:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = place.client(device)
            context.minimum_version = context.maximum_version = version
            await place.echo(context, b"x" * 3_000_000)
            await place.echo(context, b"y")
        assert place.peers == [device.der] * 4


async def records_and_the_end_in_one_segment(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = place.client(issued("device")).wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        async with asyncio.timeout(10):
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65_536))
            for word in (b"one ", b"two ", b"three"):
                client.write(word)
            with pytest.raises(ssl.SSLWantReadError):
                client.unwrap()
            writer.write(outgoing.read())
            while data := await reader.read(65_536):
                incoming.write(data)
        writer.close()
        said = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while True:
                said += client.read(100)
        assert said == b"one two three"


async def the_server_ends_a_connection_properly(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        async with asyncio.timeout(10):
            reader, writer = await place.open(place.client())
            writer.write(b"bye")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


async def a_session_is_resumed_with_its_certificate(tmp_path: Path) -> None:
    device = issued("device")
    async with listening(tmp_path) as place:
        context = place.client(device)
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        def twice() -> bool:
            session = None
            for _ in range(2):
                with (
                    socket.create_connection(("127.0.0.1", place.port), timeout=10) as plain,
                    context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
                ):
                    secure.sendall(b"x")
                    secure.recv(1)
                    session = secure.session
                    reused = bool(secure.session_reused)
            return reused

        assert await asyncio.to_thread(twice)
        assert place.peers == [device.der] * 2


async def what_is_no_tls_is_closed(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        for raw in (b"GET / HTTP/1.1\r\n\r\n", b"\x10\x0e\0\4MQTT\4\2\0\0\0\2ab", b"\x16\3\1\0\4abcd"):
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
            writer.write(raw)
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            writer.close()
        await place.echo(place.client())


async def an_old_version_is_refused(tmp_path: Path) -> None:
    async with listening(tmp_path) as place:
        command = [
            require("openssl"), "s_client", "-connect", f"127.0.0.1:{place.port}", "-tls1_1", "-cipher",
            "ALL@SECLEVEL=0",
        ]  # fmt: skip
        done = await asyncio.to_thread(subprocess.run, command, input=b"", capture_output=True, timeout=10, check=False)
        assert done.returncode != 0
        assert place.peers == []


async def openssls_own_client(tmp_path: Path) -> None:
    device = issued("device")
    async with listening(tmp_path) as place:
        made, key = device.write(tmp_path, "device")
        command = [
            require("openssl"), "s_client", "-connect", f"127.0.0.1:{place.port}", "-quiet", "-no_ign_eof",
            "-cert", made, "-key", key, "-CAfile", place.files[0], "-verify_return_error",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        async with asyncio.timeout(10):
            assert await process.stdout.readline() == b"hello\n"
        process.stdin.close()
        await process.communicate()
        assert place.peers == [device.der]


@pytest.mark.spec("G-1")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "scenario",
    [
        with_and_without_a_certificate,
        what_a_device_sends_along_does_not_count,
        a_certificate_out_of_its_time_is_refused,
        much_at_once_in_either_version,
        records_and_the_end_in_one_segment,
        the_server_ends_a_connection_properly,
        a_session_is_resumed_with_its_certificate,
        what_is_no_tls_is_closed,
        an_old_version_is_refused,
        openssls_own_client,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_on_both_event_loops(
    run: Callable[[Any], None],
    scenario: Callable[[Path], Awaitable[None]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(scenario(tmp_path))
    assert "Traceback" not in caplog.text
