"""Where a name's registered domain begins. The definition is names.split_domain."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.kernels import kernel, table

EXCEPTION, RULE, WILDCARD = 1, 2, 4
"""Kinds of rules, bits; 0 is only the parent of rules."""
TOP_LEVEL_MAX = 24
"""As names.TOP_LEVEL_MAX."""
LABEL_MAX = 63
_A, _Z, _DOT, _X, _N, _DASH = 0x61, 0x7A, 0x2E, 0x78, 0x6E, 0x2D


@kernel
def _could_be_top(data: Any, start: Any, end: Any) -> Any:
    """Whether the label data[start:end] could be a top level: see names.split_domain."""
    letters = 0
    for at in range(start, end):
        letters += _A <= data[at] <= _Z
    if letters == end - start <= TOP_LEVEL_MAX:
        return True
    marked = end - start >= 4 and data[start] == _X and data[start + 1] == _N
    return marked and data[start + 2] == _DASH and data[start + 3] == _DASH


@kernel
def _suffix_labels(
    data: Any, end: Any, begins: Any, count: Any, rules: Any, rule_starts: Any, kinds: Any, slots: Any
) -> Any:
    """Number of labels in the public suffix; begins holds where each of `count` labels' length byte lies."""
    best, hashed, right = 1, np.int64(table.BEGIN), end
    for taken in range(1, count + 1):
        begin = begins[count - taken]
        for at in range(begin + 1, right):
            if data[at] == _DOT:
                return min(best, count)
        hashed = table.mixed(hashed, data, begin, right)
        rule = table.find(hashed, data, begin, end, rules, rule_starts, slots)
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

    rules: the public suffix list as lower-case wire names (table.py), kinds u8 says what each is.
    Fills cuts i64[n], each domain's offset in its name, and part_starts i64[n + 1], the running number of subdomain
    labels. Returns the number of the first name with a bad label length, or -1 if all are whole.
    """
    longest = 0
    for name in range(len(starts) - 1):
        longest = max(longest, starts[name + 1] - starts[name])
    begins = np.empty(longest // 2 + 1, np.int64)
    part_starts[0] = 0
    for name in range(len(starts) - 1):
        start, end = starts[name], starts[name + 1]
        at, count = start, 0
        while at < end:
            size = np.int64(data[at])
            if size == 0 or size > LABEL_MAX or at + 1 + size > end:
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
