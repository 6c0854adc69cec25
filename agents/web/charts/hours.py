"""Charts of the console as inline SVG: they need no script, and say in words what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from markupsafe import Markup, escape

from agents.core.text import counted
from agents.core.types import HOUR_S, Severity
from agents.web.pages import when

WIDTH, HEIGHT = 720, 96
STEPS_HEIGHT = 48
"""Of a chart of steps, in units of its own."""
LAST_HOUR_TICKS = ("60 min ago", "now")
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
        height = max(1.0, count / most * HEIGHT)
        begins = datetime.fromtimestamp((first + place * step) * HOUR_S, UTC)
        told = f"{begins:%Y-%m-%d %H:%M} UTC: {counted(count, 'query')}, {Severity(level).name}"
        at_begin = f"{begins:%Y-%m-%dT%H:%M:%SZ}"  # for the script that tells it in the reader's zone
        parts.append(
            f'<rect class="{Severity(level).name.lower()}" x="{place * width:.1f}" y="{HEIGHT - height:.1f}"'
            f' width="{max(width - 1, 0.5):.1f}" height="{height:.1f}">'
            f'<title data-at="{at_begin}">{escape(told)}</title></rect>'
        )
    every = "an hour" if step == 1 else f"in {step} hours"
    label = f"queries by {'hour' if step == 1 else f'{step} hours'}, at most {most:,}"
    ends = [first * HOUR_S, (first + last + 1) / 2 * HOUR_S, (last + 1) * HOUR_S]
    return _framed(_svg("".join(parts), label), f"{most:,} {every}", [when(at) for at in ends])


def step_chart(layers: Mapping[str, Sequence[float | None]], gaps: Sequence[bool], label: str, unit: str) -> Markup:
    """Steps of one width from a ground line, over the last hour, small enough to be sent again and again.

    layers: values by the class of their shape, the last one in front, all in one scale; None = nothing is drawn there.
    gaps: where nothing is known; a band says so. unit: of the values.
    """
    highest = max((one for values in layers.values() for one in values if one is not None), default=0.0)
    most = highest or 1.0
    shapes = {"gap": [STEPS_HEIGHT if one else None for one in gaps]}
    for name, values in layers.items():  # zero is drawn, too: it is known
        shapes[name] = [None if one is None else max(1, round(one / most * STEPS_HEIGHT)) for one in values]
    paths = [f'<path class="{name}" d="{path}"/>' for name, heights in shapes.items() if (path := _steps(heights))]
    drawn = _svg("".join(paths), label, len(gaps), STEPS_HEIGHT)
    return _framed(drawn, f"{scale_text(highest)} {unit}" if highest else unit, [*map(escape, LAST_HOUR_TICKS)])


def scale_text(value: float) -> str:
    """The number at the top of a scale."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _framed(drawn: Markup, top: str, ticks: Sequence[Markup]) -> Markup:
    """A chart with its scale, from 0 to `top`, and what stands below it, at even distances.

    Text beside it, not in it: a chart is stretched to the width of its page. Whoever reads by ear has its label.
    """
    below = Markup("").join(Markup("<i>{}</i>").format(one) for one in ticks)
    scale = Markup('<p class="scale" aria-hidden="true"><i>{}</i><i>0</i></p>').format(top)
    return Markup('<div class="plot">{}{}<p class="ticks" aria-hidden="true">{}</p></div>').format(scale, drawn, below)


def _steps(heights: Sequence[int | None]) -> str:
    """The outline of bars of width 1, as SVG writes a path; those that touch are one shape."""
    out, at = [], 0
    for is_there, run in groupby(heights, lambda one: one is not None):
        some = list(run)
        if is_there:
            flat = ((height, len(list(same))) for height, same in groupby(some))
            tops = "".join(f"V{STEPS_HEIGHT - (height or 0)}h{width}" for height, width in flat)
            out.append(f"M{at} {STEPS_HEIGHT}{tops}V{STEPS_HEIGHT}z")
        at += len(some)
    return "".join(out)


def _svg(drawn: str, label: str, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """A chart as wide as its page."""
    box = f'class="chart" viewBox="0 0 {width} {height}" preserveAspectRatio="none"'
    return Markup(  # noqa: S704 - numbers, and text that is escaped
        f'<svg {box} role="img" aria-label="{escape(label)}">{drawn}</svg>'
    )
