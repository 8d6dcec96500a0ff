"""Kind `message_type_switch`: one way out per message type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from nodes import Context, Example, Message, Node, NodeSpec, Outcomes, Relation

OTHER: Final = "Other"

LABELS: Final[dict[str, str]] = {
    # from devices
    "POST_ATTRIBUTES_REQUEST": "Post attributes",
    "POST_TELEMETRY_REQUEST": "Post telemetry",
    "TO_SERVER_RPC_REQUEST": "RPC Request from Device",
    "RPC_CALL_FROM_SERVER_TO_DEVICE": "RPC Request to Device",
    "RAW_UPLINK": "Raw uplink",
    "DEVICE_EVENT": "Device event",
    "COMMAND_RESPONSE": "Command response",
    "PARSE_REQUEST": "Parse request",
    "ALARM_REQUEST": "Alarm request",
    # connections
    "ACTIVITY_EVENT": "Activity Event",
    "INACTIVITY_EVENT": "Inactivity Event",
    "CONNECT_EVENT": "Connect Event",
    "DISCONNECT_EVENT": "Disconnect Event",
    # the life of entities
    "ENTITY_CREATED": "Entity Created",
    "ENTITY_UPDATED": "Entity Updated",
    "ENTITY_DELETED": "Entity Deleted",
    "ENTITY_ASSIGNED": "Entity Assigned",
    "ENTITY_UNASSIGNED": "Entity Unassigned",
    "ENTITY_ASSIGNED_FROM_TENANT": "Entity Assigned From Tenant",
    "ENTITY_ASSIGNED_TO_TENANT": "Entity Assigned To Tenant",
    # changes of data
    "ATTRIBUTES_UPDATED": "Attributes Updated",
    "ATTRIBUTES_DELETED": "Attributes Deleted",
    "TIMESERIES_UPDATED": "Timeseries Updated",
    "TIMESERIES_DELETED": "Timeseries Deleted",
    # alarms
    "ALARM": "Alarm",
    "ALARM_CREATED": "Alarm Created",
    "ALARM_UPDATED": "Alarm Updated",
    "ALARM_SEVERITY_UPDATED": "Alarm Severity Updated",
    "ALARM_ACK": "Alarm Acknowledged",
    "ALARM_CLEAR": "Alarm Cleared",
    "ALARM_ASSIGNED": "Alarm Assigned",
    "ALARM_UNASSIGNED": "Alarm Unassigned",
    "COMMENT_CREATED": "Comment Created",
    "COMMENT_UPDATED": "Comment Updated",
    # calls to devices that were kept
    "RPC_QUEUED": "RPC Queued",
    "RPC_SENT": "RPC Sent",
    "RPC_DELIVERED": "RPC Delivered",
    "RPC_SUCCESSFUL": "RPC Successful",
    "RPC_TIMEOUT": "RPC Timeout",
    "RPC_EXPIRED": "RPC Expired",
    "RPC_FAILED": "RPC Failed",
    "RPC_DELETED": "RPC Deleted",
    # users of apps, and what they keep
    "USER_CREATED": "User Created",
    "PERMISSION_GRANTED": "Permission Granted",
    "OBJECT_CREATED": "Object Created",
    "OBJECT_UPDATED": "Object Updated",
    "OBJECT_DELETED": "Object Deleted",
    # relations between entities
    "RELATION_ADD_OR_UPDATE": "Relation Added or Updated",
    "RELATION_DELETED": "Relation Deleted",
    "RELATIONS_DELETED": "All Relations Deleted",
    # the management API
    "REST_API_REQUEST": "REST API request",
}
"""Message type to label, as `TbMsgType` and `TbNodeConnectionType` of thingsboard/thingsboard name them, so that
chains from there keep their labels; raw uplinks, device events, command responses, parse and alarm requests and
all of users of apps are additions."""


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """No settings."""


class MessageTypeSwitch(Node):
    """Emits each message, unchanged, along the label of its type."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="message_type_switch",
        category="filter",
        summary="Sends each message along the connection named after its type.",
        description=(
            "The usual start of a chain. Every known message type has its own label; a type that is not in the table, "
            "a type of your own among them, goes along `Other`. A label that is not connected ends the message."
        ),
        config=Config,
        relations=(
            *(Relation(label, f"The message's type is {type}.") for type, label in LABELS.items()),
            Relation(OTHER, "The type is none of the others."),
        ),
        examples=(Example("Route by type", {}),),
    )

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Emit along the label of the type."""
        for i, message in enumerate(batch):
            out.emit(i, LABELS.get(message.type, OTHER), message)
