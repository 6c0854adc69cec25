"""Browsers that have logged in as a user before: they need not wait for what others enter for that name.

The cookie is an id, its end, and two MACs: one of these and the name, so that nobody has one who was never in, and one
of the user's mark, too, so that it ends with the password, with all sessions, and with the user. It opens nothing:
whoever has it may enter passwords as slowly as anybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass

from fastapi import Request, Response

from agents.core.errors import StoreError
from agents.core.types import DAY_S
from agents.store.people.users import ConsoleUser
from agents.web.auth import HANGS_S, gate_of
from agents.web.parts import parts_of

KNOWN_S = 180 * DAY_S
"""How long a browser is known after a login, seconds."""
COOKIE_BEGIN = "dns_tunnel_known_"
"""Begins the name of the cookie; a number of the user's name follows, as a browser may have several users."""
_FORM = re.compile(r"([A-Za-z0-9_-]{22}\.[0-9]{1,12})\.([0-9a-f]{64})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class KnownBrowser:
    """What a browser shows that has logged in as this user before. id: it and its end."""

    id: str
    of_mark: str  # a MAC


def shown_browser(request: Request, name: str) -> KnownBrowser | None:
    """A browser to which a cookie of this name was given; it may have ended with the password. No database is asked."""
    form = _FORM.fullmatch(request.cookies.get(_cookie_of(name), ""))
    if form is None or float(form[1].rpartition(".")[2]) < time.time():
        return None
    given = gate_of(request).browser_mac(_plain(name), form[1])
    return KnownBrowser(form[1], form[3]) if hmac.compare_digest(form[2], given) else None


async def known_browser(request: Request, name: str, shown: KnownBrowser) -> str:
    """The id of a browser that has logged in with the password that this user has now; "" = it has not."""
    async with gate_of(request).known_checks.turn(_plain(name)):
        mark = await asyncio.to_thread(_mark_of, request, name)
    of_mark = gate_of(request).browser_mac(_plain(name), shown.id, mark)
    return shown.id if mark and hmac.compare_digest(shown.of_mark, of_mark) else ""


def remember_browser(request: Request, answer: Response, user: ConsoleUser, secure: bool) -> None:
    """Give a browser that has just logged in by a password what it is known by."""
    mac, said = gate_of(request).browser_mac, f"{secrets.token_urlsafe(16)}.{int(time.time() + KNOWN_S)}"
    cookie = f"{said}.{mac(user.name, said)}.{mac(user.name, said, user.mark)}"
    its = _cookie_of(user.name)
    answer.set_cookie(its, cookie, KNOWN_S, path="/login", httponly=True, samesite="strict", secure=secure)


def _mark_of(request: Request, name: str) -> str:
    """A user's mark; "" without a password, while they are disabled, or where no database answers."""
    with suppress(StoreError):
        parts_of(request).database_must_answer(HANGS_S)
        user = parts_of(request).people.users.named(name)
        return user.mark if user is not None and user.disabled_at is None else ""
    return ""


def _cookie_of(name: str) -> str:
    return COOKIE_BEGIN + hashlib.sha256(_plain(name).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain(name: str) -> str:
    return name.strip().lower()
