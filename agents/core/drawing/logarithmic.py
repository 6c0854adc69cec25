"""A logarithmic axis that begins at 0, and a curve of what one thing costs of another, in colours of its page."""

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
    chart_line,
    chart_svg,
    chart_ticks,
    chart_title,
    chart_y_label,
)

_INSET = 10
"""What a curve keeps clear at its right, for the last tick's number."""


def trade_chart(
    points: Sequence[tuple[float, float]], chosen: float, limit: float, names: tuple[str, str], label: str
) -> Markup:
    """A curve over x, linear, of y, logarithmic, both from 0 up; marks one x and the highest y that is wanted.

    `points` are at least two, by rising x; `names` are what stands beside the limit's line and below the axis.
    """
    low, scale = points[0][0], (PLOT_W - _INSET) / (points[-1][0] - points[0][0])
    top = decades(math.ceil(max([1.0, limit, *(y for _, y in points)])))
    at = [(LEFT + scale * (x - low), TOP + PLOT_H - log_height(y, top)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dots = [
        f'<circle class="c-new" cx="{x:.1f}" cy="{y:.1f}" r="{6 if point[0] == chosen else 2.5}">'
        f"<title>{point[0]:,.0f}: {point[1]:,.2f}</title></circle>"
        for point, (x, y) in zip(points, at, strict=True)
    ]
    ticks = [(x, f"{point[0]:,.0f}") for point, (x, _) in list(zip(points, at, strict=True))[::3]]
    y = TOP + PLOT_H - log_height(limit, top)
    marks = _cross(LEFT + scale * (chosen - low), y, y + 14 if at[0][1] < y < TOP + PLOT_H - 16 else y - 5, names[0])
    return chart_svg(
        [
            *log_grid(top),
            *marks,
            f'<polyline class="curve" points="{path}"/>',
            *dots,
            *chart_ticks(ticks),
            chart_title(names[1]),
        ],
        label,
    )


def decades(most: int) -> int:
    """The power of ten at the top of a logarithmic axis that begins at 0 and has 1 on its first line."""
    return max(1, math.ceil(math.log10(most + 1)))


def log_height(count: float, top: int) -> float:
    """How high a count stands on that axis."""
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


def log_grid(top: int) -> list[str]:
    """Its lines, with their numbers."""
    out = [chart_line(TOP + PLOT_H, "axis"), chart_y_label(TOP + PLOT_H, "0")]
    for power in range(top + 1):
        y = TOP + PLOT_H - PLOT_H * (power + 1) / (top + 1)
        out += [chart_line(y, "grid"), chart_y_label(y, f"{10**power:,}" if power < 6 else f"10^{power}")]
    return out
