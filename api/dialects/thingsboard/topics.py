"""What a session may publish and subscribe to, as a table of topics: each row names what is done with it.

A row's topic may have `+` in place of a number: `v2/fw/request/+/chunk/+`. Its handler gets the numbers in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from api.transports.mqtt.dialect import Accepted, Close, Drop

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

LONG: Final = "v1/devices/me/"

MAX_DIGITS: Final = 18
"""Of a number in a topic."""

Verdict = Accepted | Drop | Close
Handler = Callable[["DeviceLogin", bytes, tuple[int, ...]], Verdict]
"""Deals with a publication: session, payload, numbers of the topic.

Raises BadInput for a payload that cannot be read: the connection is then closed, as by the vendor's server.
"""


class Down(Enum):
    """What a session is sent where it subscribed to it."""

    UPDATES = "changes of shared attributes"
    COMMANDS = "commands"
    ANSWERS = "answers to what it asked"
    CHILD_UPDATES = "changes of shared attributes of a gateway's devices"
    CHILD_COMMANDS = "commands to a gateway's devices"


class Topics(NamedTuple):
    """The topics of one kind of session."""

    publish: Mapping[str, Handler]
    subscribe: Mapping[str, Down]
    """By topic; where a number stands in the topic, by the filter with `+` there."""

    def handler(self, topic: str) -> tuple[Handler | None, tuple[int, ...]]:
        """Who deals with a publication, and the numbers in its topic."""
        found = self.publish.get(topic)
        if found is not None:
            # No row is found by its own `+`: a topic with a wildcard never gets here.
            return found, ()
        pattern, numbers = _pattern(topic)
        return (self.publish.get(pattern), numbers) if numbers else (None, ())

    def subscription(self, topic_filter: str) -> Down | None:
        """What a filter is for; None for one that this session may not have.

        For a number may stand itself, `+`, or, in the last place, `#`.
        """
        if topic_filter.endswith("/#"):
            topic_filter = topic_filter[:-1] + "+"
        return self.subscribe.get(_pattern(topic_filter)[0])


def _pattern(topic: str) -> tuple[str, tuple[int, ...]]:
    """The topic with `+` for each level that is a number, and the numbers."""
    levels = topic.split("/")
    numbers = []
    for i, level in enumerate(levels):
        if level.isdecimal() and level.isascii() and len(level) <= MAX_DIGITS:
            numbers.append(int(level))
            levels[i] = "+"
    return "/".join(levels), tuple(numbers)
