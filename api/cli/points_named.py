"""What verbs about points have in common: which devices and keys, from when to when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import click

from api.cli.arguments import moment
from api.cli.client import Server
from api.cli.output import Failed

MOST: Final = 100
"""Devices of one call to the server."""

DEVICES: Final = click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
KEYS: Final = click.option("-k", "--key", "keys", multiple=True, metavar="KEY", help="Only this key; may be repeated.")
FROM: Final = click.option(
    "--from", "start_ms", type=moment, metavar="TIME", help="First time; the beginning by default."
)
TO: Final = click.option("--to", "end_ms", type=moment, metavar="TIME", help="First time no more; no end by default.")


def check_range(start_ms: int | None, end_ms: int | None) -> None:
    """UsageError for a range that ends before it begins."""
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise click.UsageError("--from is later than --to")


def is_pattern(name: str) -> bool:
    """Whether a name stands for all that look like it."""
    return "*" in name or "?" in name


def named(server: Server, given: Sequence[str]) -> list[str]:
    """The devices that are meant, patterns put out; Failed for a pattern that fits none."""
    if not any(map(is_pattern, given)):
        return list(dict.fromkeys(given))
    known = list(server.pages(server.of_tenant("devices"), "devices", cursor="after"))
    found: dict[str, None] = {}
    for name in given:
        if not is_pattern(name):
            found[name] = None
            continue
        fitting = [
            one["id"] for one in known if fnmatchcase(one["name"], name) or fnmatchcase(one["external_id"], name)
        ]
        if not fitting:
            raise Failed(f"no device of tenant {server.tenant} is named like {name}")
        found |= dict.fromkeys(fitting)
    return list(found)


def few(devices: Sequence[str]) -> list[str]:
    """The devices, if one call can be about so many."""
    if len(devices) > MOST:
        raise Failed(f"these are {len(devices)} devices, and {MOST} are the most at once: name fewer")
    return list(devices)


def in_parts(devices: Sequence[str]) -> Iterator[list[str]]:
    """The devices, as many at a time as one call can be about."""
    return (list(devices[i : i + MOST]) for i in range(0, len(devices), MOST))


def name_of(point: dict[str, Any], names: dict[str, str]) -> str:
    """The name of a point's device."""
    return names.get(point["device"], str(point["device"]))
