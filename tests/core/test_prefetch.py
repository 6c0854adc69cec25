"""Items made in a thread: the same ones, in order, not too many of them, and none any more once somebody stops."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.prefetch import prefetch


class Numbers:
    """Counts up to a number, and then fails where it is told to; knows what became of it."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.made, self.count, self.error = 0, count, error
        self.closed = False
        self.threads: set[int] = set()

    def items(self) -> Generator[int, None, None]:
        try:
            while self.made < self.count:
                self.threads.add(threading.get_ident())
                self.made += 1
                yield self.made
            if self.error:
                raise self.error
        finally:
            self.closed = True


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 4), st.integers(1, 3))
def test_nothing_is_lost_and_the_order_is_kept(count: int, depth: int, stages: int) -> None:
    items = (number for number in range(count))
    for _ in range(stages):
        items = prefetch(items, depth)
    assert list(items) == list(range(count))


def test_items_are_made_elsewhere_and_no_more_of_them_than_asked_for() -> None:
    numbers = Numbers(100)
    found = prefetch(numbers.items(), depth=3)
    assert next(found) == 1
    found.close()
    assert numbers.made <= 1 + 3 + 1
    assert numbers.threads
    assert threading.get_ident() not in numbers.threads


@pytest.mark.parametrize("stages", [1, 3])
def test_what_goes_wrong_is_raised_behind_what_came_before_it(stages: int) -> None:
    numbers = Numbers(5, OSError("cannot read"))
    items = numbers.items()
    for _ in range(stages):
        items = prefetch(items)
    seen = []
    with pytest.raises(OSError, match="cannot read"):
        for one in items:
            seen.append(one)
    assert seen == [1, 2, 3, 4, 5]
    assert numbers.closed


@pytest.mark.parametrize("stages", [1, 3])
def test_who_stops_early_leaves_no_thread_and_nothing_open(stages: int) -> None:
    before, numbers = set(threading.enumerate()), Numbers(1_000_000)
    items = numbers.items()
    for _ in range(stages):
        items = prefetch(items)
    assert next(items) == 1
    assert set(threading.enumerate()) - before
    items.close()
    del items
    assert not set(threading.enumerate()) - before
    assert numbers.closed
    assert numbers.made < 30
