"""What a JSON Schema validator found, in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from jsonschema.exceptions import ValidationError

from chains.findings import hint
from chains.model import NAME_PATTERN, NODE_NAME_PATTERN, pointer
from engine.errors import Finding

_TYPES: Final = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}

_PATTERNS: Final = {
    NAME_PATTERN: "must be 1 to 64 letters, digits, blanks and '_', '.', '-', without a blank at the ends",
    NODE_NAME_PATTERN: "must be 1 to 64 characters, without '/', '{', '}', line breaks, and blanks at the ends",
}


def explain(error: ValidationError) -> Iterator[Finding]:
    """The findings in one validation error, each with the pointer of the place that is to be changed."""
    place = list(error.absolute_path)
    instance: Any = error.instance
    rule: Any = error.validator_value
    if error.validator == "additionalProperties" and rule is False:
        yield from _unknown_keys(error, place)
    elif error.validator == "required":
        missing = next(key for key in rule if key not in instance and repr(key) in error.message)
        yield Finding(pointer(*place), f"the key {missing!r} is missing")
    elif error.validator in ("anyOf", "oneOf") and error.context:
        yield from _no_choice_fits(error, place)
    elif "propertyNames" in error.absolute_schema_path:
        yield Finding(pointer(*place, instance), f"the name {_say(instance)} {_rule(error)}")
    else:
        yield Finding(pointer(*place), _rule(error))


def _unknown_keys(error: ValidationError, place: list[str | int]) -> Iterator[Finding]:
    known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    for key in instance:
        if key not in known:
            free = [name for name in known if name not in instance]
            yield Finding(pointer(*place, key), f"unknown key {key!r}{hint(key, free)}")


def _no_choice_fits(error: ValidationError, place: list[str | int]) -> Iterator[Finding]:
    choices: dict[int, list[ValidationError]] = {}
    for part in error.context or ():
        choices.setdefault(int(part.schema_path[0]), []).append(part)
    here = len(error.absolute_path)
    closer = [parts for parts in choices.values() if not _wrong_kind(parts, here)]
    if closer:
        # The value is of that choice's type but has faults inside: those are what its author wants to know.
        for part in min(closer, key=len):
            yield from explain(part)
        return
    wanted = list(dict.fromkeys(_wanted(part) for parts in choices.values() for part in parts))
    yield Finding(pointer(*place), f"must be {' or '.join(wanted)}, but is {_say(error.instance)}")


def _wrong_kind(parts: list[ValidationError], depth: int) -> bool:
    return any(part.validator in ("type", "const", "enum") and len(part.absolute_path) == depth for part in parts)


def _wanted(error: ValidationError) -> str:
    rule: Any = error.validator_value
    if error.validator == "type":
        return _type(rule)
    if error.validator == "enum":
        return "one of " + ", ".join(_say(value) for value in rule)
    return _say(rule)


def _rule(error: ValidationError) -> str:
    rule = _RULES.get(str(error.validator))
    return rule(error.validator_value, error.instance) if rule else f"is not as it must be: {error.message}"


def _enum(allowed: list[Any], value: Any) -> str:
    names = [name for name in allowed if isinstance(name, str)]
    if isinstance(value, str) and names:
        return f"{_say(value)} is not known here{hint(value, names)}"
    return f"must be one of {', '.join(_say(choice) for choice in allowed)}, but is {_say(value)}"


def _pattern(pattern: str, value: Any) -> str:
    return _PATTERNS.get(pattern, f"{_say(value)} does not match the pattern {pattern}")


_RULES: Final[dict[str, Callable[[Any, Any], str]]] = {
    "type": lambda wanted, value: f"must be {_type(wanted)}, but is {_say(value)}",
    "enum": _enum,
    "const": lambda wanted, value: f"must be {_say(wanted)}, but is {_say(value)}",
    "pattern": _pattern,
    "minimum": lambda limit, value: f"must be at least {limit}, but is {value}",
    "maximum": lambda limit, value: f"must be at most {limit}, but is {value}",
    "exclusiveMinimum": lambda limit, value: f"must be more than {limit}, but is {value}",
    "exclusiveMaximum": lambda limit, value: f"must be less than {limit}, but is {value}",
    "multipleOf": lambda step, value: f"must be a multiple of {step}, but is {value}",
    "minLength": lambda limit, value: f"must have at least {_count(limit, 'character')}",
    "maxLength": lambda limit, value: f"must have at most {_count(limit, 'character')}, but has {len(value)}",
    "minItems": lambda limit, value: f"must have at least {_count(limit, 'entry', 'entries')}",
    "maxItems": lambda limit, value: f"must have at most {_count(limit, 'entry', 'entries')}, but has {len(value)}",
    "minProperties": lambda limit, value: f"must have at least {_count(limit, 'entry', 'entries')}",
    "maxProperties": lambda limit, value: (
        f"must have at most {_count(limit, 'entry', 'entries')}, but has {len(value)}" if limit else "must be empty"
    ),
    "uniqueItems": lambda _, value: "names something twice",
}


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _type(wanted: str | list[str]) -> str:
    return " or ".join(_TYPES[name] for name in ([wanted] if isinstance(wanted, str) else wanted))


def _say(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:39] + "…")
    if isinstance(value, (int, float)):
        return f"{value}"
    return _TYPES["array"] if isinstance(value, list) else _TYPES["object"]


_AT: Final = re.compile(r"^(?P<reason>.*) - at `(?P<path>.*)`$", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")


def explain_conversion(message: str) -> Finding:
    """The finding in a msgspec validation message, its path as a pointer as far as msgspec tells it."""
    found = _AT.match(message)
    if found is None:
        return Finding("", message)
    steps: list[str] = []
    for step in _STEP.finditer(found["path"]):
        if step[1] is None and step[2] is None:
            break  # a key of a mapping: msgspec does not say which
        steps.append(step[1] if step[1] is not None else step[2])
    return Finding(pointer(*steps), found["reason"])
