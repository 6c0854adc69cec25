"""Whose names are the strangest of a sample: who may be behind candidates that are rejected again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np

from agents.core.text import printable
from agents.core.types import Sample
from agents.dns.name import wires_of
from agents.learning.comparison.drift import CARRYING, CREEP
from agents.scoring.features import FEATURES

TOLD_FROM = 3
"""Rejections in a row from which a message says whose names may be behind them."""


def strangest_text(live: Sample, champion: Any, missed: Collection[str] = ()) -> str:
    """Who gave most of the hundredth of stored queries that the model in use finds strangest, in words.

    Where the creep of what normal carries was missed, it is the tenth that carries most, as that gate compares: it
    need not look strange. champion: a core.protocols.ScoringModel. missed: names of gates.
    """
    if CREEP in missed:
        carried = live.features[:, [at for at, one in enumerate(FEATURES) if one.name in CARRYING]].astype(np.float64)
        values, count = (carried / np.maximum(carried.mean(axis=0), 1e-9)).sum(axis=1), len(live) // 10
    else:
        values, count = champion.score(live.features, wires_of(live.qname)), len(live) // 100
    what_names = "names that carry most" if CREEP in missed else "strangest names"
    rows = np.argsort(-values, kind="stable")[: max(count, 1)].tolist()
    parts = []
    for column, what in ((live.client, "came from"), (live.domain, "lie below")):
        name, number = Counter(column[row] for row in rows).most_common(1)[0]
        parts.append(f"{number / len(rows):.0%} {what} {printable(name, 60) or 'an unknown client'}")
    return f"of the {what_names} of its sample {' and '.join(parts)}"
