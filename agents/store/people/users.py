"""Users: a name, a role, a password that is set by a one-time link, and a back-off after wrong ones."""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from agents.core.errors import UsageError
from agents.core.text import printable
from agents.core.types import DAY_S
from agents.store.people.passwords import hashed, matches
from agents.store.people.roles import Role
from agents.store.people.sessions import hash_of
from agents.store.people.tables import SESSIONS, TOKENS, USERS
from agents.store.sql import Store

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
"""What a user may be called: an address of mail, too."""
LINK_S = DAY_S
"""How long a one-time link can be used, seconds."""
FAILED_FREE = 5
"""Wrong passwords in a row that nobody waits for."""
LOCKED_S, LOCKED_MAX_S = 30.0, 900.0
"""The wait after the next one; it doubles with each, up to the most: who guesses gets 100 tries a day and user."""
STRANGERS_MAX = 4096
"""Names of nobody whose wrong passwords are counted; the oldest is dropped first."""
_U = USERS.c


@dataclass(frozen=True, slots=True)
class ConsoleUser:
    """Somebody who may log in. Times are Unix seconds."""

    name: str
    role: Role
    has_password: bool
    subject: str  # of OpenID Connect; "" = none
    made_at: float
    made_by: str
    disabled_at: float | None
    link_until: float  # a one-time link is open until then; 0 = none
    last_login: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a password: the user, or how long to wait."""

    user: ConsoleUser | None
    wait_s: float = 0.0
    is_locked_now: bool = False  # a user's wait has begun with it: for the audit log, not for whoever asks


class Strangers:
    """Names that no user has wait as a user's does: else the wait would say who is a user. Safe between threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def locked_until(self, name: str) -> float:
        with self._guard:
            return self._failed.get(name, (0, 0.0))[1]

    def failed(self, name: str, now: float) -> float:
        """Count a wrong password; seconds until the next may come."""
        with self._guard:
            failed = self._failed.pop(name, (0, 0.0))[0] + 1
            wait = _wait_after(failed)
            self._failed[name] = failed, now + wait
            while len(self._failed) > STRANGERS_MAX:
                self._failed.popitem(last=False)
        return wait


class UserStore:
    """Users in a store. Every method raises StoreError; what people do, UsageError too."""

    def __init__(self, store: Store) -> None:
        self._store, self._strangers = store, Strangers()

    def all(self) -> list[ConsoleUser]:
        """Every user, by name."""
        with self._store.reading("read users") as connection:
            return [_user(dict(row)) for row in connection.execute(select(USERS).order_by(_U.name)).mappings()]

    def named(self, name: str) -> ConsoleUser | None:
        """The user of that name."""
        with self._store.reading("read a user") as connection:
            row = _row_of(connection, name)
        return None if row is None else _user(dict(row))

    def add(self, name: str, role: Role, by: str) -> str:
        """A new user; the secret of the one-time link by which they set a password."""
        name, secret, now = checked_name(name), secrets.token_urlsafe(32), time.time()
        with self._store.writing("add a user") as connection:
            if _row_of(connection, name) is not None:
                raise UsageError(f"cannot add {name}: there is a user of that name")
            connection.execute(insert(USERS).values(_row(name, role, by, now) | _link(secret, now)))
        return secret

    def first_admin(self) -> str | None:
        """A new one-time link for the first admin, while nobody who can log in is an admin; else None."""
        secret, now = secrets.token_urlsafe(32), time.time()
        with self._store.writing("make the first admin") as connection:
            admins = connection.execute(select(USERS).where(_U.role == str(Role.ADMIN))).mappings().all()
            if any(row["disabled_at"] is None and (row["password"] or row["subject"]) for row in admins):
                return None
            nobody = (_U.name == FIRST, _U.password == "", _U.subject == "")
            connection.execute(delete(USERS).where(*nobody))
            if _row_of(connection, FIRST) is not None:
                return None  # somebody of that name, who is no admin; `dns-tunnel users` makes one
            connection.execute(insert(USERS).values(_row(FIRST, Role.ADMIN, "first start", now) | _link(secret, now)))
        return secret

    def open_link(self, name: str) -> str:
        """A new one-time link for a user, in place of one that is open; its secret. The password stays until then."""
        secret = secrets.token_urlsafe(32)
        with self._store.writing("make a one-time link") as connection:
            active_user(connection, name)
            connection.execute(update(USERS).where(_U.name == _named(name)).values(_link(secret, time.time())))
        return secret

    def by_link(self, secret: str) -> ConsoleUser | None:
        """Whose one-time link it is, while it can be used."""
        with self._store.reading("read a one-time link") as connection:
            wanted = (_U.link == hash_of(secret), _U.link_until > time.time(), _U.disabled_at.is_(None))
            row = connection.execute(select(USERS).where(*wanted)).mappings().first()
        return None if row is None else _user(dict(row))

    def set_password_by_link(self, secret: str, password: str) -> ConsoleUser:
        """Set a password, once; all sessions of the user end."""
        found = self.by_link(secret)
        if found is None:
            raise UsageError("cannot use that link: it was used, or is too old; an admin makes another")
        kept = hashed(password, found.name)
        values = {"password": kept, "link": "", "link_until": 0.0, "failed": 0, "locked_until": 0.0}
        with self._store.writing("set a password") as connection:
            once = (_U.name == found.name, _U.link == hash_of(secret), _U.disabled_at.is_(None))
            if not connection.execute(update(USERS).where(*once).values(values)).rowcount:
                raise UsageError("cannot use that link: it was used just now")
            connection.execute(delete(SESSIONS).where(SESSIONS.c.name == found.name))
        return found

    def change_password(self, name: str, old: str, new: str, session: str) -> None:
        """Set another password; sessions of the user but that with this hash end."""
        attempt = self.log_in(name, old)
        if attempt.wait_s:
            raise UsageError(
                f"cannot change the password: too many wrong ones; wait {math.ceil(attempt.wait_s)} seconds"
            )
        if attempt.user is None:
            raise UsageError("cannot change the password: the present one is another")
        kept = hashed(new, attempt.user.name)
        with self._store.writing("change a password") as connection:
            connection.execute(update(USERS).where(_U.name == attempt.user.name).values(password=kept))
            others = (SESSIONS.c.name == attempt.user.name, SESSIONS.c.session != session)
            connection.execute(delete(SESSIONS).where(*others))

    def log_in(self, name: str, password: str) -> Attempt:
        """Check a password. A wrong one counts; from FAILED_FREE on there is a wait, in which none is looked at."""
        named, now = _named(name), time.time()
        with self._store.reading("read a user") as connection:
            row = _row_of(connection, named)
        known = row is not None and row["disabled_at"] is None
        locked_until = row["locked_until"] if row is not None and known else self._strangers.locked_until(named)
        if 0 < (wait := locked_until - now) <= LOCKED_MAX_S:  # beyond it, the clock was set back: nobody waits for that
            return Attempt(None, wait)
        if not matches(row["password"] if row is not None and known else "", password) or row is None:
            wait = (self._failed if known else self._strangers.failed)(named, now) if named else 0.0
            return Attempt(None, wait, known and wait > 0)
        values = {"failed": 0, "locked_until": 0.0, "last_login": now}
        with self._store.writing("note a login") as connection:
            connection.execute(update(USERS).where(_U.name == named).values(values))
        return Attempt(_user(dict(row)))

    def _failed(self, name: str, now: float) -> float:
        """Count a wrong password in the database, so that many at once all count; seconds until the next may come."""
        with self._store.writing("note a wrong password") as connection:
            connection.execute(update(USERS).where(_U.name == name).values(failed=_U.failed + 1))
            failed = connection.execute(select(_U.failed).where(_U.name == name)).scalar_one()
            wait = _wait_after(failed)
            connection.execute(update(USERS).where(_U.name == name).values(locked_until=now + wait))
        return wait

    def by_subject(self, subject: str, name: str, role: Role | None) -> ConsoleUser:
        """The user of an OpenID subject, made at the first login; role: what the provider says now, None = none.

        A name that a user with a password has is not taken over. Raises UsageError.
        """
        now = time.time()
        with self._store.writing("note a login") as connection:
            row = connection.execute(select(USERS).where(_U.subject == subject)).mappings().first()
            if row is None:
                if role is None:
                    raise UsageError("cannot log in: the provider gives you no role here")
                name = checked_name(name)
                if _row_of(connection, name) is not None:
                    raise UsageError(f"cannot log in as {name}: there is another user of that name")
                connection.execute(insert(USERS).values(_row(name, role, "OpenID Connect", now) | {"subject": subject}))
            elif row["disabled_at"] is not None or role is None:
                raise UsageError("cannot log in: the user is disabled, or the provider gives no role any more")
            changed = {"role": str(role), "last_login": now}
            connection.execute(update(USERS).where(_U.subject == subject).values(changed))
            row = connection.execute(select(USERS).where(_U.subject == subject)).mappings().one()
        return _user(dict(row))

    def change(self, name: str, *, role: Role | None = None, disabled: bool | None = None, by: str = "") -> ConsoleUser:
        """Another role; or no more logins, which ends sessions and tokens for good, or logins again. One admin stays.

        by: who changes it.
        """
        values: dict[str, Any] = {} if role is None else {"role": str(role)}
        if disabled is not None:
            values |= {"disabled_at": time.time() if disabled else None, "failed": 0, "locked_until": 0.0}
        with self._store.writing("change a user") as connection:
            row = _row_of(connection, name)
            if row is None:
                raise UsageError(f"cannot find the user {printable(name, 64)!r}")
            if row["role"] == Role.ADMIN and (disabled or role not in (None, Role.ADMIN)):
                _other_admin(connection, row["name"])
            connection.execute(update(USERS).where(_U.name == row["name"]).values(values))
            if disabled:
                connection.execute(delete(SESSIONS).where(SESSIONS.c.name == row["name"]))
                mine = (TOKENS.c.name == row["name"], TOKENS.c.revoked_at.is_(None))
                connection.execute(update(TOKENS).where(*mine).values(revoked_at=time.time(), revoked_by=by))
            row = connection.execute(select(USERS).where(_U.name == row["name"])).mappings().one()
        return _user(dict(row))

    def remove(self, name: str) -> None:
        """Forget a user, with sessions and tokens; what they did stays in the audit log. One admin stays."""
        with self._store.writing("remove a user") as connection:
            row = _row_of(connection, name)
            if row is None:
                raise UsageError(f"cannot find the user {printable(name, 64)!r}")
            if row["role"] == Role.ADMIN:
                _other_admin(connection, row["name"])
            for table in (SESSIONS, TOKENS, USERS):
                connection.execute(delete(table).where(table.c.name == row["name"]))


FIRST = "admin"
"""The first admin's name."""


def checked_name(name: str) -> str:
    """A name in lower case. Raises UsageError for one that nobody may have."""
    lower = name.strip().lower()
    if not NAME.fullmatch(lower):
        raise UsageError(
            f"cannot use the name {printable(name, 64)!r}: 1 to 64 letters, digits, dots, hyphens, @ are possible"
        )
    return lower


def active_user(connection: Connection, name: str) -> ConsoleUser:
    """A user who may log in. Raises UsageError."""
    row = _row_of(connection, name)
    if row is None or row["disabled_at"] is not None:
        raise UsageError(f"cannot find the user {printable(name, 64)!r}, or they are disabled")
    return _user(dict(row))


def _wait_after(failed: int) -> float:
    """Seconds to wait after so many wrong passwords in a row."""
    beyond = failed - FAILED_FREE
    return min(LOCKED_S * 2.0 ** min(beyond, 30), LOCKED_MAX_S) if beyond >= 0 else 0.0


def _other_admin(connection: Connection, name: str) -> None:
    others = (_U.role == str(Role.ADMIN), _U.disabled_at.is_(None), _U.name != name)
    if not connection.execute(select(func.count()).select_from(USERS).where(*others)).scalar_one():
        raise UsageError(f"cannot take {name} away: there would be no admin")


def _named(name: str) -> str:
    """A name as it is stored; what no name can be is nobody's."""
    lower = name.strip().lower()
    return lower if NAME.fullmatch(lower) else ""


def _row_of(connection: Connection, name: str) -> RowMapping | None:
    return connection.execute(select(USERS).where(_U.name == _named(name))).mappings().first()


def _row(name: str, role: Role, by: str, now: float) -> dict[str, Any]:
    return {
        "name": name, "role": str(role), "password": "", "subject": "", "made_at": now, "made_by": by,
        "link": "", "link_until": 0.0, "failed": 0, "locked_until": 0.0,
    }  # fmt: skip


def _link(secret: str, now: float) -> dict[str, Any]:
    return {"link": hash_of(secret), "link_until": now + LINK_S}


def _user(row: dict[str, Any]) -> ConsoleUser:
    names = ("name", "subject", "made_at", "made_by", "disabled_at", "link_until", "last_login")
    return ConsoleUser(role=Role(row["role"]), has_password=bool(row["password"]), **{one: row[one] for one in names})
