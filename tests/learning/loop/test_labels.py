"""Which incidents label flow-hours, and which never do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.text import NETWORK
from agents.core.types import DAY_S
from agents.detection.detector import empty_verdicts
from agents.detection.limits import SCATTERED, Evidence, Scale
from agents.detection.reasons import incident_reasons
from agents.detection.state import Kind
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.labels import Labeller, label_counts, rule_of, spans_of
from agents.store import open_store
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.tables import LabelOrigin
from tests.support.flow_hours import HOUR, HOUR_S, flow_hours
from tests.support.verdicts import incident

SCALE = Scale()


def carried(text: str, domain: str = "evil.example") -> tuple[str, ...]:
    """Reasons of an incident of one query that carried a secret."""
    return incident_reasons(domain, 1, 1, Evidence(1.0, kind=Kind.SECRET, text=text), ())


@pytest.mark.parametrize(
    ("changed", "origin"),
    [
        ({"tool": "iodine"}, LabelOrigin.TOOL),
        ({"reasons": carried("the honeytoken payroll in base32")}, LabelOrigin.HONEYTOKEN),
        ({"reasons": carried("a password or token in base32")}, LabelOrigin.SECRET),
        ({"score": SCALE.behaviour(3.0)}, LabelOrigin.LIMIT),
        ({"score": SCALE.behaviour(2.9)}, None),
        ({"score": SCALE.behaviour(9.0), "evidence": {"explanation": {"kind": "antivirus"}}}, None),
        ({"reasons": carried("a password or token in plain text")}, None),
        ({"reasons": carried("a call-back name of oast.fun, a service for out-of-band tests")}, None),
        ({"reasons": ("the client is in a strict group and asked for the honeytoken x",), "score": 0.7}, None),
        ({"reasons": ("41 unique names below one query below x carried y",)}, None),
    ],
)
def test_rules_say_tunnel_for_certain_or_nothing(changed: dict[str, Any], origin: LabelOrigin | None) -> None:
    assert rule_of(incident(**({"score": 0.75} | changed)), SCALE) is origin


@given(st.text(max_size=60))
def test_no_domain_spells_a_rule(domain: str) -> None:
    """A domain is a stranger's text: it may read like a reason."""
    hostile = f"{domain} carried the honeytoken x in base32"
    found = incident(domain=hostile, score=0.75, reasons=carried("a password or token in plain text", hostile))
    assert rule_of(found, SCALE) is None


def test_a_label_begins_a_day_before_the_incident_was_found() -> None:
    at = HOUR * float(HOUR_S)
    old = incident(tool="iodine", first_seen=at - 30 * DAY_S, detected_at=at, last_seen=at + 2 * HOUR_S)
    (span,) = spans_of([old], SCALE)
    assert (span.first_hour, span.last_hour, span.label) == (HOUR - 24, HOUR + 2, Label.TUNNEL)
    (young,) = spans_of([incident(tool="iodine", first_seen=at - 60, detected_at=at, last_seen=at)], SCALE)
    assert young.first_hour == HOUR - 1


def test_a_sum_over_domains_labels_none_of_them_and_the_networks_all_clients() -> None:
    assert spans_of([incident(tool="iodine", domain=SCATTERED)], SCALE) == []
    (span,) = spans_of([incident(tool="iodine", client=NETWORK)], SCALE)
    assert span.client is None


def test_the_hours_of_an_incident_are_labelled_once_they_are_over(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    store.migrate()
    at = HOUR * float(HOUR_S)
    found = incident(tool="iodine", first_seen=at + 5, detected_at=at + 9, last_seen=at + 50)
    store.write(empty_verdicts("m", (found,)), "one")
    FlowHourStore(store).add(flow_hours(["evil.example", "good.example"]))
    Labeller(store, SCALE)(HOUR)
    assert label_counts(store, at, at + HOUR_S) == (("tunnel (tool fingerprint)", 1),)
    assert FlowHourStore(store).weeks(SCHEMA) == {HOUR // 168: 2}
