"""Settings of hunting stores."""

from __future__ import annotations

from dataclasses import dataclass

from agents.core.protocols import Field, Spec, Within


@dataclass(frozen=True, slots=True)
class HuntOptions:
    """The settings HUNT_…. days: 0 = no files are written."""

    days: int
    memory_mb: int


SPEC: Spec[HuntOptions] = Spec(
    "hunt",
    "hunting in months of queries (extra hunt)",
    (
        Field(
            "hunt_days",
            int,
            0,
            "days that queries are kept as Parquet files in DATA_DIR/data/hunt, a file for each day that is over; "
            "0 = none is written",
            Within(0, 3650),
        ),
        Field("hunt_memory_mb", int, 512, "memory for writing a day, and for one hunt, megabytes", Within(128, 65_536)),
    ),
    lambda values: HuntOptions(values["hunt_days"], values["hunt_memory_mb"]),
)
