"""Magic resources: `$geo`, where a thing is, and `$settings`, what is set of it (`TTI-45` to `TTI-50`, `TTI-S16`).

They are server attributes of the thing, written by the tenant's root chain (`TTI-86`). Each setting is an attribute of
its own, named by its path, so that two writes at once do not undo each other; what is read is put together from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.dialects.thethingsio.bodies import answer
from api.dialects.thethingsio.callers import Caller, Callers
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.settings import DIALECT, MAX_VALUES
from api.intake import Intake
from api.transports.http import Response
from api.transports.http_exchange import HttpError
from engine.errors import BadInput
from engine.message import Message
from engine.stores.apps.rights import GET, POST, ThingRights
from engine.stores.attributes import Attribute
from engine.stores.registry import Device
from engine.stores.values import problem

GEO, SETTINGS = "$geo", "$settings"
MAX_PATHS: Final = 200
"""Settings that one write may have."""
MAX_PATH: Final = 255
READABLE_S: Final = 2.0
"""How long a write waits for its chain, so that its own reader sees it."""


class Magic:
    """Reads and writes magic resources of things."""

    def __init__(self, parts: Parts, callers: Callers) -> None:
        self._parts, self._callers = parts, callers

    async def read(self, caller: Caller, name: str, thing: str) -> Response:
        """`[{"key": name, "value": …}]`, or `[]` when there is nothing."""
        _check_name(name)
        device, rights = await self._callers.thing(caller, thing)
        _check_any(rights, caller, GET)
        found = (await self._parts.attributes.read(device.tenant, device.id))["SERVER"]
        value = _current(found, name)
        return answer([] if value is None else [{"key": name, "value": value}])

    async def write(self, caller: Caller, name: str, thing: str, body: Any, transport: str) -> Response:
        """Write values, in order."""
        _check_name(name)
        device, rights = await self._callers.thing(caller, thing)
        _check_any(rights, caller, POST)
        about = {"userId": caller.user.id, "appId": caller.app.id}
        intake = self._parts.intake
        messages = [magic_message(intake, device, name, value, transport, about) for value in _values(body)]
        # What it failed for, if it did, is for the chain to tell; it is stored all the same.
        await intake.submit_and_wait(messages, READABLE_S)
        return answer({"status": "created"}, 201)


def magic_message(
    intake: Intake, device: Device, name: str, value: Any, transport: str, about: Mapping[str, str]
) -> Message:
    """The message of one value of a magic resource; BadInput for one that cannot be, HttpError for an unknown name."""
    _check_name(name)
    if name == GEO:
        magic, data = "geo", {GEO: point(value)}
    else:
        magic, data = "settings", paths(name, value)
    return intake.message(
        device, "POST_ATTRIBUTES_REQUEST", data, dialect=DIALECT, transport=transport,
        ts_ms=intake.stamp(device.id), metadata={**about, "scope": "SERVER_SCOPE", "magic": magic},
    )  # fmt: skip


def _check_name(name: str) -> None:
    if name not in (GEO, SETTINGS) and not name.startswith(SETTINGS + "."):
        raise HttpError(404, "Resource not found")


def _current(attributes: Mapping[str, Attribute], name: str) -> Any:
    if name == GEO:
        return attributes[GEO].value if GEO in attributes else None
    return setting(attributes, name)


def _check_any(rights: ThingRights, caller: Caller, wanted: int) -> None:
    """403 without the right on any resource of the thing."""
    who = caller.user.key
    if not any(bits & wanted for bits in rights.resources(who, caller.resources).values()):
        raise HttpError(403, "Permission denied")


def _values(body: Any) -> list[Any]:
    listed = body.get("values") if isinstance(body, dict) else None
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_VALUES:
        raise BadInput(f"values must be a list of 1 to {MAX_VALUES} objects", "/values")
    for i, each in enumerate(listed):
        if not isinstance(each, dict) or each.get("value") is None:
            raise BadInput("must be an object with a value", f"/values/{i}")
    return [each["value"] for each in listed]


def point(value: Any) -> dict[str, Any]:
    """A GeoJSON point; BadInput for any other value. `[lon, lat]` alone will do."""
    if isinstance(value, list):
        value = {"type": "Point", "coordinates": value}
    where = value.get("coordinates") if isinstance(value, dict) and value.get("type") == "Point" else None
    if not isinstance(where, list) or len(where) != 2:
        raise BadInput("a position is a GeoJSON Point with [longitude, latitude]")
    for degrees, most in zip(where, (180, 90), strict=True):
        if type(degrees) not in (int, float) or not -most <= degrees <= most:
            raise BadInput("the longitude is a number from -180 to 180, the latitude one from -90 to 90")
    return {"type": "Point", "coordinates": where}


def paths(name: str, value: Any) -> dict[str, Any]:
    """A write to `$settings` or `$settings.a.b`, as attributes by path; BadInput."""
    if name == SETTINGS:
        if not isinstance(value, dict) or not value:
            raise BadInput("settings are an object")
        found = {f"{SETTINGS}.{key}": each for key, each in value.items() if each is not None}
    else:
        found = {name: value}
    if len(found) > MAX_PATHS:
        raise BadInput(f"at most {MAX_PATHS} settings can be written at once")
    for path, each in found.items():
        if len(path) > MAX_PATH or not all(path.split(".")):
            raise BadInput(f"a path has at most {MAX_PATH} characters, and a name on each side of a dot: {path[:60]!r}")
        if reason := problem(each):
            raise BadInput(f"{path}: {reason}")
    return found


def setting(attributes: Mapping[str, Attribute], name: str) -> Any:
    """The value at `$settings` or `$settings.a.b`, None for nothing: later writes lie over earlier ones."""
    stored = [(path.split(".")[1:], each) for path, each in attributes.items() if path.startswith(SETTINGS + ".")]
    root: dict[str, Any] = {}
    for path, each in sorted(stored, key=lambda one: (one[1].ts_ms, len(one[0]))):
        _lay(root, path, each.value)
    found: Any = root or None
    for step in name.split(".")[1:]:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _lay(root: dict[str, Any], path: Sequence[str], value: Any) -> None:
    at = root
    for step in path[:-1]:
        inner = at.get(step)
        at[step] = dict(inner) if isinstance(inner, dict) else {}
        at = at[step]
    at[path[-1]] = value
