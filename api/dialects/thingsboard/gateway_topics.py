"""The topics of a gateway's session (`TB-X2`), besides those that it has as a device."""

from __future__ import annotations

from typing import Final

from api.dialects.thingsboard import gateway_uplinks
from api.dialects.thingsboard.device_topics import DEVICE
from api.dialects.thingsboard.gateway import ROOT
from api.dialects.thingsboard.topics import Down, Handler, Topics

_PUBLISH: Final[dict[str, Handler]] = {
    ROOT + "connect": gateway_uplinks.connect,
    ROOT + "disconnect": gateway_uplinks.disconnect,
    ROOT + "telemetry": gateway_uplinks.telemetry,
    ROOT + "attributes": gateway_uplinks.attributes,
    ROOT + "attributes/request": gateway_uplinks.attributes_request,
    ROOT + "rpc": gateway_uplinks.command_answer,
    ROOT + "claim": gateway_uplinks.claim,
}

_SUBSCRIBE: Final = {
    ROOT + "attributes": Down.CHILD_UPDATES,
    ROOT + "attributes/response": Down.ANSWERS,
    ROOT + "rpc": Down.CHILD_COMMANDS,
}

GATEWAY: Final = Topics({**DEVICE.publish, **_PUBLISH}, {**DEVICE.subscribe, **_SUBSCRIBE})
