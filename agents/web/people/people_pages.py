"""Pages of people: users for admins, and everybody's own account with password, sessions and tokens."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from agents.core.errors import AgentsError, UsageError
from agents.core.text import counted
from agents.store.people.roles import AccessScope, Role, role_of
from agents.store.people.tokens import DAYS_USUAL
from agents.web.auth import asking, gate_of, noted
from agents.web.console.notices import led_to, noticed
from agents.web.pages import InSession, in_session, page, sent_form
from agents.web.parts import parts_of
from agents.web.people.tokens import make_token, revoke_token, tokens_of
from agents.web.people.users import add_user, change_user, open_link, remove_user

page_router = APIRouter(include_in_schema=False)


@page_router.get("/console/users", dependencies=[in_session(AccessScope.ADMIN)])
def users_page(request: Request) -> Response:
    """Who may log in."""
    return _users(request, 200, **noticed(request))


def _users(request: Request, status: int = 200, **said: str) -> Response:
    values: dict[str, Any] = {"done": "", "problem": "", "link": "", "name": ""} | said
    try:
        values["users"] = parts_of(request).people.users.all()
    except AgentsError as error:
        values |= {"users": [], "problem": values["problem"] or str(error)}
    return page(request, "users.html", status, roles=list(Role), now=time.time(), **values)


@page_router.post("/console/users")
async def users_form(request: Request) -> Response:
    """Add, change, disable or remove a user, and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.ADMIN)
    sent = {name: values[0] for name, values in form.items()}
    try:
        said = await asyncio.to_thread(_users_changed, request, sent)
    except AgentsError as error:
        return await asyncio.to_thread(_users, request, 422, problem=str(error), name=sent.get("name", ""))
    if "link" in said:  # a secret stands in no address
        return await asyncio.to_thread(_users, request, 200, **said)
    return led_to(request, "/console/users", (), **said)


def _users_changed(request: Request, sent: dict[str, str]) -> dict[str, str]:
    """What came of a form; a link is shown this once. Raises AgentsError."""
    action, name = sent.get("do", ""), sent.get("name", "")
    if action == "add":
        link = add_user(request, name, role_of(sent.get("role", "")))
        return {"done": f"{name.strip().lower()} is a user.", "link": link}
    if action == "link":
        return {"done": f"A new link for {name}.", "link": open_link(request, name)}
    if action == "role":
        user = change_user(request, name, role_of(sent.get("role", "")), None)
        return {"done": f"{user.name} is {user.role} now."}
    if action in ("disable", "enable"):
        user = change_user(request, name, None, action == "disable")
        return {"done": f"{user.name} {'can no longer' if user.disabled_at else 'can'} log in."}
    if action == "remove":
        if sent.get("confirm") != "yes":
            raise UsageError("cannot remove: confirm it with the box beside the button")
        remove_user(request, name)
        return {"done": f"{name} is no user any more."}
    raise UsageError("cannot do that: the form names nothing that this page offers")


@page_router.get("/console/account", dependencies=[InSession])
def account_page(request: Request) -> Response:
    """One's own password, sessions and tokens."""
    return _account(request, 200, **noticed(request))


def _account(request: Request, status: int = 200, **said: str) -> Response:
    people, person = parts_of(request).people, asking(request)
    values: dict[str, Any] = {"done": "", "problem": "", "token": "", "what_for": ""} | said
    try:
        values["user"] = people.users.named(person.name) if person.is_user else None
        values["sessions"] = people.sessions.of(person.name) if person.is_user else []
        values["tokens"] = tokens_of(request)
    except AgentsError as error:
        values |= {"user": None, "sessions": [], "tokens": [], "problem": values["problem"] or str(error)}
    scopes = [one for one in AccessScope if person.may(one)]
    return page(request, "account.html", status, scopes=scopes, days=DAYS_USUAL, now=time.time(), **values)


@page_router.post("/console/account")
async def account_form(request: Request) -> Response:
    """Change the password, end sessions, make or revoke a token, and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.READ)
    try:
        said = await asyncio.to_thread(_account_changed, request, form)
    except AgentsError as error:
        what_for = form.get("what_for", [""])[0]
        return await asyncio.to_thread(_account, request, 422, problem=str(error), what_for=what_for)
    if "token" in said:  # a secret stands in no address
        return await asyncio.to_thread(_account, request, 200, **said)
    return led_to(request, "/console/account", (), **said)


def _account_changed(request: Request, form: dict[str, list[str]]) -> dict[str, str]:
    """What came of a form; a token is shown this once. Raises AgentsError."""
    people, person = parts_of(request).people, asking(request)
    sent = {name: values[0] for name, values in form.items()}
    action = sent.get("do", "")
    if action == "revoke":
        revoke_token(request, sent.get("token_id", ""))
        return {"done": "The token is revoked."}
    if not person.is_user:
        raise UsageError("cannot do that with the API token: log in as a user")
    if action == "token":
        try:
            days = float(sent.get("days", "") or DAYS_USUAL)
        except ValueError:
            raise UsageError("cannot make a token: the days are no number") from None
        text, _ = make_token(request, sent.get("what_for", ""), form.get("scope", []), days)
        return {"done": "The token is made.", "token": text}
    if action == "password":
        if sent.get("new", "") != sent.get("again", ""):
            raise UsageError("cannot change the password: the two new ones are not the same")
        people.users.change_password(person.name, sent.get("old", ""), sent.get("new", ""), person.session)
        gate_of(request).forget()
        noted(request, "password changed", person.name)
        return {"done": "The password is changed; your other sessions have ended."}
    if action == "others":
        ended = people.sessions.end_all(person.name, person.session)
        gate_of(request).forget()
        noted(request, "sessions ended", person.name, counted(ended, "session"))
        return {"done": f"{counted(ended, 'other session')} ended."}
    raise UsageError("cannot do that: the form names nothing that this page offers")
