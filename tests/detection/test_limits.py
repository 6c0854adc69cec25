"""Severities, the scale of evidence, and reasons in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.types import Severity
from agents.detection.counting.flow_kernels import CROWD_DOMAINS
from agents.detection.limits import (
    CRITICAL_RATIO,
    ENCODED_BYTES,
    INFORMATION_BYTES,
    SCATTERED_BYTES,
    SPREAD_BYTES,
    Evidence,
    Scale,
    limits_of,
)
from agents.detection.reasons import incident_reasons, name_reasons, query_reasons
from agents.detection.state import WINDOWS_S, Kind
from agents.dns.name import from_text
from agents.scoring.features import view_of
from tests.support.judged import CLIENT, START, Judged, ask, key_of
from tests.support.plain_flow import Query

SCALE = Scale()
RATIOS = st.floats(0, 1e6)


@given(RATIOS, RATIOS)
def test_more_evidence_never_scores_lower(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= SCALE.behaviour(low) <= SCALE.behaviour(high) <= 1


@pytest.mark.parametrize(
    ("ratio", "severity"),
    [
        (0, Severity.NORMAL),
        (0.5, Severity.NORMAL),
        (0.99, Severity.SUSPICIOUS),
        (1.0, Severity.HIGH),
        (CRITICAL_RATIO - 0.01, Severity.HIGH),
        (CRITICAL_RATIO, Severity.CRITICAL),
        (1e9, Severity.CRITICAL),
    ],
)
def test_a_limit_reached_is_high_and_three_limits_are_critical(ratio: float, severity: Severity) -> None:
    assert SCALE.severity(SCALE.behaviour(ratio)) is severity


def test_the_scale_is_continuous() -> None:
    for edge in (1.0, CRITICAL_RATIO):
        assert SCALE.behaviour(edge - 1e-9) == pytest.approx(SCALE.behaviour(edge), abs=1e-6)


@pytest.mark.parametrize(
    ("score", "severity"),
    [
        (0.0, Severity.NORMAL),
        (0.4999, Severity.NORMAL),
        (0.5, Severity.SUSPICIOUS),
        (0.7, Severity.HIGH),
        (0.9, Severity.CRITICAL),
        (1.0, Severity.CRITICAL),
    ],
)
def test_severities_begin_where_the_settings_say(score: float, severity: Severity) -> None:
    assert SCALE.severity(score) is severity
    assert Scale(0.1, 0.2, 0.3).severity(0.25) is Severity.HIGH


def test_the_two_votes() -> None:
    model, behaviour = np.array([0.2, 0.9], np.float32), np.array([0.8, 0.1])
    assert SCALE.combined(model, behaviour).tolist() == pytest.approx([0.8, 0.9])
    weighted = Scale(combine="weighted", model_weight=0.7).combined(model, behaviour)
    assert weighted.tolist() == pytest.approx([0.38, 0.66])


@given(st.lists(RATIOS, max_size=20), st.lists(st.floats(0, 1), max_size=20))
def test_columns_are_scored_as_single_ones(ratios: list[float], scores: list[float]) -> None:
    assert SCALE.behaviours(np.array(ratios)).tolist() == pytest.approx([SCALE.behaviour(one) for one in ratios])
    assert SCALE.severities(np.array(scores)).tolist() == [SCALE.severity(one) for one in scores]


def names_of(count: int, bits: float, encoded: bool = True, gap_s: float = 0.0, word: str = "n") -> list[Query]:
    return [ask(f"{word}{i}", START + i * gap_s, bits=bits, encoded=encoded) for i in range(count)]


def last(judged: Judged, queries: list[Query]) -> Evidence:
    return judged.ask(*queries)[-1]


def test_one_name_is_no_behaviour_however_much_it_carries() -> None:
    assert last(Judged(), names_of(1, 1e6)).ratio == 0


def test_every_window_has_its_limit() -> None:
    assert set(INFORMATION_BYTES) == set(ENCODED_BYTES) == set(WINDOWS_S)
    assert set(SPREAD_BYTES) | set(SCATTERED_BYTES) <= set(WINDOWS_S)
    for limits in (INFORMATION_BYTES, ENCODED_BYTES):
        values = [limits[window] for window in WINDOWS_S]
        assert values == sorted(values), "a longer window allows more"
        assert all(ENCODED_BYTES[window] < INFORMATION_BYTES[window] for window in WINDOWS_S)
    assert (limits_of().table > 0).all()


def test_encoded_data_is_judged_more_strictly_than_words() -> None:
    encoded, words = (last(Judged(), names_of(10, 100.0, kind)) for kind in (True, False))
    assert encoded.kind == Kind.ENCODED
    assert encoded.ratio == pytest.approx(125 / ENCODED_BYTES[60])
    assert words.kind == Kind.INFORMATION
    assert words.ratio == pytest.approx(125 / INFORMATION_BYTES[60])


def test_limits_are_told_at_their_factor() -> None:
    once, twice = (last(Judged(factor=factor), names_of(10, 100.0)) for factor in (1.0, 2.0))
    assert (twice.amount, twice.limit, twice.ratio) == (once.amount, 2 * once.limit, once.ratio / 2)


def test_a_slow_sender_meets_the_limit_of_a_longer_window() -> None:
    found = last(Judged(), names_of(60, 64.0, gap_s=600.0))
    assert found.window_s >= 86_400
    assert found.ratio >= 1


def test_data_split_over_domains_is_evidence_where_no_single_domain_is() -> None:
    judged = Judged()
    for number in range(12):
        domain = f"{number}.com"
        alone = last(Judged(), [ask(i, domain=domain, bits=64.0) for i in range(5)])
        assert alone.ratio < 1
        together = last(judged, [ask(i, domain=domain, bits=64.0) for i in range(5)])
    assert together.ratio >= 1
    assert together.kind in (Kind.SPREAD, Kind.SPREAD_FRESH)
    assert together.domains == 12
    text = incident_reasons("11.com", 5, 5, together, ["0.com", "1.com"])[0]
    assert "below 12 domains (0.com, 1.com)" in text


def test_where_one_address_stands_for_many_more_adds_up_over_domains_and_no_more_below_one() -> None:
    crowd = Judged(10_000, 10_000)
    crowd.tell([ask("www", domain=f"site{n}.com", encoded=False, bits=8.0) for n in range(3 * CROWD_DOMAINS)])
    several = [ask(i, domain=f"{n}.com", bits=64.0) for n in range(12) for i in range(5)]
    alone, shared = last(Judged(), several), last(crowd, several)
    assert shared.kind == alone.kind == Kind.SPREAD
    assert alone.ratio / 3.1 < shared.ratio <= alone.ratio / 3
    one = [ask(i, domain="evil.com", bits=64.0) for i in range(20)]
    assert last(crowd, one) == last(Judged(), one)


def test_a_few_short_encoded_names_an_hour_are_evidence_where_the_flow_is_little_else() -> None:
    few = names_of(30, 32.0, gap_s=60.0)
    judged = Judged()
    found = last(judged, few)
    assert found.kind == Kind.FRESH
    assert found.ratio >= 1
    assert "each new and encoded" in incident_reasons("evil.com", 30, 30, found, ())[1]
    for _ in range(90):  # a browser comes back to the same names
        repeated = last(judged, [few[1]])
    assert repeated.ratio < 1
    assert last(Judged(), names_of(30, 32.0, encoded=False, gap_s=60.0)).kind == Kind.BEACON, "listed, at that pace"


def test_reasons_of_an_incident_are_words_with_numbers() -> None:
    found = last(Judged(), names_of(41, 178.0))
    reasons = incident_reasons("evil.com", 41, 41, found, ())
    assert reasons[0] == "41 unique names below evil.com in 60 s"
    assert reasons[1] == "912 bytes of encoded data, 9.1 times the limit of 100"
    assert reasons[2] == "100 % of the names read as encoded, not as words"


def test_reasons_of_scattered_names_say_where() -> None:
    found = Evidence(1.2, 3600, 360.0, 300.0, 24, Kind.SCATTERED, 24)
    assert (
        incident_reasons("*", 24, 24, found, ())[0] == "24 unique names below as many domains, one or two each, in 1 h"
    )
    reasons = query_reasons(from_text("a.evil.com"), 0.1, 0.8, found, "evil.com", SCALE)
    assert reasons[0] == "24 unique names below many domains in 1 h"


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "60 s"), (600, "10 min"), (3600, "1 h"), (86_400, "24 h"), (604_800, "7 d")]
)
def test_spans_are_said_in_their_unit(seconds: int, text: str) -> None:
    evidence = Evidence(1.5, seconds, 10.0, 5.0, 7)
    assert f" in {text}" in incident_reasons("evil.com", 0, 0, evidence, ())[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("f" * 63 + ".e.evil.com", "63 hex characters in one label"),
        ("q" * 30 + ".evil.com", "a label of 30 characters"),
        ("ab" * 13 + "." + "cd" * 13 + ".evil.com", "52 characters left of the registered domain"),
        ("a\\000b.evil.com", "bytes that host names do not use"),
        ("x.evil.com", "a name unlike those that this network usually asks for"),
    ],
)
def test_reasons_of_a_name(name: str, reason: str) -> None:
    assert reason in name_reasons(view_of(from_text(name)))


def test_reasons_of_a_query_name_the_vote_that_was_loud() -> None:
    wire, evidence = from_text("f" * 63 + ".evil.com"), Evidence(2.0, 60, 200.0, 100.0, 12, Kind.ENCODED)
    both = query_reasons(wire, 0.9, 0.8, evidence, "evil.com", SCALE)
    assert both == (
        "12 unique names below evil.com in 60 s",
        "200 bytes of information",
        "63 hex characters in one label",
        "63 characters left of the registered domain",
    )
    assert query_reasons(wire, 0.9, 0.1, evidence, "evil.com", SCALE) == both[2:]
    assert query_reasons(wire, 0.1, 0.8, evidence, "evil.com", SCALE) == both[:2]
    assert query_reasons(wire, 0.1, 0.1, evidence, "evil.com", SCALE) == ()


def test_one_carrier_is_no_spread() -> None:
    assert last(Judged(), names_of(20, 32.0)).kind not in (Kind.SPREAD, Kind.SPREAD_FRESH)


def test_a_domain_that_is_an_incident_by_itself_counts_for_no_other() -> None:
    judged = Judged()
    shop = [ask(i, START + 2 * i, domain="shop.com", bits=64.0) for i in range(5)]
    tunnels = [[ask(f"{i} {half}", START + 2 * i, domain="evil.com", bits=80.0) for i in range(9)] for half in range(2)]
    alone = last(Judged(), shop)
    judged.ask(*tunnels[0])
    together = last(judged, shop)
    assert together.domains == 2 and together.ratio > alone.ratio, "before it is known to be one"
    assert last(judged, tunnels[1]).kind == Kind.ENCODED
    row = judged.flows.find(CLIENT, key_of("evil.com"))
    assert row is not None and judged.flows.state.flows[row]["alone"]
    after = last(judged, [ask("one more", domain="shop.com", bits=64.0)])
    assert after == last(Judged(), [*shop, ask("one more", domain="shop.com", bits=64.0)])


DOMAINS = ("shop.com", "mall.com", "cafe.com", "park.com")


def test_nor_where_others_still_add_up() -> None:
    shops = [ask(i, domain=domain, bits=64.0) for domain in DOMAINS for i in range(5)]
    tunnel = [ask(i, domain="evil.com", bits=200.0) for i in range(9)]
    more = [ask("one more", domain="shop.com", bits=64.0)]
    judged = Judged()
    judged.ask(*tunnel)
    found, expected = last(judged, [*shops, *more]), last(Judged(), [*shops, *more])
    assert found == expected
    assert found.domains == len(DOMAINS) and found.kind in (Kind.SPREAD, Kind.SPREAD_FRESH)


def test_one_of_a_thing_is_in_the_singular_and_answers_say_nothing_of_how_names_read() -> None:
    names = Evidence(1.5, 60, 1.0, 100.0, 1, Kind.ENCODED)
    assert incident_reasons("evil.com", 1, 1, names, ())[:2] == (
        "1 unique name below evil.com in 60 s",
        "1 byte of encoded data, 1.5 times the limit of 100",
    )
    answers = Evidence(1.5, 60, 9000.0, 6000.0, 4, Kind.ANSWERS)
    assert incident_reasons("evil.com", 4, 4, answers, ()) == (
        "4 unique names below evil.com in 60 s",
        "9,000 bytes of data in answers, 1.5 times the limit of 6,000",
    )


@pytest.mark.parametrize(
    ("score", "confidence"),
    [
        (0.0, 1.0),
        (0.25, 0.5),
        (0.5, 0.0),
        (0.6, 1.0),
        (0.65, 0.5),
        (0.7, 0.0),
        (0.8, 1.0),
        (0.9, 0.0),
        (0.95, 0.5),
        (1.0, 1.0),
    ],
)
def test_confidence_is_how_far_inside_its_band_a_score_is(score: float, confidence: float) -> None:
    assert SCALE.confidence(score) == pytest.approx(confidence, abs=1e-6)


@given(st.floats(0, 1))
def test_confidence_is_a_share(score: float) -> None:
    assert 0 <= Scale(0.3, 0.6, 0.8).confidence(score) <= 1
