"""Bytes of a client in which something is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

damages = st.tuples(st.integers(0, 20_000), st.sampled_from(["flip", "cut", "insert", "repeat"]), st.integers(1, 255))
"""Where, what, and how much of it."""


def damaged(raw: bytes, wounds: Sequence[tuple[int, str, int]]) -> bytes:
    """The bytes with something wrong at each of the places."""
    made = bytearray(raw)
    for place, how, value in wounds:
        at = place % (len(made) + 1)
        if how == "flip":
            made[at : at + 1] = bytes(byte ^ value for byte in made[at : at + 1])
        elif how == "cut":
            del made[at : at + value % 8 + 1]
        elif how == "insert":
            made[at:at] = bytes([value])
        else:
            made[at:at] = made[at : at + value]
    return bytes(made)
