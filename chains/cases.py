"""The format of chain test cases: what goes in, what happens then, and what must have come of it (`cases.json`)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from chains.wording import explain_conversion
from engine.errors import Finding, InvalidDocument
from engine.stores.alarms import Severity
from engine.stores.attributes import Scope

START_MS: Final = 1_700_000_000_000
"""The clock of a case that does not set one."""


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message that comes in."""

    type: str = "POST_TELEMETRY_REQUEST"
    originator: str = "device"
    data: Any = None
    raw_b64: Annotated[str, Meta(description="The data as bytes, in place of `data`.")] | None = None
    metadata: dict[str, str] = {}
    ts_ms: Annotated[int, Meta(description="Time of the message; the case's clock by default.")] | None = None
    waits: Annotated[bool, Meta(description="The sender waits for a reply.")] = False

    def __post_init__(self) -> None:
        if self.raw_b64 is not None and self.data is not None:
            raise ValueError("a message has either data or raw_b64, not both")


class GivenAlarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An alarm that is active when the case begins."""

    type: str
    severity: Severity = "CRITICAL"
    details: Any = None
    acked: bool = False


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the server knows when the case begins."""

    attributes: dict[str, dict[Scope, dict[str, Any]]] = {}
    """Device to scope to key to value."""
    alarms: dict[str, list[GivenAlarm]] = {}
    products: dict[str, dict[str, Any]] = {}
    """Product to its facets."""
    secrets: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device answers the oldest command of that name that waits for it."""

    command: str
    originator: str = "device"
    data: Any = None
    error: str = ""


class Emitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a call gives: the message that went in, changed where this says so."""

    relation: str = "Success"
    data: Any = msgspec.UNSET
    metadata: dict[str, str] = {}
    type: str = ""


class Called(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The oldest outward call of a node comes back: with messages, with an error, or (neither) without a message."""

    node: str
    emits: list[Emitted] = []
    error: str = ""


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that happens after the first messages. Exactly one field is set."""

    after_s: Annotated[float, Meta(gt=0, description="Time passes: timers and retries that fall due run.")] | None = (
        None
    )
    messages: list[Given] | None = None
    answer: Answer | None = None
    called: Called | None = None

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not None for name in self.__struct_fields__) != 1:
            raise ValueError("set exactly one of after_s, messages, answer, called")


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must have come of it. What is left out is not looked at, but a dead letter is never passed over.

    Of an object only the given keys are compared, of a list every entry; of a reason, that it contains the text.
    """

    points: list[dict[str, Any]] | None = None
    attributes: dict[str, dict[Scope, dict[str, Any]]] | None = None
    alarms: dict[str, list[dict[str, Any]]] | None = None
    replies: list[dict[str, Any]] | None = None
    commands: list[dict[str, Any]] | None = None
    calls: list[dict[str, Any]] | None = None
    broadcasts: list[dict[str, Any]] | None = None
    relations: dict[str, list[str]] | None = None
    """Node to the relations that messages left it by, in order."""
    trace: list[tuple[str, str]] | None = None
    """Every (node, relation) in order."""
    waiting: int | None = None
    """Messages that are still parked."""
    dead: list[dict[str, Any]] = []


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One test of a chain."""

    name: str
    now_ms: int = START_MS
    state: State = State()
    messages: Annotated[list[Given], Meta(min_length=1)]
    then: list[Event] = []
    expect: Expected


_decoder: Final = msgspec.json.Decoder(list[Case])


def read_cases(text: bytes | str) -> list[Case]:
    """The cases of a `cases.json`, a list; raises InvalidDocument that says what cannot be read, and where."""
    try:
        cases = _decoder.decode(text)
    except UnicodeDecodeError as error:
        raise InvalidDocument([Finding("", f"not JSON: text is not UTF-8 ({error.reason})")]) from error
    except msgspec.DecodeError as error:
        raise InvalidDocument([explain_conversion(str(error))]) from error
    names: set[str] = set()
    twice = [i for i, case in enumerate(cases) if case.name in names or names.add(case.name)]  # type: ignore[func-returns-value]
    if twice:
        raise InvalidDocument([Finding(f"/{i}/name", f"two cases are named {cases[i].name!r}") for i in twice])
    return cases
