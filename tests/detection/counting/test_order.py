"""The order of known names: which is asked for next carries bits if no cache answers, and a cycle carries none."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import numpy as np
import pytest

from agents.core.types import DAY_S, FORWARDED, FROM_CACHE, UNKNOWN, Row, Severity, batch_of
from agents.detection.limits import Scale
from agents.dns.name import from_text
from tests.support.detecting import START, fresh_detector, incidents_of, shipped_model

ZONE = "evil-tunnel.net"


def asked(ts: float, number: int, *, ttl: int = 0, negative: int = UNKNOWN, client: str = "10.9.0.9") -> Row:
    """A query for one of the known names. negative: of an answer without records."""
    wire = from_text(f"cdn{number}.{ZONE}")
    if negative != UNKNOWN:
        return (ts, client, wire, 1, len(wire) + 17, 3, 0, len(wire) + 80, UNKNOWN, 12.0, "", 0, 0, negative)
    return (ts, client, wire, 1, len(wire) + 17, 0, 1, len(wire) + 32, ttl, 12.0, "A", 1 + number, 4, UNKNOWN)


def at_random(names: int, count: int, every_s: float, ttl: int = 0, negative: int = UNKNOWN) -> list[Row]:
    rng = random.Random(names)
    order = [rng.randrange(names) if n >= names else n for n in range(count)]
    return [asked(START + n * every_s, one, ttl=ttl, negative=negative) for n, one in enumerate(order)]


def loud(rows: Iterable[Row]) -> list[str]:
    return [one.domain for one in incidents_of(rows) if one.severity >= Severity.HIGH]


@pytest.mark.parametrize("names", [2, 16, 256])
def test_a_random_order_carries_at_most_a_thousand_bytes_at_a_name_a_second(names: int) -> None:
    assert loud(at_random(names, names + int(8 * 1_000 / math.log2(names)), 1.0)) == [ZONE]


def test_a_slow_one_carries_at_most_the_limit_of_a_day() -> None:
    assert loud(at_random(256, 256 + 2_600, 30.0)) == [ZONE]


@pytest.mark.parametrize("names", [2, 16, 60])
def test_a_fixed_cycle_carries_nothing(names: int) -> None:
    assert loud([asked(START + n * 5, n % names) for n in range(20 * 1_000)]) == []


def test_two_types_of_each_name_in_turn_are_a_cycle_too() -> None:
    rows = [(*row[:3], (1, 28)[n % 2], *row[4:]) for n in range(6_000) for row in [asked(START + n * 5, n // 2 % 12)]]
    assert loud(rows) == []


def test_what_a_cache_keeps_or_an_answer_without_records_that_is_kept_does_not_count() -> None:
    assert loud(at_random(16, 3_000, 5.0, ttl=60)) == []
    assert loud(at_random(16, 3_000, 5.0, negative=900)) == []
    assert loud(at_random(16, 3_000, 5.0, negative=0)) == [ZONE]


@pytest.mark.parametrize(("cached", "found"), [(FROM_CACHE, False), (FORWARDED, True), (UNKNOWN, True)])
def test_a_query_that_the_cache_answered_did_not_leave(cached: int, found: bool) -> None:
    detector, rows = fresh_detector(shipped_model(), Scale()), at_random(16, 3_000, 1.0)
    batch = batch_of(rows)
    batch.cached[:] = cached
    detector.detect(batch)
    assert bool(detector.open_incidents) == found


def test_below_an_old_and_common_domain_it_does_not_count() -> None:
    known = [
        asked(START + day * DAY_S + 20 * client + n, n, client=f"10.9.1.{client}")
        for day in (0, 8)
        for client in range(6)
        for n in range(16)
    ]
    rng = random.Random(4)
    later = [
        asked(START + 9 * DAY_S + n * 2, rng.randrange(16), client=f"10.9.1.{rng.randrange(6)}") for n in range(6_000)
    ]
    assert loud([*known, *later]) == []


def test_a_choice_that_comes_rarely_costs_when_it_came() -> None:
    """A cycle of two names, broken once in about a hundred queries: the break itself is a choice among a hundred."""
    rng, number, rows = random.Random(5), 0, list[Row]()
    for n in range(10_000):
        number = number if rng.random() < 0.01 else 1 - number
        rows.append(asked(START + n * 0.5, number))
    detector = fresh_detector(shipped_model(), Scale())
    detector.detect(batch_of(rows))
    (row,) = detector.flows.rows(lambda flows: flows["scattered"] == 0)
    breaks = 10_000 * 0.01
    assert detector.flows.view(row).leaked_bytes > breaks * np.log2(100) / 8
