"""How cost grows with load, names, clients, domains, days of data, detectors, and what a slot holds.

python -m tests.bench.curves [FOLDER] [--only NAME …]

Writes one picture each (cost-*.svg, default: docs) and all points as JSON to standard output.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path

from agents.detection.limits import Scale
from agents.detection.shared.slotted import SlottedDetector
from agents.detection.shared.view import Facts, NetworkView, known_tables
from agents.runtime import warmup
from tests.bench.filling import BATCH, batch
from tests.bench.live import BASE, OURS, OURS_STORED, RATES, costs, filled, middle
from tests.bench.parts import some_traffic
from tests.bench.several import QUERIES, ROUNDS, judged_by, ordinary_records
from tests.bench.storing import grown as filled_store
from tests.support.detecting import QUIET_S, START, shipped_model

Curve = Sequence[tuple[float, float]]
GROWING: dict[str, Sequence[int]] = {
    "names": (1_000, 10_000, 100_000, 300_000),
    "clients": (10, 100, 1_000, 10_000),
    "domains": (100, 1_000, 10_000, 100_000),
    "days": (1, 7, 30, 90),
}
STORED_DAYS, STORED_DAILY = (1, 7, 30, 90), 50_000
"""Days in the database, and rows a day."""
DETECTORS = (1, 2, 3, 4)
SLOT_FLOWS = (100, 1_000, 10_000, 100_000)
"""Pairs of client and domain in one slot of the bus."""
COLOURS = ("#1f6feb", "#c2410c", "#15803d")
_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 300, 52, 30, 40, 44


def picture(title: str, across: str, curves: Mapping[str, Curve]) -> str:
    """An SVG of curves over a logarithmic x (> 0) and a linear y from 0; no two x may be equal in all curves."""
    xs = sorted({x for curve in curves.values() for x, _ in curve})
    low, wide = math.log10(xs[0]), math.log10(xs[-1]) - math.log10(xs[0])
    most = max(y for curve in curves.values() for _, y in curve)
    step = next(s for power in range(-3, 9) for s in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if most / s <= 5)
    top = math.ceil(most / step) * step

    def at(x: float, y: float) -> tuple[float, float]:
        right = _LEFT + (_W - _LEFT - _RIGHT) * (math.log10(x) - low) / wide
        return right, _H - _BOTTOM - (_H - _TOP - _BOTTOM) * y / top

    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for number in range(round(top / step) + 1):
        y = at(xs[0], number * step)[1]
        parts.append(f'<line x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number * step:g}</text>')
    parts += [f'<text x="{at(x, 0)[0]:.1f}" y="{_H - 26}" text-anchor="middle">{x:,.0f}</text>' for x in xs]
    parts.append(f'<text x="{_W / 2:.0f}" y="{_H - 8}" text-anchor="middle">{escape(across)}</text>')
    for number, ((name, curve), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
        places = [at(x, y) for x, y in curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<text x="{_LEFT + 170 * number}" y="32" fill="{colour}">{escape(name)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_W} {_H}" font-family="sans-serif" font-size="12">'
    return head + f'<rect width="{_W}" height="{_H}" fill="#fff"/>' + "\n".join(parts) + "</svg>\n"


def grown() -> dict[str, dict[str, Curve]]:
    """The detector alone: microseconds of CPU a query, and megabytes of windows, over each of GROWING."""
    found: dict[str, dict[str, Curve]] = {}
    for name, values in GROWING.items():
        measured = [(float(value), filled(**{name: value})) for value in values]
        found[name] = {
            "µs of CPU a query": [(value, one["us"]) for value, one in measured],
            "MB of windows": [(value, one["held_mb"]) for value, one in measured],
        }
    return found


def stored(days: Sequence[int] = STORED_DAYS, daily: int = STORED_DAILY) -> dict[str, dict[str, Curve]]:
    """Postgres with days of data in it: what storing, a page and a training sample cost."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        points = list(filled_store(some_traffic(), Path(directory), days, daily))
    return {
        "stored": {"µs of CPU a row stored, Postgres too": [(one.days, one.row_us) for one in points]},
        "read": {
            "ms for a client's page": [(one.days, one.page_ms) for one in points],
            "ms for 10,000 to learn from": [(one.days, one.sample_ms) for one in points],
        },
    }


def loaded() -> dict[str, dict[str, Curve]]:
    """All processes, Postgres' too: microseconds of CPU a query over queries a second."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        found = costs(Path(directory), RATES)
    curves: dict[str, Curve] = {
        name: [(rate, middle(found[name][rate], "cpu_us") + middle(found[name][rate], "server_us")) for rate in RATES]
        for name in (BASE, OURS, OURS_STORED)
    }
    return {"load": curves}


def divided() -> dict[str, dict[str, Curve]]:
    """Several detectors, each query for a new name: microseconds of CPU a query, the process `network` among it."""
    warmup.judging()
    warmup.sharing()
    records, found = ordinary_records(1), list[tuple[float, float, float]]()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for detectors in DETECTORS:
            rounds = [judged_by(detectors, records, Path(directory)) for _ in range(ROUNDS)]
            cpu, together, _ = (statistics.median(one) / QUERIES * 1e6 for one in zip(*rounds, strict=True))
            found.append((float(detectors), cpu, together))
    return {
        "detectors": {
            "µs of CPU a query": [(at, cpu) for at, cpu, _ in found],
            "of it network": [(at, together) for at, _, together in found],
        }
    }


def slot_moved() -> dict[str, dict[str, Curve]]:
    """What moving a slot of the bus takes, without the way over it: its state, to save and to go on from."""
    _moved(SLOT_FLOWS[0])  # kernels are loaded
    found = [(float(flows), *_moved(flows)) for flows in SLOT_FLOWS]
    return {
        "slot": {
            "ms to save": [(flows, save) for flows, save, _, _ in found],
            "ms to go on from": [(flows, load) for flows, _, load, _ in found],
            "bytes of state a pair": [(flows, size / flows) for flows, _, _, size in found],
        }
    }


def _moved(flows: int) -> tuple[float, float, int]:
    """Milliseconds of CPU to save a slot with so many flows and to open it elsewhere, and bytes of its state."""
    made = SlottedDetector(
        lambda client: 0, lambda slot: NetworkView("0", known_tables(), Facts), shipped_model(), 2 * flows, QUIET_S,
        Scale(), None, (0, 0), None, 0, None,
    )  # fmt: skip
    made.open_slot(0, b"")
    for first in range(0, flows, BATCH):
        numbers = list(range(first, min(first + BATCH, flows)))
        made.detect(batch(numbers, [START + number / 1000 for number in numbers], flows, 500))
    made.saved_slot(0, nullcontext())
    begun = time.process_time()
    state = made.saved_slot(0, nullcontext())
    saved = time.process_time()
    made.open_slot(0, state)
    return (saved - begun) * 1e3, (time.process_time() - saved) * 1e3, len(state)


PARTS: Mapping[str, Callable[[], dict[str, dict[str, Curve]]]] = {
    "load": loaded,
    "grown": grown,
    "stored": stored,
    "detectors": divided,
    "slot": slot_moved,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"))
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS], help="measure these alone")
    asked = parser.parse_args()
    folder, found = asked.folder, dict[str, dict[str, Curve]]()
    for part in asked.only:
        found |= PARTS[part]()
    days = f"days in the database, {STORED_DAILY:,} rows each"
    for name, curves in found.items():
        title, across = {
            "load": ("CPU a query, µs, all processes", "queries a second"),
            "stored": ("Storing", days),
            "read": ("Reading, wall clock", days),
            "detectors": ("Several detectors, each query for a new name", "detectors"),
            "slot": ("Moving a slot", "pairs of client and domain in it"),
        }.get(name, ("The detector alone", f"{name} in 300,000 queries"))
        (folder / f"cost-{name}.svg").write_text(picture(title, across, curves), "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
