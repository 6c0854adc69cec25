"""`dns-tunnel secrets`, and what `replay` and `doctor` make of honeytokens and strict groups."""

from __future__ import annotations

import io
import json
import os
import pwd
import sys
from pathlib import Path

import pytest

from tests.support.commands import Inside, is_one_line

pytestmark = pytest.mark.integration

TOKEN = "kX9vQ2mT7pLw4RzB8nYc"


def table(folder: Path, *rows: tuple[float, str, str]) -> Path:
    path = folder / "queries.tsv"
    lines = (f"{ts}\t{client}\t{name}\tA\n" for ts, client, name in rows)
    path.write_text("ts\tclient\tqname\tqtype\n" + "".join(lines))
    return path


def kept(folder: Path) -> Path:
    return folder / "data" / "data" / "honeytokens.json"


def test_a_token_is_added_found_listed_and_removed(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    capture = table(tmp_path, (1.0, "10.0.0.7", f"{TOKEN.encode().hex()}.evil.example"), (2.0, "10.0.0.7", "a.example"))
    assert inside("replay", capture, "--json", "-").rows[-1]["incidents"] == 0
    done = inside("secrets", "add", "build db", "--file", tmp_path / "token")
    assert (done.code, done.err) == (0, "") and done.out.startswith("added build db")
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600 and TOKEN not in kept(tmp_path).read_text()
    (line,) = inside("secrets", "list").out.splitlines()
    assert line.startswith("build db  since 20") and TOKEN not in line

    incident, summary = inside("replay", capture, "--json", "-").rows
    assert (incident["severity"], incident["client"], summary["incidents"]) == ("CRITICAL", "10.0.0.7", 1)
    assert incident["reasons"] == ["one query below evil.example carried the honeytoken build db in hex"]
    assert "build db" in inside("doctor", UPSTREAMS="127.0.0.1:9").out

    again = inside("secrets", "add", "build db", "--text", TOKEN)
    assert again.code == 2 and is_one_line(again) and "remove it first" in again.err
    assert inside("secrets", "remove", "build db").code == 0
    assert inside("secrets", "list").out == ""
    gone = inside("secrets", "remove", "build db")
    assert gone.code == 2 and is_one_line(gone)
    assert inside("replay", capture, "--json", "-").rows[-1]["incidents"] == 0


def test_a_token_comes_from_standard_input(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TOKEN.encode() + b"\r\n")))
    assert inside("secrets", "add", "one").code == 0
    (token,) = json.loads(kept(tmp_path).read_text())["tokens"]
    assert (token["name"], token["size"]) == ("one", 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_keeps_it_for_the_user_that_runs(tmp_path: Path, inside: Inside) -> None:
    assert inside("secrets", "add", "one", "--text", TOKEN, RUN_AS="nobody").code == 0
    found = kept(tmp_path).stat()
    assert (found.st_uid, found.st_mode & 0o777) == (pwd.getpwnam("nobody").pw_uid, 0o600)
    assert kept(tmp_path).parent.stat().st_uid == found.st_uid


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("one", "--text", "short"), "8 to 512"),
        (("one", "--text", "aaaaaaaaaaaaaaaa"), "too little variety"),
        (("one", "--file", "none"), "cannot read none: No such file"),
        (("a\nb", "--text", TOKEN), "a name has 1 to 64"),
    ],
)
def test_what_cannot_be_added_leaves_the_list_as_it_is(
    arguments: tuple[str, ...], why: str, tmp_path: Path, inside: Inside
) -> None:
    assert inside("secrets", "add", "first", "--text", TOKEN).code == 0
    before = kept(tmp_path).read_bytes()
    done = inside("secrets", "add", *arguments)
    assert done.code == 2 and is_one_line(done) and why in done.err
    assert kept(tmp_path).read_bytes() == before


def test_a_damaged_list_ends_what_needs_it(tmp_path: Path, inside: Inside) -> None:
    inside("secrets", "add", "first", "--text", TOKEN)
    kept(tmp_path).write_text("{}")
    for command in (("secrets", "list"), ("secrets", "add", "x", "--text", TOKEN), ("replay", table(tmp_path))):
        done = inside(*command)
        assert done.code == 2 and is_one_line(done) and "it is damaged" in done.err
    assert kept(tmp_path).read_text() == "{}"
    assert inside("doctor").code == 2


def test_doctor_sees_a_list_that_others_may_read(tmp_path: Path, inside: Inside) -> None:
    inside("secrets", "add", "first", "--text", TOKEN)
    kept(tmp_path).chmod(0o640)
    (line,) = [line for line in inside("doctor", UPSTREAMS="127.0.0.1:9").out.splitlines() if "honeytokens" in line]
    assert line.startswith("BAD") and "mode 040" in line


def test_a_replay_judges_strict_groups(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "allow.txt").write_text("example.org\n")
    setting = {"STRICT_CLIENTS": "10.0.9.0/24=allow.txt", "UPSTREAMS": "127.0.0.1:9"}
    rows = [(1.0, "10.0.9.7", "www.example.org"), (2.0, "10.0.9.7", "evil.example"), (3.0, "10.0.8.7", "evil.example")]
    incident, _ = inside("replay", table(tmp_path, *rows), "--json", "-", **setting).rows
    assert (incident["client"], incident["domain"], incident["severity"]) == ("10.0.9.7", "evil.example", "HIGH")
    assert incident["reasons"][0].endswith("asked for evil.example, which its list does not have")
    (line,) = [line for line in inside("doctor", **setting).out.splitlines() if line.split()[1] == "strict"]
    assert line.startswith("ok ") and "10.0.9.0/24 may ask for 1 domain (" in line


@pytest.mark.parametrize("setting", ["10.0.9.0/24=none.txt", "10.0.9.0/24", "10.0.0.0/8=a.txt,10.0.9.0/24=a.txt"])
@pytest.mark.parametrize("command", ["listen", "replay"])
def test_a_bad_group_is_one_line_at_the_start(setting: str, command: str, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("")
    files = [table(tmp_path)] if command == "replay" else []
    done = inside(command, *files, STRICT_CLIENTS=setting, UPSTREAMS="127.0.0.1:9")
    assert done.code == 2 and is_one_line(done) and "cannot use setting STRICT_CLIENTS=" in done.err
