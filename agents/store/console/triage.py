"""Triage: what people say of incidents, in bulk, with its history; undone by the click that made it, never deleted."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, desc, func, insert, select, update

from agents.core.errors import UsageError
from agents.core.text import NETWORK, counted, printable, said_text
from agents.core.types import clean
from agents.store.console.audit import note_change
from agents.store.console.tables import TRIAGE, TRIAGE_CHANGES
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import (
    DOMAINS_AT_ONCE,
    TEXT_MAX_AUTHOR,
    TEXT_MAX_REASON,
    ReviewState,
    decide_in,
    undo_all_in,
)
from agents.store.feedback.tables import REVIEW_DECISIONS
from agents.store.rows import INCIDENTS
from agents.store.sql import LONG_S, Database

AT_ONCE_MAX, FOUND_MAX = 1_000, 10_000
"""Incidents of one click, at most: those that are named, and all that a search finds."""
READ_AT_ONCE = 5_000
"""Ids in one statement, at most."""
COMMENT_MAX = 4_000
"""Characters of a comment, at most."""
_T, _C, _D = TRIAGE.c, TRIAGE_CHANGES.c, REVIEW_DECISIONS.c
_UNDONE = "what was said of its incident was undone"


@dataclass(frozen=True, slots=True)
class Triage:
    """What people said of an incident last."""

    state: ReviewState = ReviewState.NEW
    label: Label | None = None
    assignee: str = ""
    reason: str = ""
    changed_at: float = 0.0  # Unix seconds; 0 = never
    changed_by: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What a click changes; None = it stays. label "" takes one away; a label closes, unless `state` is given."""

    state: ReviewState | None = None
    label: Label | str | None = None
    assignee: str | None = None
    comment: str = ""
    reason: str = ""

    @property
    def is_comment(self) -> bool:
        """Whether it only adds a comment, or nothing at all."""
        return self.state is None and self.label is None and self.assignee is None


@dataclass(frozen=True, slots=True)
class TriageEvent:
    """One change of one incident. Times are Unix seconds."""

    change_id: int
    action_id: str
    at: float
    incident_id: str
    author: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    comment: str
    undone_at: float | None
    undone_by: str


class TriageStore:
    """What people said of incidents, in a store. Every method raises StoreError; what people do, UsageError too."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def of(self, incident_ids: Iterable[str]) -> dict[str, Triage]:
        """What was said of these; those of which nothing was said are new."""
        wanted = [clean(one) for one in incident_ids]
        with self._store.reading("read what was said of incidents") as connection:
            found = _said_of(connection, wanted)
        return {one: found.get(one, Triage()) for one in wanted}

    def history(self, incident_id: str, limit: int = 200) -> list[TriageEvent]:
        """All changes of an incident, newest first; those that were undone say so."""
        statement = select(TRIAGE_CHANGES).where(_C.incident_id == clean(incident_id)).order_by(desc(_C.change_id))
        with self._store.reading("read an incident's history") as connection:
            return [_event(dict(row)) for row in connection.execute(statement.limit(limit)).mappings()]

    def change(
        self, incident_ids: Sequence[str], change: Change, author: str, way: str, *, found_by: str | None = None
    ) -> str:
        """Change incidents, all of them or none; an id by which all of it is undone.

        A label is told to the learning loop, too, as a decision about the domain. found_by: the search that found
        them, for the audit log; None = each was named.
        """
        author = said_text(author, "an author", TEXT_MAX_AUTHOR)
        comment = said_text(change.comment, "a comment", COMMENT_MAX) if change.comment else ""
        wanted = list(dict.fromkeys(map(clean, incident_ids)))
        most = AT_ONCE_MAX if found_by is None else FOUND_MAX
        if not 0 < len(wanted) <= most:
            raise UsageError(f"cannot change incidents: name 1 to {most}")
        if change.is_comment and not comment:
            raise UsageError("cannot change incidents: nothing is to be changed")
        now, action_id = time.time(), secrets.token_hex(8)
        with self._store.writing("keep what was said of incidents", LONG_S) as connection:
            domains = _domains(connection, wanted)
            said = _said_of(connection, wanted)
            taught = _teach(connection, set(domains.values()), change, author, now)
            if change.label == "":
                labelled = {domains[one] for one in wanted if said.get(one, Triage()).label}
                _unteach(connection, labelled, "its incident is no longer labelled", author, now)
            changed, rows = dict[str, Triage](), list[dict[str, Any]]()
            for incident_id in wanted:
                before = said.get(incident_id, Triage())
                after = _changed(before, change, author, now)
                if after != before:
                    changed[incident_id] = after
                row = {
                    "action_id": action_id,
                    "at": now,
                    "incident_id": incident_id,
                    "author": author,
                    "before": _told(before),
                    "after": _told(after),
                    "comment": comment,
                    "decision_id": taught.get(domains[incident_id]),
                    "undone_by": "",
                }
                rows.append(row)
            self._put(connection, changed)
            connection.execute(insert(TRIAGE_CHANGES), rows)
            named = wanted[0] if len(wanted) == 1 else counted(len(wanted), "incident")
            why = "" if found_by is None else f"; all that was found by: {found_by or 'no filter'}"
            note_change(connection, author, way, "incident changed", named, _in_words(change) + why)
        return action_id

    def undo(self, action_id: str, author: str, way: str) -> list[str]:
        """Take back what one click changed; the incidents. UsageError where one of them was changed again since."""
        author = said_text(author, "an author", TEXT_MAX_AUTHOR)
        now = time.time()
        with self._store.writing("undo a change of incidents", LONG_S) as connection:
            made = select(TRIAGE_CHANGES).where(_C.action_id == clean(action_id), _C.undone_at.is_(None))
            events = [_event(dict(row)) for row in connection.execute(made).mappings()]
            if not events:
                raise UsageError(f"cannot undo {printable(action_id, 40)}: there is no such change, or it is undone")
            ids = [one.incident_id for one in events]
            last = max(one.change_id for one in events)
            later = select(_C.incident_id).where(
                _C.incident_id.in_(ids), _C.change_id > last, _C.undone_at.is_(None), _C.before != _C.after
            )
            if (changed := connection.execute(later.limit(1)).scalar()) is not None:
                raise UsageError(f"cannot undo: incident {changed} was changed again since")
            before = {one.incident_id: _triage(one.before) for one in events}
            again = {one: replace(said, changed_at=now, changed_by=author) for one, said in before.items()}
            self._put(connection, again)
            undone = {"undone_at": now, "undone_by": author}
            connection.execute(update(TRIAGE_CHANGES).where(_C.action_id == action_id).values(undone))
            domains = _domains(connection, ids)
            _unteach(connection, _taught_by(connection, action_id), _UNDONE, author, now)
            _teach_again(connection, events, domains, author, now)
            note_change(connection, author, way, "change of incidents undone", counted(len(ids), "incident"), action_id)
        return ids

    def forget(self) -> int:
        """Delete what was said of incidents that are no longer kept; of how many."""
        kept = select(INCIDENTS.c.incident_id)
        with self._store.writing("delete what was said of old incidents", LONG_S) as connection:
            connection.execute(delete(TRIAGE_CHANGES).where(_C.incident_id.not_in(kept)))
            return connection.execute(delete(TRIAGE).where(_T.incident_id.not_in(kept))).rowcount

    def _put(self, connection: Connection, said: Mapping[str, Triage]) -> None:
        rows = [{"incident_id": one, **asdict(triage), "label": triage.label or ""} for one, triage in said.items()]
        if rows:
            statement = self._store.upsert(TRIAGE)
            new = {name: statement.excluded[name] for name in rows[0] if name != "incident_id"}
            connection.execute(statement.on_conflict_do_update(index_elements=["incident_id"], set_=new), rows)


def _said_of(connection: Connection, incident_ids: Sequence[str]) -> dict[str, Triage]:
    found: dict[str, Triage] = {}
    for at in range(0, len(incident_ids), READ_AT_ONCE):
        some = incident_ids[at : at + READ_AT_ONCE]
        rows = connection.execute(select(TRIAGE).where(_T.incident_id.in_(some))).mappings()
        found |= {row["incident_id"]: _triage({name: row[name] for name in _FIELDS}) for row in rows}
    return found


_FIELDS = tuple(one.name for one in fields(Triage))


def _triage(row: Mapping[str, Any]) -> Triage:
    label = Label(row["label"]) if row["label"] else None
    return Triage(**dict(row) | {"state": ReviewState(row["state"]), "label": label})


def _told(triage: Triage) -> str:
    return json.dumps(asdict(triage) | {"label": triage.label or "", "state": str(triage.state)})


def _event(row: Mapping[str, Any]) -> TriageEvent:
    values = {name: row[name] for name in (one.name for one in fields(TriageEvent))}
    return TriageEvent(**values | {"before": json.loads(row["before"]), "after": json.loads(row["after"])})


def _domains(connection: Connection, incident_ids: Sequence[str]) -> dict[str, str]:
    """The domain of each incident. Raises UsageError for one that is not there."""
    columns = (INCIDENTS.c.incident_id, INCIDENTS.c.domain)
    found: dict[str, str] = {}
    for at in range(0, len(incident_ids), READ_AT_ONCE):
        rows = connection.execute(
            select(*columns).where(INCIDENTS.c.incident_id.in_(incident_ids[at : at + READ_AT_ONCE]))
        )
        found |= {row.incident_id: row.domain for row in rows}
    for one in incident_ids:
        if one not in found:
            raise UsageError(f"cannot find incident {printable(one, 40)}")
    return found


def _changed(before: Triage, change: Change, author: str, now: float) -> Triage:
    if change.is_comment:
        return before
    changed = replace(before, changed_at=now, changed_by=author)
    if change.label is not None:
        label = Label(change.label) if change.label else None
        changed = replace(changed, label=label, state=ReviewState.CLOSED if label else before.state)
    if change.state is not None:
        changed = replace(changed, state=change.state)
    if change.assignee is not None:
        changed = replace(
            changed, assignee=said_text(change.assignee, "a name", TEXT_MAX_AUTHOR) if change.assignee else ""
        )
        if change.state is None and change.label is None and change.assignee and before.state is ReviewState.NEW:
            changed = replace(changed, state=ReviewState.IN_WORK)
    if change.reason:
        changed = replace(changed, reason=said_text(change.reason, "a reason", TEXT_MAX_REASON))
    return changed


def _teach(connection: Connection, domains: set[str], change: Change, author: str, now: float) -> dict[str, int]:
    """Tell the learning loop a label; its decisions by domain: a network and the root are none."""
    wanted = sorted(domain for domain in domains if domain not in (NETWORK, "."))
    if not change.label:
        return {}
    label, reason = Label(change.label), change.reason or f"an incident was labelled {change.label}"
    made: dict[str, int] = {}
    for at in range(0, len(wanted), DOMAINS_AT_ONCE):
        some = wanted[at : at + DOMAINS_AT_ONCE]
        made |= {
            one.domain: one.decision_id for one in decide_in(connection, some, label, reason, author, now, typed=False)
        }
    return made


def _unteach(connection: Connection, domains: Iterable[str], why: str, author: str, now: float) -> None:
    """Take back standing decisions about domains that labels of incidents made; those that people made stay."""
    by_label = select(_C.decision_id).where(_C.decision_id.is_not(None))
    stands = (_D.undone_at.is_(None), _D.decision_id.in_(by_label))
    named, found = sorted(domains), list[str]()
    for at in range(0, len(named), READ_AT_ONCE):
        some = select(_D.domain).where(_D.domain.in_(named[at : at + READ_AT_ONCE]), *stands)
        found += connection.execute(some).scalars()
    undo_all_in(connection, found, why, author, now)


def _taught_by(connection: Connection, action_id: str) -> list[str]:
    """Domains whose decision, made by this click, still stands."""
    made = select(_C.decision_id).where(_C.action_id == action_id)
    stands = (_D.decision_id.in_(made), _D.undone_at.is_(None))
    return list(connection.execute(select(_D.domain).where(*stands)).scalars())


def _teach_again(
    connection: Connection, undone: Sequence[TriageEvent], domains: Mapping[str, str], author: str, now: float
) -> None:
    """Incidents have their labels of before again: so have their domains, unless somebody decided otherwise since."""
    standing = set(connection.execute(select(_D.domain).where(_D.undone_at.is_(None))).scalars())
    by_label: dict[str, dict[str, TriageEvent]] = {}
    for one in undone:
        label, domain = str(one.before["label"]), domains[one.incident_id]
        if label and label != one.after["label"] and domain not in standing:
            standing.add(domain)
            by_label.setdefault(label, {})[domain] = one
    rows = list[dict[str, Any]]()
    for label, events in by_label.items():
        made = _teach(connection, set(events), Change(label=label, reason=_UNDONE), author, now)
        rows += [
            {"of_incident": events[domain].incident_id, "made_before": events[domain].change_id, "made_by": decision}
            for domain, decision in made.items()
        ]
    if rows:
        earlier = TRIAGE_CHANGES.alias().c
        conditions = (earlier.incident_id == bindparam("of_incident"), earlier.change_id < bindparam("made_before"))
        last = select(func.max(earlier.change_id)).where(*conditions, earlier.decision_id.is_not(None))
        taught = update(TRIAGE_CHANGES).where(_C.change_id == last.scalar_subquery())
        connection.execute(taught.values(decision_id=bindparam("made_by")), rows)


def _in_words(change: Change) -> str:
    said = [f"{name}: {value}" for name, value in asdict(change).items() if value not in (None, "")]
    said += ["label taken away"] if change.label == "" else []
    return "; ".join(said)
