"""The weekly summary: what nobody was paged for, by domain."""

from __future__ import annotations

import time
from pathlib import Path

from agents.alerting.summary import DOMAINS_SHOWN, summary_message
from agents.core.types import Incident, Severity
from agents.detection.detector import empty_verdicts
from agents.runtime import bootstrap, services
from agents.runtime.bootstrap import load_settings
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
    assert found.link == "https://console.example/"


def test_it_asks_for_own_zones_and_says_that_habits_were_learnt() -> None:
    found = summary_message([listed("corp.example", explanation=OWN, burn_in=True)], 7)
    assert found is not None
    facts = dict(found.facts)
    assert facts["Your own?"].startswith("OWN_ZONES=corp[.]example")
    assert "Habits" in facts


def test_it_is_short_and_there_is_none_without_a_listed_incident() -> None:
    assert summary_message([], 7) is None
    assert summary_message([incident()], 7) is None
    found = summary_message([listed(f"d{number}.example") for number in range(50)], 7)
    assert found is not None and len(found.facts) == DOMAINS_SHOWN + 2


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
        assert "fresh[.]example" in text and "old[.]example" not in text
