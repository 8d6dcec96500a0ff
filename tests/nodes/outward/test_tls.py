"""Connections go to a checked address, certificates are checked for the name."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest

from nodes import Retry
from nodes.outward import http, mqtt
from nodes.outward.addresses import Guard

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH"),
]

NAMED = ["-subj", "/CN=service.example", "-addext", "subjectAltName=DNS:service.example"]


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


GUARD = Guard([ip_network("127.0.0.1")], loopback)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for service.example that signs itself, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            cert,
            *NAMED,
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_http(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str | None] = []
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(*certificate)
    served.sni_callback = lambda connection, name, context: names.append(name)  # type: ignore[assignment]
    trusting = ssl.create_default_context(cafile=certificate[0])
    monkeypatch.setattr(http, "_tls", lambda: trusting)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=served)
    port = server.sockets[0].getsockname()[1]
    client = http.Client(GUARD, connections=1)
    answer = await client.request("GET", f"https://service.example:{port}/", {}, None, timeout_s=5, max_bytes=10)
    assert answer.status == 204
    with pytest.raises(Retry, match=r"(?i)certificate"):
        await client.request("GET", f"https://other.example:{port}/", {}, None, timeout_s=5, max_bytes=10)
    assert names == ["service.example", "other.example"]
    await client.close()
    server.close()
    await server.wait_closed()


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not on PATH")
async def test_mqtt(certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\ncertfile {cert}\nkeyfile {key}\nuser root\n"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    broker = subprocess.Popen(
        ["mosquitto", "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await publish("service.example", port)
        with pytest.raises(Retry, match=r"(?i)certificate"):
            await publish("other.example", port)
    finally:
        broker.kill()
        broker.wait()


async def publish(host: str, port: int) -> None:
    for attempt in range(200):
        publisher = mqtt.Publisher(GUARD, host, port, tls=True, client_id=None, timeout_s=5)
        try:
            await publisher.publish("t", b"x", qos=1, retain=False)
            await publisher.close()
            return
        except Retry as again:
            if "refused" not in again.reason or attempt == 199:  # the broker is still starting
                raise
            await asyncio.sleep(0.02)
