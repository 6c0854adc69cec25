"""Numbered hosts by regular expression: the oracle of scoring/lexical_kernels.numbered_hosts."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
