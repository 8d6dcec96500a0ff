"""The topics of a device's session (`TB-X1`), in their long and short forms."""

from __future__ import annotations

from functools import partial
from typing import Final

from api.dialects.thingsboard import mqtt_claims, mqtt_ota, uplinks
from api.dialects.thingsboard.downlinks import COMMAND_TOPICS, UPDATE_TOPICS
from api.dialects.thingsboard.encodings import Form
from api.dialects.thingsboard.topics import LONG, Down, Handler, Topics

_PUBLISH: Final[dict[str, Handler]] = {
    LONG + "telemetry": uplinks.telemetry,
    "v2/t": uplinks.telemetry,
    "v2/t/j": partial(uplinks.telemetry, form=Form.JSON),
    "v2/t/p": partial(uplinks.telemetry, form=Form.PROTO),
    LONG + "attributes": uplinks.attributes,
    "v2/a": uplinks.attributes,
    "v2/a/j": partial(uplinks.attributes, form=Form.JSON),
    "v2/a/p": partial(uplinks.attributes, form=Form.PROTO),
    LONG + "attributes/request/+": partial(uplinks.attributes_request, answer=LONG + "attributes/response/"),
    "v2/a/req/+": partial(uplinks.attributes_request, answer="v2/a/res/"),
    "v2/a/req/j/+": partial(uplinks.attributes_request, answer="v2/a/res/j/", form=Form.JSON),
    "v2/a/req/p/+": partial(uplinks.attributes_request, answer="v2/a/res/p/", form=Form.PROTO),
    LONG + "rpc/response/+": uplinks.command_answer,
    "v2/r/res/+": uplinks.command_answer,
    "v2/r/res/j/+": partial(uplinks.command_answer, form=Form.JSON),
    "v2/r/res/p/+": partial(uplinks.command_answer, form=Form.PROTO),
    LONG + "rpc/request/+": partial(uplinks.call, answer=LONG + "rpc/response/"),
    "v2/r/req/+": partial(uplinks.call, answer="v2/r/res/"),
    "v2/r/req/j/+": partial(uplinks.call, answer="v2/r/res/j/", form=Form.JSON),
    "v2/r/req/p/+": partial(uplinks.call, answer="v2/r/res/p/", form=Form.PROTO),
    LONG + "claim": mqtt_claims.claim,
    **mqtt_ota.PUBLISH,
}

_SUBSCRIBE: Final = {
    **{topic: Down.UPDATES for topic, _ in UPDATE_TOPICS},
    **{topic + "+": Down.COMMANDS for topic, _ in COMMAND_TOPICS},
    LONG + "attributes/response/+": Down.ANSWERS,
    "v2/a/res/+": Down.ANSWERS,
    "v2/a/res/j/+": Down.ANSWERS,
    "v2/a/res/p/+": Down.ANSWERS,
    LONG + "rpc/response/+": Down.ANSWERS,
    "v2/r/res/+": Down.ANSWERS,
    "v2/r/res/j/+": Down.ANSWERS,
    "v2/r/res/p/+": Down.ANSWERS,
    **mqtt_ota.SUBSCRIBE,
}

DEVICE: Final = Topics(_PUBLISH, _SUBSCRIBE)
