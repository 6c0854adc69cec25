from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.alerting.messages import incident_message
from agents.core.text import NETWORK, command, harmless, printable
from agents.core.types import Severity
from agents.learning.messages import run_message
from agents.learning.run import RunState
from tests.support import run_samples
from tests.support.incidents import incident


@given(st.text(max_size=400), st.integers(2, 300))
def test_text_becomes_printable_and_bounded(text: str, size: int) -> None:
    out = printable(text, size)
    assert out.isprintable()
    assert len(out) <= size
    out.encode("utf-8")


def test_a_byte_that_is_no_utf_8_reads_as_in_zone_files() -> None:
    assert printable(b"a\xff\x80\x01".decode("utf-8", "surrogateescape")) == "a\\255\\128\\001"


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
    assert "Seen before" not in facts
    again = incident(evidence={"before": {"first_seen": 1_763_604_800.0, "incidents": 2}})
    assert dict(incident_message(again).facts)["Seen before"] == "2 incidents since 2025-11-20 02:13:20 UTC"
    assert message.severity == Severity.HIGH
    assert message.link == f"https://c.example/console/incidents/{incident().incident_id}"


def test_an_incident_of_several_clients_says_so_and_names_the_loudest() -> None:
    sent = {"count": 2, "loudest": ["192.0.2.7", "192.0.2.8"]}
    message = incident_message(replace(incident(client=NETWORK), evidence={"clients": sent}))
    assert message.title == "HIGH: several clients send data through evil[.]com"
    assert dict(message.facts)["Clients"] == "2 clients: 192.0.2.7, 192.0.2.8"
    assert "'*'" in dict(message.facts)["Look"], "the shell leaves it alone"


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


def test_a_command_is_told_as_a_shell_takes_it_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = tmp_path / "my venv" / "bin"
    bin_.mkdir(parents=True)
    program = bin_ / "dns-tunnel"
    program.write_text("#!/bin/sh\necho it is me: $*\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bin_ / "python"))

    def run(path: Path, folder: Path) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")
        told = command("models list")
        assert subprocess.run(told, shell=True, capture_output=True, text=True).stdout == "it is me: models list\n"
        return told

    other = tmp_path / "other"
    other.mkdir()
    (other / "dns-tunnel").write_text("#!/bin/sh\necho another one\n")
    (other / "dns-tunnel").chmod(0o755)
    assert run(bin_, tmp_path) == "dns-tunnel models list"
    assert run(other, tmp_path) == "'my venv/bin/dns-tunnel' models list"
    assert run(tmp_path, other) == f"'{program}' models list"
    program.unlink()
    assert command("models list") == "dns-tunnel models list"
