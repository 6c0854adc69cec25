"""What is left out under load, in a fixed order: first explanations, then the storing of NORMAL verdicts.

The levels are those of stream/shared.py. What comes third, records that find no room, is the ring's own doing;
answering clients is never given up.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import coded
from agents.core.types import QueryBatch, Severity, Verdicts

KEPT_ONE_IN = 16
"""One in so many NORMAL verdicts of a batch is stored at level 2: retraining learns from them."""


def unexplained(verdicts: Verdicts) -> int:
    """How many that are not NORMAL say no reason."""
    return int(np.count_nonzero(verdicts.severity)) - sum(map(bool, verdicts.reasons))


def sampled(verdicts: Verdicts) -> Verdicts:
    """The verdicts with one in KEPT_ONE_IN of the NORMAL ones and all others; the same of the same batch each time.

    Clients have equal shares of what is kept, and what one does not use the others have: a flood is its client's own.
    """
    normal = verdicts.severity == Severity.NORMAL
    keep = ~normal
    keep[normal] = _fair(coded(verdicts.queries.client).codes[normal])
    queries = QueryBatch(**{one.name: _kept(getattr(verdicts.queries, one.name), keep) for one in fields(QueryBatch)})
    columns = {name: _kept(getattr(verdicts, name), keep) for name in ("domain", "features", "score", "severity")}
    return replace(verdicts, queries=queries, reasons=_kept(verdicts.reasons, keep), **columns)


def _fair(clients: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which rows of these clients (small numbers) are kept; those of one client lie evenly among its rows."""
    counts = np.bincount(clients)
    allowed, left = np.zeros_like(counts), -(-len(clients) // KEPT_ONE_IN)
    for done, client in enumerate(np.argsort(counts, kind="stable")):
        allowed[client] = min(counts[client], left // (len(counts) - done))
        left -= allowed[client]
    order, first = np.argsort(clients, kind="stable"), np.cumsum(counts) - counts
    rank = np.empty(len(clients), np.int64)
    rank[order] = np.arange(len(clients)) - first[clients[order]]
    allowance, count = allowed[clients], counts[clients]
    kept: NDArray[np.bool_] = (rank + 1) * allowance // count > rank * allowance // count
    return kept


def _kept(column: Any, keep: NDArray[np.bool_]) -> Any:
    return column[keep] if isinstance(column, np.ndarray) else tuple(compress(column, keep.tolist()))
