"""Sessions of browsers: a random secret in a cookie, its hash in the store, an end that does not move."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import and_, delete, desc, insert, select, update

from agents.core.types import clean
from agents.store.people.roles import Role
from agents.store.people.tables import SESSIONS, USERS
from agents.store.sql import Database

SESSION_S = 12 * 3600
"""Somebody must log in again after this many seconds."""
BROWSER_MAX = 200
"""Characters kept of what a browser calls itself."""
_S, _U = SESSIONS.c, USERS.c


@dataclass(frozen=True, slots=True)
class UserSession:
    """A session that holds, with its user's role of now. Times are Unix seconds."""

    session: str  # SHA-256 of its secret
    name: str
    role: Role
    began_at: float
    until: float
    address: str
    browser: str


def hash_of(secret: str) -> str:
    """What is stored of a random secret: SHA-256, since 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class SessionStore:
    """Sessions in a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def begin(self, name: str, address: str, browser: str) -> str:
        """A new session of a user; the secret of its cookie."""
        secret, now = secrets.token_urlsafe(32), time.time()
        row = {
            "session": hash_of(secret),
            "name": name,
            "began_at": now,
            "until": now + SESSION_S,
            "address": clean(address),
            "browser": clean(browser)[:BROWSER_MAX],
        }
        with self._store.writing("begin a session") as connection:
            connection.execute(insert(SESSIONS).values(row))
        return secret

    def find(self, secret: str) -> UserSession | None:
        """The session of a cookie, if it holds and its user may log in."""
        found = self._read(and_(_S.session == hash_of(secret), _S.until > time.time()))
        return found[0] if found else None

    def of(self, name: str) -> list[UserSession]:
        """A user's sessions that hold, newest first."""
        return self._read(and_(_S.name == name, _S.until > time.time()))

    def end(self, session: str) -> None:
        """End one, by its hash."""
        with self._store.writing("end a session") as connection:
            connection.execute(delete(SESSIONS).where(_S.session == session))

    def end_all(self, name: str, but: str = "") -> int:
        """End all of a user, but the one with that hash; how many. No browser is known any more."""
        with self._store.writing("end sessions") as connection:
            connection.execute(update(USERS).where(_U.name == name).values(ended_at=time.time()))
            return connection.execute(delete(SESSIONS).where(_S.name == name, _S.session != but)).rowcount

    def forget_old(self, now: float) -> int:
        """Delete those that are over; how many."""
        with self._store.writing("delete sessions that are over") as connection:
            return connection.execute(delete(SESSIONS).where(_S.until <= now)).rowcount

    def _read(self, wanted: object) -> list[UserSession]:
        columns = (*SESSIONS.c, _U.role)
        joined = SESSIONS.join(USERS, and_(_U.name == _S.name, _U.disabled_at.is_(None)))
        statement = select(*columns).select_from(joined).where(wanted).order_by(desc(_S.began_at))  # type: ignore[arg-type]
        with self._store.reading("read sessions") as connection:
            rows = connection.execute(statement).mappings().all()
        return [UserSession(**dict(row) | {"role": Role(row["role"])}) for row in rows]
