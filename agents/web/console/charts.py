"""Charts of the console as inline SVG: they need no script, and say in words what they show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup, escape

from agents.core.text import counted
from agents.core.types import Severity
from agents.detection.network import HOUR_S

WIDTH, HEIGHT = 720, 96
BARS_MAX = 180
"""Bars of a chart, at most: longer spans have several hours in each."""


def hours_chart(hours: Sequence[tuple[int, int, int]], since: float, until: float) -> Markup:
    """Queries by hour, each bar in the colour of its loudest severity. hours: (Unix seconds, queries, severity)."""
    first, last = int(since // HOUR_S), int(until // HOUR_S)
    step = max(1, -(-(last - first + 1) // BARS_MAX))
    bars: dict[int, tuple[int, int]] = {}
    for at, queries, severity in hours:
        place = (at // HOUR_S - first) // step
        count, level = bars.get(place, (0, 0))
        bars[place] = count + queries, max(level, severity)
    most = max((count for count, _ in bars.values()), default=1)
    width = WIDTH / max(1, -(-(last - first + 1) // step))
    parts = []
    for place, (count, level) in sorted(bars.items()):
        height = max(1.0, count / most * (HEIGHT - 4))
        begins = datetime.fromtimestamp((first + place * step) * HOUR_S, UTC)
        told = f"{begins:%Y-%m-%d %H:%M} UTC: {counted(count, 'query')}, {Severity(level).name}"
        parts.append(
            f'<rect class="{Severity(level).name.lower()}" x="{place * width:.1f}" y="{HEIGHT - height:.1f}"'
            f' width="{max(width - 1, 0.5):.1f}" height="{height:.1f}"><title>{escape(told)}</title></rect>'
        )
    label = f"queries by {'hour' if step == 1 else f'{step} hours'}, at most {most:,}"
    return _svg("".join(parts), label)


def strip_chart(values: Sequence[float], label: str) -> Markup:
    """A line of the last minutes. values: oldest first."""
    most = max(max(values, default=0.0), 1e-9)
    step = WIDTH / max(len(values) - 1, 1)
    points = " ".join(
        f"{at * step:.1f},{HEIGHT - 2 - value / most * (HEIGHT - 6):.1f}" for at, value in enumerate(values)
    )
    return _svg(f'<polyline class="line" points="{points}"/>', label)


def _svg(drawn: str, label: str) -> Markup:
    """A chart as wide as its page."""
    box = f'class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none"'
    return Markup(  # noqa: S704 - numbers, and text that is escaped
        f'<svg {box} role="img" aria-label="{escape(label)}">{drawn}</svg>'
    )
