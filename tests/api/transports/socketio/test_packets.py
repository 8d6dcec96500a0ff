"""What passes for a packet is one to the library, too."""

from __future__ import annotations

import pytest
from engineio.packet import Packet as EnginePacket
from hypothesis import example, given
from hypothesis import strategies as st
from socketio.packet import EVENT, Packet

from api.transports.socketio.packets import MAX_DEPTH, fault, packets_of

PIECES = st.sampled_from(
    ["4", "42", "40", "43", "5", "1", "7", "-", "/v2", ",", "[", "]", "{", "}", '"', ":", "a", "0", "²", "٣", "é"]
)  # fmt: skip


@pytest.mark.spec("G-25")
@given(st.lists(PIECES, max_size=12).map("".join))
@example('42/v2,7["a",1]')
@example("42٣[]")
@example("4²")
def test_what_has_no_fault_can_be_read(packet: str) -> None:
    if fault(packet, upgrade=True):
        return
    read = EnginePacket(encoded_packet=packet)
    if packet.startswith("4"):
        message = Packet(encoded_packet=read.data)
        assert message.packet_type != EVENT or isinstance(message.data[0], str)


@pytest.mark.spec("G-25")
@pytest.mark.parametrize(
    "packet",
    ["1", "3", "40", "40/v2,", '40/v2,{"token":"x"}', "41/v2,", '42["a"]', '42/v2,12["a",{"b":[1]}]', "43/v2,1[]"],
)
def test_what_clients_say_has_no_fault(packet: str) -> None:
    assert fault(packet) == ""


@pytest.mark.spec("G-25")
def test_limits() -> None:
    for depth, fits in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
        nested = "[" * (depth - 1) + "]" * (depth - 1)
        assert (fault(f'42["a",{nested}]') == "") is fits
    assert fault("2probe", upgrade=True) == "" != fault("2probe")
    assert packets_of(b"40\x1e1\x1e40/v2,") == ["40", "1"]
