"""A canary beside the detector in use: whose queries it judges, what it adds, what stays, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.types import Incident, QueryBatch, Severity, Verdicts, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.detection.rollout.canary import Canary, CanaryCounts, counts_of, in_share
from agents.dns.name import from_text
from agents.learning.baseline import benign_names
from tests.support.carrier import LOOSE, TIGHT, carried, with_factor
from tests.support.detecting import START, fresh_detector, query

CLIENTS = [f"192.0.2.{number}" for number in range(1, 250)]
MINE = [client for client in CLIENTS if in_share(client, 0.1)]
OTHERS = [client for client in CLIENTS if not in_share(client, 0.1)]


def detector(factor: float) -> TunnelDetector:
    return fresh_detector(with_factor(factor), Scale())


def trial(main: TunnelDetector, factor: float, share: float = 0.1, shadow: bool = False) -> Canary:
    counts = CanaryCounts("0" * 16, START)
    canary = Canary(detector(factor), share, shadow, counts)
    canary.take_over(main, main.save(nullcontext()))
    return canary


def channel(client: str, domain: str, start: float = START) -> QueryBatch:
    """A slow channel of one client over some hours."""
    names = carried(domain, 3)
    return batch_of([query(start + 900 * at, client, name) for at, name in enumerate(names)])


def both(main: TunnelDetector, canary: Canary, batch: QueryBatch) -> Verdicts:
    return canary.judge(batch, main.detect(batch), main)


def alerts(found: Sequence[Incident]) -> set[tuple[str, str]]:
    return {(one.client, one.domain) for one in found if one.severity >= Severity.HIGH}


@given(st.text(max_size=40), st.floats(0.001, 0.999))
def test_a_client_is_always_or_never_among_a_share(client: str, share: float) -> None:
    assert in_share(client, share) == in_share(client, share)
    assert in_share(client, 1.0)
    assert not in_share(client, 0.0)
    if in_share(client, share / 2):
        assert in_share(client, share), "a larger share has the same clients and more"


def test_a_tenth_is_about_a_tenth() -> None:
    many = [f"10.{a}.{b}.{c}" for a in range(4) for b in range(25) for c in range(100)]
    assert sum(in_share(client, 0.1) for client in many) / len(many) == pytest.approx(0.1, abs=0.01)


def test_what_the_candidate_alone_finds_at_its_clients_is_told_and_named() -> None:
    main = detector(LOOSE)
    canary = trial(main, TIGHT)
    found = both(main, canary, channel(MINE[0], "slow.example"))
    assert (MINE[0], "slow.example") in alerts(found.incidents)
    (told,) = [one for one in found.incidents if one.domain == "slow.example" and one.severity >= Severity.HIGH]
    assert told.evidence["canary"] == canary.model_id
    assert not [one for one in main.open_incidents.values() if one.severity >= Severity.HIGH]
    assert both(main, canary, channel(OTHERS[0], "slow.example", START + 5)).incidents == (), "not one of its clients"
    assert canary.counts.queries == len(channel(MINE[0], "slow.example"))
    assert canary.counts.domains == {"slow.example": 1}
    assert canary.counts.summary()["candidate_alone"] == 1


def test_in_shadow_all_clients_are_judged_and_nobody_is_told() -> None:
    main, plain = detector(LOOSE), detector(LOOSE)
    canary = trial(main, TIGHT, shadow=True)
    for client in (MINE[0], OTHERS[0]):
        batch = channel(client, f"slow{client[-1]}.example")
        found, usual = both(main, canary, batch), plain.detect(batch)
        assert found.incidents == usual.incidents
        assert np.array_equal(found.score, usual.score) and found.reasons == usual.reasons
    assert canary.counts.summary()["candidate_alerts"] == 2
    assert canary.end(main, promoted=False) == ()


def test_a_candidate_that_misses_what_the_model_in_use_finds_takes_nothing_away() -> None:
    main, plain = detector(TIGHT), detector(TIGHT)
    canary = trial(main, LOOSE)
    batch = channel(MINE[0], "slow.example")
    found, usual = both(main, canary, batch), plain.detect(batch)
    assert alerts(found.incidents) == alerts(usual.incidents) == {(MINE[0], "slow.example")}
    assert np.all(found.score >= usual.score) and np.all(found.severity >= usual.severity)
    assert canary.counts.summary()["champion_alerts"] == 1
    assert canary.counts.summary()["candidate_alerts"] == 0


def test_it_begins_with_what_the_detector_in_use_has_seen() -> None:
    """No client gets a fresh budget because a canary begins."""
    main, batch = detector(LOOSE), channel(MINE[0], "slow.example")
    main.detect(batch.part(0, 17))
    canary = trial(main, TIGHT)
    found = both(main, canary, batch.part(17, len(batch)))
    assert (MINE[0], "slow.example") in alerts(found.incidents)
    fresh = trial(detector(LOOSE), TIGHT)
    assert not alerts(both(detector(LOOSE), fresh, batch.part(17, len(batch))).incidents), "three names alone are none"


@pytest.mark.parametrize("promoted", [True, False])
def test_what_it_alone_has_open_ends_with_it_or_goes_on(promoted: bool) -> None:
    main = detector(LOOSE)
    canary = trial(main, TIGHT)
    both(main, canary, channel(MINE[0], "slow.example"))
    told = canary.end(main, promoted)
    key = MINE[0], "slow.example"
    if promoted:
        assert told == ()
        assert key in main.open_incidents
    else:
        assert [(one.client, one.domain) for one in told] == [key]
        assert told[0].closed_at == told[0].last_seen
        assert key not in main.open_incidents


def test_quiet_incidents_of_the_candidate_alone_are_closed_by_time() -> None:
    main = detector(LOOSE)
    canary = trial(main, TIGHT)
    both(main, canary, channel(MINE[0], "slow.example"))
    told = [*canary.tick(START + 900 * 20 + 3000, main), *canary.tick(START + 900 * 20 + 4000, main)]
    assert [one.closed_at is not None for one in told if one.domain == "slow.example"][-1:] == [True]
    assert canary.end(main, promoted=False) == ()


def test_an_incident_that_both_have_is_told_once() -> None:
    main = detector(TIGHT)
    canary = trial(main, TIGHT)
    batch = channel(MINE[0], "slow.example")
    told: list[Incident] = []
    for at in range(len(batch)):
        told += both(main, canary, batch.part(at, at + 1)).incidents
    assert {one.incident_id for one in told if one.severity >= Severity.HIGH} == {
        one.incident_id for one in main.open_incidents.values() if one.severity >= Severity.HIGH
    }
    assert not any("canary" in one.evidence for one in told)
    assert canary.counts.summary()["candidate_alone"] == 0


def test_under_load_it_is_left_out_and_counted() -> None:
    canary = trial(detector(LOOSE), TIGHT)
    canary.skip(channel(MINE[0], "slow.example"))
    canary.skip(channel(OTHERS[0], "slow.example"))
    assert (canary.counts.queries, canary.counts.skipped) == (0, 20)


def test_both_models_are_timed_on_the_same_names() -> None:
    main = detector(LOOSE)
    canary = trial(main, TIGHT)
    names = benign_names()[:64]
    batch = batch_of([query(START + at, OTHERS[0], name) for at, name in enumerate(names)])
    for _ in range(64):
        both(main, canary, batch)
    assert canary.counts.timed == 2 * len(names)
    assert canary.counts.champion_s > 0 < canary.counts.candidate_s


def test_counts_survive_a_restart_and_belong_to_one_canary() -> None:
    main = detector(LOOSE)
    canary = trial(main, TIGHT)
    both(main, canary, channel(MINE[0], "slow.example"))
    kept = canary.counts.to_json()
    assert counts_of(kept, "0" * 16, START) == canary.counts
    empty = CanaryCounts("1" * 16, START)
    damages: list[Any] = [None, [], {}, kept | {"begun_at": 1.0}, kept | {"queries": "many"}, kept | {"domains": []}]
    assert all(counts_of(damage, "1" * 16, START) == empty for damage in [*damages, kept])


def test_root_and_hostile_names_are_judged_by_both() -> None:
    main = detector(LOOSE)
    canary = trial(main, TIGHT, share=1.0)
    names = [b"", bytes([1, 0]), from_text("a.b"), bytes([63]) + b"\xff" * 63]
    batch = batch_of([query(START + at, "::1", name) for at, name in enumerate(names)])
    assert len(both(main, canary, batch)) == len(names)
