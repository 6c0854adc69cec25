"""How cost grows with load, names, clients, domains, and days of data: python -m tests.bench.curves [FOLDER]

Writes one picture each (cost-*.svg, default: docs) and all points as JSON to standard output.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tests.bench.live import BASE, OURS, OURS_STORED, RATES, costs, filled, middle
from tests.bench.parts import some_traffic
from tests.bench.storing import grown as filled_store

Curve = Sequence[tuple[float, float]]
GROWING: dict[str, Sequence[int]] = {
    "names": (1_000, 10_000, 100_000, 300_000),
    "clients": (10, 100, 1_000, 10_000),
    "domains": (100, 1_000, 10_000, 100_000),
    "days": (1, 7, 30, 90),
}
STORED_DAYS, STORED_DAILY = (1, 7, 30, 90), 50_000
"""Days in the database, and rows a day."""
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


def loaded() -> dict[str, Curve]:
    """All processes, Postgres' too: microseconds of CPU a query over queries a second."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        found = costs(Path(directory), RATES)
    return {
        name: [(rate, middle(found[name][rate], "cpu_us") + middle(found[name][rate], "server_us")) for rate in RATES]
        for name in (BASE, OURS, OURS_STORED)
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.curves", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"))
    folder = parser.parse_args().folder
    found = {"load": loaded()} | grown() | stored()
    days = f"days in the database, {STORED_DAILY:,} rows each"
    for name, curves in found.items():
        title, across = {
            "load": ("CPU a query, µs, all processes", "queries a second"),
            "stored": ("Storing", days),
            "read": ("Reading, wall clock", days),
        }.get(name, ("The detector alone", f"{name} in 300,000 queries"))
        (folder / f"cost-{name}.svg").write_text(picture(title, across, curves), "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
