"""Small charts as inline SVG; colours are CSS classes of the page they stand in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from agents.core.drawing.frame import (
    LEFT,
    PLOT_H,
    PLOT_W,
    RIGHT,
    TOP,
    WIDTH,
    chart_bar,
    chart_line,
    chart_svg,
    chart_ticks,
    chart_title,
    chart_y_label,
)

_INSET = 10
"""What a curve keeps clear at its right, for the last tick's number."""


def histogram(old: Sequence[int], new: Sequence[int], limits: Sequence[float], label: str) -> Markup:
    """Counts over equal bins of 0..1, logarithmic; `limits` are drawn as dashed lines."""
    top = _decades(max([1, *old, *new]))
    bins = max(len(old), len(new), 1)
    ticks = [(LEFT + PLOT_W * at / 10, f"{at / 10:g}") for at in range(0, 11, 2)]
    lines = [
        f'<line class="limit" stroke-dasharray="3 3" opacity=".55" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
        f'y2="{TOP + PLOT_H}"/><text x="{x:.1f}" y="{TOP - 6}" text-anchor="middle">{limit:g}</text>'
        for limit in limits
        for x in [LEFT + PLOT_W * limit]
    ]
    bars = _pairs(old, new, bins, top, values=False)
    return chart_svg([*_grid(top), *bars, *lines, *chart_ticks(ticks), chart_title("score")], label)


def grouped(names: Sequence[str], old: Sequence[int], new: Sequence[int], label: str) -> Markup:
    """Two counts a name, logarithmic, with the numbers above the bars."""
    top = _decades(max([1, *old, *new]))
    step = PLOT_W / max(len(names), 1)
    ticks = [(LEFT + step * (at + 0.5), name) for at, name in enumerate(names)]
    bars = _pairs(old, new, len(names), top, values=True)
    return chart_svg([*_grid(top), *bars, *chart_ticks(ticks), chart_title("queries by severity")], label)


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


def trade(
    points: Sequence[tuple[float, float]], chosen: float, limit: float, names: tuple[str, str], label: str
) -> Markup:
    """A curve over x, linear, of y, logarithmic, both from 0 up; marks one x and the highest y that is wanted.

    `points` are at least two, by rising x; `names` are what stands beside the limit's line and below the axis.
    """
    low, scale = points[0][0], (PLOT_W - _INSET) / (points[-1][0] - points[0][0])
    top = _decades(math.ceil(max([1.0, limit, *(y for _, y in points)])))
    at = [(LEFT + scale * (x - low), TOP + PLOT_H - _log_height(y, top)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dots = [
        f'<circle class="c-new" cx="{x:.1f}" cy="{y:.1f}" r="{6 if point[0] == chosen else 2.5}">'
        f"<title>{point[0]:,.0f}: {point[1]:,.2f}</title></circle>"
        for point, (x, y) in zip(points, at, strict=True)
    ]
    ticks = [(x, f"{point[0]:,.0f}") for point, (x, _) in list(zip(points, at, strict=True))[::3]]
    y = TOP + PLOT_H - _log_height(limit, top)
    marks = _cross(LEFT + scale * (chosen - low), y, y + 14 if at[0][1] < y < TOP + PLOT_H - 16 else y - 5, names[0])
    return chart_svg(
        [
            *_grid(top),
            *marks,
            f'<polyline class="curve" points="{path}"/>',
            *dots,
            *chart_ticks(ticks),
            chart_title(names[1]),
        ],
        label,
    )


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


def _decades(most: int) -> int:
    """The power of ten at the top of a logarithmic axis that begins at 0 and has 1 on its first line."""
    return max(1, math.ceil(math.log10(most + 1)))


def _log_height(count: float, top: int) -> float:
    return 0.0 if count <= 0.1 else PLOT_H * (math.log10(count) + 1) / (top + 1)


def _cross(x: float, y: float, name_y: float, name: str) -> list[str]:
    """What was chosen as a dashed line upwards, what is wanted as one across, with its name at the left."""
    dashed = 'class="limit" stroke-dasharray="3 3" opacity=".55"'
    return [
        f'<line {dashed} x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + PLOT_H}"/>',
        f'<text class="value" x="{x:.1f}" y="{TOP - 6}" text-anchor="middle">chosen</text>',
        f'<line {dashed} x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<text class="value" x="{LEFT + 6}" y="{name_y:.1f}">{escape(name)}</text>',
    ]


def _grid(top: int) -> list[str]:
    out = [chart_line(TOP + PLOT_H, "axis"), chart_y_label(TOP + PLOT_H, "0")]
    for power in range(top + 1):
        y = TOP + PLOT_H - PLOT_H * (power + 1) / (top + 1)
        out += [chart_line(y, "grid"), chart_y_label(y, f"{10**power:,}" if power < 6 else f"10^{power}")]
    return out


def _pairs(old: Sequence[int], new: Sequence[int], groups: int, top: int, values: bool) -> list[str]:
    step, out = PLOT_W / max(groups, 1), []
    for series, kind, shift in ((old, "c-old", 0.1), (new, "c-new", 0.52)):
        for at, count in enumerate(series):
            x, height, width = LEFT + step * (at + shift), _log_height(count, top), step * 0.38
            out.append(chart_bar(x, height, width, kind, f"{count:,}"))
            if values:
                out.append(_value(x + width / 2, height, count))
    return out


def _value(x: float, height: float, count: int) -> str:
    y = TOP + PLOT_H - height - 4
    return f'<text class="value" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{_short(count)}</text>'


def _short(count: int) -> str:
    return f"{count:,}" if count < 100_000 else f"{count / 1000:,.0f}k"
