"""Settings of hunting stores."""

from __future__ import annotations

from dataclasses import dataclass

from agents.core.protocols import Field, Spec, Within
from agents.store.hunting.clickhouse import clickhouse_address

HUNT_DAYS_MAX = 3650
"""Days that queries are kept for hunts, at most."""


@dataclass(frozen=True, slots=True)
class HuntOptions:
    """The settings HUNT_…. days: 0 = nothing is kept. url: of ClickHouse, "" = files."""

    days: int
    memory_mb: int
    url: str
    spool_mb: int

    @property
    def file_days(self) -> int:
        """Days that files are kept; 0 = none is written."""
        return 0 if self.url else self.days


SPEC: Spec[HuntOptions] = Spec(
    "hunt",
    "hunting in months of queries (files: extra hunt)",
    (
        Field(
            "hunt_days",
            int,
            0,
            "days that queries are kept for hunts: as Parquet files in DATA_DIR/data/hunt, one for each day that is "
            "over, or in ClickHouse (HUNT_URL); 0 = none is",
            Within(0, HUNT_DAYS_MAX),
        ),
        Field("hunt_memory_mb", int, 512, "memory for writing a day, and for one hunt, megabytes", Within(128, 65_536)),
        Field(
            "hunt_url",
            str,
            "",
            "clickhouse+http://USER:PASSWORD@HOST:8123/DATABASE, or clickhouse+https://…: queries go there, no files",
            clickhouse_address,
            secret=True,
        ),
        Field(
            "hunt_spool_mb", int, 512, "disk for queries while that ClickHouse is away, megabytes", Within(16, 1 << 20)
        ),
    ),
    lambda values: HuntOptions(
        values["hunt_days"], values["hunt_memory_mb"], str(values["hunt_url"]), values["hunt_spool_mb"]
    ),
)
