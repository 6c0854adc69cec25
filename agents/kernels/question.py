"""Header and question of a DNS message, in place. The definition is wire.parse_question."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place

int64: Any = np.int64
uint64: Any = np.uint64
"""Machine integers: with Any as type, as kernels mix them with int."""

HEADER_SIZE = 12
"""RFC 1035 section 4.1.1."""
LABEL_MAX, NAME_MAX = 63, 254
"""Bytes of a label, and of a name without the root byte (RFC 1035 section 3.1)."""


@kernel_in_place
def u16(data: NDArray[np.uint8], at: int) -> int:
    """The 16-bit number in network order at an offset that the caller knows to be inside."""
    return int64(data[at]) << 8 | int64(data[at + 1])  # type: ignore[no-any-return]


@kernel_in_place
def question_end(data: NDArray[np.uint8], start: int, end: int) -> int:
    """Offset behind the one question of the message data[start:end]; 0 unless there is exactly one whole question."""
    if end - start < HEADER_SIZE or u16(data, start + 4) != 1:
        return 0
    at = start + HEADER_SIZE
    while at < end:
        length = int64(data[at])
        if length == 0:
            break
        if length > LABEL_MAX:
            return 0
        at += length + 1
    if at + 5 > end or at - start - HEADER_SIZE > NAME_MAX:
        return 0
    return at + 5
