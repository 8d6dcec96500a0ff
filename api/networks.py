"""What a product says of the radio networks whose data may come in for it: the facets `sigfox`, `sgfx`, `ttn`,
`chirpstack`.

A facet that is there lets its network in, unless it says `enabled: false`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from engine.errors import BadInput, Finding

T = TypeVar("T")

Enabled = Annotated[bool, Meta(description="False refuses the network, and keeps the settings.")]
AutoGenerate = Annotated[bool, Meta(description="Creates a device when an unknown id comes in; else it is refused.")]
Secret = Annotated[
    str,
    Meta(
        description="What the header X-Connector-Secret must say; `${secret:NAME}` names a secret of the tenant. "
        "Empty: anybody may send who knows the address."
    ),
]
ApiKey = Annotated[str, Meta(description="Sent with downlinks; `${secret:NAME}` names a secret of the tenant.")]
Server = Annotated[str, Meta(pattern=r"^https?://[^/?#\s@]+$")]

_REFERENCE: Final = re.compile(r"\$\{secret:([^{}]+)\}")


class Sigfox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Callbacks of the Sigfox backend, to `/sigfox/{product}?id={device}&data={data}`; read by `transform`."""

    enabled: Enabled = True
    auto_generate: AutoGenerate = False


class Sgfx(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Callbacks of the Sigfox backend for apps, to `/sgfx/{product}/{key}/?id={device}&data={data}&ack={ack}`.

    They are read by `transform`, which gives `[{"key", "value"}]`, or for `ack` what goes down to the device.
    """

    key: Annotated[
        str,
        Meta(
            min_length=8,
            description="The last part of the address, which nobody else knows; `${secret:NAME}` names a secret of "
            "the tenant.",
        ),
    ]
    enabled: Enabled = True
    auto_generate: AutoGenerate = False


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The network's MQTT broker, to which the server attaches as a client: events come that way too.

    Downlinks go that way to devices whose last uplink came so, and to all where no `downlink` is given.
    """

    host: Annotated[
        str,
        Meta(
            min_length=1,
            description="Name or address. One that is not public must be listed in RULEMILL_OUTWARD_ALLOW.",
        ),
    ]
    port: Annotated[int, Meta(ge=0, le=65535, description="Port; 0: 1883, or 8883 with TLS.")] = 0
    tls: Annotated[bool, Meta(description="Encrypt, and check the broker's certificate.")] = False
    username: Annotated[
        str, Meta(description="User name, of The Things Stack `{application}@{tenant}`; may be `${secret:NAME}`.")
    ] = ""
    password: Annotated[
        str, Meta(description="Password, of The Things Stack an API key; give it as `${secret:NAME}`.")
    ] = ""
    client_id: Annotated[
        str, Meta(description="Client id of the persistent session; empty: `rulemill-{product}-{network}`.")
    ] = ""


class TtnDownlink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Where downlinks go for devices whose uplinks do not say so."""

    server: Annotated[Server, Meta(description="Cluster, as `https://eu1.cloud.thethings.network`.")]
    webhook: Annotated[str, Meta(min_length=1, description="Id of the webhook.")]
    api_key: ApiKey = ""


class Ttn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Webhooks of The Things Stack v3, to `/ttn/{product}`."""

    enabled: Enabled = True
    auto_generate: AutoGenerate = False
    secret: Secret = ""
    downlink: TtnDownlink | None = None
    mqtt: Mqtt | None = None


class ChirpStackDownlink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Where downlinks go."""

    server: Annotated[Server, Meta(description="ChirpStack's REST API, as `http://chirpstack:8090`.")]
    api_key: ApiKey = ""


class ChirpStack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The HTTP integration of ChirpStack v4, JSON or Protocol Buffers, to `/chirpstack/{product}`."""

    enabled: Enabled = True
    auto_generate: AutoGenerate = False
    secret: Secret = ""
    downlink: ChirpStackDownlink | None = None
    mqtt: Mqtt | None = None


Facet = Sigfox | Sgfx | Ttn | ChirpStack
FACETS: Final[Mapping[str, type[Facet]]] = {"sigfox": Sigfox, "sgfx": Sgfx, "ttn": Ttn, "chirpstack": ChirpStack}
"""Facet by its name."""


def facet_of(facets: Mapping[str, Any], name: str) -> Facet | None:
    """A product's facet, None without one; BadInput, its pointer relative to the facets, for one that does not hold."""
    return converted(facets, name, FACETS[name])


def converted(facets: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """A facet of that type; the same."""
    given = facets.get(name)
    if given is None:
        return None
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        pointer = where.rstrip("`").replace(".", "/") if "[" not in where else ""
        raise BadInput(reason, f"/{name}{pointer}") from None


def check_networks(facets: Mapping[str, Any]) -> list[Finding]:
    """Everything wrong with these facets; pointers relative to the facets."""
    found = []
    for name in FACETS:
        try:
            facet_of(facets, name)
        except BadInput as error:
            found.append(Finding(error.pointer, error.reason))
    return found


async def resolved(text: str, secrets: Callable[[], Awaitable[Mapping[str, str]]]) -> str | None:
    """A secret's text, the tenant's secrets being asked for one that is named; None if there is none of that name."""
    named = _REFERENCE.fullmatch(text)
    return text if named is None else (await secrets()).get(named[1])
