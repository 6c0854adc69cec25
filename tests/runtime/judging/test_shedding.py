"""What is left out under load, and when."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.core.types import Severity, Verdicts, batch_of
from agents.runtime.judging.shedding import KEPT_ONE_IN, sampled, totals_of, unexplained
from agents.stream.shared import STEPS, level_at

SEVERITIES = st.lists(st.sampled_from(list(Severity)), max_size=80)


def verdicts(severities: list[Severity]) -> Verdicts:
    count = len(severities)
    rows = [(float(n), f"192.0.2.{n % 3}", b"\1a", n, 30, 0, 1, 60, 5, 1.0, f"T{n}") for n in range(count)]
    return Verdicts(
        batch_of(rows),
        [f"d{n % 2}.test" for n in range(count)],
        np.arange(count * 2, dtype=np.float32).reshape(count, 2),
        np.arange(count, dtype=np.float32),
        np.array(severities, np.uint8),
        [("odd",) if severity else () for severity in severities],
        "m",
    )


@given(st.lists(st.floats(0, 1), max_size=50))
def test_a_level_begins_at_its_step_and_ends_at_half_of_it(fills: list[float]) -> None:
    level = 0
    for fill in fills:
        before, level = level, level_at(fill, level)
        assert level >= sum(fill >= step for step in STEPS)
        if level > before:
            assert fill >= STEPS[level - 1]
        if level < before:
            assert fill < STEPS[level] / 2
        if level:
            assert fill >= STEPS[level - 1] / 2
    assert level_at(0.0, level) == 0


def test_it_does_not_flicker_around_a_step() -> None:
    levels = [0]
    for fill in (0.26, 0.24, 0.26, 0.24, 0.51, 0.49, 0.51, 0.26, 0.24, 0.12):
        levels.append(level_at(fill, levels[-1]))
    assert levels[1:] == [1, 1, 1, 1, 2, 2, 2, 2, 1, 0]
    assert sum(one != other for one, other in pairwise(levels)) == 4


@given(SEVERITIES)
def test_sampling_keeps_all_but_normal_ones_and_rows_stay_rows(severities: list[Severity]) -> None:
    whole = verdicts(severities)
    some = sampled(whole)
    numbers = some.queries.qtype.tolist()
    odd = [n for n, severity in enumerate(severities) if severity]
    normal = [n for n, severity in enumerate(severities) if not severity]
    assert set(odd) <= set(numbers) <= {*odd, *normal}
    assert len(numbers) - len(odd) == -(-len(normal) // KEPT_ONE_IN)
    assert len(some) == len(some.domain) == len(some.reasons) == len(some.features) == len(numbers)
    assert some.score.tolist() == numbers == (some.features[:, 0] / 2).tolist() == some.queries.ts.tolist()
    assert list(some.queries.ans_types) == [f"T{n}" for n in numbers]
    assert [bool(why) for why in some.reasons] == [bool(severity) for severity in some.severity]
    assert sampled(whole).queries.qtype.tolist() == numbers, "the same again"


def test_a_flood_is_sampled_and_a_quiet_client_is_kept_whole() -> None:
    clients = ["192.0.2.7" if n % 50 == 9 else "192.0.2.1" for n in range(1000)]
    rows = [(float(n), client, b"\1a", 1, 30, 0, 1, 60, 5, 1.0, "") for n, client in enumerate(clients)]
    whole = verdicts([Severity.NORMAL] * len(rows))
    some = sampled(replace(whole, queries=batch_of(rows)))
    clients = list(some.queries.client)
    assert (clients.count("192.0.2.7"), len(clients)) == (20, 63)
    loud = [ts for ts, client in zip(some.queries.ts.tolist(), clients, strict=True) if client == "192.0.2.1"]
    assert max(after - before for before, after in pairwise(loud)) < 30, "evenly"


@given(SEVERITIES, st.integers(1, 5))
def test_what_is_not_normal_and_says_no_reason_is_counted(severities: list[Severity], every: int) -> None:
    whole = verdicts(severities)
    assert unexplained(whole) == 0
    short = replace(whole, reasons=[() if n % every == 0 else why for n, why in enumerate(whole.reasons)])
    assert unexplained(short) == sum(bool(severity) for severity in severities[::every])


@given(SEVERITIES)
def test_a_batch_adds_its_severities_and_the_time_of_its_answers(severities: list[Severity]) -> None:
    whole = verdicts(severities)
    rtt_ms = np.array([np.nan if number % 3 else 2.5 for number in range(len(whole))], np.float32)
    found = totals_of(replace(whole, queries=replace(whole.queries, rtt_ms=rtt_ms)))
    for level in list(Severity)[1:]:
        assert found[level.name.lower()] == severities.count(level)
    assert found["timed"] == len(severities[::3]) and found["answer_us"] == 2500 * found["timed"]
    strange = np.full(len(whole), np.inf, np.float32)
    strange[1:] = -7.0
    said = totals_of(replace(whole, queries=replace(whole.queries, rtt_ms=strange)))
    assert said["answer_us"] == (60_000_000 if len(whole) else 0), "logs may say anything"
