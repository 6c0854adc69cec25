"""What the commands do: the JSON contract of replay and score, models by hand, retraining with its exit codes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from agents.dns.name import to_text
from agents.learning.baseline import golden_sessions, model_bytes
from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings
from agents.scoring.model import Model
from agents.sources.capture import frame_kernels as ll
from agents.store import open_store
from tests.support.captures import T0, exchange, ip4, linked, pcap, question, udp
from tests.support.commands import Done, Inside, free_port, is_one_line, run_inside
from tests.support.filled import fill
from tests.support.stubs import StubServer

pytestmark = pytest.mark.integration

CLIENT = "192.0.2.7"
QUERY_KEYS = {"type", "ts", "client", "qname", "qtype", "domain", "score", "severity", "reasons"}
INCIDENT_KEYS = (
    "type client domain severity score reasons tool first_seen last_seen detected_at queries unique_names "
    "leaked_bytes queries_before_detection bytes_before_detection"
).split()
SUMMARY_KEYS = "type queries malformed clients domains incidents seconds severities model_id".split()
LEVELS = ["NORMAL", "SUSPICIOUS", "HIGH", "CRITICAL"]
HOSTILE = "<script>alert(1)</script>.';\\032drop\\032table\\032queries--.\\000\\027[31m\\255.evil.com"


def tunnel_rows(session: str = "iodine-txt-base32") -> list[tuple[float, str, str, str]]:
    batch = golden_sessions()[session]
    return [
        (float(ts), CLIENT, to_text(qname), "TXT") for ts, qname in zip(batch.ts.tolist(), batch.qname, strict=True)
    ]


def tsv(rows: list[tuple[float, str, str, str]]) -> str:
    return "ts\tclient\tqname\tqtype\n" + "".join(f"{ts:.6f}\t{c}\t{q}\t{t}\n" for ts, c, q, t in rows)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """One replay of a tunnel, an odd name and ordinary ones, stored too."""
    folder = tmp_path_factory.mktemp("replay")
    rows = [*tunnel_rows(), (tunnel_rows()[-1][0] + 1, "192.0.2.8", HOSTILE, "A")]
    (folder / "tunnel.tsv").write_text(tsv(rows))
    with gzip.open(folder / "more.tsv.gz", "wt") as file:
        file.write("qtype\trcode\tts\textra\tqname\tclient\tancount\tqlen\trlen\trtt_ms\tans_types\n")
        file.write(f"A\t0\t{rows[-1][0] + 5}\tx\twww.google.com\t192.0.2.9\t1\t33\t49\t12.5\tA\n")
        file.write(f"28\t\t{rows[-1][0] + 6}\tx\tYouTube.com\t2001:db8::1\t\t\t\t\t\n")
        file.write("this line is none\n")
    return folder, run_inside(folder, "replay", "tunnel.tsv", "more.tsv.gz", "--json", "-", "--verdicts", "--store")


def test_replay_writes_queries_incidents_and_at_last_a_summary(replayed: tuple[Path, Done]) -> None:
    _, done = replayed
    reason = "line 4: 1 field, but the header line has 11"
    kind = "is read as a table with ts, client, qname and qtype, by its header line"
    assert done.code == 0
    assert done.err.splitlines() == [
        f"dns-tunnel: tunnel.tsv {kind}",
        f"dns-tunnel: more.tsv.gz {kind}",
        f"dns-tunnel: warning: more.tsv.gz: 1 row could not be read; the first: {reason}",
    ]
    kinds = [row["type"] for row in done.rows]
    assert kinds == ["query"] * 93 + ["incident", "summary"]
    queries, incident, summary = done.rows[:93], done.rows[93], done.rows[94]
    assert all(set(row) == QUERY_KEYS for row in queries)
    assert set(INCIDENT_KEYS) <= set(incident)
    assert list(summary) == SUMMARY_KEYS
    check_queries(queries)
    assert (incident["client"], incident["domain"]) == (CLIENT, queries[0]["domain"])
    assert incident["severity"] in ("HIGH", "CRITICAL")
    assert incident["first_seen"] <= incident["detected_at"] <= incident["last_seen"]
    assert 0 < incident["bytes_before_detection"] <= incident["leaked_bytes"]
    assert 2 <= incident["queries_before_detection"] <= incident["queries"] == 90
    assert incident["reasons"]
    assert all(isinstance(reason, str) for reason in incident["reasons"])
    assert {key: summary[key] for key in SUMMARY_KEYS[1:6]} == {
        "queries": 93,
        "malformed": 1,
        "clients": 4,
        "domains": 4,
        "incidents": 1,
    }
    assert list(summary["severities"]) == LEVELS
    assert sum(summary["severities"].values()) == 93
    assert summary["model_id"] == Model.from_bytes(model_bytes()).model_id


def check_queries(queries: list[dict[str, Any]]) -> None:
    for row in queries:
        assert 0 <= row["score"] <= 1
        assert row["severity"] in LEVELS
        assert bool(row["reasons"]) == (row["severity"] != "NORMAL")
    hostile, google, youtube = queries[90:]
    assert hostile["qname"] == HOSTILE, "presentation form"
    assert (google["client"], google["qname"], google["qtype"], google["severity"]) == (
        "192.0.2.9",
        "www.google.com",
        "A",
        "NORMAL",
    )
    assert (youtube["qname"], youtube["qtype"], youtube["domain"]) == ("YouTube.com", "AAAA", "youtube.com")


def test_what_was_replayed_with_store_is_in_the_database(replayed: tuple[Path, Done]) -> None:
    folder, done = replayed
    store = open_store(f"sqlite:///{folder / 'data' / 'data' / 'dns-tunnel.db'}")
    rows, _ = store.queries(limit=1000)
    assert {row["qname"] for row in rows} == {row["qname"] for row in done.rows if row["type"] == "query"}
    (incident,) = store.incidents(limit=10)
    assert incident.closed_at is not None
    store.close()


def test_explain_shows_an_incidents_evidence(replayed: tuple[Path, Done], inside: Inside) -> None:
    folder, done = replayed
    incident = done.rows[93]
    found = run_inside(folder, "explain", CLIENT, incident["domain"].upper() + ".")
    assert found.code == 0
    for text in (*incident["reasons"], f"{CLIENT} -> {incident['domain']}", "UTC", "closed"):
        assert text in found.out


def test_the_same_capture_gives_the_same_lines_and_text_for_people(
    replayed: tuple[Path, Done], tmp_path: Path, inside: Inside
) -> None:
    folder, done = replayed
    again = inside("replay", folder / "tunnel.tsv", folder / "more.tsv.gz", "--json", "out.json", "--verdicts")
    assert again.code == 0
    rows = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    assert rows[:-1] == done.rows[:-1]
    assert "93 queries of 4 clients to 4 domains" in again.out
    assert "incident: 192.0.2.7 -> " in again.out
    assert all(char.isprintable() for line in again.out.splitlines() for char in line)


def test_replay_reads_a_capture_and_warns_of_a_cut_one(tmp_path: Path, inside: Inside) -> None:
    frames = [*exchange(), (T0 + 1, linked(ll.ETHERNET, ip4(udp(question("a.example.org")))))]
    whole = pcap(frames)
    (tmp_path / "whole.pcap").write_bytes(whole)
    (tmp_path / "cut.pcap.gz").write_bytes(gzip.compress(whole[:-7]))
    one = inside("replay", "whole.pcap", "--json", "-")
    kind = "is read as a pcap or pcapng capture, by the number that such files begin with"
    assert (one.code, one.rows[-1]["queries"], one.err) == (0, 2, f"dns-tunnel: whole.pcap {kind}\n")
    cut = inside("replay", "cut.pcap.gz", "--json", "-")
    assert (cut.code, cut.rows[-1]["queries"]) == (0, 1)
    assert cut.err.startswith(f"dns-tunnel: cut.pcap.gz {kind}\ndns-tunnel: warning: cut.pcap.gz")
    other = inside("replay", "whole.pcap", "--json", "-", REPLAY_PORTS="5353")
    assert (other.code, other.rows[-1]["queries"]) == (0, 2)
    assert other.err.endswith("whole.pcap: 2 queries on other ports, known by their content: 53 (2)\n")


def test_score_judges_names_one_by_one(tmp_path: Path, inside: Inside) -> None:
    with gzip.open(tmp_path / "names.txt.gz", "wb") as file:
        file.write(b"# a comment\n\nwww.google.com\n  youtube.com  \ncaf\xe9.com\na..b\n\\000\x1b[31m.evil.com\n")
    long = "4a" * 32 + ".evil.com"
    done = inside("score", long, "--file", "names.txt.gz", "--qtype", "TXT", "--json", "-")
    assert done.code == 1, "one of them is no name"
    rows = done.rows
    keys = {"qname", "qtype", "domain", "score", "severity", "confidence", "reasons"}
    assert [set(row) for row in rows if "error" not in row] == [keys] * 5
    assert {row["qtype"] for row in rows if "error" not in row} == {"TXT"}
    assert rows[0]["qname"] == long
    assert (rows[0]["domain"], rows[0]["severity"]) == ("evil.com", "CRITICAL")
    assert "63 hex characters in one label" in rows[0]["reasons"]
    assert [(row["qname"], row["severity"], row["reasons"]) for row in rows[1:3]] == [
        ("www.google.com", "NORMAL", []),
        ("youtube.com", "NORMAL", []),
    ]
    assert rows[4]["qname"] == "a..b"
    assert rows[4]["error"].startswith("cannot parse name")
    text = inside("score", "--file", "names.txt.gz")
    assert "\x1b" not in text.out + text.err


def test_evaluate_prints_json_and_a_table(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "tunnel.tsv").write_text(tsv(tunnel_rows()))
    (tmp_path / "names.txt").write_text("www.google.com\nyoutube.com\n")
    (tmp_path / "manifest.csv").write_text("file,kind,tool\ntunnel.tsv,tunnel-tool,iodine\nnames.txt,benign-names,\n")
    done = inside("evaluate", "manifest.csv", "--json", "-")
    assert (done.code, done.err) == (0, "")
    (found,) = done.rows
    assert found["tools"][0] | {"bytes_median": 0, "bytes_worst": 0, "above_normal": 0} == found["tools"][0] | {
        "tool": "iodine",
        "sessions": 1,
        "found": 1,
        "bytes_median": 0,
        "bytes_worst": 0,
        "above_normal": 0,
    }
    assert [row["rate"] for row in found["leak_curve"]] == [0.0116, 0.02, 0.1, 0.7, 10.0, 1000.0]
    assert all(row["bytes_out"] == 30 * row["queries"] for row in found["leak_curve"])
    table = inside("evaluate", "manifest.csv")
    assert table.code == 0
    assert "leak curve" in table.out
    assert "iodine       1 / 1" in table.out


def test_doctor_is_content_where_all_is_well(tmp_path: Path, inside: Inside) -> None:
    with StubServer() as upstream:
        done = inside("doctor", UPSTREAMS=f"127.0.0.1:{upstream.port}", LISTEN_PORT=str(free_port()))
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert len(lines) >= 8
    assert all(line.startswith("ok ") for line in lines)
    (bound,) = [line for line in lines if line.split()[1] == "bound"]
    for amount in ("12,500 of one client, 25,000 of all, 6,250 more", "24,000 more", "(Z): 6,000"):
        assert amount in bound


def model_ids(inside: Inside) -> dict[str, list[str]]:
    """Model ids by state, as `models list` prints them."""
    found: dict[str, list[str]] = {}
    for line in inside("models", "list").out.splitlines():
        model_id, state = line.split()[:2]
        found.setdefault(state, []).append(model_id)
    return found


def run_states(tmp_path: Path) -> list[tuple[str, str]]:
    """State of each stored run, in the table and in its payload."""
    store = open_store(f"sqlite:///{tmp_path / 'data' / 'data' / 'dns-tunnel.db'}")
    found = [(row["state"], row["payload"]["state"]) for row in store.runs(limit=10)]
    store.close()
    return found


def test_a_decision_stands_without_a_database_to_note_it_in(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = bootstrap.registry_of(load_settings(data_dir=tmp_path / "data"))
    model = Model.from_bytes(model_bytes())
    registry.save_candidate(model)
    registry.mark(model.model_id, "waiting")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/none")
    done = inside("models", "reject")
    assert (done.code, done.out) == (0, f"rejected {model.model_id}\n")
    assert "warning: the run is not updated: cannot read runs" in done.err
    assert "s3cret" not in done.err
    assert model_ids(inside)["rejected"] == [model.model_id]


@pytest.mark.slow
def test_a_candidate_waits_is_approved_rolled_back_and_restored(tmp_path: Path, inside: Inside) -> None:
    shipped = Model.from_bytes(model_bytes()).model_id
    assert model_ids(inside) == {"shipped": [shipped]}
    fill(tmp_path / "data")
    done = inside("retrain", "--deploy", "manual", "--samples", "3000", "--days", "2")
    assert done.code == 0, done
    assert done.out.startswith("WAITING ")
    assert "300 stored queries and 2700 shipped names" in done.out
    told = f"--data-dir {tmp_path / 'data'} models approve {done.out.split()[1]}"
    assert f"dns-tunnel {told}\n" in done.out
    report = Path(done.out.rsplit("report: ", 1)[1].strip())
    assert report.is_file()
    waiting = done.out.split()[1]
    assert model_ids(inside) == {"shipped": [shipped], "waiting": [waiting], "backup": [shipped]}
    assert not (tmp_path / "data" / "models" / "isolation_forest.npz").exists()
    assert json.loads(inside("models", "show", waiting).out)["model_id"] == waiting

    assert run_states(tmp_path) == [("WAITING", "WAITING")]
    assert inside("models", "approve").out == f"deployed {waiting}\n"
    assert run_states(tmp_path) == [("DEPLOYED", "DEPLOYED")]
    assert model_ids(inside)["champion"] == [waiting]
    assert json.loads(inside("models", "show").out)["params"]["max_samples"] == 256
    assert inside("models", "reject", waiting).code == 2, "it waits no more"
    assert inside("models", "rollback").out == f"back to {shipped}\n"
    champion = tmp_path / "data" / "models" / "candidates" / f"{waiting}.npz"
    assert inside("models", "restore", champion).out == f"restored {waiting}\n"
    assert (tmp_path / "data" / "models" / "isolation_forest.npz").read_bytes() == champion.read_bytes()


@pytest.mark.slow
def test_a_candidate_that_misses_a_gate_is_exit_3_and_the_old_model_stays(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "data")
    monkeypatch.setenv("COMPARE_TYPES", "none")
    first = inside("retrain", "--samples", "3000")
    assert (first.code, first.out.split()[0]) == (0, "DEPLOYED"), first
    champion = tmp_path / "data" / "models" / "isolation_forest.npz"
    before = champion.read_bytes()
    (tmp_path / "cases.csv").write_text(
        "qname,expected,purpose\nwww.google.com,HIGH,impossible\n<img/src=x>\\027.a.com,HIGH,<b>\n"
    )
    done = inside("retrain", "--samples", "2000", VALIDATION_CASES=str(tmp_path / "cases.csv"))
    assert done.code == 3, done
    assert done.out.startswith("REJECTED ")
    assert "missed: wrong own cases is " in done.out
    assert "  failed: www.google.com: HIGH expected, NORMAL found (score 0." in done.out
    assert "  failed: <img/src=x>\\027.a.com: HIGH expected, " in done.out
    report = Path(done.out.rsplit("report: ", 1)[1].strip()).read_text()
    assert "&lt;img/src=x&gt;" in report
    assert "<img" not in report
    assert champion.read_bytes() == before
    monkeypatch.setenv("VALIDATION_CASES", str(tmp_path / "cases.csv"))
    backup = min((tmp_path / "data" / "models" / "backups").glob("*.npz"))  # of the shipped model
    restored = inside("models", "restore", backup)
    assert restored.code == 1
    assert ": wrong own cases is 2, threshold 0; www.google.com: HIGH expected" in restored.err
    assert is_one_line(restored)
    same = inside("models", "restore", champion)
    assert (same.code, same.out) == (2, "")
    assert (
        same.err
        == f"dns-tunnel: cannot restore {champion}: model {model_ids(inside)['champion'][0]} is the one in use\n"
    )
    log = (tmp_path / "data" / "logs" / "retraining.log").read_text()
    assert "REJECTED" in log
    assert "retraining_step_finished" in log


def test_a_retraining_with_nothing_stored_is_exit_3_and_deploys_nothing(tmp_path: Path, inside: Inside) -> None:
    done = inside("retrain")
    assert done.code == 3, done
    assert done.out.startswith("UNCHANGED\n  nothing new to learn: 0 stored NORMAL queries in the last 7 × 24 hours\n")
    assert Path(done.out.rsplit("report: ", 1)[1].strip()).is_file()
    assert run_states(tmp_path) == [("UNCHANGED", "UNCHANGED")]
    assert not (tmp_path / "data" / "models" / "isolation_forest.npz").exists()


def test_a_retraining_without_database_fails_is_told_and_exit_1(tmp_path: Path, inside: Inside) -> None:
    done = inside("retrain", DATABASE_URL="postgresql://u:s3cret@127.0.0.1:1/none")
    assert done.code == 1
    assert done.out.startswith("FAILED")
    assert "cannot" in done.out
    assert "s3cret" not in done.out + done.err
    assert not (tmp_path / "data" / "models" / "isolation_forest.npz").exists()


def test_replay_tells_people_what_was_malformed(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "odd.tsv").write_text(tsv([(1.0, CLIENT, "a.com", "A")]) + "this line is none\n")
    assert "; 1 malformed" in inside("replay", "odd.tsv").out


def test_replay_of_a_table_without_a_good_row_fails_and_gives_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text("ts\tclient\tqname\tqtype\nyesterday\t192.0.2.1\ta.example\tA\n")
    done = run_inside(tmp_path, "replay", "bad.tsv", "--json", "-")
    assert done.code == 1
    assert "cannot read bad.tsv: no row can be read; line 2: 'yesterday' is no time\n" in done.err
    assert json.loads(done.out.splitlines()[-1])["malformed"] == 1
