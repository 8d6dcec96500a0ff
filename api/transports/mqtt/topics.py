"""Topic names and topic filters: which are valid, and which filter takes which topic."""

from __future__ import annotations


def topic_fault(topic: str) -> str:
    """Why `topic` cannot be published to, as the end of a sentence; empty when it can."""
    if not topic:
        return "is empty"
    if "\0" in topic:
        return "holds a NUL character"
    if "+" in topic or "#" in topic:
        return "holds a wildcard"
    return ""


def filter_fault(topic_filter: str) -> str:
    """Why `topic_filter` cannot be subscribed to, as the end of a sentence; empty when it can."""
    if not topic_filter:
        return "is empty"
    if "\0" in topic_filter:
        return "holds a NUL character"
    if "+" not in topic_filter and "#" not in topic_filter:
        return ""
    levels = topic_filter.split("/")
    for level in levels:
        if len(level) > 1 and ("+" in level or "#" in level):
            return "has a wildcard beside other characters in one level"
    if "#" in levels[:-1]:
        return "has # before its last level"
    return ""


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter takes a valid topic; a leading wildcard never takes a topic that begins with `$`."""
    return _levels_match(topic_filter.split("/"), topic.split("/"))


def _levels_match(wanted: list[str], levels: list[str]) -> bool:
    if levels[0][:1] == "$" and wanted[0] in ("+", "#"):
        return False
    last = len(wanted) - 1
    if wanted[last] == "#":
        # "a/#" also takes "a" itself.
        if len(levels) < last:
            return False
        wanted = wanted[:last]
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


class Subscriptions:
    """The filters of one session with the QoS granted to each."""

    __slots__ = ("_exact", "_wild")

    def __init__(self) -> None:
        self._exact: dict[str, int] = {}
        self._wild: dict[str, tuple[list[str], int]] = {}

    def __len__(self) -> int:
        return len(self._exact) + len(self._wild)

    def __contains__(self, topic_filter: object) -> bool:
        return topic_filter in self._exact or topic_filter in self._wild

    def add(self, topic_filter: str, qos: int) -> None:
        """Take up a filter, or give one that is there another QoS."""
        if "+" in topic_filter or "#" in topic_filter:
            self._wild[topic_filter] = (topic_filter.split("/"), qos)
        else:
            self._exact[topic_filter] = qos

    def remove(self, topic_filter: str) -> bool:
        """Give a filter up; whether it was there."""
        return self._exact.pop(topic_filter, None) is not None or self._wild.pop(topic_filter, None) is not None

    def qos_for(self, topic: str) -> int:
        """The highest QoS granted to a filter that takes `topic`, or -1 when none does."""
        best = self._exact.get(topic, -1)
        if self._wild:
            levels = topic.split("/")
            for wanted, qos in self._wild.values():
                if qos > best and _levels_match(wanted, levels):
                    best = qos
        return best
