from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agents.messages import harmless, incident_message, printable, run_message
from agents.runs import RunState
from agents.types import Severity
from tests import run_samples
from tests.incidents import incident


@given(st.text(max_size=400), st.integers(2, 300))
def test_text_becomes_printable_and_bounded(text: str, size: int) -> None:
    out = printable(text, size)
    assert out.isprintable()
    assert len(out) <= size
    out.encode("utf-8")


@given(st.text(alphabet="a.@:/<>", max_size=60))
def test_nothing_looks_like_an_address(text: str) -> None:
    out = harmless(text)
    assert "://" not in out
    assert "@" not in out.replace("[@]", "")
    assert ".a" not in out


def test_an_incident_says_who_where_how_much_and_why() -> None:
    message = incident_message(incident(), "https://c.example")
    assert message.title == "HIGH: 192.0.2.7 sends data through evil[.]com"
    facts = dict(message.facts)
    assert facts["Leaked"] == "about 9,120 bytes"
    assert facts["Reason"] == "41 unique names below evil[.]com in 60 s"
    assert facts["First seen"] == "2025-11-20 02:13:20 UTC"
    assert "iodine" in message.summary
    assert (message.link, message.severity) == ("https://c.example/", Severity.HIGH)


def test_messages_of_one_incident_and_of_one_model_thread() -> None:
    later = incident(severity=Severity.CRITICAL, queries=999)
    assert incident_message(incident()).thread_id == incident_message(later).thread_id
    waiting = replace(run_samples.deployed(), state=RunState.WAITING)
    assert run_message(run_samples.deployed()).thread_id == run_message(waiting).thread_id


def test_a_rejection_says_which_gate_and_by_how_much() -> None:
    message = run_message(run_samples.rejected())
    assert "benign names NORMAL (0.9731 ≥ 0.99, missed by 0.0169)" in message.summary
    assert "[.]evil[.]com: HIGH expected, NORMAL found (score 0.310)" in message.summary
    assert ("✗ benign names NORMAL", "0.9731 ≥ 0.99, missed by 0.0169") in message.facts


def test_a_waiting_run_says_how_to_decide() -> None:
    waiting = replace(run_samples.deployed(), state=RunState.WAITING)
    assert "dns-tunnel models approve fedcba9876543210" in run_message(waiting).summary


def test_a_report_that_is_gone_is_not_attached(tmp_path: Path) -> None:
    run = replace(run_samples.deployed(), paths={"report": str(tmp_path / "gone.html")})
    assert run_message(run).attachments == []
