"""Node kinds. Authors of kinds, ours and others', import the contract from here and nothing else of the kernel."""

from engine.bus import caller_of
from engine.errors import BadInput, Finding, ScriptError
from engine.message import Message, Point
from engine.node import (
    Build,
    CallContext,
    CallNode,
    Context,
    Example,
    Node,
    NodeSpec,
    Product,
    Relation,
    Resumed,
)
from engine.outcomes import (
    FAILURE,
    SUCCESS,
    Broadcast,
    Command,
    Discard,
    Hint,
    Index,
    Outcomes,
    Park,
    Reply,
    Retry,
    Write,
)

__all__ = [
    "FAILURE",
    "SUCCESS",
    "BadInput",
    "Broadcast",
    "Build",
    "CallContext",
    "CallNode",
    "Command",
    "Context",
    "Discard",
    "Example",
    "Finding",
    "Hint",
    "Index",
    "Message",
    "Node",
    "NodeSpec",
    "Outcomes",
    "Park",
    "Point",
    "Product",
    "Relation",
    "Reply",
    "Resumed",
    "Retry",
    "ScriptError",
    "Write",
    "caller_of",
]
