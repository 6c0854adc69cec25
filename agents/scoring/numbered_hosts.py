"""Names of numbered hosts: one that differs from another only in its numbers carries those digits, and nothing more.

A name is numbered where each label falls apart, at hyphens and underscores, into letters that digits may follow, or
digits alone: `ip-10-0-3-17`, `node0042.rack7`, `p1234.dip`. Longer runs of digits are somebody's id, and letters after
digits (`4f8a`) an encoding. Kernels/counting.price says what a name of a shape that its flow has shown costs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Names
from agents.core.jit import COMPILED
from agents.core.siphash import Key, siphash
from agents.dns.name import split_domain
from agents.scoring import lexical_kernels as kernel
from agents.scoring.lexical_kernels import ALONE_MAX, COUNT_AT, DIGITS_MAX, RUN_MAX

_TOKEN = rb"(?:[a-z]+[0-9]{0,%d}|[0-9]{1,%d})" % (RUN_MAX, ALONE_MAX)
_LABEL = re.compile(rb"(?:%b)?(?:[-_]+(?:%b)?)*" % (_TOKEN, _TOKEN))
_DIGIT = re.compile(rb"[0-9]")


def shape_of(subdomain: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """What numbered names have in common, and the digits of this one; None for a name that is not numbered."""
    if not all(map(_LABEL.fullmatch, subdomain)):
        return None
    text = b"#" + b"".join(label + b"." for label in subdomain)
    digits = b"".join(_DIGIT.findall(text))
    return (_DIGIT.sub(b"0", text), digits) if 0 < len(digits) <= DIGITS_MAX else None


def packed_digits(digits: bytes) -> int:
    """Up to DIGITS_MAX digits, four bits each, and above them how many."""
    return len(digits) << COUNT_AT | int(digits, 16)


def numbers(names: Names, cuts: NDArray[np.int64], key: Key) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Identity of the shape, and packed digits, of n lower-case names; zeros for those that are not numbered.

    cuts: offset of the registered domain in each.
    """
    shapes, digits = np.zeros(len(names), np.uint64), np.zeros(len(names), np.uint64)
    if COMPILED:
        low, high = map(np.uint64, key)
        kernel.numbers(names.array, names.starts, cuts, low, high, shapes, digits)
        return shapes, digits
    for i, name in enumerate(names):
        found = shape_of(split_domain(name)[0])
        if found is not None:
            shapes[i], digits[i] = siphash(found[0], key), packed_digits(found[1])
    return shapes, digits
