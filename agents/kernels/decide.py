"""What becomes of a client's message. The definition is sources/listener.Listener._handle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel
from agents.kernels.networks import allowed
from agents.kernels.question import HEADER_SIZE, question_end, u16
from agents.kernels.zones import zone_of

FORWARD, DROP = -1, -2
"""Verdicts beside the RCODE that is answered at once."""
FORMERR, SERVFAIL, NOTIMP, REFUSED = 1, 2, 4, 5
"""RCODEs (RFC 1035 section 4.1.1)."""
_AXFR, _IXFR = 252, 251
_QR, _OPCODE = 0x80, 0x78


@kernel
def decide(
    message: NDArray[np.uint8],
    size: int,
    high: int,
    low: int,
    ranges: NDArray[np.uint64],
    zones: NDArray[np.uint8],
) -> tuple[int, int, int]:
    """(verdict, end of the question as far as it is answered, zone or -1). For high, low and ranges see networks.py."""
    if size < HEADER_SIZE or message[2] & _QR:
        return DROP, 0, -1
    if not allowed(high, low, ranges):
        return REFUSED, HEADER_SIZE, -1
    if message[2] & _OPCODE:
        return NOTIMP, HEADER_SIZE, -1
    end = question_end(message, 0, size)
    if end == 0:
        return FORMERR, HEADER_SIZE, -1
    kind = u16(message, end - 4)
    if kind in (_AXFR, _IXFR):
        return NOTIMP, end, -1
    zone = zone_of(message, HEADER_SIZE, end - 5, zones)
    return (FORWARD if zone >= 0 else SERVFAIL), end, zone


@kernel
def make_error(message: NDArray[np.uint8], rcode: int, end: int) -> int:
    """Turn a query into an error reply in place, as wire.error_reply does; its size."""
    message[2] = _QR | (message[2] & (_OPCODE | 0x01))
    message[3] = 0x80 | (message[3] & 0x10) | rcode
    message[4:HEADER_SIZE] = 0
    message[5] = 1 if end > HEADER_SIZE else 0
    return end
