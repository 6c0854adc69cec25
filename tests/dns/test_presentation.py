"""Presentation form by the batch against names.to_text, compiled and not."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core.columns import packed
from agents.core.errors import NameFormatError
from agents.dns import name_kernels
from agents.dns.name import from_text, labels_of, to_text
from tests.support.wire_names import LONGEST, wire_names

BATCHES = st.lists(wire_names(), max_size=40)
UNHURRIED = settings(deadline=None)
"""The first call compiles."""


@UNHURRIED
@given(BATCHES)
@example(LONGEST)
def test_texts_are_those_of_one_name_at_a_time(names: list[bytes]) -> None:
    assert name_kernels.texts(packed(names)) == [to_text(name) for name in names]
    assert list(name_kernels.packed_texts(packed(names))) == [to_text(name).encode() for name in names]


@UNHURRIED
@given(BATCHES, st.data())
def test_a_cut_leaves_what_lies_behind_it(names: list[bytes], data: st.DataObject) -> None:
    begins = [[0, *accumulate(1 + len(label) for label in labels_of(name))] for name in names]
    cuts = [data.draw(st.sampled_from(some)) for some in begins]
    expected = [to_text(name[cut:]) for name, cut in zip(names, cuts, strict=True)]
    assert name_kernels.texts(packed(names), np.array(cuts, np.int64)) == expected


@pytest.mark.parametrize("bad", [b"\x05abc", b"\x40" + b"a" * 64, b"\x01a\x00\x01b", b"\x03com\x07", b"\xc0\x0c"])
def test_a_bad_length_is_told(bad: bytes) -> None:
    with pytest.raises(NameFormatError, match="bad label length"):
        name_kernels.texts(packed([b"\3com", bad, b"\3net"]))


def test_without_a_compiler_the_texts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = name_kernels.texts(packed(LONGEST))
    monkeypatch.setattr(name_kernels, "COMPILED", False)
    assert name_kernels.texts(packed(LONGEST)) == compiled


TEXTS = st.lists(
    st.one_of(
        wire_names().map(to_text), st.text("ab.-\\09ö", max_size=8), st.sampled_from(["a" * 64, "a." * 127 + "bb"])
    ),
    max_size=12,
)


@given(TEXTS)
@example(["a." * 126 + "bb", "com", "a" * 63 + ".b"])
@example(["com", "."])
def test_wire_forms_are_those_of_one_name_at_a_time(texts: list[str]) -> None:
    try:
        expected = [from_text(text) for text in texts]
    except NameFormatError as error:
        with pytest.raises(NameFormatError) as raised:
            name_kernels.wires_of(texts)
        assert str(raised.value) == str(error)
    else:
        assert list(name_kernels.wires_of(texts)) == expected
