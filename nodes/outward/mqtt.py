"""One connection to an outside broker: made at the first message, kept open, made anew when it breaks."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple

import aiomqtt

from nodes import Retry
from nodes.outward.addresses import Guard

RECONNECT_AFTER_S: Final = 1.0
"""After a failed attempt the next one waits so long; messages in between are to be tried again."""


class _Link(NamedTuple):
    client: aiomqtt.Client
    broken: asyncio.Task[str]
    """Ends, with the reason, when the connection does."""


class Publisher:
    """Publishes over one shared connection."""

    def __init__(
        self,
        guard: Guard,
        host: str,
        port: int,
        *,
        tls: bool,
        client_id: str | None,
        timeout_s: float,
    ) -> None:
        self._guard = guard
        self._host = host
        self._port = port
        self._username: str | None = None
        self._password: str | None = None
        self._tls = tls
        self._client_id = client_id
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._failed_at_s = -RECONNECT_AFTER_S

    def login(self, username: str | None, password: str | None) -> None:
        """Use these from the next connect on, so that a changed secret counts."""
        self._username, self._password = username, password

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Return when the broker has acknowledged (QoS 1) or the bytes are written (QoS 0). Raises Retry."""
        link = await self._connected()
        # A publish in flight does not hear of a broken connection by itself: it would wait for its timeout.
        sending = asyncio.ensure_future(
            link.client.publish(topic, payload, qos=qos, retain=retain, timeout=self._timeout_s)
        )
        try:
            await asyncio.wait({sending, link.broken}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                return
            reason = link.broken.result()
        except aiomqtt.MqttError as error:
            reason = str(error)
        finally:
            sending.cancel()
        await self._drop(link)
        raise Retry(f"{self._host}:{self._port}: {reason}")

    async def close(self) -> None:
        """Disconnect."""
        if self._link is not None:
            await self._drop(self._link)

    async def _connected(self) -> _Link:
        async with self._connecting:
            if self._link is not None:
                if not self._link.broken.done():
                    return self._link
                await self._drop(self._link)
            wait_s = self._failed_at_s + RECONNECT_AFTER_S - time.monotonic()
            if wait_s > 0:
                raise Retry(f"{self._host}:{self._port} could not be reached a moment ago", wait_s)
            try:
                client = await self._connect()
            except (aiomqtt.MqttError, OSError) as error:
                self._failed_at_s = time.monotonic()
                raise Retry(f"{self._host}:{self._port}: {error}") from error
            self._link = _Link(client, asyncio.ensure_future(_until_broken(client)))
            return self._link

    async def _connect(self) -> aiomqtt.Client:
        addresses = await self._guard.addresses(self._host, self._port)
        for last, address in enumerate(addresses, 1 - len(addresses)):
            client = aiomqtt.Client(
                address,
                self._port,
                username=self._username,
                password=self._password,
                identifier=self._client_id,
                tls_context=tls_context(self._host) if self._tls else None,
                timeout=self._timeout_s,
            )
            try:
                return await client.__aenter__()
            except aiomqtt.MqttError:
                if last == 0:
                    raise
        raise AssertionError("the guard gives at least one address")

    async def _drop(self, link: _Link) -> None:
        if self._link is link:  # of several publishes that fail together, the first gives the connection up
            self._link = None
            link.broken.cancel()
            with suppress(aiomqtt.MqttError):  # it is broken already, and whoever published has heard so
                await link.client.__aexit__(None, None, None)


async def _until_broken(client: aiomqtt.Client) -> str:
    try:
        async for _ in client.messages:  # nothing is subscribed: this only ends with the connection
            pass
    except aiomqtt.MqttError as error:
        return str(error)
    return "disconnected"


class _NamedContext(ssl.SSLContext):
    """Checks the certificate for the host's name, though the connection is made to its checked address."""

    name: str

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        # Shaking hands here and not in paho: a socket whose handshake fails is closed here, and forgotten there.
        return super().wrap_socket(*args, **{**kwargs, "server_hostname": self.name, "do_handshake_on_connect": True})


def tls_context(host: str) -> ssl.SSLContext:
    """For connections to an address of the host: the certificate is checked for the name."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    context.name = host
    return context
