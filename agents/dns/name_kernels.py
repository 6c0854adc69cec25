"""Packed names in one walk over their bytes: registered domains, presentation form, listed suffixes."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.core.column_kernels import BEGIN, find_key, mixed
from agents.core.jit import kernel
from agents.dns.characters import BACKSLASH, DASH, DOT, LOWER_A, LOWER_N, LOWER_X, LOWER_Z, ZERO

EXCEPTION, RULE, WILDCARD = 1, 2, 4
"""Kinds of rules, bits; 0 is not a rule, only the parent of rules."""
TOP_LEVEL_MAX = 24
"""A longer last label is not a top level; the root zone's longest has 24 bytes, an A-label."""
LABEL_MAX = 63
"""Bytes of the longest label (RFC 1035 section 2.3.4)."""
LABELS_MAX = 127
"""Labels of a name, at most: 254 bytes without the root, at least two a label."""


@kernel
def _could_be_top(data: Any, start: Any, end: Any) -> Any:
    """Whether the label data[start:end] could be a top level: alphabetic (RFC 3696 section 2), or an A-label."""
    letters = 0
    for at in range(start, end):
        letters += LOWER_A <= data[at] <= LOWER_Z
    if letters == end - start <= TOP_LEVEL_MAX:
        return True
    marked = end - start >= 4 and data[start] == LOWER_X and data[start + 1] == LOWER_N
    return marked and data[start + 2] == DASH and data[start + 3] == DASH


@kernel
def _suffix_labels(
    data: Any, end: Any, begins: Any, count: Any, rules: Any, rule_starts: Any, kinds: Any, slots: Any
) -> Any:
    """Number of labels in the public suffix (publicsuffix.org/list, "Algorithm").

    begins: offsets of the length bytes of `count` labels. An unlisted top level counts as a suffix of one label, by
    the algorithm's default rule `*`.
    """
    best, hashed, right = 1, np.int64(BEGIN), end
    for taken in range(1, count + 1):
        begin = begins[count - taken]
        for at in range(begin + 1, right):
            if data[at] == DOT:
                return min(best, count)
        hashed = mixed(hashed, data, begin, right)
        rule = find_key(hashed, data, begin, end, rules, rule_starts, slots)
        if rule < 0:
            break
        if kinds[rule] & EXCEPTION:
            return taken - 1
        if kinds[rule] & RULE:
            best = taken
        if kinds[rule] & WILDCARD:
            best = taken + 1
        right = begin
    return min(best, count)


@kernel
def split(
    data: Any, starts: Any, rules: Any, rule_starts: Any, kinds: Any, slots: Any, part_starts: Any, cuts: Any
) -> Any:
    """Find the registered domains of n packed lower-case wire names (data u8, starts i64[n + 1]).

    rules: the public suffix list as lower-case wire names in a look-up table; kinds u8: their kinds.
    Fills cuts i64[n], each domain's offset in its name, and part_starts i64[n + 1], the running number of subdomain
    labels. Returns the number of the first name with a bad label length, or -1 if all are whole.
    """
    begins = np.empty(LABELS_MAX + 1, np.int64)
    part_starts[0] = 0
    for name in range(len(starts) - 1):
        start, end = starts[name], starts[name + 1]
        at, count = start, 0
        while at < end:
            size = np.int64(data[at])
            if size == 0 or size > LABEL_MAX or at + 1 + size > end or count == LABELS_MAX:
                return name
            begins[count] = at
            count += 1
            at += size + 1
        cut = count
        if count and _could_be_top(data, begins[count - 1] + 1, end):
            keep = _suffix_labels(data, end, begins, count, rules, rule_starts, kinds, slots) + 1
            cut = max(count - keep, 0)
        part_starts[name + 1] = part_starts[name] + cut
        cuts[name] = (begins[cut] if cut < count else end) - start
    return -1


_FIRST, _LAST = 0x21, 0x7E
"""Printable ASCII without the space: bytes that are written as they are (RFC 1035 section 5.1)."""


@kernel
def sizes(data: Any, starts: Any, cuts: Any, text_starts: Any) -> Any:
    """Measure the texts of n packed wire names (data u8, starts i64[n + 1]), each from the cuts[i]-th byte on.

    Fills text_starts i64[n + 1], the offset of each text once all are packed. Returns the number of the first name
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
                    total += 2 if byte in (DOT, BACKSLASH) else 1
            at = label_end
        total += max(dots, 0)
        text_starts[name + 1] = total
    return -1


@kernel
def write_texts(data: Any, starts: Any, cuts: Any, out: Any) -> None:
    """Write the texts that `sizes` measured into out, u8, one after the other."""
    to = 0
    for name in range(len(starts) - 1):
        begin, end = starts[name] + cuts[name], starts[name + 1]
        if begin >= end:
            out[to] = DOT
            to += 1
        at = begin
        while at < end:
            if at > begin:
                out[to] = DOT
                to += 1
            label_end = at + 1 + data[at]
            for i in range(at + 1, label_end):
                byte = data[i]
                if byte < _FIRST or byte > _LAST:
                    out[to] = BACKSLASH
                    out[to + 1] = ZERO + byte // 100
                    out[to + 2] = ZERO + byte // 10 % 10
                    out[to + 3] = ZERO + byte % 10
                    to += 4
                    continue
                if byte in (DOT, BACKSLASH):
                    out[to] = BACKSLASH
                    to += 1
                out[to] = byte
                to += 1
            at = label_end


@kernel
def longest_listed(data: Any, starts: Any, keys: Any, key_starts: Any, slots: Any, out: Any) -> Any:
    """Fill out, i32[n], with the longest listed suffix of each of n packed lower-case names; -1 = none.

    keys: the suffixes as lower-case wire names in a look-up table. Returns how many names have one.
    """
    begins, found = np.empty(LABELS_MAX + 1, np.int64), 0
    for name in range(len(starts) - 1):
        at, end, count = starts[name], starts[name + 1], 0
        while at < end:
            begins[count] = at
            count += 1
            at += np.int64(data[at]) + 1
        out[name], hashed, right = -1, np.int64(BEGIN), end
        for label in range(count - 1, -1, -1):
            hashed = mixed(hashed, data, begins[label], right)
            number = find_key(hashed, data, begins[label], end, keys, key_starts, slots)
            if number >= 0:
                out[name] = number
            right = begins[label]
        found += out[name] >= 0
    return found
