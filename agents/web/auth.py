"""Access control: who asks, by a token or by a browser's session, and what they may do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import math
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from weakref import WeakValueDictionary

import structlog
from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agents.core.errors import StoreError
from agents.core.text import ip_of
from agents.store.people.roles import AccessScope, Role
from agents.store.people.sessions import SESSION_S, UserSession, hash_of
from agents.store.people.tokens import FORM, ApiToken
from agents.web.parts import Parts, parts_of

COOKIE = "dns_tunnel_session"
COOKIE_FORM = re.compile(r"([A-Za-z0-9_-]{43})\.([0-9a-f]{64})")
"""A session's secret of 256 random bits, and a MAC of it: a stranger's cookie is not looked up in the database."""
NAME_MAX = 80
"""Characters of the name that somebody gives who logs in with the API token."""
AT_CONSOLE = "console"
"""The author of what somebody did who logged in with the API token and gave no name."""
PROGRAM = "API"
"""The author of what a program did with the API token that named nobody."""
ATTEMPTS_MAX = 5
"""Wrong tokens and passwords that one address may enter in ATTEMPTS_S."""
ATTEMPTS_S = 60.0
ADDRESSES_MAX = 1024
"""Addresses whose attempts are kept; the oldest is dropped first."""
CHECKS_MAX = 3
"""Passwords that are looked at at once; the others wait without a thread, of which forms need some, too."""
FRESH_S = 5.0
"""A session or token is looked up again after so many seconds; without a database the last answer holds on."""
KNOWN_MAX = 4096
"""Sessions and tokens whose last answer is kept."""
HANGS_S = 1.0
"""What a request waits for a sign of life of the database before the last answer is taken."""
_Found = UserSession | ApiToken | None
"""What a secret is looked up to be."""
_log = structlog.get_logger()

bearer = HTTPBearer(auto_error=False, description="the token of setting API_TOKEN, or one of a user")
Sent = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
"""Contents of the Authorization header."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. name: "" = a program with the API token, which is nobody's."""

    name: str
    scopes: frozenset[AccessScope]
    session: str = ""  # hash of the browser's session; "" = a program
    is_user: bool = True  # else the API token, as which anybody may call themselves anything
    until: float = math.inf  # end of the session or token that asks, Unix seconds; no token that it makes holds longer

    def may(self, scope: str) -> bool:
        return scope in self.scopes

    @property
    def way(self) -> str:
        """How the audit log calls it."""
        return "console" if self.session else "API"


class Gatekeeper:
    """Checks tokens and sessions. Raises ValueError for an empty token."""

    def __init__(self, parts: Parts) -> None:
        if not parts.token:
            raise ValueError("cannot serve without a token")
        self._parts, self._token = parts, parts.token.encode()
        self._key = hashlib.scrypt(self._token, salt=b"dns-tunnel session", n=2**14, r=8, p=1)
        self.attempts, self.checks = Attempts(), asyncio.Semaphore(CHECKS_MAX)
        self.known_checks = Turns()  # of known browsers: strangers' passwords keep none waiting
        self._guard = threading.Lock()
        self._by_token: dict[str, Person] = {}  # sessions of the API token, by the hash of their secret
        self._known: OrderedDict[str, tuple[float, _Found]] = OrderedDict()

    def knows(self, token: str) -> bool:
        """Whether it is the API token."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def begin_by_token(self, name: str) -> str:
        """A session of somebody who has the API token; it needs no database. Its secret."""
        secret = secrets.token_urlsafe(32)
        key, now = hash_of(secret), time.time()
        with self._guard:
            self._by_token = {old: one for old, one in self._by_token.items() if now < one.until}
            name = name[:NAME_MAX] or AT_CONSOLE
            self._by_token[key] = Person(name, Role.ADMIN.scopes, key, is_user=False, until=now + SESSION_S)
        return secret

    def cookie(self, secret: str) -> str:
        """What a browser keeps of a session with this secret."""
        return f"{secret}.{self._mac('cookie ' + secret)}"

    def _secret_of(self, request: Request) -> str:
        """The secret of a request's cookie; "" = it has none of ours."""
        form = COOKIE_FORM.fullmatch(request.cookies.get(COOKIE, ""))
        return form[1] if form and hmac.compare_digest(form[2], self._mac("cookie " + form[1])) else ""

    def end(self, request: Request) -> None:
        """End a request's session. Raises StoreError."""
        secret = self._secret_of(request)
        if not secret:
            return
        key = hash_of(secret)
        with self._guard:
            self._by_token.pop(key, None)
        self.forget(key)
        self._parts.database_must_answer(HANGS_S)
        self._parts.people.sessions.end(key)

    def forget(self, key: str = "") -> None:
        """Look a session up again, or all: somebody's role has changed, or they are out."""
        with self._guard:
            if key:
                self._known.pop(key, None)
            else:
                self._known.clear()

    def person_of(self, request: Request) -> Person | None:
        """Whose session a request belongs to; None = nobody's, or one that is over."""
        secret = self._secret_of(request)
        if not secret:
            return None
        key = hash_of(secret)
        by_token = self._by_token.get(key)
        if by_token is not None:
            return by_token if time.time() < by_token.until else None
        found = self._looked_up(key, lambda: self._parts.people.sessions.find(secret))
        if not isinstance(found, UserSession) or time.time() >= found.until:
            return None
        return Person(found.name, found.role.scopes, found.session, until=found.until)

    def _looked_up(self, key: str, find: Callable[[], _Found], raises: bool = False) -> _Found:
        """The last answer, while it is fresh or the database is away. raises: where there is none, raise StoreError."""
        now = time.monotonic()
        with self._guard:
            at, known = self._known.get(key, (-FRESH_S, None))
        if now - at < FRESH_S:
            return known
        try:
            self._parts.database_must_answer(HANGS_S)
            known = find()
        except StoreError as error:
            if raises and known is None:
                raise
            _log.warning("access_not_looked_up", error=str(error))
            return known
        with self._guard:
            self._known[key] = now, known
            self._known.move_to_end(key)
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return known

    def _mac(self, said: str) -> str:
        return hmac.new(self._key, said.encode(), hashlib.sha256).hexdigest()

    def browser_mac(self, name: str, said: str, mark: str = "") -> str:
        """What a browser can only have that logged in as this user here. mark: ends with the user's password."""
        return self._mac(f"browser {said} {mark} {name}")

    def form_key(self, request: Request) -> str:
        """What a form of this session's pages holds, so that no other site can send it: a MAC of the cookie."""
        return self.form_key_of(request.cookies.get(COOKIE, ""))

    def form_key_of(self, cookie: str) -> str:
        """The same of a browser that has only now been given this cookie."""
        return self._mac("form " + cookie)

    def sign(self, request: Request, said: Mapping[str, str]) -> str:
        """A MAC of what this session is told on the page that it is led to, so that no link can put words there."""
        return self._mac(f"said {sorted(said.items())} {request.cookies.get(COOKIE, '')}")

    def is_form_key(self, request: Request, key: str) -> bool:
        """Whether a form came from a page of the session that sends it."""
        return hmac.compare_digest(key.encode("utf-8", "surrogatepass"), self.form_key(request).encode())

    def require(self, request: Request, sent: HTTPAuthorizationCredentials | None, scope: AccessScope) -> Person:
        """Who sends a request, if they may; with a session only for what reads, so that other sites cannot use it.

        Raises HTTPException: 401 without a valid token, 403 for one without the scope, 429 after too many.
        """
        person = self._sender(request, sent)
        if person is None:
            raise HTTPException(401, "cannot answer without a valid token", {"WWW-Authenticate": "Bearer"})
        request.state.person = person
        if not person.may(scope):
            raise HTTPException(403, f"cannot do that: it needs the scope {scope}")
        return person

    def _sender(self, request: Request, sent: HTTPAuthorizationCredentials | None) -> Person | None:
        if sent is None:
            return self.person_of(request) if request.method in {"GET", "HEAD"} else None
        address = address_of(request)
        if not self.attempts.allowed(address):
            raise HTTPException(429, "cannot answer: too many wrong tokens", {"Retry-After": str(int(ATTEMPTS_S))})
        if self.knows(sent.credentials):
            return Person("", Role.ADMIN.scopes, is_user=False)
        found = None
        if FORM.fullmatch(sent.credentials):
            key = hash_of(sent.credentials)
            found = self._looked_up(key, lambda: self._parts.people.tokens.find(sent.credentials), raises=True)
        if isinstance(found, ApiToken) and found.holds(time.time()):
            return Person(found.name, found.may, until=found.until)
        self.attempts.wrong(address)
        return None


def address_of(request: Request) -> str:
    """Who asks, as attempts are counted: an IPv4 address, or the /64 of an IPv6 address (RFC 4291 2.5.1)."""
    host = request.client.host if request.client else ""
    try:
        address = ip_of(host)
    except ValueError:
        return host
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


class Attempts:
    """Wrong tokens and passwords by address, bounded."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def allowed(self, address: str) -> bool:
        now = time.monotonic()
        recent = [at for at in self._wrong.get(address, ()) if now - at < ATTEMPTS_S]
        return len(recent) < ATTEMPTS_MAX

    def wrong(self, address: str) -> None:
        times = self._wrong.pop(address, [])
        self._wrong[address] = [*times, time.monotonic()][-ATTEMPTS_MAX:]
        if len(self._wrong) > ADDRESSES_MAX:
            self._wrong.popitem(last=False)

    def take_back(self, address: str) -> None:
        """The last one was not wrong."""
        if times := self._wrong.get(address):
            self._wrong[address] = times[:-1]


class Turns:
    """One at a time, and of each name one that waits for that: whoever sends many for a name keeps no others waiting.

    Of one event loop. The others of a name wait for each other.
    """

    def __init__(self) -> None:
        self._one = asyncio.Semaphore(1)
        self._of_names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        of_name = self._of_names.setdefault(name, asyncio.Lock())
        async with of_name, self._one:
            yield


def gate_of(request: Request) -> Gatekeeper:
    """Who checks tokens and sessions of the application that answers this request."""
    gate: Gatekeeper = request.app.state.gate
    return gate


def asking(request: Request) -> Person:
    """Who sends a request that was let through."""
    person: Person = request.state.person
    return person


def needs(changing: AccessScope, reading: AccessScope = AccessScope.READ) -> Any:
    """A dependency of routes: the scope of those that change something, and of those that only read."""

    def required(request: Request, sent: Sent = None) -> None:
        gate_of(request).require(request, sent, reading if request.method in {"GET", "HEAD"} else changing)

    return Depends(required)


def author_of(request: Request, named: str = "", unnamed: str = PROGRAM) -> str:
    """Who changes something: the user, or whom a program with the API token names. unnamed: where it names nobody."""
    return asking(request).name or named.strip() or unnamed


def noted(request: Request, action: str, thing: str, detail: str = "", author: str = "") -> None:
    """Note a change that was made in the audit log; without a database, in the program's log."""
    person: Person | None = getattr(request.state, "person", None)
    author, way = author or author_of(request), person.way if person else "console"
    parts = parts_of(request)
    try:
        parts.database_must_answer(HANGS_S)
        parts.console.audit.add(author, way, action, thing, detail)
    except StoreError as error:
        _log.warning("audit_not_stored", author=author, action=action, thing=thing, detail=detail, error=str(error))
