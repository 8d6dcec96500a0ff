"""Kind `clear_alarm`: ends the active alarm of a type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from engine.stores import alarms
from nodes import FAILURE, BadInput, Build, Context, Example, Finding, Message, Node, NodeSpec, Outcomes, Relation
from nodes.alarm_state import AlarmState, declared_reads, declared_writes
from nodes.create_alarm import ALARM_TYPE
from nodes.event_time import event_time_ms
from nodes.templates import Template

CLEARED: Final = "Cleared"
FALSE: Final = "False"


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Which alarm is cleared."""

    type: Annotated[str, Meta(description="Type of the alarm, a template.", min_length=1)] = "General Alarm"
    details: Annotated[
        str, Meta(description="What the alarm says from now on, a template; empty: it keeps what it says.")
    ] = ""


class ClearAlarm(Node):
    """Clears the alarm of a type of the originator."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="clear_alarm",
        category="action",
        summary="Clears the originator's active alarm of a type, if there is one.",
        description=(
            "The cleared alarm stays to be seen and acknowledged. The message goes on with type ALARM, the alarm as "
            "its data and metadata `isClearedAlarm` = `true`. Where there is no active alarm of the type, because "
            "there was none or an operator has cleared it, the message goes on unchanged along `False`."
        ),
        config=Config,
        relations=(
            Relation(CLEARED, "The active alarm was cleared."),
            Relation(FALSE, "There is no active alarm of the type."),
            Relation(FAILURE, "A template asks for a key that is missing."),
        ),
        examples=(
            Example("No longer too hot", {"type": "Too hot"}),
            Example("With the value that ended it", {"type": "Too hot", "details": "Back at $[temperature]"}),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self._type = Template(config.type)
        self._details = Template(config.details) if config.details else None

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """Templates that do not compile."""
        findings = []
        for name in ("type", "details"):
            try:
                Template(getattr(config, name))
            except BadInput as error:
                findings.append(Finding(f"/{name}", error.reason))
        return findings

    def reads(self) -> frozenset[str]:
        """The current alarm of the type, marks included."""
        return declared_reads(self.config.type, self._type.constant)

    def writes(self) -> frozenset[str]:
        """The current alarm of the type; past ones."""
        return declared_writes(self.config.type, self._type.constant)

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Clear, message after message."""
        wanted: list[tuple[int, Message, str, int]] = []
        for i, message in enumerate(batch):
            try:
                wanted.append((i, message, self._type.render(message), event_time_ms(message)))
            except BadInput as error:
                out.fail(i, error.reason)
        state = AlarmState(ctx)
        await state.load((message.originator, type) for _, message, type, _ in wanted)
        for i, message, type, ts_ms in wanted:
            alarm = state.current(message.originator, type)
            if alarm is None or not alarm.active:
                out.emit(i, FALSE, message)
                continue
            try:
                details = alarm.details if self._details is None else self._details.render(message)
            except BadInput as error:
                out.fail(i, error.reason)
                continue
            # A late message may tell of a time before the start; an alarm ends no sooner than it began.
            alarm = replace(alarm, cleared_ms=max(ts_ms, alarm.start_ms), details=details)
            state.write(i, message.originator, alarms.ended(alarm), out)
            metadata = {**message.metadata, "isClearedAlarm": "true"}
            out.emit(i, CLEARED, replace(message, type=ALARM_TYPE, data=alarms.as_json(alarm), metadata=metadata))
