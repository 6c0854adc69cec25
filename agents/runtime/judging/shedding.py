"""What a batch adds to the totals, and what is left out under load: first explanations, then NORMAL verdicts in store.

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

ANSWER_MS_MAX = 60_000.0
"""An answer that is said to have taken longer counts as this: logs may say anything."""
KEPT_ONE_IN = 16
"""One in so many NORMAL verdicts of a batch is stored at level 2: retraining learns from them."""


def totals_of(verdicts: Verdicts) -> dict[str, int]:
    """What a batch adds to the totals by severity, and of how long answers took (stream/ledger.py)."""
    levels = np.bincount(verdicts.severity, minlength=len(Severity))
    rtt_ms = verdicts.queries.rtt_ms
    took_ms = float(np.minimum(np.fmax(rtt_ms, 0.0), ANSWER_MS_MAX).sum())
    return {
        **{one.name.lower(): int(levels[one]) for one in Severity if one is not Severity.NORMAL},
        "timed": len(rtt_ms) - int(np.count_nonzero(np.isnan(rtt_ms))),
        "answer_us": round(took_ms * 1e3),
    }


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
