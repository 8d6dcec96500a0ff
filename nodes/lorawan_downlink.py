"""Kind `lorawan_downlink`: gives a device's network something to send to it."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from engine.stores import routes
from engine.stores.routes import Broker, Route
from nodes import (
    FAILURE,
    SUCCESS,
    BadInput,
    Build,
    CallContext,
    CallNode,
    Example,
    Message,
    NodeSpec,
    Relation,
    Retry,
)
from nodes.codecs.downlink import payload_bytes
from nodes.outward.addresses import Guard
from nodes.outward.http import RETRIED_STATUSES, Client, retry_after_s
from nodes.outward.publishers import Place, Publishers

MAX_ANSWER_BYTES: Final = 64 * 1024
_REFERENCE: Final = re.compile(r"\$\{secret:([^{}]+)\}")

Priority = Literal["LOWEST", "LOW", "BELOW_NORMAL", "NORMAL", "ABOVE_NORMAL", "HIGH", "HIGHEST"]


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """How downlinks are sent, unless a command says otherwise."""

    operation: Annotated[
        Literal["push", "replace", "clear"],
        Meta(
            description="`push` adds to what waits for the device in the network, `replace` (The Things Stack only) "
            "puts the downlink in its place, `clear` only takes it away."
        ),
    ] = "push"
    f_port: Annotated[int, Meta(description="Port of the application.", ge=1, le=223)] = 1
    confirmed: Annotated[bool, Meta(description="Ask the device to confirm.")] = False
    priority: Annotated[Priority, Meta(description="For The Things Stack.")] = "NORMAL"
    timeout_s: Annotated[float, Meta(description="Seconds for the whole call.", gt=0, le=300)] = 10.0
    allow_private: Annotated[
        bool, Meta(description="Networks at private addresses too, those that the server's settings permit.")
    ] = False


class Downlink(msgspec.Struct, forbid_unknown_fields=True):
    """A command that says more than its payload."""

    payload: Any = None
    object: dict[str, Any] | None = None
    f_port: Annotated[int, Meta(ge=1, le=223)] | None = None
    confirmed: bool | None = None
    priority: Priority | None = None


class LorawanDownlink(CallNode):
    """Makes one HTTP call to the network per message, or publishes one to its broker (CT-X2, CT-X3)."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="lorawan_downlink",
        category="external",
        summary="Has the LoRaWAN network of the originator send it the command.",
        description=(
            'The data is `{"method": text, "params": payload}`, or the payload alone: hexadecimal digits, `{hex}`, '
            "`{raw_b64}`, or an object with `payload` in one of these forms, or `object` for the network's own "
            "encoder, and maybe `f_port`, `confirmed` and `priority`. Where it goes is known from the device's last "
            "uplink: the address and key that The Things Stack sends with it, else those in the facet `ttn` or "
            "`chirpstack` of the device's product. If that uplink came over the network's MQTT broker, or the facet "
            "has `mqtt` and no `downlink`, it is published there, and `Success` waits for the broker's acknowledgement"
            "; ChirpStack takes only `push` that way. `Success` means that the network has it; the device gets it when "
            "it can, and the network tells of that as a device event. Answers 408, 425, 429 and 5xx and connection "
            "errors are tried again; after a crash a downlink may be sent twice."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The network took it; over HTTP its status stands in metadata `statusCode`."),
            Relation(FAILURE, "It is no payload, no uplink told where to send it, or the network refused."),
        ),
        parks=True,
        examples=(
            Example("Send what commands hold to port 15", {"f_port": 15}),
            Example("Only the newest setting counts", {"operation": "replace", "confirmed": True}),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self.timeout_s = config.timeout_s
        guard = Guard.from_environment(config.allow_private)
        self._client = Client(guard, connections=self.concurrency)
        self._publishers = Publishers(guard, timeout_s=config.timeout_s)

    async def call(self, message: Message, ctx: CallContext) -> list[tuple[str, Message]]:
        """Make the call, or publish."""
        downlink = None if self.config.operation == "clear" else self._downlink(message)
        blob = await ctx.read(routes.TABLE, routes.FIELD)
        if blob is None:
            raise BadInput("no uplink of the device told where its downlinks go")
        route = routes.decode(blob)
        operation = self.config.operation
        if route.broker is not None and (operation == "push" or not route.url):
            await self._publish(route, route.broker, downlink, ctx)
            return [(SUCCESS, message)]
        made = (_to_ttn if route.network == "ttn" else _to_chirpstack)(route, operation, downlink)
        headers = {"Accept-Encoding": "identity", "User-Agent": "rulemill", **made.headers}
        body = None
        if made.body is not None:
            headers["Content-Type"] = "application/json"
            body = msgspec.json.encode(made.body)
        answer = await self._client.request(
            made.method, made.url, headers, body, timeout_s=self.config.timeout_s, max_bytes=MAX_ANSWER_BYTES
        )
        if not 200 <= answer.status < 300:
            reason = f"the network answered {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}"
            if answer.status in RETRIED_STATUSES or answer.status >= 500:
                raise Retry(reason, retry_after_s(answer.headers))
            raise BadInput(reason)
        return [(SUCCESS, replace(message, metadata={**message.metadata, "statusCode": str(answer.status)}))]

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()
        await self._publishers.close()

    async def _publish(self, route: Route, broker: Broker, downlink: Downlink | None, ctx: CallContext) -> None:
        push = self.config.operation == "push"
        topic = broker.topic if push else broker.replace_topic
        if not topic:
            raise BadInput(f"ChirpStack's broker takes no {self.config.operation}: give the facet `downlink` too")
        if downlink is None:
            body: Any = {"downlinks": []}
        elif route.network == "ttn":
            body = {"downlinks": [_ttn_entry(downlink)]}
        else:
            body = {"devEui": broker.dev_eui, **_chirpstack_item(downlink)}
        login = [_resolved(text, ctx) for text in (broker.username, broker.password)]
        place = Place(broker.host, broker.port, broker.tls, *login)
        await self._publishers.publish(place, topic, msgspec.json.encode(body))

    def _downlink(self, message: Message) -> Downlink:
        data, pointer = message.data, ""
        if isinstance(data, dict) and data.keys() == {"method", "params"}:
            data, pointer = data["params"], "/params"
        if isinstance(data, dict) and not {"payload", "object"}.isdisjoint(data):
            try:
                found = msgspec.convert(data, Downlink)
            except msgspec.ValidationError as error:
                raise BadInput(str(error), pointer) from None
            data, pointer = found.payload, f"{pointer}/payload"
        else:
            found = Downlink()
        config = self.config
        return Downlink(
            payload=None if found.object is not None else payload_bytes(data, pointer),
            object=found.object,
            f_port=config.f_port if found.f_port is None else found.f_port,
            confirmed=config.confirmed if found.confirmed is None else found.confirmed,
            priority=config.priority if found.priority is None else found.priority,
        )


class _Call(NamedTuple):
    method: str
    url: str
    headers: dict[str, str]
    body: Any


def _to_ttn(route: Route, operation: str, downlink: Downlink | None) -> _Call:
    """CT-X2. The empty list takes away what waits."""
    entries = [] if downlink is None else [_ttn_entry(downlink)]
    url = route.url if operation == "push" else route.replace_url
    if not url:
        raise BadInput(f"the device's last uplink told no address to {operation} downlinks at")
    headers = {"Authorization": f"Bearer {route.key}"} if route.key else {}
    return _Call("POST", url, headers, {"downlinks": entries})


def _to_chirpstack(route: Route, operation: str, downlink: Downlink | None) -> _Call:
    """The queue of ChirpStack's REST API."""
    headers = {"Grpc-Metadata-Authorization": f"Bearer {route.key}"} if route.key else {}
    if downlink is None:
        return _Call("DELETE", route.url, headers, None)
    if operation != "push":
        raise BadInput("ChirpStack cannot replace what waits: clear it, then push")
    return _Call("POST", route.url, headers, {"queueItem": _chirpstack_item(downlink)})


def _ttn_entry(downlink: Downlink) -> dict[str, Any]:
    content = (
        {"decoded_payload": downlink.object}
        if downlink.object is not None
        else {"frm_payload": base64.b64encode(downlink.payload).decode("ascii")}
    )
    about = {"f_port": downlink.f_port, "priority": downlink.priority, "confirmed": downlink.confirmed}
    return {**content, **about}


def _chirpstack_item(downlink: Downlink) -> dict[str, Any]:
    content = (
        {"object": downlink.object}
        if downlink.object is not None
        else {"data": base64.b64encode(downlink.payload).decode("ascii")}
    )
    return {"confirmed": downlink.confirmed, "fPort": downlink.f_port, **content}


def _resolved(text: str, ctx: CallContext) -> str:
    """What a text of a facet stands for."""
    named = _REFERENCE.fullmatch(text)
    if named is None:
        return text
    found = ctx.secret(named[1])
    if found is None:
        raise BadInput(f"the tenant has no secret {named[1]!r}, which its network's broker wants")
    return found
