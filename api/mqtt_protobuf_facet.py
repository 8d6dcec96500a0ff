"""What a product says of its devices' Protocol Buffers over ThingsBoard's MQTT API: the facet `mqtt_protobuf`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.networks import converted
from engine.errors import BadInput, Finding
from nodes.codecs.formats import Protobuf, from_base64
from nodes.codecs.protobuf import ProtoCodec

FACET: Final = "mqtt_protobuf"
USES: Final = ("telemetry", "attributes", "rpc_request", "rpc_response")


class MqttProtobuf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Message definitions by use, and where they are spoken. A use without one has the platform's own messages."""

    telemetry: Annotated[Protobuf | None, Meta(description="What devices publish as telemetry.")] = None
    attributes: Annotated[Protobuf | None, Meta(description="What devices publish as attributes.")] = None
    rpc_request: Annotated[
        Protobuf | None,
        Meta(description="A command to a device; fields `method`, `requestId` and `params` are filled."),
    ] = None
    rpc_response: Annotated[Protobuf | None, Meta(description="A device's answer to a command.")] = None
    default: Annotated[
        bool, Meta(description="Topics that end neither with `/j` nor with `/p` are Protocol Buffers, not JSON.")
    ] = False
    json_too: Annotated[bool, Meta(description="What cannot be read as a message on such a topic is read as JSON.")] = (
        False
    )
    json_downlinks: Annotated[bool, Meta(description="What the server sends on such topics is JSON all the same.")] = (
        False
    )


def mqtt_protobuf_of(facets: Mapping[str, Any]) -> MqttProtobuf | None:
    """A product's facet, None without one; BadInput, its pointer relative to the facets, for one that does not hold."""
    return converted(facets, FACET, MqttProtobuf)


def codec_of(facet: MqttProtobuf, use: str) -> ProtoCodec | None:
    """The codec of one use; None where the facet has none. BadInput for a definition that does not build."""
    definition: Protobuf | None = getattr(facet, use)
    if definition is None:
        return None
    descriptors = from_base64(definition.descriptor_set_b64, f"/{FACET}/{use}/descriptor_set_b64")
    try:
        return ProtoCodec(descriptors, definition.message, json_names=True)
    except BadInput as error:
        raise BadInput(error.reason, f"/{FACET}/{use}{error.pointer}") from None


def check_mqtt_protobuf(facets: Mapping[str, Any]) -> list[Finding]:
    """Everything wrong with the facet; pointers relative to the facets."""
    try:
        facet = mqtt_protobuf_of(facets)
    except BadInput as error:
        return [Finding(error.pointer, error.reason)]
    if facet is None:
        return []
    found = []
    for use in USES:
        try:
            codec_of(facet, use)
        except BadInput as error:
            found.append(Finding(error.pointer, error.reason))
    return found
