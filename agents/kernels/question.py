"""Header and question of a DNS message, in place. The definition is wire.parse_question."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel

int64: Any = np.int64
uint64: Any = np.uint64
"""Machine integers: with Any as type, as kernels mix them with int."""

HEADER_SIZE = 12
"""RFC 1035 section 4.1.1."""
LABEL_MAX, NAME_MAX = 63, 254
"""Bytes of a label, and of a name without the root byte (RFC 1035 section 3.1)."""


@kernel
def u16(message: NDArray[np.uint8], at: int) -> int:
    """The 16-bit number in network order at an offset that the caller knows to be inside."""
    return int64(message[at]) << 8 | int64(message[at + 1])  # type: ignore[no-any-return]


@kernel
def question_end(message: NDArray[np.uint8], size: int) -> int:
    """Offset behind the one question of the first `size` bytes; 0 unless there is exactly one whole question."""
    if size < HEADER_SIZE or u16(message, 4) != 1:
        return 0
    at = HEADER_SIZE
    while at < size:
        length = int64(message[at])
        if length == 0:
            break
        if length > LABEL_MAX:
            return 0
        at += length + 1
    if at + 5 > size or at - HEADER_SIZE > NAME_MAX:
        return 0
    return at + 5
