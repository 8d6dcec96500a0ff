"""ThingsBoard's MQTT topics of a device (`TB-X1`), in their long and short forms."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

LONG: Final = "v1/devices/me/"


class Up(Enum):
    """What a device publishes."""

    TELEMETRY = "telemetry"
    ATTRIBUTES = "attributes"
    ASK_ATTRIBUTES = "a request for attributes"
    ANSWER = "the answer to a command"
    CALL = "a call"


class Down(Enum):
    """What a device subscribes to."""

    UPDATES = "changes of shared attributes"
    COMMANDS = "commands"
    ANSWERS = "answers to what it asked"


class Numbered(NamedTuple):
    """A topic whose last level is a number: what it is, and where the answer goes (number to be added)."""

    what: Up
    answer: str


PLAIN: Final = {
    LONG + "telemetry": Up.TELEMETRY,
    "v2/t": Up.TELEMETRY,
    "v2/t/j": Up.TELEMETRY,
    LONG + "attributes": Up.ATTRIBUTES,
    "v2/a": Up.ATTRIBUTES,
    "v2/a/j": Up.ATTRIBUTES,
}

NUMBERED: Final = {
    LONG + "attributes/request": Numbered(Up.ASK_ATTRIBUTES, LONG + "attributes/response/"),
    "v2/a/req": Numbered(Up.ASK_ATTRIBUTES, "v2/a/res/"),
    LONG + "rpc/response": Numbered(Up.ANSWER, ""),
    "v2/r/res": Numbered(Up.ANSWER, ""),
    LONG + "rpc/request": Numbered(Up.CALL, LONG + "rpc/response/"),
    "v2/r/req": Numbered(Up.CALL, "v2/r/res/"),
}

UPDATES: Final = (LONG + "attributes", "v2/a")
COMMANDS: Final = (LONG + "rpc/request/", "v2/r/req/")

_FILTERS: Final = dict.fromkeys(UPDATES, Down.UPDATES)
_OPEN_FILTERS: Final = {topic.rstrip("/"): Down.COMMANDS for topic in COMMANDS} | {
    topic.rstrip("/"): Down.ANSWERS
    for topic in (LONG + "attributes/response/", "v2/a/res/", LONG + "rpc/response/", "v2/r/res/")
}


def subscription(topic_filter: str) -> Down | None:
    """What a filter is for; None for one that a device may not have."""
    found = _FILTERS.get(topic_filter)
    if found is None:
        head, _, last = topic_filter.rpartition("/")
        if last in ("+", "#") or last.isdecimal():
            found = _OPEN_FILTERS.get(head)
    return found
