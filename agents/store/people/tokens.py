"""Tokens for programs: each is somebody's, has scopes and an end, and is shown once."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, delete, desc, insert, or_, select, update

from agents.core.errors import UsageError
from agents.core.text import printable, said_text
from agents.core.types import DAY_S
from agents.store.people.roles import AccessScope, Role, scopes_of, with_smaller
from agents.store.people.sessions import hash_of
from agents.store.people.tables import TOKENS, USERS
from agents.store.people.users import active_user
from agents.store.sql import Database

PREFIX = "dnst"
"""How tokens begin, so that a scanner for secrets can find those that were committed somewhere."""
FORM = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
WHAT_FOR_MAX = 100
DAYS_MAX, DAYS_USUAL = 366, 90
"""Days that a token holds, at most and unless something else is said."""
TOKENS_MAX = 100
"""Tokens of one user that hold."""
USED_EVERY_S = 60.0
"""When a token was last used is written at most so often."""
KEPT_S = 30 * DAY_S
"""A token that is over stays in the list for so long."""
_T, _U = TOKENS.c, USERS.c


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token without its secret, with its user's role of now. Times are Unix seconds."""

    token_id: str
    name: str
    role: Role
    what_for: str
    scopes: frozenset[AccessScope]
    made_at: float
    until: float
    used_at: float | None
    revoked_at: float | None
    revoked_by: str

    def holds(self, now: float) -> bool:
        return self.revoked_at is None and now < self.until

    @property
    def may(self) -> frozenset[AccessScope]:
        """What it may do: what it was made for, and its user may."""
        return with_smaller(self.scopes) & self.role.scopes


class TokenStore:
    """Tokens in a store. Every method raises StoreError; what people do, UsageError too."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def make(self, name: str, what_for: str, scopes: Iterable[str], days: float = DAYS_USUAL) -> tuple[str, str]:
        """A new token of a user: its text, which is stored nowhere, and its id."""
        what_for, wanted = said_text(what_for, "what it is for", WHAT_FOR_MAX), scopes_of(scopes)
        if not 0 < days <= DAYS_MAX:
            raise UsageError(f"cannot make a token for {days:g} days: more than 0 and at most {DAYS_MAX} are possible")
        token_id, secret, now = secrets.token_hex(6), secrets.token_urlsafe(32), time.time()
        row: dict[str, object] = {
            "token_id": token_id,
            "what_for": what_for,
            "secret": hash_of(secret),
            "scopes": " ".join(sorted(wanted)),
            "made_at": now,
            "until": now + days * DAY_S,
            "revoked_by": "",
        }
        with self._store.writing("make a token") as connection:
            user = active_user(connection, name)
            name, role, row["name"] = user.name, user.role, user.name  # whatever letter case it was typed in
            if beyond := wanted - role.scopes:
                raise UsageError(f"cannot make that token: the role {role} has no scope {', '.join(sorted(beyond))}")
            holds = select(_T.token_id).where(_T.name == name, _T.revoked_at.is_(None), _T.until > now)
            if len(connection.execute(holds.limit(TOKENS_MAX)).all()) >= TOKENS_MAX:
                raise UsageError(f"cannot make more than {TOKENS_MAX} tokens: revoke one first")
            connection.execute(insert(TOKENS).values(row))
        return f"{PREFIX}_{token_id}_{secret}", token_id

    def find(self, text: str) -> ApiToken | None:
        """The token of that text, if it holds and its user may log in. When it was used is noted."""
        form, now = FORM.fullmatch(text), time.time()
        if form is None:
            return None
        with self._store.reading("read a token") as connection:
            statement = _with_role().where(_T.token_id == form[1], _U.disabled_at.is_(None))
            row = connection.execute(statement).mappings().first()
        if row is None or not hmac.compare_digest(row["secret"], hash_of(form[2])):
            return None
        found = _token(dict(row))
        if not found.holds(now):
            return None
        if found.used_at is None or now - found.used_at >= USED_EVERY_S:
            with self._store.writing("note that a token was used") as connection:
                connection.execute(update(TOKENS).where(_T.token_id == form[1]).values(used_at=now))
        return found

    def all(self, name: str = "") -> list[ApiToken]:
        """Tokens of a user, or of all; newest first."""
        statement = _with_role().order_by(desc(_T.made_at))
        if name:
            statement = statement.where(_T.name == name)
        with self._store.reading("read tokens") as connection:
            return [_token(dict(row)) for row in connection.execute(statement).mappings()]

    def revoke(self, token_id: str, by: str, of: str = "") -> ApiToken:
        """End one. of: only if it is this user's."""
        wanted = (_T.token_id == token_id, _T.revoked_at.is_(None), *((_T.name == of,) if of else ()))
        with self._store.writing("revoke a token") as connection:
            done = update(TOKENS).where(*wanted).values(revoked_at=time.time(), revoked_by=by)
            if not connection.execute(done).rowcount:
                raise UsageError(f"cannot revoke {printable(token_id, 40)!r}: there is no such token, or it is revoked")
            row = connection.execute(_with_role().where(_T.token_id == token_id)).mappings().one()
        return _token(dict(row))

    def forget_old(self, now: float) -> int:
        """Delete those that have been over for a month; how many."""
        over = or_(_T.until <= now - KEPT_S, _T.revoked_at <= now - KEPT_S)
        with self._store.writing("delete tokens that are over") as connection:
            return connection.execute(delete(TOKENS).where(over)).rowcount


def _with_role() -> Select[Any]:
    return select(*TOKENS.c, _U.role).select_from(TOKENS.join(USERS, and_(_U.name == _T.name)))


def _token(row: dict[str, object]) -> ApiToken:
    values = {name: value for name, value in row.items() if name != "secret"}
    scopes = frozenset(map(AccessScope, str(row["scopes"]).split()))
    return ApiToken(**values | {"role": Role(str(row["role"])), "scopes": scopes})  # type: ignore[arg-type]
