"""Kind `decode`: bytes of a device become telemetry, by the format that the message or the node names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from engine.sandbox.script import Call, Lang, Script, compile_script
from nodes import (
    FAILURE,
    SUCCESS,
    BadInput,
    Build,
    Context,
    Example,
    Finding,
    Message,
    Node,
    NodeSpec,
    Outcomes,
    Relation,
    Reply,
    Retry,
    ScriptError,
)
from nodes.codecs.cbor import decode_cbor
from nodes.codecs.formats import Formats, ProductFormats, Protobuf, from_base64, proto_codec
from nodes.codecs.protobuf import ProtoCodec
from nodes.codecs.records import Record, by_timestamp, records, transform_result, unwrapped
from nodes.codecs.values import check_value, decode_json

TELEMETRY: Final = "POST_TELEMETRY_REQUEST"
PARSE: Final = "PARSE_REQUEST"
"""Its sender waits for what was decoded, and has to know nothing from no answer."""

_CODEC_OF_CT: Final = {"json": "json", "cbor": "cbor", "proto": "protobuf"}
_RAW_MEMBERS: Final = frozenset({"raw_b64", "hex", "bytes"})


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which format, and what becomes of it."""

    codec: Annotated[
        Literal["auto", "json", "cbor", "protobuf", "custom"],
        Meta(description="The format. `auto` goes by metadata `ct` (json, cbor, proto); any other is custom."),
    ] = "auto"
    shape: Annotated[
        Literal["records", "plain"],
        Meta(
            description="`records`: the content is records, and becomes one telemetry message per point in time. "
            "`plain`: the decoded content becomes the data of the message."
        ),
    ] = "records"
    to_type: Annotated[str, Meta(description="With shape `plain`, the type of the message; empty: as it was.")] = ""
    protobuf: Annotated[
        Protobuf | None, Meta(description="Message definition; none: that of the product in metadata `productId`.")
    ] = None
    lang: Annotated[Lang, Meta(description="Language of the transform function below.")] = "lua"
    source: Annotated[
        str | list[str],
        Meta(description="Transform function, as text or lines; empty: that of the product in metadata `productId`."),
    ] = ""
    file: Annotated[str, Meta(description="File beside the chain that holds the function, in place of `source`.")] = ""


class Decode(Node):
    """Turns what devices send as bytes into telemetry messages."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="decode",
        category="transform",
        summary="Decodes JSON, CBOR, Protocol Buffers or a format of your own into telemetry.",
        description=(
            "The data may be bytes, an object `{raw_b64}` that holds some, or, for JSON and custom, any JSON value. "
            "With shape `records` every distinct time of the records becomes one POST_TELEMETRY_REQUEST, in the order "
            "of the records, with metadata `ts` (milliseconds) and, where a record tells its place, `geo` (JSON: "
            '`{"temp": {"lat": 52.2, "lon": 26.3}}`); records without a time are of the time the message was received. '
            "One invalid record fails the whole message. A custom format is read by a transform function: it gets "
            "`msg` as `{hex, raw_b64, bytes}` and returns records, an object of values by key, or nothing, which ends "
            "the message without a failure (and, with shape `plain`, is the answer to a PARSE_REQUEST). The message "
            "definition of Protocol Buffers and the function are those of the product named by metadata `productId`, "
            "unless the configuration has its own. A Protocol Buffers message whose root has no records is given to "
            "the transform function as an object."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The content was decoded."),
            Relation(FAILURE, "The content is not of the format, a record is invalid, or a definition is missing."),
        ),
        examples=(
            Example("Whatever the device said it sends", {}),
            Example("CBOR as it is, not as records", {"codec": "cbor", "shape": "plain", "to_type": "DEVICE_STATE"}),
            Example(
                "Two bytes of temperature in tenths of a degree",
                {"codec": "custom", "source": "return {temp = (msg.bytes[1] * 256 + msg.bytes[2]) / 10}"},
            ),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        source = _source(config, build)
        transform = {"lang": config.lang, "source": source} if source else None
        self._own = Formats(config.protobuf, transform, f"{build.chain}/{build.node}")
        self._products = ProductFormats(f"{build.chain}/{build.node}")

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """What the schema cannot say: that definitions and functions build."""
        found = []
        if config.to_type and config.shape == "records":
            found.append(Finding("/to_type", f"records always become {TELEMETRY}; only shape `plain` has a type"))
        if config.protobuf is not None:
            try:
                proto_codec(config.protobuf)
            except BadInput as error:
                found.append(Finding("/protobuf", str(error)))
        if config.source and config.file:
            found.append(Finding("/file", "give the function as `source` or as `file`, not both"))
        place = "/file" if config.file else "/source"
        try:
            source = _source(config, build)
            if source:
                compile_script(config.lang, source, name=f"{build.chain}/{build.node}")
        except (BadInput, ScriptError) as error:
            found.append(Finding(place, str(error)))
        return found

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Decode each message; those for one transform function are run together."""
        made: dict[int, list[Message]] = {}
        calls: dict[Script, list[tuple[int, Any]]] = {}
        for i, message in enumerate(batch):
            try:
                codec: str = self.config.codec
                if codec == "auto":
                    codec = _CODEC_OF_CT.get(message.metadata.get("ct", ""), "custom")
                data = _unpacked(message.data)
                if codec == "custom":
                    calls.setdefault(await self._script(message, ctx), []).append((i, data))
                elif codec == "protobuf":
                    proto = await self._proto(message, ctx)
                    document = proto.decode(_raw(data))
                    if self.config.shape == "plain" or proto.has_records:
                        made[i] = self._decoded(message, document)
                    else:
                        calls.setdefault(await self._script(message, ctx), []).append((i, document))
                elif codec == "cbor":
                    made[i] = self._decoded(message, decode_cbor(_raw(data)))
                else:
                    made[i] = self._decoded(message, decode_json(data) if isinstance(data, bytes) else data)
            except (BadInput, ScriptError) as error:
                out.fail(i, str(error))
        for script, wanted in calls.items():
            results = script.run(
                [Call(data, batch[i].metadata, batch[i].type, ctx.now_ms) for i, data in wanted], ctx.progress
            )
            for (i, _), result in zip(wanted, results, strict=True):
                self._transformed(i, batch[i], result, made, out)
        # Emissions of one relation go out in the order of the messages, whichever way each of them took.
        for i in sorted(made):
            for message in made[i]:
                out.emit(i, SUCCESS, message)

    def _decoded(self, message: Message, document: Any) -> list[Message]:
        if self.config.shape == "plain":
            return [self._plain(message, document)]
        return _telemetry(message, records(document, message.ts_ms))

    def _plain(self, message: Message, document: Any) -> Message:
        return msgspec.structs.replace(message, data=document, type=self.config.to_type or message.type)

    def _transformed(
        self, i: int, message: Message, result: Any, made: dict[int, list[Message]], out: Outcomes
    ) -> None:
        if isinstance(result, Retry):
            out.retry(i, str(result), result.after_s)
            return
        try:
            if isinstance(result, ScriptError):
                raise result
            if self.config.shape == "plain":
                document = unwrapped(result)
                check_value(document)
                found = [] if document is None else [self._plain(message, document)]
            else:
                found = _telemetry(message, transform_result(result, message.ts_ms))
        except (BadInput, ScriptError) as error:
            out.fail(i, f"transform function: {error}")
            return
        if found:
            made[i] = found
        else:
            if message.type == PARSE and message.reply_to and self.config.shape == "plain":
                out.effect(i, Reply(None))
            out.discard(i, "the transform function gave nothing")

    async def _script(self, message: Message, ctx: Context) -> Script:
        return self._own.script() or (await self._products.of(message, ctx)).script() or _missing("transform function")

    async def _proto(self, message: Message, ctx: Context) -> ProtoCodec:
        return self._own.proto() or (await self._products.of(message, ctx)).proto() or _missing("protobuf definition")


def _telemetry(message: Message, found: list[Record]) -> list[Message]:
    made = []
    for instant in by_timestamp(found):
        metadata = {**message.metadata, "ts": str(instant.ts_ms)}
        if instant.geo:
            metadata["geo"] = msgspec.json.encode(instant.geo).decode()
        else:
            metadata.pop("geo", None)  # one that the message came with would be of other keys
        made.append(
            msgspec.structs.replace(
                message, type=TELEMETRY, ts_ms=instant.ts_ms, data=instant.values, metadata=metadata
            )
        )
    return made


def _unpacked(data: Any) -> Any:
    """The bytes of an object that stands for some; anything else as it is."""
    if type(data) is dict and "raw_b64" in data and _RAW_MEMBERS.issuperset(data):
        return from_base64(data["raw_b64"], "/raw_b64")
    return data


def _raw(data: Any) -> bytes:
    if not isinstance(data, bytes):
        raise BadInput("the data is not bytes")
    return data


def _source(config: Config, build: Build) -> str:
    if config.file:
        return build.file(config.file)
    return config.source if isinstance(config.source, str) else "\n".join(config.source)


def _missing(what: str) -> Any:
    raise BadInput(f"the product has no {what}")
