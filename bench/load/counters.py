"""Numbers that the bench and its generator share, without locks: each is written by one side only."""

from multiprocessing import RawArray

SENT, ACKED, ARRIVED, ERRORS, LIMIT = range(5)
"""Messages sent, messages acknowledged, messages at the sink, answers that were wrong; and how many may be sent."""

UNLIMITED = 1 << 62


def make():
    """Counters of one generator, all zero, nothing held back."""
    counters = RawArray("q", 5)
    counters[LIMIT] = UNLIMITED
    return counters
