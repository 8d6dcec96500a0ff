"""When what a message tells of happened."""

from __future__ import annotations

from engine.stores.values import MAX_TS_MS
from nodes import BadInput, Message


def event_time_ms(message: Message) -> int:
    """Metadata `ts` if the message has it, else its own time; BadInput for a `ts` that is no time (`TB-13`)."""
    text = message.metadata.get("ts")
    if text is None:
        return message.ts_ms
    try:
        ts_ms = int(text)
    except ValueError:
        raise BadInput(f"metadata ts is not a whole number of milliseconds: {text[:40]!r}") from None
    if not -MAX_TS_MS <= ts_ms <= MAX_TS_MS:
        raise BadInput(f"metadata ts is out of range: {ts_ms}")
    return ts_ms
