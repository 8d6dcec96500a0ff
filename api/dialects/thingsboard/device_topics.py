"""The topics of a device's session (`TB-X1`), in their long and short forms."""

from __future__ import annotations

from functools import partial
from typing import Final

from api.dialects.thingsboard import mqtt_claims, uplinks
from api.dialects.thingsboard.topics import LONG, Down, Handler, Topics

_PUBLISH: Final[dict[str, Handler]] = {
    LONG + "telemetry": uplinks.telemetry,
    "v2/t": uplinks.telemetry,
    "v2/t/j": uplinks.telemetry,
    LONG + "attributes": uplinks.attributes,
    "v2/a": uplinks.attributes,
    "v2/a/j": uplinks.attributes,
    LONG + "attributes/request/+": partial(uplinks.attributes_request, answer=LONG + "attributes/response/"),
    "v2/a/req/+": partial(uplinks.attributes_request, answer="v2/a/res/"),
    LONG + "rpc/response/+": uplinks.command_answer,
    "v2/r/res/+": uplinks.command_answer,
    LONG + "rpc/request/+": partial(uplinks.call, answer=LONG + "rpc/response/"),
    "v2/r/req/+": partial(uplinks.call, answer="v2/r/res/"),
    LONG + "claim": mqtt_claims.claim,
}

_SUBSCRIBE: Final = {
    LONG + "attributes": Down.UPDATES,
    "v2/a": Down.UPDATES,
    LONG + "rpc/request/+": Down.COMMANDS,
    "v2/r/req/+": Down.COMMANDS,
    LONG + "attributes/response/+": Down.ANSWERS,
    "v2/a/res/+": Down.ANSWERS,
    LONG + "rpc/response/+": Down.ANSWERS,
    "v2/r/res/+": Down.ANSWERS,
}

DEVICE: Final = Topics(_PUBLISH, _SUBSCRIBE)
