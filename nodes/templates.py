"""Text with places in it: `${metadataKey}`, `$[data.path]`, `${*}`, `$[*]`, `${secret:NAME}`. Nothing is evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from nodes import BadInput, Message

_PLACE: Final = re.compile(r"\$\$(?=[{\[])|\$\{([^{}]*)\}|\$\[([^\[\]]*)\]")
_OPEN: Final = re.compile(r"\$[{\[]")

Part = Callable[[Message], Any]
Secrets = Callable[[str], str | None]
Escape = Callable[[str, bool], str]
"""Makes a text safe for its place; the flag says that it is JSON of something else than a string."""


class Template:
    """A text compiled once. `$${` and `$$[` stand for `${` and `$[` themselves; what is put in is not read again.

    `escape` is applied to every text that is put in, so that no value can leave its place (`in_url`, `in_json`).
    Secrets are only for kinds that send the text out: without `secrets` a secret is a BadInput.
    """

    def __init__(self, text: str, *, secrets: bool = False, escape: Escape | None = None) -> None:
        self.text = text
        self.secret_names: list[str] = []
        """Secrets that the text asks for; whoever builds a node from it asks `Build.secret` for each."""
        self._escape = escape
        self._parts: list[str | Part | _Secret] = []
        end = 0
        for match in _PLACE.finditer(text):
            self._literal(text[end : match.start()])
            end = match.end()
            if match[1] is not None:
                self._parts.append(self._metadata(match[1], secrets))
            elif match[2] is not None:
                self._parts.append(self._data(match[2]))
            else:
                self._parts.append("$")
                # The bracket behind belongs to the text, whatever follows it.
                self._parts.append(text[end])
                end += 1
        self._literal(text[end:])
        self.constant = all(isinstance(part, str) for part in self._parts)
        """The text is the same for every message, whatever the secrets are."""
        self.needs_message = any(not isinstance(part, str | _Secret) for part in self._parts)

    def render(self, message: Message, secret: Secrets | None = None) -> str:
        """The text for a message; raises BadInput for a key that the message has not."""
        made: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                made.append(part)
            elif isinstance(part, _Secret):
                made.append(self._escaped(part.value(secret)))
            else:
                made.append(self._escaped(part(message)))
        return "".join(made)

    def _escaped(self, value: Any) -> str:
        text = as_text(value)
        return text if self._escape is None else self._escape(text, not isinstance(value, str))

    def _literal(self, text: str) -> None:
        opened = _OPEN.search(text)
        if opened is not None:
            raise BadInput(
                f"{opened[0]!r} in template {self.text[:60]!r} is not closed; write '${opened[0]}' for the text"
            )
        if text:
            self._parts.append(text)

    def _metadata(self, name: str, secrets: bool) -> Part | _Secret:
        if name == "*":
            return lambda message: message.metadata
        if name.startswith("secret:"):
            if not secrets:
                raise BadInput(f"a secret may not stand here: template {self.text[:60]!r}")
            self.secret_names.append(name[len("secret:") :])
            return _Secret(name[len("secret:") :])
        if not name:
            raise BadInput(f"a place without a name in template {self.text[:60]!r}")

        def of_metadata(message: Message) -> str:
            found = message.metadata.get(name)
            if found is None:
                raise BadInput(f"the message has no metadata {name!r}, which template {self.text[:60]!r} asks for")
            return found

        return of_metadata

    def _data(self, path: str) -> Part:
        if path == "*":
            return lambda message: message.data
        if not path:
            raise BadInput(f"a place without a name in template {self.text[:60]!r}")
        steps = path.split(".")

        def of_data(message: Message) -> Any:
            data = message.data
            # A key may itself hold dots: as a whole it comes first.
            if isinstance(data, dict) and path in data:
                return data[path]
            for step in steps:
                if isinstance(data, dict) and step in data:
                    data = data[step]
                elif isinstance(data, list) and step.isdecimal() and int(step) < len(data):
                    data = data[int(step)]
                else:
                    raise BadInput(f"the data has no {path!r}, which template {self.text[:60]!r} asks for")
            return data

        return of_data


class _Secret:
    def __init__(self, name: str) -> None:
        self.name = name

    def value(self, secret: Secrets | None) -> str:
        found = None if secret is None else secret(self.name)
        if found is None:
            raise BadInput(f"there is no secret {self.name!r}")
        return found


def as_text(value: Any) -> str:
    """A value as it stands in a text: strings as they are, everything else as JSON. Bytes have no text: BadInput."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        raise BadInput("the data is bytes and has no text")
    return _json(value)


def in_url(text: str, json_value: bool) -> str:
    """Percent-encoded, slashes too: one path segment or one query value."""
    return quote(text, safe="")


def in_json(text: str, json_value: bool) -> str:
    """Strings as they stand between the quotes of a JSON string, other values as JSON."""
    return text if json_value else json.dumps(text, ensure_ascii=False)[1:-1]


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"the data is not JSON: {error}") from error
