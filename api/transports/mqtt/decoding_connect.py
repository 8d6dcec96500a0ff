"""The CONNECT of every level: each adds to the one before, and is stricter about it."""

from __future__ import annotations

from api.transports.mqtt import properties as where
from api.transports.mqtt.fields import Fields
from api.transports.mqtt.packets import LEVELS, Connect, Malformed, Will
from api.transports.mqtt.properties import read_properties, stated
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.topics import topic_fault


def read_connect(fields: Fields) -> Connect:
    """A CONNECT, of a level not in `LEVELS` no more than that; Malformed says the level where it is known."""
    name, level = fields.text(), fields.byte()
    if name not in LEVELS.values():
        raise Malformed(f"protocol name {name[:20]!r}")
    if LEVELS.get(level) != name:
        return Connect(level=level if level not in LEVELS else 0)
    try:
        return _body(fields, level)
    except Malformed as fault:
        fault.level = level
        raise


def _body(fields: Fields, level: int) -> Connect:
    flags, keep_alive_s = fields.byte(), fields.short()
    if flags & 1 and level > 3:
        raise Malformed("CONNECT with its reserved flag set")
    properties = read_properties(fields, where.CONNECT) if level == 5 else None
    said = stated(properties)
    if said.authentication_data is not None and said.authentication_method is None:
        raise Malformed("authentication data without a method", Reason.PROTOCOL_ERROR)
    client_id = fields.text()
    will = _will(fields, flags, level)
    if flags & 0xC0 == 0x40 and level == 4:
        raise Malformed("CONNECT with a password but no user name")
    # Of level 3 the length of the packet goes before the flags: announced names may be missing.
    username = fields.text() if flags & 0x80 and (level > 3 or fields.more()) else None
    password = fields.blob() if flags & 0x40 and (level > 3 or fields.more()) else None
    if fields.more():
        raise Malformed("CONNECT is longer than its fields")
    return Connect(level, flags & 2 != 0, keep_alive_s, client_id, will, username, password, properties)


def _will(fields: Fields, flags: int, level: int) -> Will | None:
    if not flags & 0x04:
        if flags & 0x38:
            raise Malformed("CONNECT with will flags but no will")
        return None
    properties = read_properties(fields, where.WILL) if level == 5 else None
    topic, payload = fields.text(), fields.blob()
    if topic_fault(topic):
        raise Malformed(f"a will to a topic that {topic_fault(topic)}")
    will = Will(topic, payload, flags >> 3 & 3, flags & 0x20 != 0, properties)
    if will.qos == 3:
        raise Malformed("a will with QoS 3")
    return will
