"""The shape of bootstrap files as JSON Schema."""

from __future__ import annotations

from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from referencing import Registry as References

from api.activity import FACET as SILENCE
from api.bootstrap_apps import AppEntry, CodeEntry
from api.bootstrap_devices import DeviceEntry
from api.bootstrap_firmware import FirmwareEntry
from api.bootstrap_people import PersonEntry
from api.bootstrap_tenants import TenantEntry
from api.networks import FACETS
from api.provision_facet import Provision
from chains.wording import explain
from engine.errors import Finding
from engine.retention import MOST_DAYS


def bootstrap_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of bootstrap files. What the chains in them must be is said by the schema of chains."""
    facets = {"provision": Provision, **FACETS}
    entries = [TenantEntry, DeviceEntry, PersonEntry, AppEntry, CodeEntry, FirmwareEntry]
    (tenant, device, person, app, code, image, *shapes), definitions = msgspec.json.schema_components(
        [*entries, *facets.values()], ref_template="#/$defs/{name}"
    )
    text = {"type": "string"}
    product = {
        "type": "object",
        "description": "A product; every other key is a facet, as `transform`, `events` and `protobuf` are.",
        "required": ["id", "tenant"],
        "properties": {
            "id": text,
            "tenant": text,
            "name": text,
            "transform": {"type": "object", "description": "The transform function: `{lang, source}`."},
            "events": {"type": "object", "description": "Functions that answer events: `{event id: {lang, source}}`."},
            "protobuf": {"type": "object", "description": "`{descriptor_set_b64, message}`."},
            SILENCE: {"type": "number", "minimum": 1, "description": "How long its devices may be silent, in seconds."},
            "payload": {"enum": ["json", "custom"], "description": "`custom`: telemetry is bytes for `transform`."},
            "retention_days": {
                "type": "integer", "minimum": 0, "maximum": MOST_DAYS,
                "description": "Days that points of its devices are kept; 0: for ever. By default as the setting says.",
            },
            **dict(zip(facets, shapes, strict=True)),
        },
    }  # fmt: skip
    chain = {
        "type": "object",
        "description": "A chain file, and the tenant whose chain it is.",
        "required": ["tenant", "chain", "start", "nodes"],
        "properties": {"tenant": text, "chain": text},
    }
    lists = {
        "tenants": tenant, "products": product, "devices": device, "firmware": image, "people": person, "apps": app,
        "activation_codes": code, "chains": chain,
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bootstrap file",
        "description": "What shall exist on a server. Applying it again changes nothing.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "$schema": text,
            **{name: {"type": "array", "items": item} for name, item in lists.items()},
        },
        "$defs": definitions,
    }


def check_shape(document: Any) -> list[Finding]:
    """Everything in which a document is not of the schema, sorted by place."""
    # An empty registry: a reference to anywhere outside the schema is an error, not a download.
    validator = Draft202012Validator(bootstrap_schema(), registry=References())
    errors = sorted(validator.iter_errors(document), key=lambda error: [str(step) for step in error.absolute_path])
    return [finding for error in errors for finding in explain(error)]
