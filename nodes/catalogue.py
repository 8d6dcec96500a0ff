"""All node kinds by name: ours in one table, others' by the entry points that the settings list."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

import msgspec

from engine.errors import Conflict, NotFound
from nodes import BadInput, Node, NodeSpec
from nodes.broadcast import BroadcastNode
from nodes.chain import Chain
from nodes.clear_alarm import ClearAlarm
from nodes.copy_keys import CopyKeys
from nodes.create_alarm import CreateAlarm
from nodes.decode import Decode
from nodes.delay import Delay
from nodes.delete_keys import DeleteKeys
from nodes.event_function import EventFunction
from nodes.filter import Filter
from nodes.forward_http import ForwardHttp
from nodes.forward_mqtt import ForwardMqtt
from nodes.log import Log
from nodes.lorawan_downlink import LorawanDownlink
from nodes.message_type_switch import MessageTypeSwitch
from nodes.output import Output
from nodes.rename_keys import RenameKeys
from nodes.rpc_reply import RpcReply
from nodes.rpc_request import RpcRequest
from nodes.save_attributes import SaveAttributes
from nodes.save_event import SaveEvent
from nodes.save_timeseries import SaveTimeseries
from nodes.script import ScriptNode
from nodes.switch import Switch

ENTRY_POINTS: Final = "rulemill.nodes"
"""Group in which packages offer node kinds: name of the kind to its class."""

BUILTIN: Final[tuple[type[Node], ...]] = (
    MessageTypeSwitch,
    Filter,
    Switch,
    ScriptNode,
    Decode,
    RenameKeys,
    CopyKeys,
    DeleteKeys,
    SaveTimeseries,
    BroadcastNode,
    SaveAttributes,
    SaveEvent,
    EventFunction,
    CreateAlarm,
    ClearAlarm,
    RpcReply,
    RpcRequest,
    Delay,
    Log,
    ForwardHttp,
    ForwardMqtt,
    LorawanDownlink,
    Chain,
    Output,
)


class Catalogue:
    """Kinds by name. Never changed: `extended` and `with_plugins` make larger ones."""

    def __init__(self, kinds: Iterable[type[Node]] = BUILTIN) -> None:
        found: dict[str, type[Node]] = {}
        for node in kinds:
            name = node.spec.kind
            if name in found:
                raise Conflict(f"two node kinds are named {name!r}: {_place(found[name])} and {_place(node)}")
            found[name] = node
        self.kinds: Mapping[str, type[Node]] = MappingProxyType(found)

    def __contains__(self, kind: str) -> bool:
        return kind in self.kinds

    def __iter__(self) -> Iterator[type[Node]]:
        return iter(self.kinds.values())

    def __len__(self) -> int:
        return len(self.kinds)

    def lookup(self, kind: str) -> type[Node]:
        """The class of a kind; raises NotFound."""
        try:
            return self.kinds[kind]
        except KeyError:
            raise NotFound("node kind", kind) from None

    def spec(self, kind: str) -> NodeSpec:
        """What a kind says of itself; raises NotFound."""
        return self.lookup(kind).spec

    def did_you_mean(self, kind: str) -> str | None:
        """The kind whose name is nearest to a wrong one, whether in our spelling or as `save time series`."""
        plain = "_".join(kind.lower().replace("-", " ").split())
        near = difflib.get_close_matches(plain, self.kinds, n=1, cutoff=0.6)
        return near[0] if near else None

    def json_schema(self, kind: str) -> dict[str, Any]:
        """JSON Schema of a kind's configuration: one object, whose inner structs stand under `$defs`."""
        (schema,), components = msgspec.json.schema_components([self.spec(kind).config])
        name = schema["$ref"].rpartition("/")[2]
        own = dict(components.pop(name))
        own["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        own["title"] = kind
        if components:
            own["$defs"] = components
        return own

    def extended(self, kinds: Iterable[type[Node]]) -> Catalogue:
        """These kinds and those; raises Conflict for a name that is taken."""
        return Catalogue((*self, *kinds))

    def with_plugins(self, names: Sequence[str], points: Iterable[EntryPoint] | None = None) -> Catalogue:
        """These kinds and the listed entry points of the group `rulemill.nodes`; no other is imported.

        Raises NotFound for a name that no installed package offers, BadInput for what is no node kind of that name.
        """
        offered: dict[str, EntryPoint] = {}
        for point in entry_points(group=ENTRY_POINTS) if points is None else points:
            if point.name in names and point.name in offered:
                raise Conflict(
                    f"two packages offer node kind {point.name!r}: {offered[point.name].value}, {point.value}"
                )
            offered[point.name] = point
        loaded = []
        for name in names:
            if name not in offered:
                raise NotFound("node kind among the installed packages", name)
            loaded.append(_load(offered[name]))
        return self.extended(loaded)


def _load(point: EntryPoint) -> type[Node]:
    node = point.load()
    if not (isinstance(node, type) and issubclass(node, Node) and isinstance(getattr(node, "spec", None), NodeSpec)):
        raise BadInput(f"{point.value} is no node kind: a subclass of Node with a spec is needed")
    if node.spec.kind != point.name:
        raise BadInput(f"{point.value} calls itself {node.spec.kind!r}, its entry point {point.name!r}")
    return node


def _place(node: type[Node]) -> str:
    return f"{node.__module__}.{node.__qualname__}"
