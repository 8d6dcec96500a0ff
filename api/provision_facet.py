"""What a product says of devices that provision themselves: the facet `provision` (`TB-S32`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.networks import converted
from engine.errors import BadInput, Finding
from engine.stores import handouts


class Provision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices that ask for their credential with the product's key and secret."""

    key: Annotated[str, Meta(min_length=1, max_length=255, description="Unique over the server.")]
    secret: Annotated[
        str,
        Meta(
            min_length=1, max_length=255,
            description="What a device has to know besides; `${secret:NAME}` names a secret of the tenant.",
        ),
    ]  # fmt: skip
    strategy: Annotated[
        Literal["disabled", "allow_new", "check_pre_provisioned"],
        Meta(
            description="`allow_new` makes a device of a name that is free; `check_pre_provisioned` wants one that was "
            "made before, and tells it its credential once."
        ),
    ] = "disabled"


def provision_of(facets: Mapping[str, Any]) -> Provision | None:
    """A product's facet, None without one; BadInput, its pointer relative to the facets, for one that does not hold."""
    return converted(facets, handouts.FACET, Provision)


def check_provision(facets: Mapping[str, Any]) -> list[Finding]:
    """Everything wrong with the facet; pointers relative to the facets."""
    try:
        provision_of(facets)
    except BadInput as error:
        return [Finding(error.pointer, error.reason)]
    return []
