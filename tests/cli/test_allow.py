"""`dns-tunnel known` on a real store: preview, add, list, remove."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from agents.cli.parser import main
from agents.core.text import OWN_ZONES
from agents.core.types import Incident, Severity
from agents.detection.detector import empty_verdicts
from agents.detection.known_services import OWN_ZONE_FACTOR, load_entries, services_at
from agents.dns.name import from_text
from agents.store.opening import open_store

pytestmark = pytest.mark.integration


def incident(domain: str, score: float, names: tuple[str, ...]) -> Incident:
    now = time.time()
    return Incident(
        "192.0.2.1", domain, Severity.HIGH, score, ("why",), None, now - 60, now, now - 50, 9, 9, 99.0, 9, 99.0, names
    )


def run(folder: Path, *arguments: str) -> int:
    return main(["--data-dir", str(folder), "known", *arguments])


def test_a_week_of_incidents_is_previewed_and_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    store = open_store(f"sqlite:///{tmp_path / 'data' / 'dns-tunnel.db'}")
    store.migrate()
    mild = incident("vendor.test", 0.75, ("a1.keys.vendor.test", "b2.keys.vendor.test"))
    loud = incident("loud.vendor.test", 0.9999, ("x9.keys.vendor.test",))
    other = incident("other.test", 0.75, ("a1.other.test",))
    store.write(empty_verdicts("", (mild, loud, other)), "one")

    assert run(tmp_path, "preview", "keys.vendor.test") == 0
    said = capsys.readouterr().out
    assert "1 of 3 incidents of the last week would be silent, 1 below it stay" in said
    assert all(one.closed_at is None for one in store.incidents(limit=10)), "a preview changes nothing"

    assert run(tmp_path, "add", "keys.vendor.test", "--reason", "licence keys", "--author", "ann") == 0
    found = {one.domain: one for one in store.incidents(limit=10)}
    assert found["vendor.test"].closed_at is not None
    assert "licence keys (ann" in found["vendor.test"].reasons[-1]
    assert found["loud.vendor.test"].closed_at is None and found["other.test"].closed_at is None

    capsys.readouterr()
    assert run(tmp_path, "list") == 0
    assert "keys.vendor.test  x10" in capsys.readouterr().out
    assert run(tmp_path, "remove", "KEYS.vendor.test.") == 0
    assert run(tmp_path, "remove", "keys.vendor.test") == 2

    assert run(tmp_path, "add", ".", "--reason", "mail gateway", "--author", "ann", "--client", "192.0.2.1") == 0
    found = {one.domain: one for one in store.incidents(limit=10)}
    assert found["other.test"].closed_at is not None, "all names of that client"
    assert run(tmp_path, "preview", ".") == 2
    capsys.readouterr()
    assert run(tmp_path, "list") == 0
    assert ". for 192.0.2.1  x10" in capsys.readouterr().out
    assert run(tmp_path, "remove", ".") == 2
    assert run(tmp_path, "remove", ".", "--client", "192.0.2.1") == 0
    store.close()


def test_a_zone_of_this_network_is_proposed_and_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    store = open_store(f"sqlite:///{tmp_path / 'data' / 'dns-tunnel.db'}")
    store.migrate()
    alike = incident("corp.test", 0.7, ("_ldap._tcp.dc._msdcs.corp.test",))
    alike = replace(alike, evidence={"explanation": {"kind": "directory", "remedy": OWN_ZONES}})
    store.write(empty_verdicts("", (alike, replace(alike, client="192.0.2.2", domain="*"))), "one")

    def zones() -> str:
        main(["--data-dir", str(tmp_path), "doctor"])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[1:3] == ["own", "zones"]]
        return line

    assert "perhaps yours, too" in (line := zones()) and "corp.test (asked for like one)" in line
    assert "allow add ZONE --factor own" in line and "* (" not in line
    assert run(tmp_path, "add", "corp.test", "--factor", "own", "--reason", "ours", "--author", "ann") == 0
    (closed,) = [one for one in store.incidents(limit=10) if one.domain == "corp.test"]
    assert closed.closed_at is not None
    store.close()
    assert "corp.test" in (line := zones()) and "corp.test (asked for like one)" not in line
    assert run(tmp_path, "list") == 0
    assert "corp.test  own zone" in capsys.readouterr().out
    (kept,) = load_entries(tmp_path / "data" / "known_services.csv")
    assert services_at([kept], time.time()).factor(from_text("x.corp.test")) == OWN_ZONE_FACTOR
    assert run(tmp_path, "add", "github.io", "--factor", "own", "--reason", "ours", "--author", "ann") == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("add", "x.test", "--reason", " ", "--author", "a"), "a reason and an author are needed"),
        (("preview", "a..b"), "a label is empty"),
        (("preview", "x.test", "--factor", "1"), "a factor is more than 1"),
        (("preview", "x.test", "--factor", "many"), "the factor 'many' is no number"),
        (("preview", "x.test", "--expires", "-5"), "'-5' is no day: YYYY-MM-DD is needed, for example 2026-12-31"),
        (("preview", "x.test", "--expires", "2020-01-31"), "2020-01-31 is over"),
    ],
)
def test_bad_entries_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    assert run(tmp_path, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dns-tunnel: cannot use ") and why in line


def test_what_is_listed_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "add", "x\x1b[31m.test", "--reason", "a\nb\x1b]0;", "--author", "\x07") == 0
    assert run(tmp_path, "list") == 0
    assert run(tmp_path, "remove", "x\x1b[31m.test") == 0
    said = capsys.readouterr().out
    assert not set("\x1b\x07") & set(said)
    assert len(said.splitlines()) == 4


def test_a_damaged_list_is_a_bad_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "known_services.csv").write_text("suffix,factor\nx.test,2\n")
    assert run(tmp_path, "list") == 2
    assert "line 2" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["=HYPERLINK(1)", "+1", "-2+3", "@SUM(A1)", "plain 'quoted' text", "'=already"])
def test_a_reason_that_a_spreadsheet_would_run_is_text(
    reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "add", "x.test", f"--reason={reason}", f"--author={reason}") == 0
    lines = (tmp_path / "data" / "known_services.csv").read_text().splitlines()
    cells = [cell.strip('"') for cell in lines[1].split(",")]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    capsys.readouterr()
    assert run(tmp_path, "list") == 0
    assert f"{reason}: {reason}" in capsys.readouterr().out


@pytest.mark.parametrize("reason", ["a\x1b[2Jb", "a\rb", "a\nb", "a\x00b", "a\u202eb"])
def test_the_file_holds_nothing_that_a_terminal_would_run(reason: str, tmp_path: Path) -> None:
    assert run(tmp_path, "add", f"x{reason}.test", f"--reason={reason}", f"--author={reason}") == 0
    lines = (tmp_path / "data" / "known_services.csv").read_text().splitlines()
    assert len(lines) == 2
    assert lines[1].isprintable()
    assert run(tmp_path, "remove", f"x{reason}.test") == 0
