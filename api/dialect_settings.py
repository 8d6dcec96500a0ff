"""What may be set of the dialects: tables of the settings, each read by its dialect's own type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from api.dialects.thethingsio.settings import Settings as ThethingsIo
from api.dialects.thingsboard.settings import Settings as ThingsBoard
from engine.config import Settings, unknown
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
        table, known = getattr(settings, name), kind.__struct_fields__
        strange = [key for key in table if key not in known]
        if strange:
            findings += [Finding(name, f"{key}: {unknown('setting', key, known)}") for key in strange]
            continue
        try:
            read[name] = msgspec.convert(table, kind, strict=False)
        except msgspec.ValidationError as error:
            reason, _, where = str(error).partition(" - at `$")
            findings.append(Finding(name + where.rstrip("`"), reason))
    if findings:
        raise InvalidDocument(findings)
    return Dialects(**read)
