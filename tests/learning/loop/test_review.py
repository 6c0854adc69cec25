"""Which domains people are asked about, and what becomes of what they say."""

from __future__ import annotations

import numpy as np
import pytest

from agents.core.types import Severity
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.online import label_by_probability
from agents.learning.loop.options import SPEC
from agents.learning.loop.review import Reviewer, ReviewLimits, candidates, reviewed_cases, teaches
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label, LabelledSpan, LabelStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.feedback.tables import LabelOrigin
from tests.support.flow_hours import HOUR, cold, flow_hours


def near(domain: str, ratio: float, clients: int = 1) -> list[FlowHours]:
    return [flow_hours([domain], client=f"192.0.2.{client}", ratio_encoded=ratio) for client in range(clients)]


def test_who_came_nearer_to_a_limit_or_has_more_clients_is_asked_about_first() -> None:
    rows = [
        near("quiet.example", 0.1),
        near("near.example", 0.9),
        near("far.example", 0.4),
        near("many.example", 0.4, 30),
    ]
    flat = [one for some in rows for one in some]
    joined = FlowHours(
        1,
        np.concatenate([one.hour for one in flat]),
        [client for one in flat for client in one.client],
        [domain for one in flat for domain in one.domain],
        [names for one in flat for names in one.names],
        np.concatenate([one.numbers for one in flat]),
    )
    found = {item.domain: item for item in candidates(joined, np.full(len(joined), 0.5), (0.3, 0.95))}
    assert set(found) == {"near.example", "far.example", "many.example"}, "what is far from all limits asks nobody"
    assert found["near.example"].informativeness > found["far.example"].informativeness
    assert found["many.example"].informativeness > found["far.example"].informativeness
    assert found["many.example"].why == "0.40 times a limit, 30 clients"
    assert all(0 <= item.informativeness <= 1 for item in found.values())


def test_what_a_model_is_unsure_of_is_asked_about_though_it_is_far_from_all_limits() -> None:
    rows = flow_hours(["sure.example", "unsure.example", "tunnel.example"])
    (item,) = candidates(rows, np.array([0.1, 0.6, 0.99]), (0.3, 0.95))
    assert (item.domain, item.why) == ("unsure.example", "0.00 times a limit, 1 client, probability 0.60")
    surer = candidates(rows, np.array([0.1, 0.9, 0.99]), (0.3, 0.95))
    assert surer[0].informativeness < item.informativeness


def test_what_a_rule_labels_asks_nobody(store: Store) -> None:
    for rows in (*near("sure.example", 3.0), *near("open.example", 0.8)):
        FlowHourStore(store).add(rows)
    span = LabelledSpan(None, "sure.example", HOUR, HOUR, Label.TUNNEL, LabelOrigin.TOOL, 1.0)
    LabelStore(store).mark([span], SCHEMA, 5.0)
    Reviewer(store, ReviewLimits(20), clock=lambda: 9.0)(HOUR)
    assert [item.domain for item in ReviewStore(store).items()] == ["open.example"]
    Reviewer(store, ReviewLimits(20), clock=lambda: 10.0)(HOUR)
    assert len(ReviewStore(store).items()) == 1, "the same hour again"


@pytest.mark.slow
def test_an_hour_without_queries_asks_nothing_of_a_model(store: Store) -> None:
    model = cold()
    Reviewer(store, ReviewLimits(20), (0.3, 0.95), model.probabilities)(HOUR)
    assert label_by_probability(store, model, SPEC.factory(SPEC.values({})), HOUR, 1.0) == 0
    assert ReviewStore(store).items() == []


def test_nobody_is_asked_where_the_setting_says_so(store: Store) -> None:
    for rows in near("open.example", 0.8):
        FlowHourStore(store).add(rows)
    Reviewer(store, ReviewLimits(0))(HOUR)
    assert ReviewStore(store).items() == []


def test_half_of_what_people_say_becomes_validation_cases(store: Store) -> None:
    domains = [f"d{i}.example" for i in range(40)]
    teaching = [domain for domain in domains if teaches(domain)]
    assert 8 < len(teaching) < 32
    FlowHourStore(store).add(flow_hours(domains))
    reviews = ReviewStore(store)
    reviews.decide(domains[:20], Label.BENIGN, "ours", "ann", 1.0)
    reviews.decide(domains[20:39], Label.TUNNEL, "theirs", "ann", 2.0)
    reviews.decide(domains[39:], Label.IGNORE, "unclear", "ann", 3.0)
    cases = {case.qname: case.expected for case in reviewed_cases(store)}
    expected = {f"a.{domain}": Severity.NORMAL for domain in domains[:20] if domain not in teaching}
    expected |= {f"a.{domain}": Severity.HIGH for domain in domains[20:39] if domain not in teaching}
    assert cases == expected
    (gone, *_) = [domain for domain in domains[:20] if domain not in teaching]
    reviews.undo(gone, "no", "ann", 4.0)
    assert f"a.{gone}" not in {case.qname for case in reviewed_cases(store)}
