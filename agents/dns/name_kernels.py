"""Names by the column: registered domains, presentation form and back, suffixes of a list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core import column_kernels
from agents.core.column_kernels import siphash
from agents.core.columns import Names, packed
from agents.core.jit import COMPILED, kernel
from agents.dns.name import MAX_LABEL, MAX_NAME, from_text, labels_of, rules, split_domain, to_text, wire_of

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
    best, hashed, right = 1, np.int64(column_kernels.BEGIN), end
    for taken in range(1, count + 1):
        begin = begins[count - taken]
        for at in range(begin + 1, right):
            if data[at] == _DOT:
                return min(best, count)
        hashed = column_kernels.mixed(hashed, data, begin, right)
        rule = column_kernels.find(hashed, data, begin, end, rules, rule_starts, slots)
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


_PERIOD, _BACKSLASH, _ZERO = 0x2E, 0x5C, 0x30

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
                    total += 2 if byte in (_PERIOD, _BACKSLASH) else 1
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
            out[to] = _PERIOD
            to += 1
        at = begin
        while at < end:
            if at > begin:
                out[to] = _PERIOD
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
                if byte in (_PERIOD, _BACKSLASH):
                    out[to] = _BACKSLASH
                    to += 1
                out[to] = byte
                to += 1
            at = label_end


class Rules(NamedTuple):
    """The public suffix rules for kernels/suffix: packed lower-case wire names, their kinds, and slots by hash."""

    rules: NDArray[np.uint8]
    starts: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    slots: NDArray[np.int32]


class Splits(NamedTuple):
    """Where n lower-case names fall apart."""

    part_starts: NDArray[np.int64]  # (n + 1,): running number of subdomain labels
    cuts: NDArray[np.int64]  # (n,): offset of the registered domain in its name


@lru_cache(maxsize=1)
def rule_table() -> Rules:
    """The rules of the bundled list, made once."""
    bits = {"e": EXCEPTION, "r": RULE, "w": WILDCARD}
    wires = [wire_of(name.split(b".")) for name in rules()]
    kinds = [sum({bits[letter] for letter in kind}) for kind in rules().values()]
    keys = packed(wires)
    return Rules(keys.array, keys.starts, np.array(kinds, np.uint8), column_kernels.slots_of(keys.array, keys.starts))


def split_names(names: Names) -> Splits:
    """Take n lower-case wire names apart as names.split_domain does. Raises NameFormatError for the first bad one."""
    found = Splits(np.empty(len(names) + 1, np.int64), np.empty(len(names), np.int64))
    if COMPILED:
        bad = split(names.array, names.starts, *rule_table(), *found)
        if bad >= 0:
            labels_of(names[bad])
        return found
    found.part_starts[0] = 0
    for i, name in enumerate(names):
        subdomain, _ = split_domain(name)
        found.part_starts[i + 1] = found.part_starts[i] + len(subdomain)
        found.cuts[i] = sum(map(len, subdomain)) + len(subdomain)
    return found


def packed_texts(names: Names, cuts: NDArray[np.int64] | None = None) -> Names:
    """The texts of n wire names as one packed column of ASCII, each from its cuts[i]-th byte on (default: all).

    A cut is the beginning of a label, or the name's length for the root. Raises NameFormatError.
    """
    if cuts is None:
        cuts = np.zeros(len(names), np.int64)
    if not COMPILED:
        return packed([to_text(name[cut:]).encode("ascii") for name, cut in zip(names, cuts.tolist(), strict=True)])
    starts = np.empty(len(names) + 1, np.int64)
    bad = sizes(names.array, names.starts, cuts, starts)
    if bad >= 0:
        to_text(names[bad][cuts[bad] :])
    out = np.empty(starts[-1], np.uint8)
    fill(names.array, names.starts, cuts, out)
    return Names(out.tobytes(), starts)


def texts(names: Names, cuts: NDArray[np.int64] | None = None) -> list[str]:
    """As packed_texts, one string a name."""
    column = packed_texts(names, cuts)
    text = column.data.decode("ascii")
    return [text[start:end] for start, end in pairwise(column.starts.tolist())]


def wires_of(texts: Sequence[str]) -> Names:
    """The wire forms of n presentation names as one packed column. Raises NameFormatError for the first bad one."""
    text = "".join(["." + one for one in texts])
    if "\\" in text or ".." in text or text.endswith(".") or not text.isascii():  # escapes; final dots, empty labels
        return packed([from_text(one) for one in texts])
    data = np.frombuffer(text.encode("ascii"), np.uint8).copy()
    starts = np.fromiter(accumulate((len(one) + 1 for one in texts), initial=0), np.int64, len(texts) + 1)
    dots = np.flatnonzero(data == ord("."))
    sizes = np.diff(dots, append=len(data)) - 1
    if np.max(sizes, initial=0) > MAX_LABEL or np.max(np.diff(starts), initial=0) > MAX_NAME:
        return packed([from_text(one) for one in texts])
    data[dots] = sizes  # each label has one dot before it, where its length belongs
    return Names(data.tobytes(), starts)


ZERO = np.uint64(0)


@kernel
def listed(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    out: NDArray[np.int32],
) -> int:
    """The listed suffix that each of n packed lower-case names ends in, the longest; -1 where there is none.

    keys: open addressing of siphash(suffix), 0 = free, its length a power of two; numbers: of the suffix in each place.
    Fills out: shape (n,); returns how many end in one.
    """
    found, mask = 0, len(keys) - 1
    for name in range(len(starts) - 1):
        out[name] = -1
        at, end = starts[name], starts[name + 1]
        while at < end and out[name] < 0:
            key = siphash(data, at, end, ZERO, ZERO)
            place = np.int64(key & np.uint64(mask))
            while keys[place] != 0 and keys[place] != key:
                place = (place + 1) & mask
            if keys[place] == key:
                out[name] = numbers[place]
                found += 1
            at += np.int64(data[at]) + 1
    return found
