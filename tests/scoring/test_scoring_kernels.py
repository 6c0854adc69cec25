"""The compiled kernels against the plain definitions they are twins of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core import column_kernels, jit
from agents.core.columns import lowered, packed
from agents.core.errors import NameFormatError
from agents.dns.name import from_text, split_domain, split_names, wire_of
from agents.learning.baseline import benign_names
from agents.scoring import features, lexical
from agents.scoring.types.forest import raw_scores
from tests.support.detecting import shipped_model
from tests.support.patience import patient
from tests.support.plain_information import cost
from tests.support.siphash import siphash
from tests.support.wire_names import LONGEST, wire_names

KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
BATCHES = st.lists(wire_names(), max_size=40)
PUBLISHED = {0: 0x726FDB47DD0E0E31, 8: 0x93F5F5799A932462, 15: 0xA129CA6149BE45E5}
"""SipHash-2-4 of 00 01 02 … under the key 00 01 … 0f, by length (the paper's appendix A, its reference vectors)."""
BENIGN = [from_text(name) for name in benign_names()[:3000:3]]
UNHURRIED = settings(deadline=None)
"""The first call compiles."""


@pytest.mark.parametrize("size", PUBLISHED)
def test_siphash_gives_the_published_vectors(size: int) -> None:
    assert siphash(bytes(range(size)), KEY, 2, 4) == PUBLISHED[size]


def test_siphash_1_3_is_what_the_interpreter_hashes_bytes_with() -> None:
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip(f"this interpreter hashes with {sys.hash_info.algorithm}")
    texts = [bytes(range(size)) for size in range(1, 40)]
    code = "print([hash(bytes(range(size))) % 2**64 for size in range(1, 40)])"
    shown = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True
    )
    assert [siphash(text, (0, 0)) for text in texts] == eval(shown.stdout)


@pytest.mark.skipif(not jit.COMPILED, reason="kernels are off")
@UNHURRIED
@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_the_compiled_siphash_is_the_plain_one(data: bytes, low: int, high: int, skipped: int) -> None:
    array, start = np.frombuffer(data, np.uint8), min(skipped, len(data))
    found = int(column_kernels.siphash(array, start, len(data), np.uint64(low), np.uint64(high)))
    assert found == siphash(data[start:], (low, high))


@UNHURRIED
@given(BATCHES)
@example(LONGEST)
def test_names_fall_apart_as_plain_python_splits_them(names: list[bytes]) -> None:
    splits = split_names(lowered(names))
    expected = [split_domain(name) for name in names]
    assert np.diff(splits.part_starts).tolist() == [len(subdomain) for subdomain, _ in expected]
    assert splits.cuts.tolist() == [len(wire_of(subdomain)) for subdomain, _ in expected]


@pytest.mark.parametrize("bad", [b"\x05abc", b"\x40" + b"a" * 64, b"\x01a\x00\x01b", b"\x03com\x07", b"\xc0\x0c"])
def test_a_bad_length_is_told_and_nothing_is_read_behind_it(bad: bytes) -> None:
    with pytest.raises(NameFormatError, match="bad label length"):
        split_names(lowered([b"\3com", bad, b"\3net"]))


@UNHURRIED
@given(BATCHES)
@example(LONGEST)
@example(BENIGN)
def test_features_are_those_of_the_plain_functions(names: list[bytes]) -> None:
    views = [features.view_of(name) for name in names]
    plain = np.array([[feature.function(view) for feature in features.FEATURES] for view in views], np.float32)
    assert np.abs(features.extract(names) - plain.reshape(len(names), len(features.FEATURES))).max(initial=0) <= 1e-6


def test_features_of_a_name_beyond_the_wire_limit() -> None:
    name = wire_of([bytes(range(97, 123)) * 2] * 9 + [b"com"])
    plain = [feature.function(features.view_of(name)) for feature in features.FEATURES]
    assert features.extract([name])[0].tolist() == pytest.approx(plain, rel=1e-6)


@UNHURRIED
@given(BATCHES)
@example(LONGEST)
@example(BENIGN)
def test_labels_cost_what_plain_python_prices(names: list[bytes]) -> None:
    chars, low = shipped_model().chars, lowered(names)
    found = chars.costs(low, split_names(low))
    costs = [[cost(chars, label) for label in split_domain(name)[0]] for name in names]
    assert found.part_bits.tolist() == [one.bits for row in costs for one in row]
    assert found.part_encoded.tolist() == [one.encoded for row in costs for one in row]
    assert found.encoded_bits.tolist() == [sum(one.bits for one in row if one.encoded) for row in costs]


@UNHURRIED
@given(st.integers(0, 40), st.integers(0, 2**32))
def test_the_forest_scores_as_its_definition_does(rows: int, seed: int) -> None:
    model = shipped_model()
    matrix = np.random.default_rng(seed).exponential(12, (rows, len(features.FEATURES))).astype(np.float32)
    plain = raw_scores(model.arrays, matrix, int(model.manifest["params"]["max_samples"]))
    np.testing.assert_array_equal(model.raw(matrix), plain)
    assert model.raw(matrix[:1]).tolist() == model.raw(matrix)[:1].tolist(), "a row scores the same in any batch"


@UNHURRIED
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2000)), max_size=30))
def test_votes_are_calibrated_as_numpy_interpolates(votes: list[tuple[float, float]]) -> None:
    model = shipped_model()
    arrays = model.arrays
    matrix = features.extract(BENIGN[: len(votes)])
    bits = np.array([bits for _, bits in votes])
    forest = np.interp(model.raw(matrix), arrays["knots_raw"], arrays["knots_score"])
    plain = np.maximum(forest, np.interp(bits, arrays["bits_raw"], arrays["bits_score"])).astype(np.float32)
    np.testing.assert_array_almost_equal_nulp(model.louder(matrix, bits), plain, nulp=1)


@pytest.mark.slow
@UNHURRIED
@given(BATCHES)
@example(LONGEST)
@example([*LONGEST[:1], *BENIGN[:2], *LONGEST[:1], BENIGN[0]])
def test_a_name_reads_the_same_in_any_case_and_any_batch(names: list[bytes]) -> None:
    model = shipped_model()
    whole = lexical.read_names(names, model, KEY)
    assert whole.name_key.tolist() == [siphash(name.lower(), KEY) for name in names]
    assert whole.domain_key.tolist() == [siphash(wire_of(split_domain(name)[1]), KEY) for name in names]
    keys = [siphash(b"." + label, KEY) for name in names for label in split_domain(name)[0]]
    assert whole.part_key.tolist() == keys
    assert whole.score.tolist() == model.score(features.extract(names), names).tolist()
    for i, name in enumerate(names):
        alone = lexical.read_names(packed([name.swapcase()]), model, KEY)
        assert (alone.score[0], alone.name_key[0], alone.cuts[0]) == (
            whole.score[i],
            whole.name_key[i],
            whole.cuts[i],
        )
        assert alone.features[0].tolist() == whole.features[i].tolist()


SHOWN = """
import sys, numpy as np
from agents.core import jit
from agents.scoring import lexical
from tests.support.detecting import shipped_model
from tests.scoring.test_scoring_kernels import BENIGN, KEY
from tests.support.wire_names import LONGEST
found = lexical.read_names(BENIGN + LONGEST, shipped_model(), KEY)
columns = {name: getattr(found, name) for name in found.__slots__ if name not in ("names", "scoring_s")}
np.savez(sys.argv[1], compiled=jit.COMPILED, **columns)
"""


@pytest.mark.slow
def test_without_kernels_everything_is_the_same(tmp_path: Path) -> None:
    found = {}
    for mode in ("auto", "off"):
        path = tmp_path / f"{mode}.npz"
        subprocess.run(
            [sys.executable, "-c", SHOWN, str(path)],
            env={**os.environ, "COMPILED": mode},
            check=True,
            timeout=patient(100),
        )
        found[mode] = dict(np.load(path))
    assert not found["off"].pop("compiled")
    assert found["auto"].pop("compiled") == jit.COMPILED
    for name, column in found["off"].items():
        assert column.dtype == found["auto"][name].dtype
        close = 1e-6 if column.dtype.kind == "f" else 0
        np.testing.assert_allclose(column, found["auto"][name], rtol=close, atol=close)


def test_scores_shared_out_among_cores_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shipped_model()
    matrix = features.extract([from_text(name) for name in benign_names()[:1_001]])
    alone = model.raw(matrix)
    monkeypatch.setattr("agents.scoring.types.forest.MANY", 1)
    for cores in (1, 2, 3, 7):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert model.raw(matrix).tobytes() == alone.tobytes()
