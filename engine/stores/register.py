"""How the registry is written: one script a change, so that of two that want the same, exactly one comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import redis.asyncio as redis

from engine.errors import Conflict, Refused
from engine.redis_scripts import REGISTER

T = TypeVar("T")
Line = tuple[Any, ...]
"""A plain Redis command."""

P: Final = "rm:{reg}:"
CHANNEL: Final = "rm:registry"
SEQUENCE: Final = P + "seq"
ATTEMPTS: Final = 20
"""How often a change is tried anew because somebody else changed the same record meanwhile."""


class Name(NamedTuple):
    """Something that one record alone may have: the field of a hash, whose value is that record's id."""

    key: str
    field: str
    what: str
    """As it is called when another one has it."""
    secret: bool = False
    """Not to be repeated then."""


class Record(NamedTuple):
    """Where a record stands (`field` where the key is a hash), and what was read there, None for nothing."""

    key: str
    field: str
    read: bytes | None


class _Changed(Exception):
    """The record is not as it was read."""


class Register:
    """Writes, and tells every cache on CHANNEL: `<number> <what> <id>`, the number one more than the last."""

    def __init__(self, client: redis.Redis) -> None:
        self._script = client.register_script(REGISTER.text)

    async def change(
        self, what: str, id: str, lines: Sequence[Line], *, record: Record | None = None, names: Sequence[Name] = ()
    ) -> None:
        """Do all of it or nothing. To be called inside `undisturbed` if there is a record that must be as it was read.

        Raises Conflict for a name that another one has.
        """
        key, field, read = record or Record(P + "none", "", None)
        arguments: list[Any] = [CHANNEL, what, id, field, read or b"", len(names)]
        for name in names:
            arguments += (name.key, name.field, id)
        for line in lines:
            arguments += (len(line), *line)
        verdict, number = await self._script(keys=[SEQUENCE, key], args=arguments)
        if verdict == b"taken":
            name = names[number - 1]
            raise Conflict(f"another {what} has the {name.what}" + ("" if name.secret else f" {name.field!r}"))
        if verdict == b"changed":
            raise _Changed


async def undisturbed(change: Callable[[], Awaitable[T]]) -> T:
    """What a change gives once nobody else has changed the same record between its read and its write."""
    for _ in range(ATTEMPTS):
        try:
            return await change()
        except _Changed:
            continue
    raise Refused("others change the same all the time")
