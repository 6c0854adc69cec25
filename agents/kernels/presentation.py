"""Presentation form of wire names. The definition is names.to_text."""

from __future__ import annotations

from typing import Any

from agents.kernels import kernel

LABEL_MAX = 63
_DOT, _BACKSLASH, _ZERO = 0x2E, 0x5C, 0x30
_FIRST, _LAST = 0x21, 0x7E
"""Printable ASCII without the space: what stands for itself (RFC 1035 section 5.1)."""


@kernel
def sizes(data: Any, starts: Any, cuts: Any, text_starts: Any) -> Any:
    """Measure the texts of n packed wire names (data u8, starts i64[n + 1]), each from the cuts[i]-th byte on.

    Fills text_starts i64[n + 1], where each text begins once all are packed. Returns the number of the first name
    with a bad label length, or -1 if all are whole.
    """
    total = 0
    text_starts[0] = 0
    for name in range(len(starts) - 1):
        at, end = starts[name] + cuts[name], starts[name + 1]
        total += at >= end  # the root is written as a dot
        dots = -1
        while at < end:
            label_end = at + 1 + data[at]
            if data[at] == 0 or data[at] > LABEL_MAX or label_end > end:
                return name
            dots += 1
            for i in range(at + 1, label_end):
                byte = data[i]
                if byte < _FIRST or byte > _LAST:
                    total += 4
                else:
                    total += 2 if byte in (_DOT, _BACKSLASH) else 1
            at = label_end
        total += max(dots, 0)
        text_starts[name + 1] = total
    return -1


@kernel
def fill(data: Any, starts: Any, cuts: Any, out: Any) -> None:
    """Write the texts that `sizes` measured into out, u8, one behind the other."""
    to = 0
    for name in range(len(starts) - 1):
        begin, end = starts[name] + cuts[name], starts[name + 1]
        if begin >= end:
            out[to] = _DOT
            to += 1
        at = begin
        while at < end:
            if at > begin:
                out[to] = _DOT
                to += 1
            label_end = at + 1 + data[at]
            for i in range(at + 1, label_end):
                byte = data[i]
                if byte < _FIRST or byte > _LAST:
                    out[to] = _BACKSLASH
                    out[to + 1] = _ZERO + byte // 100
                    out[to + 2] = _ZERO + byte // 10 % 10
                    out[to + 3] = _ZERO + byte % 10
                    to += 4
                    continue
                if byte in (_DOT, _BACKSLASH):
                    out[to] = _BACKSLASH
                    to += 1
                out[to] = byte
                to += 1
            at = label_end
