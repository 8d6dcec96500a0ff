"""What can be said of a product's facets before any device uses them; facets that nobody here knows pass."""

from __future__ import annotations

from typing import Any, Final

from api.activity import FACET as SILENCE
from api.mqtt_protobuf_facet import check_mqtt_protobuf
from api.networks import check_networks
from api.provision_facet import check_provision
from engine.errors import BadInput, Finding, ScriptError
from engine.retention import FACET, check_days
from engine.sandbox.script import LANGS, check_script
from nodes.codecs.formats import proto_codec
from nodes.codecs.values import pointer_step

MOST_SILENCE_S: Final = 100 * 365 * 86_400


def check_facets(facets: dict[str, Any]) -> list[Finding]:
    """Everything wrong with the facets that are known; pointers relative to the facets."""
    found: list[Finding] = []
    if facets.get("transform") is not None:
        found += _function(facets["transform"], "/transform")
    if facets.get("events") is not None:
        found += _events(facets["events"])
    if facets.get("protobuf") is not None:
        try:
            proto_codec(facets["protobuf"])
        except BadInput as error:
            found.append(Finding("/protobuf" + error.pointer, error.reason))
    if facets.get(FACET) is not None:
        found += check_days(facets[FACET])
    checks = (_silence, _payload, check_provision, check_networks, check_mqtt_protobuf)
    return found + [finding for check in checks for finding in check(facets)]


def _silence(facets: dict[str, Any]) -> list[Finding]:
    given = facets.get(SILENCE)
    if given is None or (type(given) in (int, float) and 1 <= given <= MOST_SILENCE_S):
        return []
    return [Finding(f"/{SILENCE}", f"must be a number of seconds, 1 to {MOST_SILENCE_S}")]


def _payload(facets: dict[str, Any]) -> list[Finding]:
    payload = facets.get("payload")
    if payload not in (None, "json", "custom"):
        return [Finding("/payload", "must be `json` or `custom`")]
    if payload == "custom" and facets.get("transform") is None:
        return [Finding("/payload", "a custom payload needs the product's function `transform`")]
    return []


def _events(facet: Any) -> list[Finding]:
    if not isinstance(facet, dict):
        return [Finding("/events", "must be an object of functions by event id")]
    return [found for id, function in facet.items() for found in _function(function, "/events" + pointer_step(id))]


def _function(facet: Any, place: str) -> list[Finding]:
    if not isinstance(facet, dict):
        return [Finding(place, "must be an object with lang and source")]
    found = [
        Finding(place + pointer_step(key), f"unknown key {key!r} (known: 'lang', 'source')")
        for key in facet
        if key not in ("lang", "source")
    ]
    lang, source = facet.get("lang", "lua"), facet.get("source")
    if lang not in LANGS:
        found.append(Finding(place + "/lang", f"must be one of {', '.join(LANGS)}"))
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "\n".join(source)
    if not isinstance(source, str) or not source.strip():
        found.append(Finding(place + "/source", "must be the text of the function, or a list of its lines"))
    elif lang in LANGS:
        try:
            check_script(lang, source)
        except ScriptError as error:
            found.append(Finding(place + "/source", str(error)))
    return found
