"""Where the server of the verbs is, and the token for it: as given, else from a server that runs here."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from api.cli.output import Failed

START: Final = "start one with `rulemill up`, or set RULEMILL_URL and RULEMILL_TOKEN"


def complete(url: str, token: str) -> tuple[str, str]:
    """Address and token, the empty ones taken from the `ready.json` of the data folder.

    Its token is for its own address only. Raises Failed that says what is missing, or which of them cannot be.
    """
    url = url.rstrip("/")
    if not (url and token):
        file = _ready_file()
        ready = _ready(file)
        here = str(ready.get("http", "")).rstrip("/")
        if not url and not here:
            raise Failed(f"no server runs on {file.parent}: {START}")
        url = url or here
        if url == here:
            token = token or str(ready.get("operator_token", ""))
    _check(url)
    if not token:
        raise Failed(f"there is no token for {url}: set RULEMILL_TOKEN, or give --token")
    if not (token.isascii() and token.isprintable()):
        raise Failed("the token has characters that no token has: look at --token or RULEMILL_TOKEN")
    return url, token


def is_local(url: str) -> bool:
    """Whether the address is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not (fits and url.isascii() and url.isprintable()):
        raise Failed(f"{url!r} is no address of a server; one looks like http://127.0.0.1:8080")


def _ready_file() -> Path:
    from engine.config import load

    return load().settings.folder() / "ready.json"


def _ready(file: Path) -> dict[str, Any]:
    """What the server on the data folder said when it was ready; empty if none runs."""
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Failed(f"{file} cannot be read ({error.strerror}): set RULEMILL_URL and RULEMILL_TOKEN") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failed(f"{file} is no JSON object: start the server again")
    return found
