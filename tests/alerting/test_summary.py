"""The weekly summary: what nobody was paged for, by domain."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from agents.alerting.summary import DOMAINS_SHOWN, summary_message
from agents.core.types import DAY_S, Incident, Severity
from agents.detection.detector import empty_verdicts
from agents.runtime import bootstrap, services
from agents.runtime.bootstrap import load_settings
from agents.sources.collector import RECEIVED, Heard
from agents.sources.heard_days import LISTENED, Listened, queries_by_intake
from tests.support.incidents import incident
from tests.support.webhook import webhook

EXPLAINED = {
    "kind": "reputation by hash", "what": "look-ups", "sign": "", "bytes_a_day": 1.0, "budget": 2.0, "listed": True,
    "remedy": "dns-tunnel allow",
}  # fmt: skip
OWN = EXPLAINED | {"kind": "directory", "remedy": "OWN_ZONES"}


def listed(domain: str, client: str = "192.0.2.7", leaked: float = 500.0, **evidence: object) -> Incident:
    return incident(
        domain=domain, client=client, leaked_bytes=leaked, severity=Severity.SUSPICIOUS, evidence=dict(evidence)
    )


def test_domains_are_listed_with_their_likely_kind_the_loudest_first() -> None:
    found = summary_message(
        [
            listed("few.example", explanation=EXPLAINED),
            listed("much.example", leaked=900),
            listed("much.example", "192.0.2.8", leaked=900),
            incident(domain="told.example"),
        ],
        {"listener": 1},
        7,
        "https://console.example",
    )
    assert found is not None
    assert found.title == "DNS tunnel detector: 3 incidents listed in 7 days"
    assert "1 more incident was told at once" in found.summary
    facts = dict(found.facts)
    assert list(facts)[:2] == ["much[.]example", "few[.]example"] and "told[.]example" not in facts
    assert (
        facts["much[.]example"]
        == "SUSPICIOUS, 2 clients, 2 incidents, about 1,800 bytes; no kind of service explains it"
    )
    assert facts["few[.]example"].endswith("; may be reputation by hash")
    assert found.link == "https://console.example/console/weekly"


def test_it_asks_for_own_zones_and_says_that_habits_were_learnt() -> None:
    found = summary_message([listed("corp.example", explanation=OWN, burn_in=True)], {"listener": 1}, 7)
    assert found is not None
    facts = dict(found.facts)
    assert facts["Your own?"].startswith("OWN_ZONES=corp[.]example")
    assert "Habits" in facts


def test_it_is_short_and_without_a_listed_incident_says_what_was_heard() -> None:
    found = summary_message([incident()], {"listener": 1_234_567, "dnstap+unix:///run/a.sock": 0}, 7)
    assert (found.title, found.severity) == ("DNS tunnel detector: no incident listed in 7 days", Severity.NORMAL)
    assert found.summary == "1 incident was told at once."
    assert found.facts == [("Heard", "dnstap+unix:///run/a.sock none; listener 1,234,567 queries")]
    many = {f"/log{number}": 1 for number in range(50)}
    found = summary_message([listed(f"d{number}.example") for number in range(50)], many, 7)
    assert len(found.facts) == DOMAINS_SHOWN + 3
    assert dict(found.facts)["Heard"].endswith("; and 30 more intakes")


def test_a_week_in_which_nothing_was_heard_is_told_from_one_without_a_finding() -> None:
    for heard in ({}, {"listener": 0}):
        found = summary_message([], heard, 7)
        assert (found.title, found.severity) == ("DNS tunnel detector: nothing was heard in 7 days", Severity.HIGH)


def test_what_is_heard_is_counted_by_the_day_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    for run_id, received in (("a", 5), ("a", 7), ("b", 3), ("b", 3)):
        Listened(tmp_path).note(run_id, received)
    os.utime(tmp_path / LISTENED, (now[0], now[0]))
    assert queries_by_intake(tmp_path, 7) == {"listener": 10}
    (tmp_path / RECEIVED).write_text(json.dumps({"packet://eth0": Heard({}).to_json()}))
    os.utime(tmp_path / RECEIVED, (now[0], now[0]))
    assert queries_by_intake(tmp_path, 7) == {"listener": 10, "packet://eth0": 0}
    now[0] += 8 * DAY_S
    Listened(tmp_path).note("b", 4)
    os.utime(tmp_path / LISTENED, (now[0], now[0]))
    assert queries_by_intake(tmp_path, 7) == {"listener": 1}


def test_the_scheduler_s_job_reads_the_last_week_and_tells_the_channels(tmp_path: Path) -> None:
    with webhook() as hook:
        settings = load_settings(data_dir=tmp_path, slack_webhook_url=hook.url)
        bootstrap.make_folders(settings)
        store = bootstrap.store_of(settings)
        now = time.time()
        store.migrate()
        old = listed("old.example")
        fresh = incident(
            domain="fresh.example",
            severity=Severity.SUSPICIOUS,
            first_seen=now - 90,
            last_seen=now - 60,
            detected_at=now - 80,
        )
        store.write(empty_verdicts("m", (old, fresh)), "b1")
        store.close()
        services.summarise(bootstrap.upkeep_of(settings))
        assert len(hook.got) == 1
        text = str(hook.got[0])
        assert "fresh[.]example" in text and "old[.]example" not in text and "no intake was there" in text
