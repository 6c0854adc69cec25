"""Presentation form by the batch against one name at a time."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core.columns import packed
from agents.core.errors import NameFormatError
from agents.dns.name import from_text, labels_of, packed_texts, texts, wires_of
from tests.support.plain_names import to_text
from tests.support.wire_names import LONGEST, wire_names

BATCHES = st.lists(wire_names(), max_size=40)
UNHURRIED = settings(deadline=None)
"""The first call compiles."""


@pytest.mark.slow
@UNHURRIED
@given(BATCHES)
@example(LONGEST)
def test_texts_are_those_of_one_name_at_a_time(names: list[bytes]) -> None:
    assert texts(packed(names)) == [to_text(name) for name in names]
    assert list(packed_texts(packed(names))) == [to_text(name).encode() for name in names]


@pytest.mark.slow
@UNHURRIED
@given(BATCHES, st.data())
def test_a_cut_leaves_what_lies_behind_it(names: list[bytes], data: st.DataObject) -> None:
    begins = [[0, *accumulate(1 + len(label) for label in labels_of(name))] for name in names]
    cuts = [data.draw(st.sampled_from(some)) for some in begins]
    expected = [to_text(name[cut:]) for name, cut in zip(names, cuts, strict=True)]
    assert texts(packed(names), np.array(cuts, np.int64)) == expected


@pytest.mark.parametrize("bad", [b"\x05abc", b"\x40" + b"a" * 64, b"\x01a\x00\x01b", b"\x03com\x07", b"\xc0\x0c"])
def test_a_bad_length_is_told(bad: bytes) -> None:
    with pytest.raises(NameFormatError, match="bad label length"):
        texts(packed([b"\3com", bad, b"\3net"]))


TEXTS = st.lists(
    st.one_of(
        wire_names().map(to_text), st.text("ab.-\\09ö", max_size=8), st.sampled_from(["a" * 64, "a." * 127 + "bb"])
    ),
    max_size=12,
)


@pytest.mark.slow
@given(TEXTS)
@example(["a." * 126 + "bb", "com", "a" * 63 + ".b"])
@example(["com", "."])
def test_wire_forms_are_those_of_one_name_at_a_time(texts: list[str]) -> None:
    try:
        expected = [from_text(text) for text in texts]
    except NameFormatError as error:
        with pytest.raises(NameFormatError) as raised:
            wires_of(texts)
        assert str(raised.value) == str(error)
    else:
        assert list(wires_of(texts)) == expected
