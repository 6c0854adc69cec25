"""Prefetching: a thread makes the items of a sequence before they are needed, so that stages work at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2
"""Items made in advance: while one is being made, another waits."""


def prefetch(items: Generator[T, None, None], depth: int = DEPTH) -> Generator[T, None, None]:
    """The same items in the same order, made one by one in a thread of their own, at most `depth` in advance.

    An exception of `items` is raised at its item. A caller that stops early closes this generator, which waits for the
    item in progress and closes `items`.
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
