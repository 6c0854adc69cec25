"""Made-up wire names for property tests: any bytes, any case, all kinds of suffix rules, the limits of length."""

from __future__ import annotations

from hypothesis import strategies as st

from agents.dns.name import NAME_MAX, wire_of
from agents.dns.name_kernels import LABEL_MAX
from tests.support.plain_names import rules

_SUFFIXES = [
    *sorted(name for name, kind in rules().items() if kind not in ("r", ""))[:200],
    b"com", b"co.uk", b"k12.ma.us", b"xn--p1ai", b"compute.amazonaws.com", b"city.kawasaki.jp", b"ck", b"www.ck",
    b"example", b"x" * 24, b"x" * 25, b"1", b"a.b\x00",
]  # fmt: skip
_TEXTS = st.sampled_from([b"www", b"WWW", b"ww", b"wwww", b"a", b"-", b"_dmarc", b"mail", b"autodiscover", b"x" * 63])
_CODED = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=1, max_size=LABEL_MAX).map(str.encode)
_HEX = st.text("0123456789abcdefABCDEF", min_size=1, max_size=LABEL_MAX).map(str.encode)
_WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20).map(str.encode)
LABELS = st.one_of(st.binary(min_size=1, max_size=LABEL_MAX), _TEXTS, _CODED, _HEX, _WORDS, st.just(b"a.com"))


@st.composite
def wire_names(draw: st.DrawFn) -> bytes:
    """One wire name, at most 254 bytes, in the case it was "sent" in; the root too."""
    labels = draw(st.lists(LABELS, max_size=8))
    suffix = draw(st.one_of(st.just([]), st.sampled_from(_SUFFIXES).map(lambda name: name.split(b"."))))
    labels += suffix
    while len(wire_of(labels)) > NAME_MAX:
        labels.pop(0)
    if draw(st.booleans()):
        labels = [label.swapcase() for label in labels]
    return wire_of(labels)


LONGEST = [
    wire_of([b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61]),
    wire_of([b"a"] * 127),
    wire_of([bytes(range(k, k + 63)) for k in (0, 63, 126)] + [b"com"]),
    b"",
]
"""At the limits: 254 bytes, 127 labels, nearly all bytes, none."""
