"""The shapes of answers about months."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class NamedHuntEntry(BaseModel):
    name: str = Field(examples=["rarest-domains"])
    what: str = Field(examples=["domains below which the fewest clients asked"])


class HuntedColumn(BaseModel):
    name: str = Field(examples=["qtype"])
    meaning: str = Field(examples=["number of the record type: 16 is TXT"])


class NamedHuntList(BaseModel):
    engine: str = Field(examples=["DuckDB"], description='whose SQL is understood: DuckDB or ClickHouse; "" = none')
    hunts: list[NamedHuntEntry]
    columns: list[HuntedColumn] = Field(description="of the table `queries`")


class CoveredDays(BaseModel):
    first: str | None = Field(examples=["2026-06-01"], description="UTC; null = there are no queries")
    last: str | None = Field(examples=["2026-11-30"])
    count: int = Field(examples=[182], description="days that there are queries of")
    missing: list[str] = Field(examples=[["2026-07-14"]], description="days between that there are none of")


class MonthsAnswer(BaseModel):
    columns: list[str] = Field(examples=[["domain", "n"]])
    rows: list[dict[str, Any]] = Field(examples=[[{"domain": "evil.example", "n": 412}]])
    cut: bool = Field(description="there are more rows")
    sql: str = Field(
        examples=["SELECT domain, count(*) AS n FROM queries GROUP BY domain"], description="what was asked"
    )
    seconds: float = Field(examples=[1.2])
    days: CoveredDays
