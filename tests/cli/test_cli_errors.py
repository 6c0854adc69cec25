"""Bad settings and arguments: one line that names the thing, the right exit code, never a traceback."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from agents.cli.doctor import CHANNEL_SETTINGS
from tests.support.commands import Inside, call, free_port, is_one_line
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration


def test_a_bad_setting_ends_the_process_with_2(tmp_path: Path) -> None:
    done = call(tmp_path, "run", LISTEN_PORT="none")
    assert (done.code, is_one_line(done)) == (2, True), done


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("LISTEN_PORT", "none", "LISTEN_PORT=none"),
        ("LISTEN_PORT", "70000", "LISTEN_PORT=70000"),
        ("LISTEN_PORT", "1\n2\x1b[31m", "LISTEN_PORT=1\\0102\\027[31m"),
        ("LISTEN_HOST", "example.com", "LISTEN_HOST"),
        ("API_PORT", "0", "API_PORT=0"),
        ("UPSTREAMS", "1.1.1.1.1", "UPSTREAMS"),
        ("UPSTREAMS", "quic://192.0.2.1", "begins with none of"),
        ("UPSTREAMS", "192.0.2.1#example.net", "has a part that udp does not have"),
        ("INFLIGHT_CLIENT_SHARE", "0", "between 0.001 and 1"),
        ("UPSTREAMS", "=192.0.2.1", "has no zone"),
        ("UPSTREAMS", "192.0.2.1:99999", "UPSTREAMS"),
        ("ALLOWED_CLIENTS", "everybody", "ALLOWED_CLIENTS"),
        ("RETRAIN_SCHEDULE", "sometimes", "RETRAIN_SCHEDULE"),
        ("RETRAIN_SCHEDULE", "99 2 * * sun", "RETRAIN_SCHEDULE"),
        ("RETRAIN_TIMEZONE", "Mars/Olympus", "RETRAIN_TIMEZONE"),
        ("RETRAIN_DAYS", "0", "RETRAIN_DAYS"),
        ("RETRAIN_DAYS", "3651", "RETRAIN_DAYS=3651"),
        ("TARGET_FPR_HIGH", "0.001", "TARGET_FPR_HIGH"),
        ("UPSTREAMS", "a..b=192.0.2.1", "a label is empty"),
        ("UPSTREAMS", "x" * 64 + ".test=192.0.2.1", "UPSTREAMS"),
        ("RETRAIN_SAMPLES", "-5", "RETRAIN_SAMPLES"),
        ("RETRAIN_SAMPLES", "255", "RETRAIN_SAMPLES=255"),
        ("RETRAIN_MAX_SCORE", "nan", "RETRAIN_MAX_SCORE"),
        ("DEPLOY", "perhaps", "DEPLOY=perhaps"),
        ("SCORE_HIGH", "0.95", "SCORE_HIGH"),
        ("SCORE_COMBINE", "min", "SCORE_COMBINE"),
        ("REPLAY_PORTS", "53,dns", "REPLAY_PORTS"),
        ("INCIDENT_QUIET_S", "inf", "INCIDENT_QUIET_S"),
        ("VALIDATION_CASES", "/nowhere/cases.csv", "VALIDATION_CASES /nowhere/cases.csv: No such file"),
        ("QUEUE_MAX", "10000001", "QUEUE_MAX=10000001"),
        ("INFLIGHT_MAX", "99999999999", "INFLIGHT_MAX"),
        ("UPSTREAM_TIMEOUT_S", "1e300", "UPSTREAM_TIMEOUT_S"),
        ("QUERY_RETENTION_DAYS", "99999999999999", "QUERY_RETENTION_DAYS"),
        ("FLOWS_MAX", "99999999999999", "FLOWS_MAX"),
        ("ALLOWLIST", "/nowhere/known.csv", "ALLOWLIST=/nowhere/known.csv: no such file"),
        ("DATABASE_URL", "not-an-address", "DATABASE_URL"),
        ("DATABASE_URL", "mysql://a:s3cret@b/c", "cannot use database"),
        ("EMAIL_SMTP_HOST", "127.0.0.1", "EMAIL_FROM is not set"),
        ("EMAIL_SMTP_PORT", "x", "EMAIL_SMTP_PORT"),
        ("SLACK_WEBHOOK_URL", "ftp://s3cret.example/x", "cannot"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL=loud"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_2_before_any_socket_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv(name, value)
    done = inside("run")
    assert (done.code, is_one_line(done)) == (2, True), done
    assert why in done.err
    assert "s3cret" not in done.err
    assert "Value error" not in done.err
    assert "listener_started" not in done.err
    assert done.out == ""


def test_a_bad_line_in_the_env_file_ends_the_process_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# fine\njust a line\n")
    done = call(tmp_path, "run")
    assert (done.code, done.err) == (2, "dns-tunnel: cannot read .env: line 2 is not NAME=value\n")


def test_a_bad_line_in_the_env_file_is_like_a_bad_setting(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / ".env").write_text("LISTEN_PORT=abc\n")
    done = inside("run")
    assert (done.code, is_one_line(done)) == (2, True), done
    for text in ("# fine\njust a line\n", "LISTEN_PORT=5400\nAPI_PORT: 8054\n", "LISTEN_PORT=5400\nAPI_TOKEN='abc\n"):
        (tmp_path / ".env").write_text(text)
        done = inside("run")
        assert (done.code, done.err) == (2, "dns-tunnel: cannot read .env: line 2 is not NAME=value\n")
    (tmp_path / ".env").write_bytes(b"LISTEN_PORT=\xff\xfe\n")
    done = inside("run")
    assert (done.code, is_one_line(done)) == (2, True), done
    assert ".env" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bogus"],
        ["replay"],
        ["replay", "x", "--format", "bogus"],
        ["explain", "192.0.2.1"],
        ["retrain", "--days", "0"],
        ["retrain", "--days", "3651"],
        ["retrain", "--days", "x"],
        ["retrain", "--samples", "many"],
        ["retrain", "--samples", "255"],
        ["retrain", "--samples", "99999999999999999999999"],
        ["retrain", "--deploy", "maybe"],
        ["models"],
        ["models", "bogus"],
        ["models", "restore"],
        ["score", "--qtype", "NOPE", "a.com"],
        ["health", "bogus"],
        ["run", "--bogus"],
    ],
)
def test_a_bad_argument_shows_the_usage_and_is_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside, arguments: list[str]
) -> None:
    done = inside(*arguments)
    assert done.code == 2
    assert "usage: dns-tunnel" in done.err
    assert "error: " in done.err.splitlines()[-1]
    assert not re.search(r"\b_[a-z]", done.err)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["replay", "nowhere.pcap"], 2, "nowhere.pcap"),
        (["replay", "."], 2, "cannot read"),
        (["replay", "garbage"], 2, "garbage"),
        (["replay", "empty"], 2, "empty"),
        (["replay", "good.tsv", "--json", "nowhere/out.json"], 2, "nowhere/out.json"),
        (["replay", "good.tsv", "--format", "pcap"], 2, "good.tsv"),
        (["replay", "no-column.tsv", "--format", "tsv"], 2, "no column qtype"),
        (["score"], 2, "give names"),
        (["score", "--file", "nowhere.txt"], 2, "nowhere.txt"),
        (["score", "--file", "bad.gz"], 2, "bad.gz"),
        (["score", "--file", "cut.gz"], 2, "cut.gz"),
        (["score", "--file", "empty"], 2, "there is no name in it"),
        (["score", "a..b"], 1, "a..b"),
        (["evaluate", "nowhere.csv"], 2, "nowhere.csv"),
        (["evaluate", "garbage"], 2, "cannot read garbage"),
        (["evaluate", "nowhere.csv", "--json", "nowhere/out.json"], 2, "cannot write nowhere/out.json"),
        (["explain", "192.0.2.1", "evil.com"], 1, "no such incident"),
        (["explain", "\udcff", "\udcfe"], 1, "no such incident"),
        (["models", "show", "0123456789abcdef"], 2, "cannot find model"),
        (["models", "show", "../../etc/passwd"], 2, "cannot find model"),
        (["models", "approve"], 2, "cannot choose a model: none waits"),
        (["models", "approve", "0123456789abcdef"], 2, "it is unknown"),
        (["models", "reject", "0123456789abcdef"], 2, "it is unknown"),
        (["models", "rollback"], 2, "no earlier model"),
        (["models", "restore", "nowhere.npz"], 2, "nowhere.npz"),
        (["models", "restore", "garbage"], 1, "cannot restore garbage: cannot use model"),
        (["replay", "good.tsv", "--verdicts"], 2, "--verdicts needs --json"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inside: Inside,
    arguments: list[str],
    code: int,
    why: str,
) -> None:
    (tmp_path / "garbage").write_bytes(b"\x00\xffnothing at all\n" * 9)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "good.tsv").write_text("ts\tclient\tqname\tqtype\n1\t192.0.2.1\ta.com\tA\n")
    (tmp_path / "no-column.tsv").write_text("ts\tclient\tqname\n1\t192.0.2.1\ta.com\n")
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xff")
    (tmp_path / "cut.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
    done = inside(*arguments)
    assert (done.code, is_one_line(done)) == (code, True), done
    assert why in done.err


@pytest.mark.parametrize("arguments", [["explain", "a", "b"], ["retrain"], ["run"], ["models", "rollback"]])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, arguments: list[str], inside: Inside) -> None:
    (tmp_path / "data").write_bytes(b"a file where the folder should be")
    done = inside(*arguments)
    assert done.code in (1, 2)
    assert done.err.splitlines()[-1].startswith("dns-tunnel: cannot "), done


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_file_without_a_token_is_one_line_and_exit_1(tmp_path: Path, inside: Inside, content: bytes) -> None:
    path = tmp_path / "data" / "data" / "api_token"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    done = inside("api")
    assert (done.code, is_one_line(done)) == (1, True), done
    assert f"cannot use {path}: there is no token in it; remove it" in done.err


@pytest.mark.parametrize("arguments", [["explain", "192.0.2.1", "evil.com"], ["replay", "good.tsv", "--store"]])
def test_a_database_that_is_away_is_one_line_and_exit_1(tmp_path: Path, arguments: list[str], inside: Inside) -> None:
    (tmp_path / "good.tsv").write_text("ts\tclient\tqname\tqtype\n1\t192.0.2.1\ta.com\tA\n")
    done = inside(*arguments, DATABASE_URL="postgresql://u:s3cret@127.0.0.1:1/none")
    assert (done.code, is_one_line(done)) == (1, True), done
    assert "s3cret" not in done.err


def test_doctor_says_what_is_bad(tmp_path: Path, inside: Inside) -> None:
    done = inside(
        "doctor",
        DATABASE_URL="postgresql://u:s3cret@127.0.0.1:1/none",
        UPSTREAMS="127.0.0.1:9",
        EMAIL_SMTP_HOST="127.0.0.1",
        EMAIL_SMTP_PORT="9",
        EMAIL_FROM="a@example.com",
        EMAIL_TO="b@example.com",
        LISTEN_PORT="5335",
    )
    assert done.code == 1
    bad = [line.split()[1] for line in done.out.splitlines() if line.startswith("BAD")]
    assert {"database", "upstreams", "email"} <= set(bad)
    assert {"settings", "model", "schedule"} & set(bad) == set()
    assert "email        cannot reach 127.0.0.1 port 9: Connection refused" in done.out
    assert "s3cret" not in done.out + done.err


def test_doctor_sends_a_test_message_where_it_is_asked_to(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def line() -> tuple[str, str]:
        (found,) = [line for line in inside("doctor", "--send").out.splitlines() if "test message" in line]
        mark, text = found.split(" test message ")
        return mark.strip(), text.strip()

    with webhook() as good, webhook(404) as bad:
        assert line() == ("BAD", f"cannot send: no channel is set up ({CHANNEL_SETTINGS})")
        monkeypatch.setenv("SLACK_WEBHOOK_URL", good.url)
        assert line() == ("ok", "sent to slack")
        assert "DNS tunnel detector: a test" in json.dumps(good.got)
        monkeypatch.setenv("TEAMS_WEBHOOK_URL", bad.url)
        assert line() == ("BAD", "sent to slack; cannot send to teams: it answered 404")
        inside("doctor")
        assert (len(good.got), len(bad.got)) == (2, 1)


def test_doctor_ends_as_run_would_for_a_bad_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside
) -> None:
    port = str(free_port())
    monkeypatch.setenv("LISTEN_PORT", port)
    monkeypatch.setenv("UPSTREAMS", f"127.0.0.1:{port}")
    done = inside("doctor")
    assert done.code == 2
    assert f"BAD  upstreams    cannot forward to 127.0.0.1:{port}: that is this listener itself" in done.out
    monkeypatch.setenv("VALIDATION_CASES", "/nowhere/cases.csv")
    done = inside("doctor")
    assert done.code == inside("run").code == 2
    assert "BAD  settings     cannot " in done.out


def test_doctor_looks_into_the_spool(tmp_path: Path, inside: Inside) -> None:
    spool = tmp_path / "data" / "data" / "spool"
    spool.mkdir(parents=True)

    def said() -> str:
        (line,) = [line for line in inside("doctor").out.splitlines() if line.split()[1] == "spool"]
        return line

    assert said() == "ok   spool        0 batches wait, 0 set aside, 0 of 512 MB; 0 verdicts lost"
    (spool / "0000000000000001-a.npz").write_bytes(bytes(3 << 20))
    assert said().startswith("ok   spool        1 batches wait, 0 set aside, 3 of 512 MB")
    beat = {"at": time.time(), "lost": 7}
    (spool.parent / "detector.json").write_text(json.dumps(beat))
    assert said().startswith("BAD  spool        cannot store what is judged: 1 batches wait")
    assert said().endswith("7 verdicts lost")
    (spool.parent / "detector.json").unlink()
    (spool / "0000000000000001-a.npz").rename(spool / "0000000000000001-a.bad")
    assert said().startswith(f"BAD  spool        cannot read all of {spool}: 0 batches wait, 1 set aside")


def test_doctor_remarks_what_no_check_finds(tmp_path: Path, inside: Inside) -> None:
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    (models / "isolation_forest.npz").write_bytes(b"broken")
    (tmp_path / ".env").write_text(
        "LISTEN_PROT=53\nPUBLISH_DNS=127.0.0.1:53\nSLACK_WEBHOOK_URL=http://127.0.0.1:9/t0ps3cret\n"
    )
    done = inside("doctor", UPSTREAMS="127.0.0.1:9")
    assert done.code == 1
    assert done.err.splitlines()[0] == "dns-tunnel: warning: .env names LISTEN_PROT, which is no setting"
    assert done.err.count("dns-tunnel: ") == 1
    remarks = [line.split()[1] for line in done.out.splitlines() if line.startswith("warn")]
    assert remarks == ["settings"]
    assert re.search(r"(?m)^BAD  model +cannot use \S*isolation_forest\.npz", done.out)
    assert "t0ps3cret" not in done.out
