"""Kind `create_alarm`: raises an alarm, or updates the active one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from engine.stores import alarms
from engine.stores.alarms import Alarm
from engine.stores.values import problem
from nodes import (
    FAILURE,
    BadInput,
    Build,
    Context,
    Example,
    Finding,
    Index,
    Message,
    Node,
    NodeSpec,
    Outcomes,
    Relation,
)
from nodes.alarm_state import AlarmState, declared_reads, declared_writes
from nodes.event_time import event_time_ms
from nodes.templates import Template

CREATED: Final = "Created"
UPDATED: Final = "Updated"
ALARM_TYPE: Final = "ALARM"
"""Type of the message that goes on."""

_NAMESPACE: Final = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Which alarm is raised."""

    type: Annotated[
        str, Meta(description="Type of the alarm, a template; one alarm of a type is active per device.", min_length=1)
    ] = "General Alarm"
    severity: Annotated[
        str, Meta(description="CRITICAL, MAJOR, MINOR, WARNING or INDETERMINATE, or a template that gives one of them.")
    ] = "CRITICAL"
    details: Annotated[
        str, Meta(description="What the alarm says of its cause, a template; empty: the message's data.")
    ] = ""


class CreateAlarm(Node):
    """Raises the alarm of a type for the originator."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="create_alarm",
        category="action",
        summary="Raises an alarm for the originator, or updates the active one of the same type.",
        description=(
            "A device has at most one active alarm of a type: the first message raises it, later ones update its end "
            "time, severity and details. After it was cleared, by a chain or by an operator, the next message raises a "
            "new one. The message goes on with type ALARM, the alarm as its data, and metadata `isNewAlarm` or "
            "`isExistingAlarm`; `isSeverityUpdated` tells that an update changed the severity. What an operator says "
            "of an alarm is never overwritten. Times are those of the messages: metadata `ts`, else their own."
        ),
        config=Config,
        relations=(
            Relation(CREATED, "There was no active alarm of the type: a new one was raised."),
            Relation(UPDATED, "The active alarm was updated."),
            Relation(FAILURE, "A template asks for a key that is missing, or the severity is none."),
        ),
        examples=(
            Example("Too hot", {"type": "Too hot", "severity": "CRITICAL"}),
            Example(
                "One type per sensor",
                {"type": "Silent ${sensor}", "severity": "${severity}", "details": "Last value: $[value]"},
            ),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self._place = f"{build.chain}/{build.node}"
        self._type = Template(config.type)
        self._severity = Template(config.severity)
        self._details = Template(config.details) if config.details else None

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """Templates that do not compile, and a severity that is none."""
        findings = []
        for name in ("type", "severity", "details"):
            try:
                template = Template(getattr(config, name))
            except BadInput as error:
                findings.append(Finding(f"/{name}", error.reason))
                continue
            if name == "severity" and template.constant and config.severity not in alarms.SEVERITIES:
                findings.append(Finding("/severity", _no_severity(config.severity)))
        return findings

    def reads(self) -> frozenset[str]:
        """The current alarm of the type, marks included."""
        return declared_reads(self.config.type, self._type.constant)

    def writes(self) -> frozenset[str]:
        """The current alarm of the type; past ones."""
        return declared_writes(self.config.type, self._type.constant)

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Raise or update, message after message."""
        wanted: list[tuple[int, Message, Alarm]] = []
        for i, message in enumerate(batch):
            try:
                wanted.append((i, message, self._wanted(message)))
            except BadInput as error:
                out.fail(i, error.reason)
        state = AlarmState(ctx)
        await state.load((alarm.device, alarm.type) for _, _, alarm in wanted)
        for i, message, alarm in wanted:
            self._raise(i, message, alarm, state, out)

    def _wanted(self, message: Message) -> Alarm:
        type = self._type.render(message)
        if not 0 < len(type) <= alarms.MAX_TYPE:
            raise BadInput(f"an alarm type has 1 to {alarms.MAX_TYPE} characters: {type[:40]!r}")
        severity = self._severity.render(message)
        if severity not in alarms.SEVERITIES:
            raise BadInput(_no_severity(severity))
        ts_ms = event_time_ms(message)
        # The same message gives the same alarm id when its batch is run again after a crash.
        seed = "\n".join((message.id, message.copy, str(message.hops), self._place, type))
        return Alarm(
            id=str(uuid.uuid5(_NAMESPACE, seed)),
            tenant=message.tenant,
            device=message.originator,
            type=type,
            severity=severity,
            start_ms=ts_ms,
            end_ms=ts_ms,
            details=self._details_of(message),
        )

    def _details_of(self, message: Message) -> Any:
        if self._details is not None:
            return self._details.render(message)
        reason = None if message.data is None else problem(message.data)
        if reason is not None:
            raise BadInput(f"the data cannot be an alarm's details: {reason}")
        return message.data

    def _raise(self, i: int, message: Message, alarm: Alarm, state: AlarmState, out: Outcomes) -> None:
        current = state.current(alarm.device, alarm.type)
        flags: dict[str, str] = {}
        if current is not None and current.active:
            if current.severity != alarm.severity:
                flags["isSeverityUpdated"] = "true"
            relation, flags["isExistingAlarm"] = UPDATED, "true"
            end_ms = max(current.end_ms, alarm.end_ms)
            alarm = replace(current, severity=alarm.severity, end_ms=end_ms, details=alarm.details)
            # Operators' marks stand in fields of their own and stay out of the worker's record.
            stored = replace(alarm, acked_ms=0, acked_by="")
        else:
            relation, flags["isNewAlarm"] = CREATED, "true"
            stored = alarm
            if current is not None:
                state.write(i, alarm.device, alarms.ended(current), out)
            out.effect(i, Index(alarms.INDEX, alarms.member(alarm.device, alarm.type, alarm.id), float(alarm.start_ms)))
        state.write(i, alarm.device, {alarms.active_field(alarm.type): alarms.encode(stored)}, out)
        metadata = {**message.metadata, **flags}
        out.emit(i, relation, replace(message, type=ALARM_TYPE, data=alarms.as_json(alarm), metadata=metadata))


def _no_severity(text: str) -> str:
    return f"no severity {text[:40]!r}: it is one of {', '.join(alarms.SEVERITIES)}"
