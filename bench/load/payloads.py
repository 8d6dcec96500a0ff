"""What the simulated devices send. All payloads of a kind have one length, so that frames can be made beforehand."""

FIRST = 1_000_000
"""The first sequence number of every device: seven digits, as all that follow."""

HOT = 64
_TAILS = [b',"temperature":%.1f,"humidity":41.2}' % (21 + i % 70 / 10) for i in range(HOT)]


def telemetry(seq):
    """A reading of more than 20 degrees Celsius."""
    return b'{"seq":%d%b' % (seq, _TAILS[seq % HOT])


def rpc(seq):
    """A device's request, with a parameter that must come back in its answer."""
    return b'{"method":"getTime","params":{"seq":%d}}' % seq
