"""Reads queries of flows: of one client below one domain in one hour each, many of them in one statement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Double, Integer, Text, and_, column, desc, select, values

from agents.core.types import HOUR_S
from agents.store.console.sums import HourFlow
from agents.store.rows import QUERIES
from agents.store.sql import LIVE, PAGE_COLUMNS

_Q = QUERIES.c


def rows_at(
    connection: Connection,
    flows: Sequence[HourFlow],
    conditions: Sequence[ColumnElement[bool]],
    limit: int,
    first: ColumnElement[Any] | None = None,
    span: tuple[float, float] = (0.0, math.inf),
) -> list[dict[str, Any]]:
    """Live queries of flows as `rows_of` gives them, newest first. first: what is ordered by before the time.

    span: what of the flows' hours is looked at. No condition may name a time: an index would be searched by that.
    """
    if not flows:
        return []
    named = ("day", Integer), ("client", Text), ("domain", Text), ("begin", Double), ("end", Double)
    hours = [(max(one.hour * HOUR_S, span[0]), min((one.hour + 1) * HOUR_S, span[1])) for one in flows]
    places = [(one.hour // 24, one.client, one.domain, *map(float, of)) for one, of in zip(flows, hours, strict=True)]
    flow = values(*(column(name, kind) for name, kind in named), name="flow").data(places).cte("flow")
    at = (_Q.day == flow.c.day, _Q.client == flow.c.client, _Q.domain == flow.c.domain)
    joined = flow.join(QUERIES, and_(*at, _Q.ts >= flow.c.begin, _Q.ts < flow.c.end))
    order = [desc(_Q.ts), desc(_Q.id)] if first is None else [first, desc(_Q.ts)]
    statement = select(*PAGE_COLUMNS).select_from(joined).where(LIVE, *conditions).order_by(*order).limit(limit)
    return [dict(row) for row in connection.execute(statement).mappings()]
