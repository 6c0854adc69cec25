"""The model file: what is read back, what is refused, and that scoring needs no scikit-learn."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ModelError
from agents.dns.name import from_text
from agents.learning.baseline import benign_sample
from agents.scoring.features import FEATURES, SCHEMA, extract
from agents.scoring.model import BYTES_MAX, Model, digest
from agents.scoring.training import TrainConfig, train
from agents.scoring.types.forest import average_path

ROOT = Path(__file__).resolve().parents[2]
NAMES = [from_text(name) for name in ("www.google.com", "youtube.com", "f" * 63 + ".evil.com", ".", "a.999")]
SMALL = train(benign_sample(300, 1), benign_sample(300, 2), TrainConfig(n_estimators=3), {"parent": "p"})
DATA = SMALL.to_bytes()


def same_scores(one: Model, other: Model) -> bool:
    features = extract(NAMES)
    return bool(np.array_equal(one.score(features, NAMES), other.score(features, NAMES)))


def test_a_file_read_back_is_the_same_model() -> None:
    again = Model.from_bytes(DATA)
    assert again.to_bytes() == DATA
    assert again.model_id == SMALL.model_id
    assert again.manifest == SMALL.manifest
    assert same_scores(again, SMALL)


def test_scores_are_shares_and_one_name_scores_as_in_a_batch(model: Model) -> None:
    features = extract(NAMES)
    scores = model.score(features, NAMES)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    alone = [model.score(features[i : i + 1], NAMES[i : i + 1])[0] for i in range(len(NAMES))]
    assert np.array_equal(scores, np.array(alone))
    assert model.score(features[:0], []).shape == (0,)


def refused_or_the_same(data: bytes) -> None:
    try:
        found = Model.from_bytes(data)
    except ModelError as error:
        assert str(error).startswith("cannot use model")
    else:
        assert same_scores(found, SMALL)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_changes_nothing(at: int, change: int) -> None:
    data = bytearray(DATA)
    data[at] ^= change
    refused_or_the_same(bytes(data))


def test_every_byte_of_headers_and_directory_may_be_changed_without_a_crash() -> None:
    """The zip directory and the array headers are where parsers break; each of their bytes, to several values."""
    places = [*range(len(DATA) - 240, len(DATA)), *range(160)]
    for at in places:
        for value in (0, 0xFF, DATA[at] ^ 1):
            data = bytearray(DATA)
            data[at] = value
            refused_or_the_same(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(DATA) - 1))
def test_a_truncated_file_is_refused(size: int) -> None:
    with pytest.raises(ModelError):
        Model.from_bytes(DATA[:size])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_refused(data: bytes) -> None:
    for garbage in (data, b"PK\x03\x04" + data, DATA[:100] + data):
        with pytest.raises(ModelError):
            Model.from_bytes(garbage)


def members(**changed: bytes | None) -> bytes:
    """The small model's file with other members; None takes one away."""
    with zipfile.ZipFile(io.BytesIO(DATA)) as archive:
        found = {info.filename: archive.read(info) for info in archive.infolist()}
    found |= {f"{name}.npy": data for name, data in changed.items() if data is not None}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in found.items():
            if changed.get(name.removesuffix(".npy"), b"") is not None:
                archive.writestr(name, data)
    return out.getvalue()


def npy(array: np.ndarray[Any, Any], allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def forged(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """A file whose hash is right and whose content is not."""
    arrays, manifest = dict(SMALL.arrays), json.loads(json.dumps(SMALL.manifest))
    change(arrays, manifest)
    manifest["arrays_sha256"] = digest(arrays)
    text = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    return members(manifest=npy(text), **{name: npy(array) for name, array in arrays.items()})


class Evil:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("the pickle was run",))


def test_a_pickle_inside_is_refused_and_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.array([Evil()], dtype=object)
    for data in (members(path=npy(objects, True)), members(path=pickle.dumps(Evil())), pickle.dumps(Evil())):
        with pytest.raises(ModelError):
            Model.from_bytes(data)
    assert capsys.readouterr().out == ""


def test_a_zip_bomb_is_refused_before_it_unpacks() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("path.npy", bytes(BYTES_MAX + 1))
    assert len(out.getvalue()) < 100_000
    with pytest.raises(ModelError, match="64 MiB"):
        Model.from_bytes(out.getvalue())


def test_a_header_that_promises_too_much_is_refused() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 44,)})
    with pytest.raises(ModelError):
        Model.from_bytes(members(path=header.getvalue()))


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", "{}", '{"format": 1}', "\xff", "{", '{"format": NaN}'])
def test_a_manifest_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        Model.from_bytes(members(manifest=npy(np.frombuffer(text.encode("latin-1"), dtype=np.uint8))))


def put(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(arrays: dict[str, Any], manifest: dict[str, Any]) -> None:
        (arrays if name in arrays else manifest)[name] = value

    return change


TREES = np.zeros((3, 255), np.uint8)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put("feature_schema", "0" * 16), "feature schema 0000000000000000, not " + SCHEMA),
        (put("format", 2), "unknown format"),
        (put("params", {}), "max_samples"),
        (put("params", []), "max_samples"),
        (put("params", {"max_samples": 0}), "max_samples"),
        (put("params", {"max_samples": "256"}), "max_samples"),
        (put("feature", TREES + len(FEATURES)), "outside the features"),
        (put("feature", TREES[:2]), "wrong shapes"),
        (put("feature", TREES[:0]), "wrong shapes"),
        (put("feature", TREES.astype(np.int64)), "another kind"),
        (put("path", np.full((3, 256), np.nan, np.float32)), "outside the features"),
        (put("char_bits", np.zeros((2, 2, 2), np.uint16)), "wrong shapes"),
        (put("knots_raw", np.array([0.0, 0.0])), "does not rise"),
        (put("knots_score", np.array([np.nan] * len(SMALL.arrays["knots_raw"]))), "does not rise"),
        (put("bits_raw", np.array([])), "does not rise"),
        (put("bits_score", np.array([0.0, 7.0, 8.0, 9.0])), "does not rise"),
        (put("bits_score", np.array([1.0, 0.5, 0.2, 0.0])), "does not rise"),
        (put("label_bits", np.zeros(1, np.uint16)), "labels"),
    ],
)
def test_a_forged_file_with_the_right_hash_is_refused(
    change: Callable[[dict[str, Any], dict[str, Any]], None], why: str
) -> None:
    with pytest.raises(ModelError, match=why):
        Model.from_bytes(forged(change))


def test_a_forged_file_without_a_change_is_read() -> None:
    assert same_scores(Model.from_bytes(forged(lambda arrays, manifest: None)), SMALL)


@pytest.mark.parametrize("name", ["feature", "label_text", "manifest"])
def test_a_member_missing_or_too_many_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        Model.from_bytes(members(**{name: None}))
    with pytest.raises(ModelError):
        Model.from_bytes(members(more=npy(np.zeros(3))))


def test_other_arrays_than_the_manifests_are_refused() -> None:
    path = SMALL.arrays["path"].copy()
    path[0, 0] += 1
    with pytest.raises(ModelError, match="do not match its manifest"):
        Model.from_bytes(members(path=npy(path)))


@pytest.mark.slow
def test_scoring_loads_no_scikit_learn() -> None:
    code = (
        "import sys; from agents.scoring.model import Model; from agents.scoring.features import extract; "
        "from agents.learning.baseline import model_bytes; m = Model.from_bytes(model_bytes()); "
        "print(m.score(extract([b'']), [b'']).shape, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(1,)", "False"]


@pytest.mark.parametrize(("samples", "expected"), [(0, 0), (1, 0), (2, 1), (256, 10.2448)])
def test_average_path_of_a_search(samples: int, expected: float) -> None:
    """256: 2 H(255) - 2 * 255 / 256, with H(n) ~ ln n + 0.5772156649 (Liu, Ting, Zhou 2008, equation 1)."""
    assert average_path(samples) == pytest.approx(expected, abs=1e-3)
