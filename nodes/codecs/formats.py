"""What devices of a product speak: its message definition and its transform function, built when first needed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from engine.sandbox.script import Script, compile_script
from nodes import BadInput, Context, Message, ScriptError
from nodes.codecs.protobuf import ProtoCodec

MAX_PRODUCTS: Final = 64
"""How many products one node keeps ready; the one unused for longest goes first."""

T = TypeVar("T")


class Protobuf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message definition."""

    descriptor_set_b64: Annotated[
        str, Meta(description="Base64 of what `protoc --include_imports --descriptor_set_out` writes.")
    ]
    message: Annotated[str, Meta(description="Full name of the root message, with its package.")]


class Formats:
    """A codec and a function that are built, or found to be wrong, once. `name` says in error texts whose they are.

    `proto()` and `script()` return None where there is none, and raise BadInput or ScriptError where it does not build.
    `protobuf` is a Protobuf or its JSON form, `transform` `{"lang": …, "source": …}`, the source as text or lines.
    """

    __slots__ = ("proto", "revision", "script")

    def __init__(self, protobuf: Any, transform: Any, name: str, revision: int = 0) -> None:
        self.revision = revision
        self.proto = _Once(lambda: None if protobuf is None else proto_codec(protobuf))
        self.script = _Once(lambda: None if transform is None else compiled(transform, "transform function", name))


class ProductFormats:
    """The formats of products by their id, each at its newest revision; `facets` hold `protobuf` and `transform`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kept: dict[str, Formats] = {}

    async def of(self, message: Message, ctx: Context) -> Formats:
        """The formats of the product in metadata `productId`; raises BadInput if there is no such product."""
        product_id = message.metadata.get("productId", "")
        if not product_id:
            raise BadInput("metadata has no productId")
        product = await ctx.product(product_id)
        if product is None:
            raise BadInput(f"no product {product_id!r}")
        found = self._kept.pop(product_id, None)
        if found is None or found.revision != product.revision:
            facets = product.facets
            name = f"{self._name} for product {product_id}"
            found = Formats(facets.get("protobuf"), facets.get("transform"), name, product.revision)
        self._kept[product_id] = found
        if len(self._kept) > MAX_PRODUCTS:
            del self._kept[next(iter(self._kept))]
        return found


def proto_codec(definition: Any) -> ProtoCodec:
    """The codec of a Protobuf or its JSON form; raises BadInput."""
    try:
        found = definition if isinstance(definition, Protobuf) else msgspec.convert(definition, Protobuf)
    except msgspec.ValidationError as error:
        raise BadInput(f"protobuf definition: {error}") from None
    return ProtoCodec(from_base64(found.descriptor_set_b64, "/descriptor_set_b64"), found.message)


def from_base64(text: Any, pointer: str) -> bytes:
    """The bytes of base64 text; raises BadInput with that pointer."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadInput("not base64", pointer) from None


class _Once(Generic[T]):
    """What `make` returns or raises: made at the first call, so that a wrong definition costs no second attempt."""

    __slots__ = ("_error", "_made", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._made: T | None = None
        self._error: BadInput | ScriptError | None = None

    def __call__(self) -> T:
        if self._make is not None:
            try:
                self._made = self._make()
            except (BadInput, ScriptError) as error:
                self._error = error
            self._make = None
        if self._error is not None:
            # Without the traceback of the last time, or it would grow with each raise.
            raise self._error.with_traceback(None)
        return self._made  # type: ignore[return-value]  # set, as there was no error


def compiled(transform: Any, what: str, name: str) -> Script:
    """The script of `{"lang": …, "source": …}`, the source as text or lines; raises BadInput or ScriptError."""
    if type(transform) is not dict:
        raise BadInput(f"{what}: expected an object with lang and source")
    lang, source = transform.get("lang", "lua"), transform.get("source")
    if type(source) is list:
        source = "\n".join(map(str, source))
    if type(source) is not str or type(lang) is not str:
        raise BadInput(f"{what}: lang and source must be text")
    return compile_script(lang, source, name=name)
