"""The same data, seed and settings give the same model, whatever the type; and two versions are told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents.detection.limits import Scale
from agents.learning.baseline import benign_sample
from agents.learning.release.diff import Version, difference, difference_text
from agents.learning.release.lineage import code_version, note_lineage, read_lineage, sample_digest
from agents.learning.run import TrainRequest
from agents.runtime.trainer import Training, train_here
from agents.scoring import MODEL_TYPES
from agents.scoring.model import Model
from agents.scoring.training import DetectorType, TrainConfig
from tests.support.detecting import shipped_model
from tests.support.model_types import kinds

REQUEST = TrainRequest(seed=42, since=1.0, until=2.0, parent="0" * 16, live=600, topped_up=0, data_sha256="ab" * 32)


@pytest.mark.slow
@kinds
def test_the_same_data_seed_and_settings_give_the_same_model(name: str) -> None:
    (spec,) = [spec for spec in MODEL_TYPES if spec.name == name]
    training = Training(DetectorType(spec, TrainConfig(n_estimators=20), spec.values({})), {"factor": 1.0})
    sample = benign_sample(600, 3)

    def made(request: TrainRequest, seed: int = 3) -> Model:
        found = train_here(training, benign_sample(600, seed), request)
        assert isinstance(found, Model)
        return found

    first, again = made(REQUEST), made(REQUEST)
    assert first.model_id == again.model_id
    later = made(replace(REQUEST, since=9.0, until=10.0, parent="1" * 16))
    assert later.manifest["arrays_sha256"] == first.manifest["arrays_sha256"], "another week with the same data"
    assert made(REQUEST, seed=4).manifest["arrays_sha256"] != first.manifest["arrays_sha256"]
    assert sample_digest(sample) == sample_digest(benign_sample(600, 3)) != sample_digest(benign_sample(600, 4))


def test_who_asked_is_not_in_the_hash_and_every_name_is() -> None:
    sample = benign_sample(50, 1)
    assert sample_digest(sample) == sample_digest(replace(sample, client=["192.0.2.1"] * 50))
    assert sample_digest(sample) != sample_digest(replace(sample, qname=["a.example", *sample.qname[1:]]))


def test_the_code_version_names_release_and_sources() -> None:
    found = code_version()
    assert found["release"] and len(found["sources_sha256"]) == 64


def test_lineage_is_added_to_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    model = tmp_path / "a.npz"
    assert read_lineage(model) == {}
    note_lineage(model, {"parent": "x"})
    note_lineage(model, {"gates": []})
    assert read_lineage(model) == {"parent": "x", "gates": []}
    for broken in (b"{", b"[]", b"\xff", b"[" * 200_000):
        model.with_suffix(".json").write_bytes(broken)
        assert read_lineage(model) == {}


def test_two_versions_are_compared_on_the_shipped_names() -> None:
    shipped = shipped_model()
    arrays = dict(shipped.arrays) | {"bits_raw": shipped.arrays["bits_raw"] / 4}
    louder = Model(arrays, dict(shipped.manifest) | {"seed": 7, "limits": {"factor": 2.0}})
    old = Version("shipped", shipped, {})
    new = Version("candidate", louder, {"gates": [{"name": "false incidents", "value": 3.0}], "run_id": "r"})
    found = difference(old, new, Scale())
    json.dumps(found)
    assert {row["name"] for row in found["settings"]} == {"seed"}
    assert found["limits"]["new"]["factor"] == 2.0
    assert found["limits"]["new"]["encoded_bytes_a_day"] == 2 * found["limits"]["old"]["encoded_bytes_a_day"]
    assert found["gates"] == [{"name": "false incidents", "old": "–", "new": "3"}]
    tunnels = next(row for row in found["scores"]["groups"] if row["group"] == "tunnel")
    assert tunnels["new"] > tunnels["old"], "bits count four times as much"
    assert found["scores"]["changed"] >= len(found["scores"]["changes"]) > 0
    text = difference_text(found)
    assert f"{found['scores']['changed']:,} change severity" in text
    assert all(line.isprintable() for line in text.splitlines())
    same = difference(old, old, Scale())
    assert (same["scores"]["changed"], same["settings"], same["lineage"]) == (0, [], [])
    said = difference_text(same).split("shipped names")[0]
    assert "→" not in said and said.count("no difference") == 5, "of two that are the same nothing is listed"
    half = Version("candidate", Model(shipped.arrays, dict(shipped.manifest) | {"limits": {"factor": 0.5}}), {})
    text = difference_text(difference(new, half, Scale()))
    rows = text.split("limits:\n")[1].split("network profile")[0].splitlines()
    assert rows and all(row.split(": ")[1].split(" → ")[0] != row.split(" → ")[1] for row in rows)
