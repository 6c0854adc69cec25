"""Queries as steps, and steps as windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.types import batch_of
from agents.learning.sequences.steps import (
    AMOUNTS_AT,
    COLUMNS,
    GROUPS,
    NO_STEP_ROWS,
    QUERIES_MIN,
    step_rows_of,
    step_windows,
    steps_of,
    told,
)
from tests.support.detecting import query
from tests.support.sequences import KEY, NOW, browsing, heard, judged, knocking, windows

ASKED = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.floats(0, 1e6)), max_size=60)


def named(step: np.ndarray) -> set[str]:
    return {name for name, value in zip(COLUMNS[:AMOUNTS_AT], step, strict=False) if value}


def test_a_step_says_what_was_asked_and_nothing_of_the_name() -> None:
    rows = [
        query(NOW, "a", "www.shop.example"),
        query(NOW + 1, "a", "WWW.shop.example", 28),
        query(NOW + 2, "a", "key.other.example", 16),
        query(NOW + 4, "a", "img.shop.example"),
        query(NOW + 5, "b", "www.shop.example"),
    ]
    found = steps_of(heard(rows))
    assert [sorted(named(step) & {"same", "seen", "new"})[0] for step in found] == ["new", "same", "new", "seen", "new"]
    assert ["fresh" in named(step) for step in found] == [True, False, True, True, True]
    assert ["text" in named(step) for step in found] == [False, False, True, False, False]
    assert np.argsort(found[:4, -1]).tolist()[-1] == 3, "the longest gap"
    assert found[4, -1] == 0, "another client's first query has no gap"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.floats(0, 1e6)), max_size=60), st.integers(5, 50)
)
def test_every_window_is_one_clients_and_each_step_one_of_each_group(
    asked: list[tuple[str, int, float]], length: int
) -> None:
    rows = [query(NOW + at, client, f"n{name}.d{name % 2}.example") for client, name, at in asked]
    found = windows(rows, length)
    assert found.steps.shape == (len(found), length, len(COLUMNS))
    at = 0
    for group in GROUPS:
        there = found.steps[:, :, at : at + len(group)].sum(axis=2)
        assert (there == found.known).all()
        at += len(group)
    counts = {client: sum(one == client for one, _, _ in asked) for client in "abc"}
    many = [count for count in counts.values() if count >= QUERIES_MIN]
    assert len(np.unique(found.client)) == len(many)
    expected = sum(1 if count < length else (count - length) // max(length // 2, 1) + 1 for count in many)
    assert len(found) == expected
    assert np.isfinite(found.steps).all()


def test_nothing_gives_no_window() -> None:
    assert len(step_windows(NO_STEP_ROWS, 10)) == 0
    assert len(windows([query(NOW, "a", "x.example")] * (QUERIES_MIN - 1))) == 0


def test_a_machine_is_even_and_people_are_not() -> None:
    machine, person = told(windows(knocking("m", 40))), told(windows(browsing("p", 40, 1)))
    assert machine["regularity"].min() > 0.99
    assert machine["fresh"].min() == 1.0
    assert person["regularity"].max() < 0.5


def test_clients_keep_their_number_over_batches() -> None:
    numbers: dict[str, int] = {}
    first = step_rows_of(judged(knocking("a", 5) + knocking("b", 5)), numbers, KEY)
    second = step_rows_of(judged(knocking("b", 5)), numbers, KEY)
    assert numbers == {"a": 0, "b": 1}
    assert set(second.client.tolist()) == {1}
    assert (first.at(first.client == 1).name == second.name).all()
    other = step_rows_of(judged(knocking("b", 5)), numbers, (9, 9))
    assert not (other.name == second.name).any(), "hashes of another key"


def test_an_empty_batch_is_nothing() -> None:
    assert len(step_rows_of(judged([]), {}, KEY)) == 0
    assert not len(batch_of([]))


@pytest.mark.parametrize("length", [5, 10, 50])
def test_windows_overlap_by_half(length: int) -> None:
    found = windows(knocking("m", 4 * length), length)
    assert np.allclose(np.diff(found.last), (length // 2) * 60.0)
