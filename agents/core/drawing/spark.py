"""Two rows of shares as small lines: how a number is distributed then and now."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

SPARK_W, SPARK_H = 120, 24


def sparkline(old: Sequence[float], new: Sequence[float], label: str) -> Markup:
    """Two rows of shares of the same bins as two small lines, from 0 up to the largest share."""
    most = max([1e-9, *old, *new])
    step = SPARK_W / max(len(old) - 1, 1)
    lines = [
        f'<polyline class="{kind}" points="'
        + " ".join(f"{step * at:.1f},{SPARK_H - (SPARK_H - 2) * share / most - 1:.1f}" for at, share in enumerate(row))
        + '"/>'
        for kind, row in (("spark-old", old), ("spark-new", new))
    ]
    head = f'<svg class="spark" viewBox="0 0 {SPARK_W} {SPARK_H}" role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(lines) + "</svg>")  # noqa: S704 - numbers, and an escaped label
