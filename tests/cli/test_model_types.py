"""MODEL_TYPE: each detector type is trained, validated, reported, deployed and used by whole commands."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path

import pytest

from agents.scoring import MODEL_TYPES
from tests.support.commands import Inside, is_one_line
from tests.support.filled import fill
from tests.support.model_types import kinds

pytestmark = pytest.mark.integration


@pytest.mark.slow
@kinds
def test_each_type_is_trained_passes_the_gates_and_judges(
    name: str, tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TYPE", name)
    monkeypatch.setenv("DEEP_EPOCHS", "6")
    fill(tmp_path / "data")
    done = inside("retrain", "--samples", "3000")
    assert (done.code, done.out.split()[0]) == (0, "DEPLOYED"), done
    shown = json.loads(inside("models", "show").out)
    assert shown["algorithm"] == next(spec.factory({}).algorithm for spec in MODEL_TYPES if spec.name == name)
    report = Path(done.out.rsplit("report: ", 1)[1].strip())
    assert shown["algorithm"] in report.read_text()
    names = ("www.google.com", "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796.evil.com")
    scored = inside("score", *names, "--json", "-").rows
    assert scored[0]["severity"] == "NORMAL"
    assert scored[1]["severity"] in {"HIGH", "CRITICAL"}
    assert inside("models", "rollback").code == 0, "the shipped forest is read beside it"


def test_a_type_that_nobody_has_is_one_line_before_anything_starts(inside: Inside) -> None:
    done = inside("retrain", MODEL_TYPE="oracle")
    assert done.code == 2
    assert (
        "cannot use setting MODEL_TYPE=oracle: it is one of forest, padim, pair, ensemble, efficient_ad, fastflow, pyod"
        in done.err
    )
    assert is_one_line(done)


@pytest.mark.slow
def test_a_report_compares_types_on_the_same_data(tmp_path: Path, inside: Inside) -> None:
    fill(tmp_path / "data")
    done = inside("retrain", "--samples", "3000", COMPARE_TYPES="forest, padim")
    assert done.code == 0, done
    page = Path(done.out.rsplit("report: ", 1)[1].strip())
    found = json.loads(page.with_suffix(".json").read_text())["types"]
    scenes = ("names", "flow-hours", "flow images")
    assert [(one["scene"], one["type"]) for one in found] == [(s, t) for s in scenes for t in ("forest", "padim")]
    assert all(one["problem"] == "" and one["false_alarms"] < 0.01 for one in found)
    assert all(set(one["by_tool"]) == {"dns2tcp", "iodine"} for one in found)
    assert "Detector types on the same data" in page.read_text()


def test_a_comparison_with_a_type_that_nobody_has_is_one_line(inside: Inside) -> None:
    done = inside("retrain", COMPARE_TYPES="forest,oracle")
    assert done.code == 2
    assert "cannot use setting COMPARE_TYPES=oracle: it is one of forest, " in done.err
    assert is_one_line(done)


def test_a_missing_extra_fails_the_run_in_one_line(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    fill(tmp_path / "data")
    done = inside("retrain", "--samples", "3000", MODEL_TYPE="fastflow", COMPARE_TYPES="efficient_ad")
    assert done.code == 1
    assert "\n  cannot train this detector type without the extra deep: " in done.out


def test_doctor_says_which_type_is_trained_and_what_it_lacks(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"(?m)^ok +detector +(.*)$", inside("doctor", MODEL_TYPE="pair", UPSTREAMS="127.0.0.1:9").out)
    assert found is not None
    assert found[1].startswith("pair (an Isolation Forest and PaDiM: ")

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    lacking = inside("doctor", MODEL_TYPE="fastflow", UPSTREAMS="127.0.0.1:9").out
    assert re.search(r"(?m)^BAD +detector +cannot train MODEL_TYPE=fastflow: jax, optax is not installed$", lacking)
