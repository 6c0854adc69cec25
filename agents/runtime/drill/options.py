"""The settings of drills."""

from __future__ import annotations

from dataclasses import dataclass

from agents.core.protocols import Field, Spec, Within
from agents.enforcement.rpz.options import endpoints_of


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """minutes: between two drills, 0 = none. resolvers: asked, since a collector hears them. daily: tell channels."""

    minutes: float = 0.0
    resolvers: tuple[tuple[str, int], ...] = ()
    daily: bool = True


SPEC: Spec[DrillOptions] = Spec(
    name="drill",
    summary="a synthetic tunnel now and then, to see whether one would be seen (docs/reliability.md)",
    fields=(
        Field("drill_minutes", float, 60.0, "minutes between two drills; 0 = none", Within(0, 10_080)),
        Field(
            "drill_resolvers",
            str,
            "",
            "resolvers whose logs or taps are followed, as address[:port], comma-separated: a drill asks them",
            endpoints_of,
        ),
        Field("drill_daily", bool, True, "tell the channels once a day what came of it, also where all is well"),
    ),
    factory=lambda values: DrillOptions(
        values["drill_minutes"], endpoints_of(values["drill_resolvers"]), values["drill_daily"]
    ),
)
