"""The fields that MQTT packets are made of, read from bytes and written to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from api.transports.mqtt.packets import Malformed
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.topics import filter_fault

T = TypeVar("T")


class Fields:
    """Reads the fields of one packet from front to back; Malformed where they do not hold."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._body)

    def raw(self, size: int) -> bytes:
        """So many bytes."""
        end = self._at + size
        if end > len(self._body):
            raise Malformed("a packet is shorter than its fields")
        got = self._body[self._at : end]
        self._at = end
        return got

    def rest(self) -> bytes:
        """All that is left."""
        return self.raw(len(self._body) - self._at)

    def byte(self) -> int:
        """One byte."""
        return self.raw(1)[0]

    def short(self) -> int:
        """Two bytes."""
        return int.from_bytes(self.raw(2), "big")

    def long(self) -> int:
        """Four bytes."""
        return int.from_bytes(self.raw(4), "big")

    def varint(self) -> int:
        """A number of one to four bytes, seven bits in each."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise Malformed("a variable byte integer of more than four bytes")

    def packet_id(self) -> int:
        """Two bytes that are not 0."""
        got = self.short()
        if not got:
            raise Malformed("packet id 0", Reason.PROTOCOL_ERROR)
        return got

    def blob(self) -> bytes:
        """Bytes behind their length."""
        return self.raw(self.short())

    def text(self) -> str:
        """UTF-8 behind its length in bytes."""
        try:
            got = self.blob().decode()
        except UnicodeDecodeError:
            raise Malformed("text that is not UTF-8") from None
        if "\0" in got:
            raise Malformed("text with a NUL character")
        return got

    def filter(self) -> str:
        """A topic filter."""
        got = self.text()
        fault = filter_fault(got)
        if fault:
            raise Malformed(f"topic filter {got[:100]!r} {fault}")
        return got

    def every(self, read: Callable[[Fields], T]) -> tuple[T, ...]:
        """What is left of a list of filters, one or more; `read` reads one."""
        got = []
        while self.more():
            got.append(read(self))
        if not got:
            raise Malformed("a packet without a topic filter", Reason.PROTOCOL_ERROR)
        return tuple(got)


def short(value: int) -> bytes:
    """Two bytes."""
    return value.to_bytes(2, "big")


def long(value: int) -> bytes:
    """Four bytes."""
    return value.to_bytes(4, "big")


def blob(data: bytes) -> bytes:
    """Bytes behind their length; ValueError for more than that can say."""
    if len(data) > 65_535:
        raise ValueError(f"a field of {len(data)} bytes cannot be sent")
    return short(len(data)) + data


def text(value: str) -> bytes:
    """UTF-8 behind its length."""
    return blob(value.encode())


def varint(value: int) -> bytes:
    """One to four bytes, seven bits in each."""
    if value < 128:
        return bytes((value,))
    made = bytearray()
    while value > 127:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
