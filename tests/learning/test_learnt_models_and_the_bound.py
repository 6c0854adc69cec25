"""Whatever flow, sequence and image models say, limits stay what they are, and what limits find is found as soon."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.types import Row, Severity, batch_of
from agents.detection.detector import Suspect, TunnelDetector
from agents.detection.limits import FACTOR_MAX, Scale, limits_of
from agents.detection.reasons import IMAGE_REASON, SEQUENCE_REASON
from tests.support.detecting import fresh_detector, query, shipped_model

pytestmark = pytest.mark.property
NOW = 1_767_571_200.0
CLIENTS = ("10.9.0.1", "10.9.0.2", "10.9.0.3")
DOMAINS = ("t.example", "s.example", "shop.example")
KEYS = [(client, domain) for client in CLIENTS for domain in DOMAINS]
BATCH = 12


def traffic(seed: int) -> list[Row]:
    """A tunnel, a slower one, and somebody who shops."""
    draw, rows = random.Random(seed), list[Row]()
    for at in range(48):
        rows.append(query(NOW + at, CLIENTS[0], f"{draw.randbytes(25).hex()}.t.example", 16))
        if at % 3 == 0:
            rows.append(query(NOW + at + 0.2, CLIENTS[1], f"{draw.randbytes(20).hex()}.s.example", 1))
        rows.append(query(NOW + at + 0.4, CLIENTS[2], f"p{at % 5}.shop.example", 1))
    return rows


keys = st.sampled_from(KEYS)
numbers = st.floats(0, 8)
suspects = st.tuples(
    st.floats(NOW, NOW + 90),
    keys,
    st.floats(0.001, 1),
    st.sampled_from(["", f"{SEQUENCE_REASON}: regularity 1.00", f"{IMAGE_REASON}: one in 100,000"]),
).map(lambda one: (one[0], *one[1], *one[2:]))
said = st.tuples(
    st.dictionaries(keys, st.floats(0, 1), max_size=4),
    st.lists(suspects, max_size=4),
    st.dictionaries(keys, numbers, max_size=4),
)
Said = tuple[dict[tuple[str, str], float], list[Suspect], dict[tuple[str, str], float]]


def judged(rows: Sequence[Row], told: Sequence[Said]) -> tuple[TunnelDetector, dict[tuple[str, str], tuple[int, int]]]:
    """A detector that hears models between batches; by client and domain the worst severity, and its first batch."""
    detector = fresh_detector(shipped_model(), Scale())
    worst: dict[tuple[str, str], tuple[int, int]] = {}
    for number, begin in enumerate(range(0, len(rows), BATCH)):
        if number < len(told):
            detector.appraise(*told[number])
        for one in detector.detect(batch_of(rows[begin : begin + BATCH])).incidents:
            key = one.client, one.domain
            if key not in worst or one.severity > worst[key][0]:
                worst[key] = int(one.severity), number
    return detector, worst


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 3), st.lists(said, max_size=14))
def test_no_learnt_model_loosens_a_limit_or_delays_what_it_finds(seed: int, told: list[Said]) -> None:
    rows = traffic(seed)
    alone, found = judged(rows, [])
    heard, beside = judged(rows, told)
    paged = {key: when for key, when in found.items() if when[0] >= Severity.HIGH}
    assert paged, "a limit finds the tunnel"
    for key, (severity, batch) in paged.items():
        assert beside[key][0] >= severity and beside[key][1] <= batch, key
    extra = {key: beside[key][0] for key in beside.keys() - found.keys()}
    assert all(severity == Severity.SUSPICIOUS for severity in extra.values()), "what models add pages nobody"
    for one, other in ((alone._limits, heard._limits), (alone._limits_together, heard._limits_together)):
        assert np.array_equal(one.table, other.table)
    own = limits_of(shipped_model().limit_factor)
    assert np.array_equal(heard._limits.table, own.table) and (own.table <= limits_of(FACTOR_MAX).table).all()


def found_at(rows: Sequence[Row], listed: Suspect | None, before: int) -> dict[tuple[str, str], tuple[int, int]]:
    """Row by row: of each incident that is HIGH the row that made it so. listed: what a model lists before a row."""
    detector, high = fresh_detector(shipped_model(), Scale()), dict[tuple[str, str], int]()
    for number, row in enumerate(rows):
        if number == before and listed is not None:
            detector.appraise({}, [listed])
        for one in detector.detect(batch_of([row])).incidents:
            if one.severity >= Severity.HIGH:
                high.setdefault((one.client, one.domain), number)
    return {key: (number, int(rows[number][0] - NOW)) for key, number in high.items()}


def test_a_listing_empties_no_window_when_its_flow_pauses() -> None:
    draw, at, rows = random.Random(1), NOW, list[Row]()
    for number in range(32):
        at += 61 * 60 if number == 16 else 50 * 60
        rows.append(query(at, CLIENTS[0], f"{draw.randbytes(20).hex()}.slow.example", 1))
    alone = found_at(rows, None, 0)
    assert (CLIENTS[0], "slow.example") in alone
    for before in (2, 15, 17):
        listed = (float(rows[before - 1][0]), CLIENTS[0], "slow.example", 0.99, "")
        assert found_at(rows, listed, before) == alone


def test_a_listing_of_one_client_does_not_stand_for_what_all_clients_carry() -> None:
    draw, rows = random.Random(2), list[Row]()
    for number in range(48):  # 320 bytes of each client: below what one of them may carry in a day
        client = CLIENTS[number % 3]
        rows.append(query(NOW + 480 * number, client, f"{draw.randbytes(20).hex()}.all.example", 1))
    alone = found_at(rows, None, 0)
    assert set(alone) == {("*", "all.example")}
    for client in CLIENTS:
        assert found_at(rows, (float(rows[9][0]), client, "all.example", 0.99, ""), 10) == alone


def test_a_flow_that_was_listed_is_counted_and_closed_as_any_other() -> None:
    draw = random.Random(3)
    rows = [query(NOW + 60 * number, CLIENTS[0], f"{draw.randbytes(3).hex()}.few.example", 1) for number in range(12)]
    detector = fresh_detector(shipped_model(), Scale())
    detector.detect(batch_of(rows[:6]))
    detector.appraise({}, [(NOW + 300, CLIENTS[0], "few.example", 0.99, "")])
    found = [one for row in rows[6:] for one in detector.detect(batch_of([row])).incidents]
    assert found[-1].queries == 12 and found[-1].severity == Severity.SUSPICIOUS
    late = query(NOW + 10_000, CLIENTS[0], "www.shop.example", 1)
    closed = [one for one in detector.detect(batch_of([late])).incidents if one.closed_at is not None]
    assert [one.domain for one in closed] == ["few.example"]
    row = detector.flows.find(CLIENTS[0], int(detector.flows.state.flows["domain"][0]))
    assert row is None or not detector.flows.state.flows[row]["watched"]
