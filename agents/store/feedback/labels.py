"""What is known of flow-hours: labels found without a person. One word for each, here and everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, case, func, literal, select

from agents.core.types import clean
from agents.store.feedback.tables import FLOW_HOURS, FLOW_LABELS, REVIEW_DECISIONS, LabelOrigin, labelled_by_people
from agents.store.sql import LONG_S, MERGED_S, Database

_F, _L = FLOW_HOURS.c, FLOW_LABELS.c


class Label(StrEnum):
    """What a flow-hour is, or that nobody is to learn from it."""

    TUNNEL = "tunnel"
    BENIGN = "benign"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class LabelledSpan:
    """A label for all flow-hours of one client below one domain in some hours. client: None = of any client."""

    client: str | None
    domain: str
    first_hour: int  # since 1970-01-01
    last_hour: int
    label: Label
    origin: LabelOrigin
    confidence: float  # 0..1


@dataclass(frozen=True, slots=True)
class LabelledHours:
    """n labelled flow-hours. Columns have length n."""

    id: NDArray[np.int64]
    hour: NDArray[np.int64]  # since 1970-01-01
    at: NDArray[np.float64]  # when it was labelled, Unix seconds; a person may have done that before the hour
    client: Sequence[str]
    domain: Sequence[str]
    origin: Sequence[str]  # LabelOrigin
    tunnel: NDArray[np.bool_]  # else benign
    numbers: NDArray[np.float32]  # shape (n, numbers of the schema)

    def __len__(self) -> int:
        return len(self.id)


class LabelStore:
    """The labels in a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def mark(self, spans: Sequence[LabelledSpan], schema: int, now: float) -> int:
        """Label the flow-hours of each span; a label of higher confidence stays. How many were labelled.

        now: Unix seconds.
        """
        marked = 0
        with self._store.writing("label flow-hours", MERGED_S) as connection:
            for span in spans:
                values = (literal(str(span.label)), literal(str(span.origin)), literal(span.confidence), literal(now))
                rows = select(_F.id, *values).where(*_within(span, schema))
                statement = self._store.upsert(FLOW_LABELS).from_select([one.name for one in _L], rows)
                new = statement.excluded
                changed = {one.name: new[one.name] for one in _L if not one.primary_key}
                weaker = _L.confidence < new.confidence
                marked += connection.execute(
                    statement.on_conflict_do_update(index_elements=["flow_hour_id"], set_=changed, where=weaker)
                ).rowcount
        return marked

    def counts(self, schema: int, since: float, until: float) -> list[tuple[str, str, int]]:
        """(label, origin, flow-hours) of hours that began at since <= time < until, Unix seconds.

        Where a decision of a person stands, no other label counts.
        """
        span = (_F.schema == schema, _F.hour >= since / 3600, _F.hour < until / 3600)
        found = select(_L.label, _L.origin, func.count()).join(FLOW_HOURS, _F.id == _L.flow_hour_id)
        found = found.where(*span, _F.domain.not_in(labelled_by_people())).group_by(_L.label, _L.origin)
        stands = (REVIEW_DECISIONS.c.domain == _F.domain) & REVIEW_DECISIONS.c.undone_at.is_(None)
        said = select(REVIEW_DECISIONS.c.label, literal(str(LabelOrigin.PERSON)), func.count())
        said = said.join(FLOW_HOURS, stands).where(*span).group_by(REVIEW_DECISIONS.c.label)
        with self._store.reading("count labels") as connection:
            rows = [row for statement in (found, said) for row in connection.execute(statement)]
        return sorted((str(label), str(origin), int(count)) for label, origin, count in rows)

    def put(self, ids: Sequence[int], labels: Sequence[Label], confidences: Sequence[float], now: float) -> None:
        """Label flow-hours by a learnt probability, where no label is yet. now: Unix seconds."""
        origin, rows = str(LabelOrigin.LEARNED), zip(ids, labels, confidences, strict=True)
        values = [
            {"flow_hour_id": one, "label": str(label), "origin": origin, "confidence": sure, "labelled_at": now}
            for one, label, sure in rows
        ]
        if values:
            with self._store.writing("label flow-hours", MERGED_S) as connection:
                connection.execute(self._store.upsert(FLOW_LABELS).on_conflict_do_nothing(), values)

    def labelled(self, schema: int) -> LabelledHours:
        """All flow-hours of a schema that are a tunnel's or benign, in the order in which they were written.

        Where a decision of a person stands, no other label counts.
        """
        stands = (REVIEW_DECISIONS.c.domain == _F.domain) & REVIEW_DECISIONS.c.undone_at.is_(None)
        label = func.coalesce(REVIEW_DECISIONS.c.label, _L.label)
        origin = case((REVIEW_DECISIONS.c.label.is_not(None), str(LabelOrigin.PERSON)), else_=_L.origin)
        at = func.coalesce(REVIEW_DECISIONS.c.at, _L.labelled_at)
        statement = (
            select(
                _F.id, _F.hour, _F.client, _F.domain, _F.numbers,
                label.label("label"), origin.label("origin"), at.label("at"),
            )
            .select_from(FLOW_HOURS)
            .outerjoin(FLOW_LABELS, _L.flow_hour_id == _F.id)
            .outerjoin(REVIEW_DECISIONS, stands)
            .where(_F.schema == schema, label.in_([str(Label.TUNNEL), str(Label.BENIGN)]))
            .order_by(_F.id)
        )  # fmt: skip
        with self._store.reading("read labels", LONG_S) as connection:
            rows = connection.execute(statement).all()
        width = len(rows[0].numbers) // 4 if rows else 0
        return LabelledHours(
            id=np.array([row.id for row in rows], np.int64),
            hour=np.array([row.hour for row in rows], np.int64),
            at=np.array([row.at for row in rows], np.float64),
            client=[row.client for row in rows],
            domain=[row.domain for row in rows],
            origin=[row.origin for row in rows],
            tunnel=np.array([row.label == str(Label.TUNNEL) for row in rows], np.bool_),
            numbers=np.frombuffer(b"".join(row.numbers for row in rows), "<f4").reshape(len(rows), width),
        )

    def certain_ids(self, schema: int, *, since: int, until: int) -> set[int]:
        """Ids of the flow-hours with since <= hour < until that a rule labels."""
        statement = select(_F.id).join(FLOW_LABELS, _F.id == _L.flow_hour_id)
        statement = statement.where(_F.schema == schema, _F.hour >= since, _F.hour < until)
        statement = statement.where(_L.origin != str(LabelOrigin.LEARNED))
        with self._store.reading("read labels") as connection:
            return set(connection.execute(statement).scalars())


def _within(span: LabelledSpan, schema: int) -> list[ColumnElement[bool]]:
    conditions = [
        _F.schema == schema,
        _F.domain == clean(span.domain),
        _F.hour.between(span.first_hour, span.last_hour),
    ]
    return conditions if span.client is None else [*conditions, _F.client == clean(span.client)]
