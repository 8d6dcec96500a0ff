"""The demo: a tenant with devices, an app and an operator, and a chain that shows a point, an alarm and an answer."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib import resources
from secrets import token_urlsafe
from typing import Any, Final

import msgspec

from engine.stores.registry import ACCESS_TOKEN, CT_TOKEN, THING_TOKEN, new_token

TENANT: Final = "demo"
PRODUCT: Final = "demo-sensor"
OPERATOR: Final = "operator@demo"
"""User name of the demo's tenant administrator."""

APPS: Final = "thethingsio"
PUBLIC: Final = ["temperature", "humidity"]
"""Resources that apps of the demo may have."""

Secrets = dict[str, dict[str, Any]]


def demo_document(known: Mapping[str, Mapping[str, str]] | None = None) -> tuple[dict[str, Any], Secrets]:
    """The bootstrap document of the demo, and the secrets in it, fresh unless `known` has them.

    Secrets: `{"thingsboard": {"token", "id"}, "cloudthing": {"tenant", "device_id", "token"},
    "operator": {"username", "password"}, "thethingsio": {"app", "resources", "thing_token", "thing_id",
    "activation_code"}}`.
    Apply it with `keep_chains`, so that an edited demo chain survives the next start.
    """
    secrets: Secrets = {
        "thingsboard": {"token": new_token(20), "id": str(uuid.uuid4())},
        "cloudthing": {"tenant": TENANT, "device_id": new_token(12), "token": new_token(32)},
        "operator": {"username": OPERATOR, "password": new_token(20)},
        APPS: {
            "app": new_token(16), "resources": PUBLIC, "thing_token": token_urlsafe(32), "thing_id": str(uuid.uuid4()),
            "activation_code": token_urlsafe(32),
        },
    }  # fmt: skip
    for whose, values in (known or {}).items():
        if whose in secrets:
            secrets[whose].update({key: values[key] for key in secrets[whose] if key in values})
    chain = msgspec.json.decode(resources.files("api").joinpath("demo_chain.json").read_bytes())
    thingsboard, cloudthing, apps = secrets["thingsboard"], secrets["cloudthing"], secrets[APPS]
    document = {
        "tenants": [{"name": TENANT, "root_chain": chain["chain"]}],
        "products": [
            {
                "id": PRODUCT,
                "tenant": TENANT,
                "name": "Demo sensor",
                "thethingsio": {"public": PUBLIC},
                # Two bytes: tenths of a degree. 01 a4 is 42.0.
                "transform": {
                    "lang": "lua",
                    "source": "return {temperature = (msg.bytes[1] * 256 + msg.bytes[2]) / 10}",
                },
            }
        ],
        "devices": [
            {
                "id": thingsboard["id"],
                "tenant": TENANT,
                "name": "demo-thermometer",
                "credentials": [{"kind": ACCESS_TOKEN, "value": thingsboard["token"]}],
            },
            {
                "tenant": TENANT,
                "name": "demo-sensor",
                "external_id": cloudthing["device_id"],
                "product": PRODUCT,
                "credentials": [{"kind": CT_TOKEN, "value": cloudthing["token"]}],
            },
            {
                "id": apps["thing_id"],
                "tenant": TENANT,
                "name": "demo-thing",
                "product": PRODUCT,
                "credentials": [{"kind": THING_TOKEN, "value": apps["thing_token"]}],
            },
        ],
        "apps": [{"tenant": TENANT, "id": apps["app"], "product": PRODUCT, "resources": PUBLIC}],
        "activation_codes": [{"tenant": TENANT, "product": PRODUCT, "code": apps["activation_code"]}],
        "people": [{"tenant": TENANT, **secrets["operator"]}],
        "chains": [{"tenant": TENANT, **chain}],
    }
    return document, secrets
