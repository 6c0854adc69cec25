"""How learning goes, as charts: measures over cycles, labels by where they come from, progress of a running cycle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from agents.core.drawing.frame import (
    LEFT,
    PLOT_H,
    PLOT_W,
    TOP,
    chart_bar,
    chart_line,
    chart_svg,
    chart_ticks,
    chart_title,
    chart_y_label,
)

KINDS_MAX = 6
"""Classes s0 … s5 of series; further origins share the last."""
DAYS_SHOWN = 30
TICKS_MAX = 6
BAR_W, BAR_H = 480, 14


def measures_chart(cycles: Sequence[Mapping[str, Any]], names: Sequence[str], top: float, label: str) -> Markup:
    """Measures of cycles, oldest first, as lines from 0 to `top` at least. names: keys of `metrics`."""
    rows = [[_number(one.get("metrics", {}).get(name)) for one in cycles] for name in names]
    most = max([top, *(value for row in rows for value in row if value is not None)])
    step = PLOT_W / max(len(cycles) - 1, 1)
    parts = [chart_line(TOP + PLOT_H, "axis"), chart_y_label(TOP + PLOT_H, "0")]
    parts += [chart_line(TOP, "grid"), chart_y_label(TOP, f"{most:.3g}")]
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        at = [
            (LEFT + step * x, TOP + PLOT_H * (1 - value / most), value)
            for x, value in enumerate(row)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in at)
        parts.append(f'<polyline class="line s{number}" points="{path}"/>')
        title = escape(name.replace("_", " "))
        parts += [
            f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{title} {value:.3f}</title></circle>'
            for x, y, value in at
        ]
    ticks = [(LEFT + step * x, _day(one["started_at"])) for x, one in enumerate(cycles)]
    return chart_svg([*parts, *chart_ticks(_some(ticks)), chart_title("cycles")], label)


def origins_of(cycles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the new labels of cycles come from, the most first."""
    sums: dict[str, int] = {}
    for one in cycles:
        for origin, count in one.get("origins", {}).items():
            sums[str(origin)] = sums.get(str(origin), 0) + int(count)
    return sorted((one for one in sums if sums[one]), key=lambda one: (-sums[one], one))


def labels_chart(cycles: Sequence[Mapping[str, Any]], label: str) -> Markup:
    """New labels a day, as bars that are stacked by origin, oldest day first."""
    origins, by_day = origins_of(cycles), dict[str, dict[str, int]]()
    for one in cycles:
        day = by_day.setdefault(_day(one["started_at"]), {})
        for origin, count in one.get("origins", {}).items():
            day[str(origin)] = day.get(str(origin), 0) + int(count)
    days = list(by_day.items())[-DAYS_SHOWN:]
    most = max([1, *(sum(day.values()) for _, day in days)])
    step = PLOT_W / max(len(days), 1)
    parts = [chart_line(TOP + PLOT_H, "axis"), chart_y_label(TOP + PLOT_H, "0"), chart_y_label(TOP, f"{most:,}")]
    for at, (name, counts) in enumerate(days):
        above = 0.0
        for number, origin in enumerate(origins):
            height = PLOT_H * counts.get(origin, 0) / most
            if height:
                kind, title = f"s{min(number, KINDS_MAX - 1)}", f"{name}: {counts[origin]:,} {origin}"
                parts.append(chart_bar(LEFT + step * (at + 0.15), height, step * 0.7, kind, title, above))
            above += height
    ticks = [(LEFT + step * (at + 0.5), name) for at, (name, _) in enumerate(days)]
    return chart_svg([*parts, *chart_ticks(_some(ticks)), chart_title("new labels by day of their cycle")], label)


def progress_bar(share: float, label: str) -> Markup:
    """How far something is, 0..1."""
    done = BAR_W * min(max(share if math.isfinite(share) else 0.0, 0.0), 1.0)
    return Markup(  # noqa: S704 - numbers, and an escaped label
        f'<svg class="progress" viewBox="0 0 {BAR_W} {BAR_H}" role="img" aria-label="{escape(label)}">'
        f'<rect class="track" width="{BAR_W}" height="{BAR_H}" rx="4"/>'
        f'<rect class="s0" width="{done:.1f}" height="{BAR_H}" rx="4"/></svg>'
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%m-%d}"


def _some(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """TICKS_MAX of them at most, and each day once."""
    every = max(1, math.ceil(len(ticks) / TICKS_MAX))
    found: dict[str, tuple[float, str]] = {}
    for x, name in ticks[::every]:
        found.setdefault(name, (x, name))
    return list(found.values())
