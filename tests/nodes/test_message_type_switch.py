from __future__ import annotations

import pytest

from nodes.message_type_switch import LABELS, MessageTypeSwitch
from tests.nodes.context import build, emitted, message, run

pytestmark = pytest.mark.asyncio


@pytest.mark.spec("G-18")
async def test_each_type_goes_its_way() -> None:
    node = build(MessageTypeSwitch)
    types = {
        "POST_TELEMETRY_REQUEST": "Post telemetry",
        "POST_ATTRIBUTES_REQUEST": "Post attributes",
        "TO_SERVER_RPC_REQUEST": "RPC Request from Device",
        "RPC_CALL_FROM_SERVER_TO_DEVICE": "RPC Request to Device",
        "RAW_UPLINK": "Raw uplink",
        "DEVICE_EVENT": "Device event",
        "COMMAND_RESPONSE": "Command response",
        "PARSE_REQUEST": "Parse request",
        "ALARM_REQUEST": "Alarm request",
        "CONNECT_EVENT": "Connect Event",
        "ALARM_ACK": "Alarm Acknowledged",
        "ALARM_DELETE": "Other",
        "PROVISION_SUCCESS": "Other",
        "MY_OWN": "Other",
        "": "Other",
    }
    batch = [message({}, type=type) for type in types]
    out = await run(node, *batch)
    found = {sent.type: relation for relation, messages in emitted(out).items() for sent in messages}
    assert found == types


async def test_labels_are_unambiguous() -> None:
    assert len(set(LABELS.values())) == len(LABELS)
    assert build(MessageTypeSwitch).relations() == {*LABELS.values(), "Other"}
