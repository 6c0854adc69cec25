"""Measuring on captures that a manifest lists; a tiny one, made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agents.core.errors import CaptureError, UsageError
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.dns.name import to_text
from agents.learning.baseline import benign_names, golden_sessions
from agents.learning.evaluation import Evaluation, Session, evaluate, tools
from agents.scoring.model import Model
from agents.sources import open_source
from scripts.make_baseline import write

START = 1_700_000_000.0


def table(path: Path, rows: Sequence[tuple[float, str, str, str]]) -> None:
    lines = [f"{ts:.3f}\t{client}\t{qname}\tTXT\t{label}" for ts, client, qname, label in rows]
    write(path, ["ts\tclient\tqname\tqtype\tlabel", *lines])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    benign = [(START + i * 20.0, f"192.0.2.{i % 6}", name, "benign") for i, name in enumerate(benign_names()[:1200])]
    table(tmp_path / "office.tsv.gz", benign)
    session = golden_sessions()["iodine-txt-base32"]
    rows = [(ts, "10.9.9.9", to_text(q), "tunnel") for ts, q in zip(session.ts.tolist(), session.qname, strict=True)]
    table(tmp_path / "iodine.tsv.gz", rows)
    table(tmp_path / "short.tsv.gz", [(START, "10.9.9.9", "a.evil.com", "tunnel")])
    (tmp_path / "popular.txt").write_text("www.google.com\nyoutube.com\n..\nwww.wikipedia.org\n")
    (tmp_path / "manifest.csv").write_text(
        "file,kind,tool\n"
        "office.tsv.gz,benign,\n"
        "iodine.tsv.gz,tunnel-tool,iodine\n"
        "short.tsv.gz,tunnel-tool,iodine\n"
        "popular.txt,benign-names,\n"
        "never-opened.pcap,raw-pcap,\n"
    )
    (tmp_path / "never-opened.pcap").write_bytes(b"")
    return tmp_path / "manifest.csv"


def measure(manifest: Path, model: Model) -> Evaluation:
    def fresh() -> TunnelDetector:
        return TunnelDetector(model, 10_000, 3600.0, Scale())

    return evaluate(manifest, model, fresh, lambda path: open_source([path]))


def test_a_manifest_is_measured(manifest: Path, model: Model) -> None:
    found = measure(manifest, model)
    long, short = found.sessions
    assert (long.tool, long.found, long.queries) == ("iodine", True, 90)
    assert 2 <= long.queries_before < 90
    assert 0 < long.bytes_before < 500
    assert (short.found, short.severity, short.queries_before) == (False, "", 0)
    (office,) = found.benign
    assert (office.queries, office.incidents) == (1200, ())
    assert office.client_hours == pytest.approx(6 * 7)
    (names,) = found.names
    assert (names.names, names.above_normal, names.above_high) == (3, 0, 0)
    assert found.model_id == model.model_id


def test_the_same_manifest_measures_the_same(manifest: Path, model: Model) -> None:
    assert measure(manifest, model).to_json() == measure(manifest, model).to_json()


def test_a_tool_is_its_sessions() -> None:
    sessions = [
        Session("a", "x", 100, True, "x", "HIGH", 10, 100.0, 0.5),
        Session("b", "x", 300, True, "", "HIGH", 30, 200.0, 1),
    ]
    missed = Session("c", "y", 5, False, "", "", 0, 0.0, 0.0)
    x, y = tools([*sessions, missed])
    assert (x.sessions, x.found, x.queries_median, x.queries_worst) == (2, 2, 20, 30)
    assert (x.bytes_median, x.bytes_worst, x.above_normal) == (150, 200, 0.875)
    assert (y.sessions, y.found, y.queries_worst) == (1, 0, 0)


def test_json_has_the_tools_too(manifest: Path, model: Model) -> None:
    found = measure(manifest, model).to_json()
    assert [row["tool"] for row in found["tools"]] == ["iodine"]
    assert set(found) == {"model_id", "sessions", "benign", "names", "leak_curve", "tools"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "has the columns"),
        (b"file,kind,tool\n", "lists no files"),
        (b"file,sort\na,b\n", "has the columns"),
        (b"\xff\xfe", "it is not UTF-8 at byte 0"),
        (b"file,kind,tool\nnowhere.tsv,benign,\n", "nowhere.tsv is listed and not there"),
        (b"file,kind,tool\nmanifest.csv\n", "line 2"),
    ],
)
def test_a_bad_manifest_is_one_line(tmp_path: Path, model: Model, text: bytes, why: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=why) as found:
        measure(path, model)
    assert str(path) in str(found.value)


def test_an_empty_tunnel_capture_is_a_session_that_was_not_found(tmp_path: Path, model: Model) -> None:
    table(tmp_path / "empty.tsv", [])
    (tmp_path / "manifest.csv").write_text("file,kind,tool\nempty.tsv,tunnel-tool,x\n")
    (session,) = measure(tmp_path / "manifest.csv", model).sessions
    assert (session.queries, session.found) == (0, False)


def test_a_capture_that_is_none_is_named(tmp_path: Path, model: Model) -> None:
    (tmp_path / "bad.pcap").write_bytes(b"not a capture")
    (tmp_path / "manifest.csv").write_text("file,kind,tool\nbad.pcap,benign,\n")
    with pytest.raises(CaptureError, match=r"bad\.pcap"):
        measure(tmp_path / "manifest.csv", model)
