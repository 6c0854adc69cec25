"""Gates and validation: what the shipped model meets, a poisoned one misses, and the user's own cases."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from agents.core.errors import SettingsError
from agents.core.types import Severity, ValidationCase
from agents.detection.limits import Scale
from agents.learning import baseline
from agents.learning.run import Validation
from agents.learning.validation import CASES, HEX_LABEL, Measured, Validator, gates_of, load_cases
from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings as load
from agents.runtime.bootstrap.judging import bounds_of
from agents.scoring.model import Model, digest
from agents.scoring.training import TrainConfig, train
from tests.support.detecting import fresh_detector

fresh = partial(fresh_detector, scale=Scale())
GOOD = Measured(0, 3, 0, 0.001, 0, 15, 15, 200.0, 0.9, 0.92, 0.02)


@pytest.mark.parametrize(
    ("change", "name", "margin"),
    [
        ({"cases_failed": 1}, "wrong validation cases", -1),
        ({"own_cases_failed": 2}, "wrong own cases", -2),
        ({"benign_above_normal": 0.0021}, "golden names above NORMAL", -0.0001),
        ({"false_incidents": 1}, "false incidents", -1),
        ({"sessions_found": 14}, "tunnel sessions found", -1 / 15),
        ({"sessions_found": 0, "sessions": 0}, "tunnel sessions found", -1),
        ({"bytes_worst": 501.0}, "bytes before detection, worst", -1),
        ({"tunnel_share": 0.86}, "tunnel names above NORMAL", -0.01),
        ({"anchor_drift": 0.11}, "drift from the shipped model", -0.01),
    ],
)
def test_each_condition_is_missed_alone_and_says_by_how_much(
    change: dict[str, float], name: str, margin: float
) -> None:
    assert all(gate.passed for gate in gates_of(GOOD))
    (missed,) = [gate for gate in gates_of(replace(GOOD, **change)) if not gate.passed]  # type: ignore[arg-type]
    assert missed.name == name
    assert missed.margin == pytest.approx(margin)


@pytest.mark.parametrize(
    ("change", "setting", "value", "beyond"),
    [
        ({"benign_above_normal": 0.004}, "GATE_GOLDEN_ABOVE_NORMAL", "0.005", "1.1"),
        ({"false_incidents": 2}, "GATE_FALSE_INCIDENTS", "2", "-1"),
        ({"sessions_found": 14}, "GATE_SESSIONS_FOUND", "0.9", "14"),
        ({"bytes_worst": 700.0}, "GATE_BYTES_BEFORE", "800", "0"),
    ],
)
def test_the_bounds_of_a_candidate_itself_are_settings(
    change: dict[str, float], setting: str, value: str, beyond: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(GOOD, **change)  # type: ignore[arg-type]
    assert not all(gate.passed for gate in gates_of(found, bounds_of(load())))
    monkeypatch.setenv(setting, value)
    assert all(gate.passed for gate in gates_of(found, bounds_of(load())))
    monkeypatch.setenv(setting, beyond)
    with pytest.raises(SettingsError, match=rf"^[^\n]*{setting}[^\n]*must be between[^\n]*$"):
        load()


def test_a_run_without_gates_has_not_passed(model: Model) -> None:
    validation = Validator(model, fresh)(model, model)
    assert validation.passed
    assert not replace(validation, gates=()).passed
    assert not Validation((), (), (), validation.old, validation.new).passed


def test_the_cases_are_the_documented_ones() -> None:
    assert [(case.qname, case.expected) for case in CASES] == [
        ("www.google.com", Severity.NORMAL),
        ("youtube.com", Severity.NORMAL),
        (f"{HEX_LABEL}.evil.com", Severity.HIGH),
        ("aaaabbbbccccddddeeeeffffgggg.malware.net", Severity.HIGH),
    ]
    assert len(HEX_LABEL) == 64


def test_the_shipped_model_meets_every_gate(model: Model) -> None:
    validation = Validator(model, fresh)(model, model)
    assert [gate.name for gate in validation.gates if not gate.passed] == []
    assert all(case.passed for case in validation.cases)
    assert validation.old == validation.new
    assert sum(validation.new.histogram) == sum(count for _, count in validation.new.severities) > 5000
    assert len(validation.blind_spots) >= 4


def test_a_model_that_learned_an_attackers_names_misses_a_gate(model: Model) -> None:
    names = [f"{i:063x}.{i * 7919:063x}.{i * 104729:063x}.evil.com" for i in range(600)]
    own = baseline.sample_of(names)
    validation = Validator(model, fresh)(train(own, own, TrainConfig(n_estimators=20), {}), model)
    missed = {gate.name for gate in validation.gates if not gate.passed}
    assert missed
    assert not validation.passed
    assert "wrong validation cases" in missed or "golden names above NORMAL" in missed


def changed(model: Model, **arrays: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Model:
    """The model with other arrays, hash and all."""
    both = {**model.arrays, **arrays}
    return Model(both, {**model.manifest, "arrays_sha256": digest(both)})


def test_what_people_said_counts_against_the_model_in_use(model: Model) -> None:
    """A label that neither model meets stops nobody; a candidate that has more of them wrong is stopped."""
    hopeless = ValidationCase("www.google.com", Severity.HIGH, "reviewed: tunnel")
    known = ValidationCase(f"{HEX_LABEL}.evil.com", Severity.HIGH, "reviewed: tunnel")
    validator = Validator(model, fresh, (), lambda: (hopeless, known))
    (gate,) = [gate for gate in validator(model, model).gates if gate.name == "wrong reviewed names"]
    assert (gate.value, gate.threshold, gate.passed) == (1, 1, True)
    worse = replace(GOOD, reviewed=2, reviewed_wrong=2, reviewed_wrong_before=1)
    (missed,) = [gate for gate in gates_of(worse) if not gate.passed]
    assert (missed.name, missed.margin) == ("wrong reviewed names", -1)


def test_a_model_made_blind_misses_the_gates_of_tunnels(model: Model) -> None:
    silent = {name: np.zeros_like(model.arrays[name]) for name in ("knots_score", "bits_score")}
    blind = changed(model, **silent, char_bits=np.zeros_like(model.arrays["char_bits"]))
    missed = {gate.name for gate in Validator(model, fresh)(blind, model).gates if not gate.passed}
    assert {"wrong validation cases", "tunnel sessions found", "tunnel names above NORMAL"} <= missed


@pytest.mark.slow
def test_a_model_made_nervous_misses_the_gates_of_benign_names(model: Model) -> None:
    nervous = changed(model, knots_score=np.linspace(0.6, 1.0, len(model.arrays["knots_score"])))
    missed = {gate.name for gate in Validator(model, fresh)(nervous, model).gates if not gate.passed}
    assert {"wrong validation cases", "golden names above NORMAL", "drift from the shipped model"} <= missed


def test_own_cases_are_checked_beside_the_known_ones(model: Model) -> None:
    own = (
        ValidationCase("www.example.com", Severity.NORMAL, "ours"),
        ValidationCase("www.example.org", Severity.HIGH, "impossible"),
    )
    validation = Validator(model, fresh, own)(model, model)
    assert [case.passed for case in validation.cases[-2:]] == [True, False]
    assert [gate.name for gate in validation.gates if not gate.passed] == ["wrong own cases"]
    assert validation.cases[-1].champion_score == validation.cases[-1].score


@pytest.mark.slow
def test_it_judges_with_the_detector_of_production(model: Model, tmp_path: Path) -> None:
    """The operator's known services, quiet time and caps: a gate must not fail, or pass, on what never runs."""
    odd = f"{HEX_LABEL[:48]}.keys.vendor.test"
    (tmp_path / "known.csv").write_text(
        "suffix,factor,reason,author,added,expires\nkeys.vendor.test,10,keys,ann,2026-01-01,2099-01-01\n"
    )
    (tmp_path / "cases.csv").write_text(f"qname,expected,purpose\n{odd},NORMAL,licence keys\n")
    settings = load(validation_cases=tmp_path / "cases.csv", data_dir=tmp_path, incident_quiet_s=90.0)
    plain = bootstrap.validator_of(settings)(model, model)
    assert [gate.name for gate in plain.gates if not gate.passed] == ["wrong own cases"]
    own = load(**settings.model_dump() | {"allowlist": tmp_path / "known.csv"})
    assert bootstrap.validator_of(own)(model, model).passed
    detector = bootstrap.validator_of(own).detector_of(model)
    assert detector.quiet_s == 90.0


def test_own_cases_are_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("qname,expected,purpose\nwww.example.com, normal ,ours\n" + "f" * 64 + ".evil.com,HIGH\n")
    assert load_cases(path) == (
        ValidationCase("www.example.com", Severity.NORMAL, "ours"),
        ValidationCase("f" * 64 + ".evil.com", Severity.HIGH, ""),
    )
    path.write_text("expected,qname\nHIGH,a.com\n")
    assert load_cases(path)[0].qname == "a.com"
    path.write_bytes(b"\xef\xbb\xbfqname,expected\r\na.com,HIGH\r\n")
    assert load_cases(path)[0].qname == "a.com", "a spreadsheet's byte order mark"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "the header must name qname and expected"),
        (b"name,expected\na.com,HIGH\n", "the header must name qname and expected"),
        (b"qname,expected\na.com,HIGH\nb.com,MAYBE\n", "line 3: expected is NORMAL or HIGH"),
        (b"qname,expected\na.com\n", "line 2: expected is NORMAL or HIGH"),
        (b"qname,expected\na..com,HIGH\n", "line 2: cannot parse name"),
        (b"qname,expected\n\xff.com,HIGH\n", "utf-8"),
        (b"qname,expected\n" + b"a" * 200_000 + b",HIGH\n", "field larger than"),
        (b'qname,expected,purpose\na.com,HIGH,"two\nlines"\nb.com,MAYBE,\n', "line 4: expected"),
        (b"qname,expected\n,HIGH\n", "line 2: there is no name"),
    ],
)
def test_bad_own_cases_are_one_line_that_names_the_place(tmp_path: Path, text: bytes, why: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(text)
    with pytest.raises(SettingsError, match="cannot read VALIDATION_CASES") as found:
        load_cases(path)
    assert why in str(found.value)
    assert "\n" not in str(found.value)


def test_own_cases_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(SettingsError, match="cannot read VALIDATION_CASES"):
            load_cases(path)
