"""Users: a name, a role, a password that is set by a one-time link, and a wait after wrong ones."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, case, delete, func, insert, select, update

from agents.core.errors import UsageError
from agents.core.text import printable
from agents.core.types import DAY_S
from agents.store.console.audit import note_change
from agents.store.people.passwords import hashed, matches
from agents.store.people.roles import AccessScope, Role
from agents.store.people.sessions import hash_of
from agents.store.people.tables import SESSIONS, TOKENS, USERS
from agents.store.people.waits import NAME_FREE, Waits, still_counted, wait_after, wait_left
from agents.store.sql import Database

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
"""What a user may be called: an address of mail, too."""
LINK_S = DAY_S
"""How long a one-time link can be used, seconds."""
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
    mark: str = field(repr=False)  # another for each password, end of all sessions, and user made; "" = no password

    @property
    def can_log_in(self) -> bool:
        """Whether they have a way in, and are not disabled."""
        return self.disabled_at is None and (self.has_password or bool(self.subject))

    def may(self, scope: AccessScope) -> bool:
        """Whether their role has a scope."""
        return scope in self.role.scopes


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a password: the user, or how long to wait."""

    user: ConsoleUser | None
    wait_s: float = 0.0
    is_locked_now: bool = False  # a user's wait has begun with it: for the audit log, not for whoever asks


class UserStore:
    """Users in a store. Every method raises StoreError; what people do, UsageError too."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._addresses, self._browsers = Waits(), Waits()  # apart: no flood of addresses makes room among browsers
        self._strangers = Waits()  # names that no user has wait as a user's does: else the wait would say who is one

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
            row = connection.execute(select(USERS).where(_U.name == found.name)).mappings().one()
        for waits in (self._addresses, self._browsers):
            waits.forget_name(found.name)
        return _user(dict(row))

    def change_password(self, name: str, old: str, new: str, session: str) -> None:
        """Set another password; sessions of the user but that with this hash end.

        Who is in a session does not wait for wrong ones of addresses.
        """
        attempt = self.log_in(name, old, browser=f"session {session}")
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

    def log_in(self, name: str, password: str, *, address: str = "", browser: str = "") -> Attempt:
        """Check a password. A wrong one counts; after some there is a wait, in which none is looked at.

        address: where it comes from. browser: an id of one that has shown before that it is this user's: it waits for
        wrong passwords of its own and of all such browsers together, however many others enter.
        """
        named, now = _named(name), time.time()
        with self._store.reading("read a user") as connection:
            row = _row_of(connection, named)
        known = row is not None and row["disabled_at"] is None
        if not named:
            matches("", password)  # takes as long
            return Attempt(None)
        own, asker = (self._browsers, f"browser {browser}") if browser else (self._addresses, f"address {address}")
        shared = self._browsers if browser else self._strangers
        in_row = row["locked_until"] if row is not None and known and not browser else None
        of_name = shared.left((named, ""), now) if in_row is None else wait_left(in_row, now)
        if left := max(own.left((named, asker), now), of_name):
            return Attempt(None, left)
        left, wait = own.take((named, asker), now)
        if left:
            return Attempt(None, left)
        left, wait_of_name = self._take(named, known, bool(browser), now)
        if left:
            own.give_back((named, asker), now, wait)
            return Attempt(None, left)
        if not matches(row["password"] if row is not None and known else "", password) or row is None:
            wait = max(wait, wait_of_name)
            return Attempt(None, wait, known and wait > 0)
        own.forget((named, asker))
        self._give_back(named, bool(browser), now, wait_of_name)
        return Attempt(_user(dict(row)))

    def _take(self, name: str, known: bool, in_browser: bool, now: float) -> tuple[float, float]:
        """Count a try for a name as Waits.take does; a user's in the database, so that many at once all count."""
        if in_browser or not known:
            return (self._browsers if in_browser else self._strangers).take((name, ""), now)
        counted = select(_U.failed, _U.locked_until).where(_U.name == name).with_for_update()
        with self._store.writing("note a try to log in") as connection:
            row = connection.execute(counted).first()
            if row is None:
                return 0.0, 0.0
            if left := wait_left(row.locked_until, now):
                return left, left
            failed = 1 + still_counted(row.failed, row.locked_until, now)
            wait = wait_after(failed, NAME_FREE)
            values = {"failed": failed, "locked_until": now + wait}
            connection.execute(update(USERS).where(_U.name == name).values(values))
        return 0.0, wait

    def _give_back(self, name: str, in_browser: bool, now: float, wait: float) -> None:
        """Note a login: its try was not wrong. Those of others still count."""
        values: dict[str, Any] = {"last_login": now}
        if in_browser:
            self._browsers.give_back((name, ""), now, wait)
        else:
            mine = _U.locked_until == now + wait
            values["failed"] = case((_U.failed > 0, _U.failed - 1), else_=0)
            values["locked_until"] = case((mine, now), else_=_U.locked_until)
        with self._store.writing("note a login") as connection:
            connection.execute(update(USERS).where(_U.name == name).values(values))

    def by_subject(self, subject: str, name: str, role: Role | None) -> ConsoleUser:
        """The user of an OpenID subject, made at the first login; role: what the provider says now, None = none.

        A name that a user with a password has is not taken over. Raises UsageError.
        """
        now = time.time()
        with self._store.writing("note a login") as connection:
            row = connection.execute(select(USERS).where(_U.subject == subject)).mappings().first()
            before = "" if row is None else row["role"]
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
            if before != role:
                action = "user changed" if before else "user added"
                note_change(connection, row["name"], "console", action, row["name"], f"role {role}, by OpenID Connect")
        return _user(dict(row))

    def change(self, name: str, *, role: Role | None = None, disabled: bool | None = None, by: str = "") -> ConsoleUser:
        """Another role; or no more logins, or logins again. One admin stays.

        No more logins end sessions and tokens, and what browsers are known by, for good.

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
                connection.execute(update(USERS).where(_U.name == row["name"]).values(ended_at=time.time()))
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
    mark = _mark(row)
    same = {one: row[one] for one in names}
    return ConsoleUser(role=Role(row["role"]), has_password=bool(row["password"]), mark=mark, **same)


def _mark(row: Mapping[str, Any]) -> str:
    """What says nothing of the stored hash of a password, which has a salt of 128 random bits."""
    said = f"{row['made_at']!r} {row['ended_at']!r} {row['password']}"
    return hashlib.sha256(said.encode()).hexdigest() if row["password"] else ""
