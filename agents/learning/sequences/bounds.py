"""The bounds of the sequence model: what a training needs, what passes, and which windows are listed."""

from __future__ import annotations

from dataclasses import dataclass

from agents.core.protocols import Field, Spec, Within


@dataclass(frozen=True, slots=True)
class SequenceBounds:
    """See the settings SEQUENCE_…; shares and regularity are 0..1."""

    windows_min: int = 20
    held_out: int = 5
    odd_share: float = 0.001
    worse_max: float = 1.05
    even_from: float = 0.9
    fresh_from: float = 0.8
    share_from: float = 0.8
    slow_s: float = 5.0


USUAL_SEQUENCES = SequenceBounds()
_USUAL = USUAL_SEQUENCES
SPEC: Spec[SequenceBounds] = Spec(
    "sequence_bounds",
    "bounds of the sequence model",
    (
        Field("sequence_windows_min", int, _USUAL.windows_min, "windows that a training needs", Within(10, 1_000_000)),
        Field(
            "sequence_held_out",
            int,
            _USUAL.held_out,
            "of so many clients one is not learnt from: the gates compare on its windows",
            Within(2, 100),
        ),
        Field(
            "sequence_odd_share",
            float,
            _USUAL.odd_share,
            "share of ordinary windows that are odd to a sequence model",
            Within(1e-6, 0.5),
        ),
        Field(
            "sequence_worse_max",
            float,
            _USUAL.worse_max,
            "gate of a cycle: how many times the surprise of the model in use a new one may have",
            Within(1, 100),
        ),
        Field("sequence_even_from", float, _USUAL.even_from, "regularity of a window that is listed", Within(0.5, 1)),
        Field("sequence_fresh_from", float, _USUAL.fresh_from, "share of new names in such a window", Within(0, 1)),
        Field("sequence_share_from", float, _USUAL.share_from, "share of its steps below one domain", Within(0.01, 1)),
        Field(
            "sequence_slow_s",
            float,
            _USUAL.slow_s,
            "median pause of such a window, seconds, unless it is odd: people who load a page ask faster",
            Within(0, 86_400),
        ),
    ),
    lambda values: SequenceBounds(**{name.removeprefix("sequence_"): value for name, value in values.items()}),
)
