"""Logging in: by name and password, by the API token, by a one-time link, or through OpenID Connect."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import ceil
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.responses import RedirectResponse

from agents.core.errors import AgentsError, StoreError, UsageError
from agents.core.text import printable
from agents.core.types import DAY_S
from agents.store.people.sessions import SESSION_S
from agents.store.people.users import ConsoleUser
from agents.web.auth import AT_CONSOLE, ATTEMPTS_S, COOKIE, HANGS_S, address_of, gate_of, noted
from agents.web.pages import FOLLOWING_MAX, form_of, page
from agents.web.parts import parts_of
from agents.web.people.kept_form import Fields, is_of_here, kept_text, read_kept, resend_page
from agents.web.people.known_browser import known_browser, remember_browser, shown_browser
from agents.web.people.oidc import LOGIN_S, OidcError

OIDC_COOKIE = "dns_tunnel_login"
"""Binds the answer of an OpenID provider to the browser that was sent there."""
LOGIN_FORM_MAX = 65_536
"""Longest form, bytes: a form that is kept over the login, each byte of it percent-encoded."""
COOKIE_S = SESSION_S + DAY_S
"""A browser keeps the cookie longer than the session: a form that comes too late is known by it."""
page_router = APIRouter(include_in_schema=False)


def of_this_site(request: Request) -> None:
    """Refuse forms of other sites, which could log somebody out, or in as another; they hold no session's key.

    W3C Fetch Metadata: a browser says so where the address is https or this machine's. Raises HTTPException.
    """
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise HTTPException(403, "cannot take a form that is not of a page of this console")


def local_path(path: str) -> str:
    """The path to go to after login; "/" if it could lead to another site."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    plain = plain and len(path) <= FOLLOWING_MAX
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"


def _form(request: Request, status: int = 200, **said: str) -> Response:
    values = {"problem": "", "name": "", "next": "/", "kept": ""} | said
    return page(request, "login.html", status, provider=parts_of(request).oidc is not None, **values)


@page_router.get("/login")
def login_form(request: Request) -> Response:
    """The form; a browser that another site led here may have a session, which only our own page makes it show."""
    following = local_path(request.query_params.get("next", ""))
    if "again" in request.query_params:
        if gate_of(request).person_of(request) is not None:
            return RedirectResponse(following, 303)
    elif _may_hold_back(request):
        return page(request, "again.html", next="/login?" + urlencode({"next": following, "again": "1"}))
    return _form(request, next=following)


def _may_hold_back(request: Request) -> bool:
    """Whether a browser may have a cookie that it does not send: it is strict, and a link of another site led here.

    W3C Fetch Metadata tells it where the address is https or this machine's; elsewhere nothing does.
    """
    if COOKIE in request.cookies or "next" not in request.query_params:
        return False
    site = request.headers.get("sec-fetch-site")
    return "text/html" in request.headers.get("accept", "") if site is None else site == "cross-site"


def login_with_form(request: Request, fields: Fields) -> Response:
    """The form for somebody whose session ended while they wrote another, which is kept."""
    kept = kept_text(request.url.path, fields) if is_of_here(request, fields) else ""
    said = "Your session has ended. " + ("Log in, and you can send what you wrote." if kept else "Log in.")
    return _form(request, 401, problem=said, next=local_path(request.url.path), kept=kept)


@page_router.post("/login", dependencies=[Depends(of_this_site)])
async def login(request: Request) -> Response:
    """Check what was entered, limit attempts, and give the browser its cookie."""
    gate, form = gate_of(request), await form_of(request, LOGIN_FORM_MAX)
    following, name = local_path(form.get("next", [""])[0]), " ".join(form.get("name", [""])[0].split())
    kept = {"next": following, "name": name, "kept": form.get("kept", [""])[0]}
    password = form.get("password", [""])[0]
    by_token, shown = gate.knows(password.strip()), shown_browser(request, name)
    browser = "" if shown is None else shown.id if by_token else await known_browser(request, name, shown)
    asker = browser or address_of(request)
    if not gate.attempts.allowed(asker):
        return _wait(request, ATTEMPTS_S, **kept)
    gate.attempts.wrong(asker)  # until it is known to be right: of many that are sent at once, each counts
    user = None
    try:
        if by_token:
            secret = await asyncio.to_thread(_by_token, request, name)
        else:
            async with gate.known_checks.turn(name.lower()) if browser else gate.checks:
                secret, user, wait_s = await asyncio.to_thread(_by_password, request, name, password, browser)
            if user is None:
                if wait_s:
                    return _wait(request, wait_s, **kept)
                return _form(request, 401, problem="That is not the password of that name.", **kept)
    except UsageError as error:
        gate.attempts.take_back(asker)
        return _form(request, 422, problem=str(error), **kept)
    except StoreError:
        gate.attempts.take_back(asker)
        said = "cannot reach the database: until it is back, the API token opens the console"
        return _form(request, 503, problem=said, **kept)
    gate.attempts.take_back(asker)
    return _welcome(request, secret, following, user, read_kept(kept["kept"]))


def _wait(request: Request, seconds: float, **kept: str) -> Response:
    answer = _form(request, 429, problem=f"Too many attempts. Wait {ceil(seconds)} seconds.", **kept)
    answer.headers["Retry-After"] = str(ceil(seconds))
    return answer


def _by_token(request: Request, name: str) -> str:
    """A session by the API token. Raises UsageError where the name is a user's."""
    parts = parts_of(request)
    taken = None
    with suppress(StoreError):  # this way in is the one that needs no database
        parts.database_must_answer(HANGS_S)
        taken = parts.people.users.named(name)
    if taken is not None:
        raise UsageError(f"cannot log in as {printable(name, 40)} with the API token: it is a user's name")
    secret = gate_of(request).begin_by_token(name)
    noted(request, "login", "console", "with the API token", name or AT_CONSOLE)
    return secret


def _by_password(request: Request, name: str, password: str, browser: str) -> tuple[str, ConsoleUser | None, float]:
    """A session of a user, and who it is; or "", None and how long to wait."""
    parts_of(request).database_must_answer(HANGS_S)
    users = parts_of(request).people.users
    attempt = users.log_in(name, password, address=address_of(request), browser=browser)
    if attempt.user is None:
        if attempt.is_locked_now:  # not at each try while it lasts: no stranger fills the log
            noted(request, "login refused", "console", f"wrong passwords from {address_of(request)}", name.lower())
        return "", None, attempt.wait_s
    return session_begun(request, attempt.user, "with a password"), attempt.user, 0.0


def session_begun(request: Request, user: ConsoleUser, how: str) -> str:
    """A session of a user who has shown who they are; its secret. Raises StoreError."""
    secret = parts_of(request).people.sessions.begin(
        user.name, address_of(request), request.headers.get("user-agent", "")
    )
    noted(request, "login", "console", how, user.name)
    return secret


def _welcome(
    request: Request,
    secret: str,
    following: str,
    user: ConsoleUser | None,
    kept: tuple[str, dict[str, list[str]]] | None = None,
) -> Response:
    """Let a browser in. user: whose password it is, by which the browser is known from now on; None = nobody's.

    kept: path and fields of a form that came too late.
    """
    answer: Response = RedirectResponse(following, 303)
    if kept is not None:
        gate = gate_of(request)
        answer = resend_page(request, 200, *kept, gate.form_key_of(gate.cookie(secret)))
    set_session(request, answer, secret)
    if user is not None:
        remember_browser(request, answer, user, _is_secure(request))
    return answer


def set_session(request: Request, answer: Response, secret: str) -> None:
    """Give a browser the cookie of a session."""
    cookie, secure = gate_of(request).cookie(secret), _is_secure(request)
    answer.set_cookie(COOKIE, cookie, COOKIE_S, httponly=True, samesite="strict", secure=secure)


def _is_secure(request: Request) -> bool:
    """Whether the console is reached over TLS, also where a proxy ends it that does not say so."""
    return request.url.scheme == "https" or parts_of(request).public_url.startswith("https:")


@page_router.post("/logout", dependencies=[Depends(of_this_site)])
def logout(request: Request) -> Response:
    """End the session, here and on the server; without a database it ends by itself, and here at once."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    gate = gate_of(request)
    person = gate.person_of(request)
    with suppress(StoreError):
        gate.end(request)
    if person is not None:
        noted(request, "logout", "console", author=person.name)
    return answer


@page_router.get("/login/link/{secret}")
def link_form(request: Request, secret: str) -> Response:
    """Where somebody with a one-time link sets a password."""
    return _link_form(request, secret)


def _link_form(request: Request, secret: str, status: int = 200, problem: str = "") -> Response:
    parts_of(request).database_must_answer(HANGS_S)
    user = parts_of(request).people.users.by_link(secret[:100])
    if user is None:
        problem, status = "That link was used, or is too old. An admin makes another.", 404
    return page(request, "link.html", status, user=user, secret=secret, problem=problem)


@page_router.post("/login/link/{secret}", dependencies=[Depends(of_this_site)])
async def link_used(request: Request, secret: str) -> Response:
    """Set the password and begin a session."""
    address, gate = address_of(request), gate_of(request)
    if not gate.attempts.allowed(address):
        raise HTTPException(429, "cannot answer: too many attempts", {"Retry-After": str(int(ATTEMPTS_S))})
    form = await form_of(request)
    password = form.get("password", [""])[0]
    try:
        if password != form.get("again", [""])[0]:
            raise UsageError("cannot use that password: the two are not the same")
        user = await asyncio.to_thread(parts_of(request).people.users.set_password_by_link, secret[:100], password)
        session = await asyncio.to_thread(session_begun, request, user, "by a one-time link that set a password")
    except UsageError as error:
        gate.attempts.wrong(address)
        return await asyncio.to_thread(_link_form, request, secret, 422, str(error))
    gate.forget()
    return _welcome(request, session, "/", user)


@page_router.get("/login/oidc")
def oidc_begin(request: Request) -> Response:
    """Send the browser to the provider."""
    provider = parts_of(request).oidc
    if provider is None:
        raise HTTPException(404, "cannot find /login/oidc")
    following = local_path(request.query_params.get("next", ""))
    try:
        address, browser = provider.begin(
            console_address_of(request) + "/login/oidc/callback", following, address_of(request)
        )
    except OidcError as error:
        return _form(request, 502, problem=str(error), next=following)
    answer = RedirectResponse(address, 303)
    # Lax: the provider's answer comes from another site, and a strict cookie would not come with it.
    secure = _is_secure(request)
    answer.set_cookie(OIDC_COOKIE, browser, int(LOGIN_S), path="/login", httponly=True, samesite="lax", secure=secure)
    return answer


@page_router.get("/login/oidc/callback")
def oidc_end(request: Request) -> Response:
    """What the provider says of the browser that comes back."""
    parts = parts_of(request)
    if parts.oidc is None:
        raise HTTPException(404, "cannot find /login/oidc/callback")
    said = {name: request.query_params.get(name, "")[:4096] for name in ("state", "code", "error")}
    try:
        found = parts.oidc.end(**said, browser=request.cookies.get(OIDC_COOKIE, ""))
        user = parts.people.users.by_subject(found.subject, found.name, found.role)
        secret = session_begun(request, user, "through OpenID Connect")
    except StoreError:
        return _form(request, 503, problem="cannot reach the database: the API token opens the console")
    except AgentsError as error:
        return _form(request, 403, problem=str(error))
    # A page, not a redirect: the strict cookie is sent only by what begins here.
    answer = page(request, "welcome.html", user=user, next=found.following)
    set_session(request, answer, secret)
    answer.delete_cookie(OIDC_COOKIE, path="/login", httponly=True, samesite="lax")
    return answer


def link_address(request: Request, secret: str) -> str:
    """The address of a one-time link, as people reach this console."""
    return f"{console_address_of(request)}/login/link/{secret}"


def console_address_of(request: Request) -> str:
    """The address of the console as people see it, without a slash at its end."""
    return (parts_of(request).public_url or str(request.base_url)).rstrip("/")
