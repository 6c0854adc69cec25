"""Small charts as inline SVG; colours are CSS classes of the page they stand in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

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
)
from agents.core.drawing.logarithmic import decades, log_grid, log_height


def histogram(old: Sequence[int], new: Sequence[int], limits: Sequence[float], label: str) -> Markup:
    """Counts over equal bins of 0..1, logarithmic; `limits` are drawn as dashed lines."""
    top = decades(max([1, *old, *new]))
    bins = max(len(old), len(new), 1)
    ticks = [(LEFT + PLOT_W * at / 10, f"{at / 10:g}") for at in range(0, 11, 2)]
    lines = [
        f'<line class="limit" stroke-dasharray="3 3" opacity=".55" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
        f'y2="{TOP + PLOT_H}"/><text x="{x:.1f}" y="{TOP - 6}" text-anchor="middle">{limit:g}</text>'
        for limit in limits
        for x in [LEFT + PLOT_W * limit]
    ]
    bars = _pairs(old, new, bins, top, values=False)
    return chart_svg([*log_grid(top), *bars, *lines, *chart_ticks(ticks), chart_title("score")], label)


def grouped(names: Sequence[str], old: Sequence[int], new: Sequence[int], label: str) -> Markup:
    """Two counts a name, logarithmic, with the numbers above the bars."""
    top = decades(max([1, *old, *new]))
    step = PLOT_W / max(len(names), 1)
    ticks = [(LEFT + step * (at + 0.5), name) for at, name in enumerate(names)]
    bars = _pairs(old, new, len(names), top, values=True)
    return chart_svg([*log_grid(top), *bars, *chart_ticks(ticks), chart_title("queries by severity")], label)


def bars(names: Sequence[str], counts: Sequence[int], label: str) -> Markup:
    """One linear bar a name, with its number above it."""
    most, step = max([1, *counts]), PLOT_W / max(len(names), 1)
    parts, ticks = [chart_line(TOP + PLOT_H, "axis")], []
    for at, (name, count) in enumerate(zip(names, counts, strict=True)):
        x, height = LEFT + step * at, PLOT_H * count / most
        parts.append(chart_bar(x + step * 0.25, height, step * 0.5, "c-new", f"{name}: {count:,}"))
        parts.append(_value(x + step / 2, height, count))
        ticks.append((x + step / 2, name))
    return chart_svg([*parts, *chart_ticks(ticks)], label)


def days(counts: Sequence[tuple[str, int]], label: str) -> Markup:
    """One linear bar a day (YYYY-MM-DD, count); a day's label is its month and day."""
    most = max([1, *(count for _, count in counts)])
    step = PLOT_W / max(len(counts), 1)
    every = max(1, math.ceil(len(counts) / 8))
    parts, ticks = [chart_line(TOP + PLOT_H, "axis")], []
    for at, (day, count) in enumerate(counts):
        x, height = LEFT + step * at, PLOT_H * count / most
        parts.append(chart_bar(x + step * 0.15, height, step * 0.7, "c-new", f"{day}: {count:,}"))
        if len(counts) <= 14:
            parts.append(_value(x + step / 2, height, count))
        if at % every == 0:
            ticks.append((x + step / 2, day[5:]))
    return chart_svg([*parts, *chart_ticks(ticks), chart_title("month-day")], label)


def gate_bar(value: float, threshold: float, passed: bool) -> Markup:
    """How far a value reaches, with its threshold as a mark, on a common scale from zero."""
    shown = value if math.isfinite(value) else 0.0
    most = max(abs(shown), abs(threshold), 1e-12) * 1.15
    reach, mark = 180 * max(shown, 0) / most, 180 * max(threshold, 0) / most
    kind = "c-ok" if passed else "c-bad"
    return Markup(  # noqa: S704 - numbers and fixed words only
        f'<svg viewBox="0 0 184 16" role="img" aria-label="value {shown:.4g}, threshold {threshold:.4g}">'
        f'<rect class="c-track" x="0" y="4" width="180" height="8" rx="4"/>'
        f'<rect class="{kind}" x="0" y="4" width="{reach:.1f}" height="8" rx="4"/>'
        f'<line class="limit" x1="{mark + 1:.1f}" x2="{mark + 1:.1f}" y1="0" y2="16"/></svg>'
    )


def _pairs(old: Sequence[int], new: Sequence[int], groups: int, top: int, values: bool) -> list[str]:
    step, out = PLOT_W / max(groups, 1), []
    for series, kind, shift in ((old, "c-old", 0.1), (new, "c-new", 0.52)):
        for at, count in enumerate(series):
            x, height, width = LEFT + step * (at + shift), log_height(count, top), step * 0.38
            out.append(chart_bar(x, height, width, kind, f"{count:,}"))
            if values:
                out.append(_value(x + width / 2, height, count))
    return out


def _value(x: float, height: float, count: int) -> str:
    y = TOP + PLOT_H - height - 4
    return f'<text class="value" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{_short(count)}</text>'


def _short(count: int) -> str:
    return f"{count:,}" if count < 100_000 else f"{count / 1000:,.0f}k"
