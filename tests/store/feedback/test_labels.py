"""Labels of flow-hours, on SQLite and on a real Postgres."""

from __future__ import annotations

import pytest

from agents.learning.loop.flow_hours import SCHEMA
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label, LabelledSpan, LabelStore
from agents.store.feedback.tables import LabelOrigin
from tests.support.flow_hours import HOUR, flow_hours

pytestmark = pytest.mark.contract
ALL = (HOUR * 3600.0, (HOUR + 100) * 3600.0)


def span(
    domain: str, client: str | None = "192.0.2.7", hours: tuple[int, int] = (HOUR, HOUR), **changed: object
) -> LabelledSpan:
    facts = {"label": Label.TUNNEL, "origin": LabelOrigin.TOOL, "confidence": 1.0} | changed
    return LabelledSpan(client, domain, *hours, **facts)  # type: ignore[arg-type]


def test_a_span_labels_the_flow_hours_of_its_client_domain_and_hours(store: Store) -> None:
    hours, labels = FlowHourStore(store), LabelStore(store)
    hours.add(flow_hours(["evil.example"] * 4, hour=[HOUR, HOUR + 1, HOUR + 2, HOUR + 3]))
    hours.add(flow_hours(["evil.example", "other.example"], hour=HOUR + 1, client="192.0.2.8"))
    assert labels.mark([span("evil.example", hours=(HOUR + 1, HOUR + 2))], SCHEMA, 5.0) == 2
    assert labels.counts(SCHEMA, *ALL) == [("tunnel", "tool fingerprint", 2)]
    assert labels.mark([span("evil.example", client=None, hours=(HOUR + 1, HOUR + 1))], SCHEMA, 6.0) == 1
    assert labels.counts(SCHEMA, *ALL) == [("tunnel", "tool fingerprint", 3)]
    assert labels.counts(SCHEMA, ALL[0], ALL[0] + 3600) == []
    assert labels.counts(SCHEMA + 1, *ALL) == [], "another schema"


def test_what_is_more_certain_stays(store: Store) -> None:
    hours, labels = FlowHourStore(store), LabelStore(store)
    hours.add(flow_hours(["evil.example"]))
    guess = span("evil.example", label=Label.BENIGN, origin=LabelOrigin.LEARNED, confidence=0.8)
    assert labels.mark([guess], SCHEMA, 5.0) == 1
    assert labels.mark([span("evil.example")], SCHEMA, 6.0) == 1
    assert labels.mark([guess, span("evil.example", origin=LabelOrigin.LIMIT)], SCHEMA, 7.0) == 0
    assert labels.counts(SCHEMA, *ALL) == [("tunnel", "tool fingerprint", 1)]


@pytest.mark.parametrize("end", ["shrink", "forget"])
def test_a_label_goes_with_its_flow_hour(store: Store, end: str) -> None:
    """And no later row takes it over."""
    hours, labels = FlowHourStore(store), LabelStore(store)
    hours.add(flow_hours(["evil.example"]))
    labels.mark([span("evil.example")], SCHEMA, 5.0)
    assert (hours.shrink(0, SCHEMA) if end == "shrink" else hours.forget((HOUR + 1) * 3600)) == 1
    hours.add(flow_hours(["good.example"], hour=HOUR + 2))
    assert labels.counts(SCHEMA, *ALL) == []
