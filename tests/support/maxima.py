"""How near benign traffic comes to each limit: a week of the look-alike suite, and the benign captures of a manifest.

python -m tests.support.maxima MANIFEST.tsv        prints the table of docs/detection.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from agents.core.types import QueryBatch, batch_of
from agents.detection.judge_kernels import PEAK_MIN
from agents.detection.limits import Limits, Scale, limits_of
from agents.detection.state import WINDOWS_S, Kind
from agents.learning.evaluation import read_manifest
from agents.sources import open_source
from tests.corpora import lookalikes
from tests.support.detecting import fresh_detector, shipped_model

SEED, BATCH, FINE, NEVER = 101, 8192, 5, 1e12
ASKED = (
    (Kind.ENCODED, 3600, "encoded bytes of a domain, 1 h"),
    (Kind.ENCODED, 86_400, "… 24 h"),
    (Kind.ENCODED, 604_800, "… 7 d"),
    (Kind.FRESH, 3600, "encoded names of a flow that is little else, 1 h"),
    (Kind.FRESH, 86_400, "… 24 h"),
    (Kind.FRESH, 604_800, "… 7 d"),
    (Kind.SPREAD, 3600, "encoded bytes over several domains, 1 h"),
    (Kind.SPREAD, 86_400, "… 24 h"),
    (Kind.SPREAD_FRESH, 3600, "encoded names over several domains, 1 h"),
    (Kind.SPREAD_FRESH, 86_400, "… 24 h"),
    (Kind.SCATTERED, 86_400, "encoded bytes scattered over throw-away domains, 24 h"),
    (Kind.YOUNG, 86_400, "bytes below a young or rare domain, 24 h"),
    (Kind.YOUNG, 604_800, "… 7 d"),
    (Kind.FIRST, 86_400, "the first bytes below all of them, 24 h"),
    (Kind.WORDS, 86_400, "what is beyond these, 24 h"),
    (Kind.CHOICE, 86_400, "bytes in types and order below a domain, 24 h"),
    (Kind.ORDERED, 3600, "the same below all young or rare domains, 1 h"),
    (Kind.ORDERED, 86_400, "… 24 h"),
)


def highest(batches: Iterable[QueryBatch], kind: Kind, window: int) -> float:
    """The most that any client reached of one limit: all others away, and this one a FINEth of itself."""
    table = limits_of().table.copy()
    low = table[kind, window] / FINE
    table[: len(Kind)] = np.inf
    table[kind, window] = low
    detector = fresh_detector(shipped_model(), Scale(), quiet_s=NEVER)
    detector._limits = Limits(table, limits_of(quiet_s=NEVER).rules)
    for batch in batches:
        detector.detect(batch, explain=False)
    return float(max(detector.peaks.rows.values(), default=0.0) * low)


def week() -> Iterator[QueryBatch]:
    """The look-alike suite."""
    rows = lookalikes.week(SEED)
    while found := list(islice(rows, BATCH)):
        yield batch_of(found)


def main() -> None:
    manifest = Path(sys.argv[1])
    captures = [manifest.parent / row["file"] for row in read_manifest(manifest) if row["kind"] == "benign"]
    captures = [path for path in captures if path.name.endswith(".tsv.gz")]
    looks_alike = list(week())
    print("| evidence | limit | look-alikes, a week | development captures |\n| --- | ---: | ---: | ---: |")
    for kind, seconds, text in ASKED:
        window = WINDOWS_S.index(seconds)
        found = [highest(open_source([path]).batches(BATCH), kind, window) for path in captures]
        alike, limit = highest(looks_alike, kind, window), limits_of().table[kind, window]
        nearest = (f"{one:,.0f}" if one else f"below {limit / FINE * PEAK_MIN:,.3g}" for one in (alike, max(found)))
        print(f"| {text} | {limit:,.0f} | {' | '.join(nearest)} |", flush=True)


if __name__ == "__main__":
    main()
