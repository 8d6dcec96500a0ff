"""Ids that devices have in radio networks: one spelling for each, and where the registry keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from engine.errors import BadInput

SIGFOX, LORAWAN = "sigfox", "lorawan"
NETWORKS: Final = (SIGFOX, LORAWAN)

_SIGFOX: Final = re.compile(r"[0-9A-Fa-f]{1,16}")
_DEV_EUI: Final = re.compile(r"[0-9A-Fa-f]{16}")


def normalized(network: str, id: str, pointer: str = "") -> str:
    """The one spelling of an id: upper case; of Sigfox without leading zeros (CT-S11), of LoRaWAN the 16 digits of
    the DevEUI, which may come with `-` or `:` between them. Raises BadInput.
    """
    if network == SIGFOX:
        if not _SIGFOX.fullmatch(id):
            raise BadInput("a Sigfox id has 1 to 16 hexadecimal digits", pointer)
        return id.upper().lstrip("0") or "0"
    if network == LORAWAN:
        digits = id.replace("-", "").replace(":", "")
        if not _DEV_EUI.fullmatch(digits):
            raise BadInput("a DevEUI has 16 hexadecimal digits", pointer)
        return digits.upper()
    raise BadInput(f"unknown network {network!r}; there are {', '.join(NETWORKS)}", pointer)


def all_normalized(links: Mapping[str, str]) -> dict[str, str]:
    """Links of a device, network to id, in their one spelling; BadInput with a pointer to the wrong one."""
    return {network: normalized(network, id, f"/links/{network}") for network, id in sorted(links.items())}


def field(product: str, network: str, id: str) -> str:
    """Where the registry's index keeps an id: it is unique within its product and network."""
    return f"{product}/{network}/{id}"
