"""Severities, the scale of evidence, and reasons in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.features import view_of
from agents.flows import Flows
from agents.names import from_text
from agents.policy import (
    CRITICAL_RATIO,
    ENCODED_BYTES,
    INFORMATION_BYTES,
    SPREAD_BYTES,
    Evidence,
    Scale,
    evidence_of,
    incident_reasons,
    name_reasons,
    query_reasons,
)
from agents.seen import key_of
from agents.types import Severity
from agents.windows import WINDOWS_S, Flow, Part

START = 1_700_000_000.0
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
    assert SCALE.combined(0.2, 0.8) == 0.8
    assert Scale(combine="weighted", model_weight=0.7).combined(0.2, 0.8) == pytest.approx(0.38)


def flow_of(names: int, bits: float, encoded: bool = True, gap_s: float = 0.0, word: str = "n") -> Flow:
    flow = Flow(START)
    for number in range(names):
        label = f"{word}{number}".encode()
        flow.add(
            START + number * gap_s, (label, 1, -1), key_of(label), (Part(key_of(b"." + label), bits, encoded),), 1.0
        )
    return flow


def test_one_name_is_no_behaviour_however_much_it_carries() -> None:
    assert evidence_of(START, flow_of(1, 1e6), {}).ratio == 0


def test_every_window_has_its_limit() -> None:
    assert set(INFORMATION_BYTES) == set(ENCODED_BYTES) == set(WINDOWS_S)
    assert set(SPREAD_BYTES) <= set(WINDOWS_S)
    for limits in (INFORMATION_BYTES, ENCODED_BYTES):
        values = [limits[window] for window in WINDOWS_S]
        assert values == sorted(values), "a longer window allows more"
        assert all(ENCODED_BYTES[window] < INFORMATION_BYTES[window] for window in WINDOWS_S)


def test_encoded_data_is_judged_more_strictly_than_words() -> None:
    encoded, words = (evidence_of(START, flow_of(10, 100.0, kind), {}) for kind in (True, False))
    assert encoded.kind == "encoded"
    assert encoded.ratio == pytest.approx(125 / ENCODED_BYTES[60])
    assert words.kind == "information"
    assert words.ratio == pytest.approx(125 / INFORMATION_BYTES[60])


def test_a_slow_sender_meets_the_limit_of_a_longer_window() -> None:
    flow = flow_of(60, 64.0, gap_s=600.0)
    found = evidence_of(START + 59 * 600, flow, {})
    assert found.window_s >= 86_400
    assert found.ratio >= 1


def test_data_split_over_domains_is_evidence_where_no_single_domain_is() -> None:
    flows = Flows(100)
    ratios = []
    for number in range(12):
        domain = f"{number}.example"
        flow = flows.flow(START, "client", domain)
        assert flow is not None
        for name in range(5):
            label = f"{number} {name}".encode()
            flow.add(START, (label, 1, -1), key_of(label), (Part(key_of(label + b"."), 64.0, True),), 1.0)
        carriers = flows.carriers("client", domain, flow)
        alone, together = evidence_of(START, flow, {}), evidence_of(START, flow, carriers)
        ratios.append(together.ratio)
        assert alone.ratio < 1
    assert ratios[-1] >= 1
    assert together.kind.startswith("spread")
    assert together.domains == 12
    text = incident_reasons("11.example", flows.flows["client", "11.example"], together, carriers)[0]
    assert "12 domains" in text
    assert "0.example" in text


def test_a_few_short_encoded_names_an_hour_are_evidence_where_the_flow_is_little_else() -> None:
    few = flow_of(30, 32.0, gap_s=60.0)
    end = START + 29 * 60
    found = evidence_of(end, few, {})
    assert found.kind == "fresh"
    assert found.ratio >= 1
    assert "each new and encoded" in incident_reasons("evil.com", few, found, {})[1]
    for _ in range(90):  # a browser comes back to the same names
        few.add(end, (b"n1", 1, -1), key_of(b"n1"), (), 1.0)
    assert evidence_of(end, few, {}).ratio < 1
    assert evidence_of(end, flow_of(30, 32.0, encoded=False, gap_s=60.0), {}).ratio < 1


def test_reasons_of_an_incident_are_words_with_numbers() -> None:
    flow = flow_of(41, 178.0)
    reasons = incident_reasons("evil.com", flow, evidence_of(START, flow, {}), {})
    assert reasons[0] == "41 unique names below evil.com in 60 s"
    assert reasons[1] == "912 bytes of encoded data, 9.1 times the limit of 100"
    assert reasons[2] == "100 % of the names read as encoded, not as words"


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "60 s"), (600, "10 min"), (3600, "1 h"), (86_400, "24 h"), (604_800, "7 d")]
)
def test_spans_are_said_in_their_unit(seconds: int, text: str) -> None:
    evidence = Evidence(1.5, seconds, 10.0, 5.0, 7)
    assert f" in {text}" in incident_reasons("evil.com", Flow(START), evidence, {})[0]


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
    wire, evidence = from_text("f" * 63 + ".evil.com"), Evidence(2.0, 60, 200.0, 100.0, 12, "encoded")
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
    flow = flow_of(20, 32.0)
    assert not evidence_of(START, flow, {"evil.com": flow}).kind.startswith("spread")


def test_a_domain_that_is_an_incident_by_itself_counts_for_no_other() -> None:
    tunnel, shop = flow_of(200, 200.0), flow_of(5, 64.0, word="shop")
    carriers = {"evil.com": tunnel, "shop.example": shop}
    assert evidence_of(START, shop, carriers).ratio >= 1, "before it is known to be one"
    assert evidence_of(START, tunnel, carriers).kind == "encoded"
    assert tunnel.alone
    assert evidence_of(START, shop, carriers).ratio < 1
