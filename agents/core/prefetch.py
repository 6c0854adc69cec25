"""Stages that work at the same time: a sequence whose items are made in a thread before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2
"""Items made before they are asked for: while one is being made, another waits."""


def prefetch(items: Generator[T, None, None], depth: int = DEPTH) -> Generator[T, None, None]:
    """The same items in the same order, made one by one in a thread of their own, at most `depth` of them ahead.

    What making one raises is raised where that item is asked for. Who stops early closes this generator, which waits
    for the item in the making and closes `items`.
    """
    end = object()
    with closing(items), ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(depth))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(thread.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            for one in coming:
                one.cancel()
