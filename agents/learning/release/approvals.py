"""Who decides about a candidate that waits, whatever kind of model it is, and who has approved it: rows of an index."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import structlog

from agents.core.errors import StoreError, UsageError
from agents.core.text import command, printable
from agents.learning.release.index import RegistryIndex, add_row
from agents.learning.release.transitions import REASON_MAX, Author, Transition
from agents.store.people.roles import AccessScope
from agents.store.people.users import UserStore
from agents.store.sql import Database

_log = structlog.get_logger("agents.learning.registry")


def transition_now(
    action: str,
    model_id: str,
    author: Author,
    replaced: str = "",
    note: str = "",
    by_person: bool = True,
    kind: str = "",
) -> Transition:
    """What happens to a model now; it is logged. kind: as the log calls such models, "" of query models."""
    by, reason = author.by[:REASON_MAX], author.reason[:REASON_MAX]
    made = Transition(action, model_id, time.time(), by, reason, replaced, note, by_person)
    told = {name: value for name, value in made.to_json().items() if name not in ("at", "number")}
    told |= {"kind": kind} if kind else {}
    _log.info("model_decision" if by_person else "model_transition", **told)
    return made


def note_approval(
    rows: RegistryIndex, needed: int, model_id: str, author: Author, voters: Collection[str] | None, kind: str = ""
) -> int:
    """Note that somebody approves; how many authors have by now. Raises UsageError, ModelError, BusyError, OSError.

    needed: so many must (APPROVALS). voters: whose approvals count, those given before among them; None = everybody's.
    kind: as for `transition_now`.
    """
    if needed == 1:
        return 1
    who = author.by.strip()
    with rows.changing() as index:
        counted = index["approvals"].get(model_id, [])
        found = [one for one in counted if voters is None or one["by"] in voters]
        index["approvals"][model_id] = found
        if not who:
            raise UsageError(f"cannot approve model {model_id}: {needed} authors must, so name yourself")
        if who.casefold() in {one["by"].casefold() for one in found}:
            if len(found) >= needed:  # what followed the last approval failed
                return len(found)
            raise UsageError(f"cannot approve model {model_id} again: {printable(who)} has, another author must")
        found.append({"by": who[:REASON_MAX], "reason": author.reason[:REASON_MAX], "at": time.time()})
        if len(found) < needed:
            add_row(index, transition_now("approve first", model_id, author, kind=kind))
        return len(found)


def deciding_author(
    store: Database, needed: int, action: str, by: str, reason: str
) -> tuple[Author, frozenset[str] | None]:
    """The author as it is recorded, and whose approvals count: where somebody can log in, users who may operate.

    needed: so many authors must approve (APPROVALS). Another name is recorded as no user's, and is none of several who
    must approve. While the database is away, and one author is enough, a name is taken as it is. Raises UsageError,
    StoreError.
    """
    several = action == "approve" and needed > 1
    try:
        users = [one for one in UserStore(store).all() if one.can_log_in]
    except StoreError:
        if several:
            raise
        return Author(by, reason), None
    if not users:
        return Author(by, reason), None
    may, name = frozenset(one.name for one in users if one.may(AccessScope.OPERATE)), by.strip().lower()
    if name in may:
        return Author(name, reason), may
    if several:
        raise UsageError(
            f"cannot approve: {printable(by) or 'nobody'} is no user who may operate, and APPROVALS="
            f"{needed} asks for so many of them ({command('users list')})"
        )
    return Author(f"{by} (no user)" if by else "", reason), may


def close_row(index: dict[str, Any], model_id: str) -> None:
    """Nobody decides about this version any more."""
    index["approvals"].pop(model_id, None)
    for alias in ("candidate", "canary"):
        if index["aliases"].get(alias) == model_id:
            del index["aliases"][alias]
    if index["canary"] and index["canary"]["model_id"] == model_id:
        index["canary"] = None
