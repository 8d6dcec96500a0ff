"""What may be set of the dialects: tables of the settings, each read by its dialect's own type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from api.dialects.thethingsio.settings import Settings as ThethingsIo
from api.dialects.thingsboard.settings import Settings as ThingsBoard
from engine.config import Settings
from engine.errors import Finding, InvalidDocument

TABLES: Final[Mapping[str, type[msgspec.Struct]]] = {"thingsboard": ThingsBoard, "thethingsio": ThethingsIo}
"""Name of the table to its type."""


class Dialects(NamedTuple):
    """The settings of each dialect that has any."""

    thingsboard: ThingsBoard
    thethingsio: ThethingsIo


def dialect_settings(settings: Settings) -> Dialects:
    """Read the tables; InvalidDocument names everything that does not hold."""
    findings: list[Finding] = []
    read: dict[str, Any] = {}
    for name, kind in TABLES.items():
        try:
            read[name] = msgspec.convert(getattr(settings, name), kind, strict=False)
        except msgspec.ValidationError as error:
            reason, _, where = str(error).partition(" - at `$")
            findings.append(Finding(name + where.rstrip("`"), reason))
    if findings:
        raise InvalidDocument(findings)
    return Dialects(**read)
