"""Requests to an InfluxDB server, and what its refusals mean. Credentials go into requests, never into a message."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any, Final

import aiohttp
import msgspec

from engine.errors import RulemillError, StoreUnavailable, Unfit
from engine.stores.influx_access import Access
from engine.stores.influx_rows import Series, answer

CONNECT_S: Final = 5.0
SILENCE_S: Final = 60.0
"""How long a server that works on a query may say nothing."""
DELETE_S: Final = 600.0
CHUNK_ROWS: Final = 1000
"""Rows in one document of an answer: what is in memory at once."""
GZIP_FROM_BYTES: Final = 1400
"""Smaller bodies go as they are: they fit into a packet."""
_THREAD_FROM_BYTES: Final = 64 * 1024
_REASON: Final = 500
_CONNECTIONS: Final = 32

Take = Callable[[int, Series], None]
"""Called with the number of the statement, from 0, and a part of its series."""


class Denied(StoreUnavailable):
    """The server does not know us, or we may not do that."""


class Missing(StoreUnavailable):
    """The database or bucket is not there."""


class Rejected(StoreUnavailable):
    """The server's own word that the request is wrong: it will be so next time."""


class Closed(StoreUnavailable):
    """The server is dropping a database, which may be another one, and deletes nothing meanwhile."""


class Infinite(StoreUnavailable):
    """Something in the answer is beyond every double, and JSON has no word for it."""


class NotTaken(RulemillError):
    """The server refuses lines: all or some of them, `dropped` if it says how many; the others are written."""

    def __init__(self, reason: str, dropped: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.dropped = dropped


class TooLarge(RulemillError):
    """The server takes no body of that size."""


class Http:
    """A connection pool to one server. `authorization` is the header that its version wants."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.ssl = _ssl_context(access)
        self.authorization = ""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=self.ssl if self.ssl is not None else True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            headers={"User-Agent": "rulemill", "Accept": "application/json"}
            | ({"Accept-Encoding": "identity"} if access.is_local else {}),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._session.close()

    async def query(self, text: str, take: Take, *, silence_s: float = SILENCE_S) -> None:
        """Run statements and hand over what they give as it comes; raises StoreUnavailable and its kinds."""
        access = self.access
        form = {
            "q": text, "db": access.database, "rp": access.policy, "epoch": "ms", "chunked": "true",
            "chunk_size": str(CHUNK_ROWS),
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
        try:
            async with self._request("POST", "/query", data=form, timeout=timeout) as response:
                if response.status != 200:
                    raise failure(response.status, response.headers, await response.read())
                rest: list[bytes] = []
                async for block in response.content.iter_any():
                    # Documents end with a line feed; inside them JSON has none.
                    *whole, last = block.split(b"\n")
                    for line in whole:
                        _hand_over(b"".join((*rest, line)), take)
                        rest.clear()
                    rest.append(last)
                _hand_over(b"".join(rest), take)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.away(error) from error

    async def call(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None
    ) -> tuple[Mapping[str, str], Any]:
        """Headers and JSON (None for anything else) of a 2xx; raises StoreUnavailable and its kinds."""
        try:
            async with self._request(method, path, params=params, json=json) as response:
                body = await response.read()
                if not 200 <= response.status < 300:
                    raise failure(response.status, response.headers, body)
                return response.headers, _json(body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.away(error) from error

    async def write(self, body: bytes) -> None:
        """Send lines to `/write`; raises StoreUnavailable and its kinds, NotTaken, TooLarge."""
        access = self.access
        params = {"db": access.database, "precision": "ms"} | ({"rp": access.policy} if access.policy else {})
        body, packed = await self.pack(body)
        headers = {"Content-Type": "text/plain; charset=utf-8"} | ({"Content-Encoding": "gzip"} if packed else {})
        try:
            async with self._request("POST", "/write", params=params, data=BytesIO(body), headers=headers) as response:
                if response.status != 204:
                    raise write_failure(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.away(error) from error

    async def pack(self, body: bytes) -> tuple[bytes, bool]:
        """The body in gzip where that pays, and whether it is."""
        if self.access.is_local or len(body) < GZIP_FROM_BYTES:
            return body, False
        if len(body) < _THREAD_FROM_BYTES:
            return _gzip(body), True
        return await asyncio.to_thread(_gzip, body), True

    def away(self, error: Exception) -> StoreUnavailable:
        """What a lost or refused connection means."""
        return StoreUnavailable(f"InfluxDB at {self.access.base}: {_said(error)}")

    def _request(self, method: str, path: str, **options: Any) -> Any:
        headers = dict(options.pop("headers", None) or {})
        if self.authorization:
            headers["Authorization"] = self.authorization
        # A redirect would turn a write into a read that answers 200.
        return self._session.request(
            method, self.access.base + path, headers=headers, allow_redirects=False, **options
        )  # fmt: skip


def basic(username: str, password: str) -> str:
    """The header of a user name and password."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def failure(status: int, headers: Mapping[str, str], body: bytes) -> StoreUnavailable:
    """What a refusal other than that of lines means."""
    reason = _reason(body)
    if status in (401, 403):
        return Denied(f"InfluxDB refuses the credentials or the right ({status}): {reason}")
    if status == 404 or _says_missing(reason):
        return Missing(f"InfluxDB: {reason}")
    if status == 500 and "unsupported value" in reason:
        return Infinite(reason)
    if _says_closed(reason):
        return Closed(f"InfluxDB: {reason}")
    if status in (400, 422) and _its_word(body) is not None:
        return Rejected(f"InfluxDB answered {status}: {reason}")
    return StoreUnavailable(f"InfluxDB answered {status}: {reason}", _retry_after_s(headers))


def write_failure(status: int, headers: Mapping[str, str], body: bytes) -> RulemillError:
    """What a refused write means."""
    if status == 413:
        return TooLarge("InfluxDB takes no body of that size (413)")
    if status in (400, 422):
        # Only InfluxDB's own word costs a point; a proxy's 400 says nothing about it.
        said = _its_word(body)
        if said is not None:
            return NotTaken(_reason(body), _dropped(said))
    return failure(status, headers, body)


def _hand_over(line: bytes, take: Take) -> None:
    if not line or line.isspace():
        return
    if not line.lstrip().startswith(b"{") and b"unsupported value" in line:
        raise Infinite("a value beyond every double")  # 1.6 says it in the middle of the answer, as plain text
    found = answer(line)
    error = found.error or next((result.error for result in found.results if result.error), "")
    if error:
        if _says_missing(error):
            raise Missing(f"InfluxDB: {error}")
        if _says_closed(error):
            raise Closed(f"InfluxDB: {error}")
        if error == "invalid name":
            raise Rejected(f"InfluxDB: {error}")
        raise (Infinite if "unsupported value" in error else StoreUnavailable)(f"InfluxDB: {short(error)}")
    for result in found.results:
        for series in result.series:
            take(result.statement_id, series)


def _says_missing(reason: str) -> bool:
    text = reason.lower()
    return "not found" in text and any(what in text for what in ("database", "bucket", "retention policy", "dbrp"))


def _says_closed(reason: str) -> bool:
    return "engine is closed" in reason


def _its_word(body: bytes) -> dict[str, Any] | None:
    """What InfluxDB says is wrong; None if it is not InfluxDB that says something."""
    said = _json(body)
    return said if isinstance(said, dict) and isinstance(said.get("error", said.get("message")), str) else None


def _dropped(said: dict[str, Any]) -> int | None:
    if isinstance(lines := said.get("data"), list):  # 3.x names every line
        return len(lines)
    _, found, count = str(said.get("error", said.get("message"))).rpartition(" dropped=")
    return int(count) if found and count.strip().isdigit() else None


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):  # of msgspec, and of text that is not UTF-8
        return None


def _reason(body: bytes) -> str:
    said = _json(body)
    text = ""
    if isinstance(said, dict):
        text = said.get("error") or said.get("message") or ""
        if isinstance(lines := said.get("data"), list) and lines and isinstance(lines[0], dict):
            text = f"{text}: {lines[0].get('error_message', '')}"
    return short(str(text) or body.decode(errors="replace") or "no reason given")


def short(text: str) -> str:
    """A server's reason on one line; it may quote a line of any length, and says what is wrong with it at its end."""
    text = " ".join(text.split())
    return text if len(text) <= _REASON else f"{text[: _REASON // 3]} … {text[-_REASON // 2 :]}"


def _retry_after_s(headers: Mapping[str, str]) -> float:
    said = headers.get("Retry-After", "")
    try:
        return max(0.0, float(said)) if said else 1.0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return 1.0


def _said(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return f"its certificate is not trusted: {why} (influx_ca names the authority)"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorSSLError):  # its number is OpenSSL's, not the system's
        return f"no TLS: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        number, text = error.os_error.errno or 0, error.os_error.strerror or str(error.os_error)
        return f"no connection: {os.strerror(number) if number > 0 else text}"
    return str(error) or type(error).__name__


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def _ssl_context(access: Access) -> ssl.SSLContext | None:
    if not access.base.startswith("https://"):
        return None
    try:
        return ssl.create_default_context(cafile=access.ca or None)
    except OSError as error:  # ssl.SSLError is one
        raise Unfit(f"influx_ca: {access.ca}: {error.strerror or error}") from error
