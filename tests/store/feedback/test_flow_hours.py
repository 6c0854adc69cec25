"""The feature store, on SQLite and on a real Postgres."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.learning.loop.flow_hours import SCHEMA
from agents.store import Store
from agents.store.feedback.flow_hours import WEEK_HOURS, FlowHourStore, _excess
from tests.support.flow_hours import HOUR, flow_hours

pytestmark = pytest.mark.contract


def test_what_is_written_is_read_as_it_was(store: Store) -> None:
    hours = FlowHourStore(store)
    rows = flow_hours(["a.example", "b.example"], queries=7.5)
    rows.numbers[1, 3] = np.float32(0.1)
    hours.add(rows)
    found = hours.read(rows.schema)
    assert (list(found.domain), list(found.client), list(found.names)) == (
        ["a.example", "b.example"], ["192.0.2.7"] * 2, [("a.a.example",), ("a.b.example",)],
    )  # fmt: skip
    assert found.numbers.tobytes() == rows.numbers.tobytes()
    assert found.hour.tolist() == [HOUR, HOUR]
    assert list(found.id) == sorted(set(found.id))


def test_a_flow_hour_is_written_once_and_stays_as_it_is(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(flow_hours(["a.example"], queries=1))
    hours.add(flow_hours(["a.example", "b.example"], queries=2))
    found = hours.read(SCHEMA)
    assert {domain: numbers[0] for domain, numbers in zip(found.domain, found.numbers, strict=True)} == {
        "a.example": 1, "b.example": 2,
    }  # fmt: skip


def test_rows_of_two_schemas_are_never_read_together(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(flow_hours(["a.example"], schema=1))
    hours.add(flow_hours(["a.example", "b.example"], schema=2))
    assert len(hours.read(1)) == 1
    assert len(hours.read(2)) == 2
    assert len(hours.read(3)) == 0


def test_hostile_names_are_kept(store: Store) -> None:
    hours = FlowHourStore(store)
    names = [
        "'; DROP TABLE flow_hours; --",
        "nul\0.example",
        "ü\udc80.example",
        "%s %(x)s :y",
        "=cmd()",
        "\u202eelpmaxe",
    ]
    hours.add(flow_hours(names))
    for name in names:
        assert list(hours.read(SCHEMA, domain=name).names) == [(f"a.{name}",)]


def test_old_weeks_stay_represented(store: Store) -> None:
    """Three busy weeks and a quiet one: the quiet one loses nothing, the others give alike."""
    hours = FlowHourStore(store)
    for week, count in enumerate((40, 300, 5, 200)):
        hours.add(flow_hours([f"d{i}.example" for i in range(count)], hour=HOUR + week * WEEK_HOURS))
    assert hours.shrink(100, SCHEMA) == 447, "four weeks of 25, and what the quiet one does not need"
    first = HOUR // WEEK_HOURS
    assert hours.weeks(SCHEMA) == {first: 31, first + 1: 31, first + 2: 5, first + 3: 31}
    assert hours.shrink(100, SCHEMA) == 0


def test_a_week_gives_at_random_and_not_by_name(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(flow_hours([f"d{i:03}.example" for i in range(400)]))
    hours.shrink(200, SCHEMA)
    kept = {int(domain[1:4]) for domain in hours.read(SCHEMA).domain}
    assert 60 < len(kept & set(range(200))) < 140, "half of the first half, give or take six deviations"


def test_rows_of_another_schema_go_first(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(flow_hours([f"d{i}.example" for i in range(30)], schema=1))
    hours.add(flow_hours([f"d{i}.example" for i in range(50)], schema=2))
    hours.shrink(60, 2)
    assert (len(hours.read(1)), len(hours.read(2))) == (10, 50)
    hours.shrink(20, 2)
    assert (len(hours.read(1)), len(hours.read(2))) == (0, 20)


def test_old_hours_are_forgotten(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(flow_hours(["a.example", "b.example"], hour=[HOUR, HOUR + 1]))
    assert hours.forget((HOUR + 1) * 3600) == 1
    assert list(hours.read(SCHEMA).domain) == ["b.example"]


@given(st.dictionaries(st.integers(0, 50), st.integers(1, 1000), min_size=1), st.integers(1, 3000))
def test_no_week_keeps_more_than_one_that_gives(counts: dict[int, int], most: int) -> None:
    gives = _excess(counts, most)
    kept = {week: count - gives.get(week, 0) for week, count in counts.items()}
    assert sum(kept.values()) <= max(most, 0)
    if sum(counts.values()) <= most:
        assert gives == {}
    else:
        assert all(kept[week] == max(kept.values()) for week in gives)
        assert sum(kept.values()) > most - len(counts), "no more goes than must"
