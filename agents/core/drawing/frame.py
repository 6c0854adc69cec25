"""The frame of a chart: its box, axes, bars and ticks as SVG; texts are escaped."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 20, 40
PLOT_W, PLOT_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def chart_bar(x: float, height: float, width: float, kind: str, title: str, above: float = 0.0) -> str:
    """A bar that stands `above` the axis, with a title to point at. kind: its class."""
    y = TOP + PLOT_H - height - above
    box = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {box}><title>{escape(title)}</title></rect>'


def chart_ticks(ticks: Sequence[tuple[float, str]]) -> list[str]:
    """Names below the axis, each at its x."""
    y = TOP + PLOT_H + 16
    return [f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(name)}</text>' for x, name in ticks]


def chart_line(y: float, kind: str) -> str:
    """A line across the plot."""
    return f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def chart_y_label(y: float, text: str) -> str:
    """A number at the left of the plot."""
    return f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def chart_title(text: str) -> str:
    """What the axis below counts."""
    return f'<text x="{LEFT + PLOT_W / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(text)}</text>'


def chart_svg(parts: Sequence[str], label: str) -> Markup:
    """The chart. label: what it shows, for those who do not see it."""
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 - texts in parts are escaped
