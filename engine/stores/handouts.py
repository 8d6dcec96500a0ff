"""Provisioning as the registry sees it: the keys of products, and credentials that wait for their device.

Elsewhere credentials are digests. Of a device that was made before it came, the one that it shall be told when it
provisions itself stands here as it is, from its making until it was told.
"""

from __future__ import annotations

from typing import Any, Final

from engine.node import Product
from engine.stores.register import Name, P

FACET: Final = "provision"
CHECK: Final = "check_pre_provisioned"
"""Strategy of products whose devices are made first (`TB-S32`)."""
KEYS: Final = P + "provision-keys"
"""Hash: provisioning key to product."""
HANDOUTS: Final = P + "handouts"
"""Hash: device to the credential that it shall be told."""


def facet(product: Product | None, member: str) -> str:
    """A member of a product's facet, empty where there is none."""
    found: Any = product.facets.get(FACET) if product is not None else None
    value = found.get(member) if type(found) is dict else None
    return value if type(value) is str else ""


def key_names(product: Product | None) -> list[Name]:
    """The provisioning key, which no other product may have."""
    key = facet(product, "key")
    return [Name(KEYS, key, "provisioning key", secret=True)] if key else []


def hands_out(product: Product | None) -> bool:
    """Whether devices of the product are told a credential that was set before."""
    return facet(product, "strategy") == CHECK
