"""The review queue: domains that a person is asked about; and what people decided, which is undone, never deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Row, delete, desc, func, insert, select, update

from agents.core.errors import NameFormatError, UsageError
from agents.core.text import printable, said_text
from agents.core.types import clean
from agents.dns.name import domain_text, from_text, to_text
from agents.store.feedback.labels import Label
from agents.store.feedback.tables import REVIEW_DECISIONS, REVIEW_ITEMS
from agents.store.sql import Database

TEXT_MAX_REASON, TEXT_MAX_AUTHOR = 500, 80
"""Characters of a reason and of an author's name, at most."""
DOMAINS_AT_ONCE = 500
"""Domains of one decision, at most."""
_I, _D = REVIEW_ITEMS.c, REVIEW_DECISIONS.c
_STANDS = _D.undone_at.is_(None)


class ReviewState(StrEnum):
    """Where a domain is in the queue."""

    NEW = "new"
    IN_WORK = "in work"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A domain in the queue. Times are Unix seconds."""

    domain: str
    informativeness: float  # 0..1
    why: str
    clients: int
    names: tuple[str, ...] = ()  # samples, presentation form
    queued_at: float = 0.0
    state: ReviewState = ReviewState.NEW
    taken_by: str = ""


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """What a person said of a domain. Times are Unix seconds."""

    decision_id: int
    at: float
    domain: str
    label: Label
    reason: str
    author: str
    undone_at: float | None = None
    undone_by: str = ""
    undone_why: str = ""


class ReviewStore:
    """The queue and the decisions in a store. Every method raises StoreError; what people do, UsageError too."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def items(self, state: ReviewState | None = None, *, limit: int = 100) -> list[ReviewItem]:
        """Domains in the queue, most informative first; None = those that are not closed."""
        wanted = _I.state == str(state) if state is not None else _I.state != str(ReviewState.CLOSED)
        statement = select(REVIEW_ITEMS).where(wanted).order_by(desc(_I.informativeness), _I.domain).limit(limit)
        with self._store.reading("read the review queue") as connection:
            return [_item(row) for row in connection.execute(statement)]

    def item(self, domain: str) -> ReviewItem | None:
        """One domain of the queue."""
        with self._store.reading("read the review queue") as connection:
            row = connection.execute(select(REVIEW_ITEMS).where(_I.domain == clean(domain))).first()
            return None if row is None else _item(row)

    def fill(self, found: Sequence[ReviewItem], now: float, most: int, span_s: float) -> int:
        """Put the most informative of `found` into the queue; how many.

        In `span_s` seconds at most `most` domains are new. A more informative one takes the place of the least
        informative one that nobody has looked at. A domain that was in the queue before, or decided about, stays out.
        """
        added = 0
        with self._store.writing("fill the review queue") as connection:
            known = set(connection.execute(select(_D.domain).where(_STANDS).union(select(_I.domain))).scalars())
            # What a clock that was ahead put there does not count for months.
            within = (_I.queued_at > now - span_s, _I.queued_at <= now + span_s)
            lately = connection.execute(select(REVIEW_ITEMS).where(*within)).all()
            room, new = most - len(lately), sorted(
                ((row.informativeness, row.domain) for row in lately if row.state == str(ReviewState.NEW)), reverse=True
            )  # fmt: skip
            for item in sorted(found, key=lambda one: (-one.informativeness, one.domain)):
                if clean(item.domain) in known:
                    continue
                if room <= 0:
                    if not new or new[-1][0] >= item.informativeness:
                        break
                    weakest = (_I.domain == new.pop()[1], _I.state == str(ReviewState.NEW))
                    room += connection.execute(delete(REVIEW_ITEMS).where(*weakest)).rowcount
                    if room <= 0:  # somebody looks at it now
                        continue
                connection.execute(insert(REVIEW_ITEMS).values(_row(item, now)))
                room, added = room - 1, added + 1
        return added

    def take(self, domain: str, author: str) -> None:
        """Somebody looks at a domain. Raises UsageError where it is not in the queue or closed."""
        author = said_text(author, "an author", TEXT_MAX_AUTHOR)
        values = {"state": str(ReviewState.IN_WORK), "taken_by": author}
        with self._store.writing("take a review") as connection:
            waits = (_I.domain == _named(connection, domain), _I.state != str(ReviewState.CLOSED))
            if not connection.execute(update(REVIEW_ITEMS).where(*waits).values(values)).rowcount:
                raise UsageError(f"cannot take {printable(domain)}: it does not wait in the review queue")

    def decide(
        self, domains: Sequence[str], label: Label, reason: str, author: str, now: float
    ) -> list[ReviewDecision]:
        """Label domains, all of them or none; a standing decision about one is undone by that. now: Unix seconds."""
        with self._store.writing("keep a decision") as connection:
            return decide_in(connection, domains, label, reason, author, now)

    def undo(self, domain: str, reason: str, author: str, now: float) -> ReviewDecision:
        """Take back the standing decision about a domain; it waits in the queue again, if it did before."""
        with self._store.writing("undo a decision") as connection:
            return undo_in(connection, domain, reason, author, now)

    def decisions(self, *, standing: bool = False, limit: int = 100) -> list[ReviewDecision]:
        """What people decided, newest first; standing: what was not undone alone."""
        statement = select(REVIEW_DECISIONS).order_by(desc(_D.at), desc(_D.decision_id)).limit(limit)
        with self._store.reading("read decisions") as connection:
            return [_decision(row) for row in connection.execute(statement.where(_STANDS) if standing else statement)]

    def counts(self) -> dict[str, int]:
        """How many domains are in each state; every state once."""
        statement = select(_I.state, func.count()).group_by(_I.state)
        with self._store.reading("count the review queue") as connection:
            found = {str(state): int(count) for state, count in connection.execute(statement)}
        return {str(state): found.get(str(state), 0) for state in ReviewState}


def decide_in(
    connection: Connection,
    domains: Sequence[str],
    label: Label,
    reason: str,
    author: str,
    now: float,
    *,
    typed: bool = True,
) -> list[ReviewDecision]:
    """ReviewStore.decide within a transaction. typed: by a person; else they are as flows have them."""
    reason, author = said_text(reason, "a reason", TEXT_MAX_REASON), said_text(author, "an author", TEXT_MAX_AUTHOR)
    if not 0 < len(domains) <= DOMAINS_AT_ONCE:
        raise UsageError(f"cannot decide: name 1 to {DOMAINS_AT_ONCE} domains")
    wanted = sorted({_named(connection, domain) if typed else clean(domain) for domain in domains})
    _undo(connection, wanted, author, f"decided again: {label}", now)
    rows = [{"at": now, "domain": domain, "label": str(label), "reason": reason, "author": author} for domain in wanted]
    connection.execute(insert(REVIEW_DECISIONS), rows)
    closed = {"state": str(ReviewState.CLOSED), "taken_by": author}
    connection.execute(update(REVIEW_ITEMS).where(_I.domain.in_(wanted)).values(closed))
    made = connection.execute(select(REVIEW_DECISIONS).where(_STANDS, _D.domain.in_(wanted)).order_by(_D.domain))
    return [_decision(row) for row in made]


def undo_in(connection: Connection, domain: str, reason: str, author: str, now: float) -> ReviewDecision:
    """ReviewStore.undo within a transaction."""
    reason, author = said_text(reason, "a reason", TEXT_MAX_REASON), said_text(author, "an author", TEXT_MAX_AUTHOR)
    decided = select(REVIEW_DECISIONS).where(_STANDS, _D.domain == _named(connection, domain))
    row = connection.execute(decided).first()
    if row is None:
        raise UsageError(f"cannot undo: nothing is decided about {printable(domain)}")
    _undo(connection, [row.domain], author, reason, now)
    opened = {"state": str(ReviewState.NEW), "taken_by": ""}
    connection.execute(update(REVIEW_ITEMS).where(_I.domain == row.domain).values(opened))
    undone = select(REVIEW_DECISIONS).where(_D.decision_id == row.decision_id)
    return _decision(connection.execute(undone).one())


def undo_all_in(connection: Connection, domains: Sequence[str], reason: str, author: str, now: float) -> None:
    """Take back standing decisions about domains, as flows have them, within a transaction: any number of them."""
    reason, author = said_text(reason, "a reason", TEXT_MAX_REASON), said_text(author, "an author", TEXT_MAX_AUTHOR)
    for at in range(0, len(domains), DOMAINS_AT_ONCE):
        some = list(domains[at : at + DOMAINS_AT_ONCE])
        _undo(connection, some, author, reason, now)
        opened = {"state": str(ReviewState.NEW), "taken_by": ""}
        connection.execute(update(REVIEW_ITEMS).where(_I.domain.in_(some)).values(opened))


def registered(text: str) -> str:
    """A person's domain as flows have it: lower case, without a last dot. Raises UsageError for a name below one."""
    typed = text.strip()
    try:
        wire = from_text(typed.lower())
    except NameFormatError:
        wire = b""
    if not typed or not wire:
        raise UsageError(f"cannot use {printable(typed)!r}: it is no domain")
    domain, name = domain_text(wire), to_text(wire)
    if domain not in (name, "."):
        raise UsageError(f"cannot use {printable(name)}: flows are below {domain}")
    return name


def _named(connection: Connection, text: str) -> str:
    """The domain that a person names: as the queue or a decision has it, or in the form that flows have."""
    exact = clean(text)
    known = select(_I.domain).where(_I.domain == exact).union(select(_D.domain).where(_D.domain == exact))
    return registered(text) if connection.execute(known).first() is None else exact


def _undo(connection: Connection, domains: Sequence[str], author: str, why: str, now: float) -> None:
    undone = {"undone_at": now, "undone_by": author, "undone_why": why}
    connection.execute(update(REVIEW_DECISIONS).where(_STANDS, _D.domain.in_(domains)).values(undone))


def _row(item: ReviewItem, now: float) -> dict[str, object]:
    return {
        "domain": clean(item.domain),
        "state": str(item.state),
        "queued_at": now,
        "informativeness": item.informativeness,
        "why": clean(item.why),
        "clients": item.clients,
        "names": json.dumps(item.names),
    }


def _item(row: Row[tuple[object, ...]]) -> ReviewItem:
    values = dict(row._mapping)
    return ReviewItem(**values | {"names": tuple(json.loads(row.names)), "state": ReviewState(row.state)})


def _decision(row: Row[tuple[object, ...]]) -> ReviewDecision:
    return ReviewDecision(**dict(row._mapping) | {"label": Label(row.label)})
