"""What verbs are given: JSON, `key=value`, times, and a yes before something is gone."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from api.cli.output import Failed

_AGO: Final = re.compile(r"-?(\d+(?:\.\d+)?)(s|m|h|d|w)")
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def moment(text: str) -> int:
    """The milliseconds of a time: ISO (local unless it has an offset), `-1h` for ago, `now`, or the milliseconds.

    Raises BadParameter for anything else.
    """
    now_ms = time.time_ns() // 1_000_000
    if text == "now":
        return now_ms
    if ago := _AGO.fullmatch(text):
        return now_ms - round(float(ago[1]) * _UNIT_MS[ago[2]])
    if re.fullmatch(r"-?\d{9,16}", text):
        return int(text)
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is no time; one is 2026-01-31T12:00, 2026-01-31, -90m, -1h, -7d or now"
        ) from None


def local_zone() -> str:
    """The IANA name of this machine's time zone; UTC where it has none."""
    named = os.environ.get("TZ", "").removeprefix(":") or _linked_zone()
    try:
        ZoneInfo(named)
    except (OSError, ValueError, LookupError):
        return "UTC"
    return named


def _linked_zone() -> str:
    try:
        return os.path.realpath("/etc/localtime").partition("zoneinfo/")[2]
    except OSError:
        return ""


def read_json(text: str, what: str) -> Any:
    """The JSON of an argument; Failed names what cannot be read."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {error.lineno}, column {error.colno}"
    except RecursionError:
        reason = "it is nested too deep"
    except ValueError as error:
        reason = str(error)
    raise Failed(f"{what} is no JSON: {reason}")


def read_text(given: str, what: str) -> str:
    """The text itself, or that of the file behind `@`; `@-` is standard input."""
    if not given.startswith("@"):
        return given
    try:
        return (sys.stdin.buffer.read() if given == "@-" else Path(given[1:]).read_bytes()).decode()
    except OSError as error:
        raise Failed(f"{what}: {given[1:]} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Failed(f"{what}: {given[1:]} is not UTF-8 text") from None


def pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    """`key=value` by key; Failed for what has no `=` or no key."""
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise Failed(f"{option} takes key=value, not {one!r}")
        found[key] = value
    return found


def loose_json(text: str) -> Any:
    """The value a person means: JSON if it is that, else the text itself."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def confirm(question: str, yes: bool) -> None:
    """Go on after a yes: given as `--yes`, or by the person at the terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failed(f"{question} Say --yes; nobody is here to be asked.")
    click.confirm(question, abort=True, err=True)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def read_hidden(asked: str, what: str) -> str:
    """A secret: asked for twice on a terminal, else standard input without its last line break. Failed."""
    if sys.stdin.isatty():
        return str(click.prompt(asked, hide_input=True, confirmation_prompt=True, err=True))
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except ValueError:
        raise Failed(f"{what} is not UTF-8 text") from None
