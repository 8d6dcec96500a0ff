"""Kind `event_function`: runs the function that the device's product has for an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec
from msgspec.structs import replace

from engine.sandbox.script import Script
from nodes import (
    FAILURE,
    SUCCESS,
    BadInput,
    Build,
    Context,
    Example,
    Message,
    Node,
    NodeSpec,
    Outcomes,
    Relation,
    ScriptError,
)
from nodes.codecs.formats import compiled
from nodes.codecs.records import unwrapped
from nodes.scripting import CALLING, run_batch, settled

NONE: Final = "None"
MAX_PRODUCTS: Final = 64
"""How many products' functions one node keeps ready; those unused for longest go first."""


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """No settings."""


class EventFunction(Node):
    """Makes of an event what its product's function returns."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="event_function",
        category="transform",
        summary="Runs the product's function for an event; what it returns is the data, for a reply for example.",
        description=(
            "The product is that of metadata `productId`, the event that of metadata `eventId`. The product's facet "
            '`events` holds a function for each event that has one: `{"door-open": {"lang": "lua", "source": '
            '"return {allowed = msg.badge == 7}"}}`. What the function returns, alone or as `msg` of an object, is '
            "the data that goes on; nothing or null goes along `None`. "
        )
        + CALLING,
        config=Config,
        relations=(
            Relation(SUCCESS, "The function returned something."),
            Relation(NONE, "The product has no function for this event, or the function returned nothing."),
            Relation(FAILURE, "The function does not compile, failed, or broke a limit."),
        ),
        examples=(Example("Answer events", {}),),
    )

    def __init__(self, config: Any, build: Build) -> None:
        super().__init__(config, build)
        self._name = f"{build.chain}/{build.node}"
        self._kept: dict[str, tuple[int, dict[str, Script | str]]] = {}
        """Product to its revision and, by event, the function or why there is none that runs."""

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Run the function of each message; the messages of one function together."""
        calls: dict[Script, list[int]] = {}
        made: dict[str, list[tuple[int, Message]]] = {SUCCESS: [], NONE: []}
        for i, message in enumerate(batch):
            function = await self._function(message, ctx)
            if function is None:
                made[NONE].append((i, message))
            elif isinstance(function, str):
                out.fail(i, function)
            else:
                calls.setdefault(function, []).append(i)
        for script, indexes in calls.items():
            results = run_batch(script, [batch[i] for i in indexes], ctx)
            for i, result in zip(indexes, results, strict=True):
                if settled(i, result, out):
                    continue
                answer = unwrapped(result)
                if answer is None:
                    made[NONE].append((i, batch[i]))
                else:
                    made[SUCCESS].append((i, replace(batch[i], data=answer)))
        for relation, messages in made.items():
            if messages:
                out.emit_all(relation, sorted(messages, key=_index))

    async def _function(self, message: Message, ctx: Context) -> Script | str | None:
        """The function for an event; None without one, and a text that tells why it cannot be run."""
        product_id, event_id = message.metadata.get("productId", ""), message.metadata.get("eventId", "")
        product = await ctx.product(product_id) if product_id and event_id else None
        events = product.facets.get("events") if product is not None else None
        if product is None or not isinstance(events, dict) or events.get(event_id) is None:
            return None
        revision, known = self._kept.pop(product_id, (-1, {}))
        if revision != product.revision:
            revision, known = product.revision, {}
        self._kept[product_id] = (revision, known)
        if len(self._kept) > MAX_PRODUCTS:
            del self._kept[next(iter(self._kept))]
        if event_id not in known:
            name = f"{self._name} for event {event_id} of product {product_id}"
            try:
                known[event_id] = compiled(events[event_id], "function", name)
            except (BadInput, ScriptError) as error:
                known[event_id] = f"the function for event {event_id!r}: {error}"
        return known[event_id]


def _index(item: tuple[int, Message]) -> int:
    return item[0]
