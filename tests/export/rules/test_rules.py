"""Rules to take away: each is read by the program or library that it is for, whatever the domain is called."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

import dns.name
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli.parser import main
from agents.core.errors import NameFormatError
from agents.core.types import Severity
from agents.dns.name import from_text, to_text
from agents.export.rules import RULES, RULES_BY_NAME
from agents.export.rules.base import Tunnel
from agents.export.rules.suricata import dotted
from agents.export.rules.zeek import FIELDS
from agents.runtime.bootstrap import load_settings, make_folders, store_of
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from tests.support.incidents import incident
from tests.support.patience import patient
from tests.support.verdicts import verdicts

sigma = pytest.importorskip("sigma.collection", reason="pySigma is not installed")
parsuricata = pytest.importorskip("parsuricata", reason="parsuricata is not installed")
TUNNELS = [
    Tunnel("evil.example", incident(domain="evil.example", severity=Severity.CRITICAL), True),
    Tunnel(r"semi;quote\"star*back\\slash.example"),
    Tunnel(r"\000\255\009tab.example"),
]
NAMES = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4).map(
    lambda labels: to_text(b"".join(bytes((len(one),)) + one for one in labels))
)


def sigma_values(text: str) -> list[tuple[str, str]]:
    rules = sigma.SigmaCollection.from_yaml(text)
    assert not rules.errors
    return [
        (str(rule.detection.detections["itself"].detection_items[0].value[0].to_plain()), str(rule.level.name).lower())
        for rule in rules.rules
    ]


def test_pysigma_accepts_the_rules() -> None:
    text = RULES_BY_NAME["sigma"].render(TUNNELS, 1_767_225_600.0)
    found = sigma_values(text)
    assert [level for _, level in found] == ["critical"] * 3
    assert found[0][0] == "evil.example"
    assert "attack.t1071.004" in text and "date: 2026-01-01" in text
    ids = re.findall(r"(?m)^id: (.+)$", text)
    assert len(set(ids)) == 3 and ids == re.findall(r"(?m)^id: (.+)$", RULES_BY_NAME["sigma"].render(TUNNELS, 0.0))


@given(NAMES)
def test_no_name_is_more_than_a_name_in_a_rule(name: str) -> None:
    tunnels = [Tunnel(name)]
    (rule,) = sigma.SigmaCollection.from_yaml(RULES_BY_NAME["sigma"].render(tunnels, 0.0)).rules
    value = rule.detection.detections["itself"].detection_items[0].value[0]
    assert not value.contains_special() and str(value.to_plain()).replace("\\", "") == name.replace("\\", "")
    (line,) = RULES_BY_NAME["suricata"].render(tunnels, 0.0).splitlines()
    assert line.count('"') == 4 and line.isascii() and line.isprintable() and line.endswith("rev:1;)")
    assert _bytes_of(dotted(tunnels[0])) == b"." + b".".join(tunnels[0].labels)
    rows = RULES_BY_NAME["zeek"].render(tunnels, 0.0).splitlines()
    assert [len(row.split("\t")) for row in rows] == [len(FIELDS) + 1, len(FIELDS)]
    if len(from_text(name)) < 230:
        zone = dns.zone.from_text(RULES_BY_NAME["rpz"].render(tunnels, 1.0), "rpz.example", check_origin=False)
        labels = tuple(label.lower() for label in tunnels[0].labels)
        assert dns.name.Name(labels) in zone and dns.name.Name((b"*", *labels)) in zone


def _bytes_of(text: str) -> bytes:
    """A content of Suricata's as bytes: |…| is hexadecimal."""
    parts = text.split("|")
    return b"".join(bytes.fromhex(part) if at % 2 else part.encode() for at, part in enumerate(parts))


def test_zeek_has_the_domain_and_names_that_were_seen() -> None:
    one = incident(domain="evil.example", sample_names=("4a6f.evil.example", "cut…", "a\\009b.evil.example"))
    rows = [row.split("\t") for row in RULES_BY_NAME["zeek"].render([Tunnel("evil.example", one)], 0.0).splitlines()]
    assert rows[0] == ["#fields", *FIELDS]
    assert [row[0] for row in rows[1:]][:2] == ["evil.example", "4a6f.evil.example"]
    assert r"a\x09b.evil.example" in [row[0] for row in rows] and {row[1] for row in rows[1:]} == {"Intel::DOMAIN"}


@pytest.mark.skipif(shutil.which("suricata") is None, reason="suricata is not installed")
def test_suricata_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "dns.rules").write_text(RULES_BY_NAME["suricata"].render(TUNNELS, 0.0))
    command = ["suricata", "-T", "-S", str(tmp_path / "dns.rules"), "-l", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patient(120))
    assert done.returncode == 0, done.stdout + done.stderr


SURICATA_OPTIONS = {
    "msg": True, "dns.query": False, "dotprefix": False, "content": True, "nocase": False, "endswith": False,
    "classtype": True, "sid": True, "rev": True,
}  # fmt: skip
"""Keywords in use that docs.suricata.io lists, and whether each has a value: "Rules Format", "Meta Keywords", "DNS
Keywords", "Payload Keywords", "Transformations"."""


@given(NAMES)
def test_a_grammar_of_suricatas_rules_reads_them(name: str) -> None:
    """The grammar of parsuricata, and the published keywords, where Suricata itself is not to be had."""
    tunnel = Tunnel(name)
    (rule,) = parsuricata.parse_rules(RULES_BY_NAME["suricata"].render([tunnel], 0.0))
    assert (rule.action, rule.protocol, rule.direction) == ("alert", "dns", "->")
    assert [str(one) for one in (rule.src, rule.src_port, rule.dst, rule.dst_port)] == ["any"] * 4
    keywords = [option.keyword for option in rule.options]
    assert {option.keyword: option.settings is not None for option in rule.options} == SURICATA_OPTIONS
    assert len(keywords) == len(SURICATA_OPTIONS)
    # A buffer stands before what is searched in it, transformations between both, modifiers behind their content.
    assert keywords[1:6] == ["dns.query", "dotprefix", "content", "nocase", "endswith"]
    (content,) = [option.settings for option in rule.options if option.keyword == "content"]
    assert _bytes_of(str(content)) == b"." + b".".join(tunnel.labels)


def test_suricata_numbers_are_the_same_each_time_and_distinct() -> None:
    many = [Tunnel(f"evil{number}.example") for number in range(3000)]
    first = re.findall(r"sid:(\d+);", RULES_BY_NAME["suricata"].render(many, 0.0))
    assert len(set(first)) == 3000 and all(1_000_000 <= int(one) < 2_000_000 for one in first)
    assert re.findall(r"sid:(\d+);", RULES_BY_NAME["suricata"].render(many[:1], 9.0)) == first[:1]


@pytest.mark.integration
def test_a_zone_to_take_away_has_nothing_that_is_never_blocked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENFORCE_NEVER", "bank.example")
    settings = load_settings(data_dir=tmp_path)
    make_folders(settings)
    with closing(store_of(settings)) as store:
        store.migrate()
        ReviewStore(store).decide(["sure.net", "bank.example"], Label.TUNNEL, "seen", "ann", time.time())
    for kind in RULES:
        assert main(["--data-dir", str(tmp_path), "rules", kind.name]) == 0
        out, err = capsys.readouterr()
        assert "sure" in out and ("bank" in out) != kind.blocks
        assert ("left out: bank.example: bank.example is never blocked (ENFORCE_NEVER)" in err) == kind.blocks
    assert [kind.name for kind in RULES if kind.blocks] == ["rpz"]


@pytest.mark.integration
def test_the_command_writes_what_was_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings(data_dir=tmp_path)
    make_folders(settings)
    now = time.time()
    lately = {"first_seen": now - 60, "last_seen": now, "detected_at": now - 30}
    with closing(store_of(settings)) as store:
        store.migrate()
        found = (
            incident(domain="evil.com", client="192.0.2.7", **lately),
            incident(domain="old.com", client="192.0.2.7"),
            incident(domain="*", client="192.0.2.9", **lately),
            incident(domain="unsure.com", severity=Severity.SUSPICIOUS, **lately),
        )
        store.write(verdicts([], incidents=found), "a batch")
        ReviewStore(store).decide(["sure.net"], Label.TUNNEL, "seen", "ann", now)
        ReviewStore(store).decide(["fine.net"], Label.BENIGN, "ours", "ann", now)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["--data-dir", str(tmp_path), "rules", *arguments])
        return code, *capsys.readouterr()

    for kind in RULES:
        code, out, _ = run(kind.name)
        assert code == 0 and "sure" in out and "fine" not in out and "evil" not in out
    code, out, _ = run("rpz", "--since", "7d")
    assert code == 0 and "evil.com CNAME ." in out and "old.com" not in out and "unsure" not in out
    code, out, _ = run("zeek", "--incident", "192.0.2.7", "old[.]com")
    assert code == 0 and "old.com\tIntel::DOMAIN" in out
    code, out, err = run("suricata", "--confirmed", "--out", str(tmp_path / "dns.rules"))
    assert (code, out) == (0, "") and "1 domain in " in err and (tmp_path / "dns.rules").read_text().count("sid:") == 1
    for wrong in (("--since", "soon"), ("--incident", "192.0.2.1", "evil.com"), ("--incident", "192.0.2.9", "*")):
        code, out, err = run("rpz", *wrong)
        assert (code, out) == (2, "") and "cannot " in err


def test_what_is_no_domain_is_left_out() -> None:
    with pytest.raises(NameFormatError):
        assert Tunnel("a..b").labels
