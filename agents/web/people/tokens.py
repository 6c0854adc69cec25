"""Tokens for programs over the API: a user's own, made with scopes and an end, revoked by their user or an admin."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request

from agents.core.errors import UsageError
from agents.core.types import DAY_S
from agents.store.people.roles import AccessScope
from agents.store.people.tokens import ApiToken
from agents.web.api import PROBLEMS, known_parameters
from agents.web.auth import asking, gate_of, noted
from agents.web.parts import parts_of
from agents.web.people.schemas import TokenEntry, TokenList, TokenMade, TokenMake, TokenRevoke, Whoami

router = APIRouter(responses=PROBLEMS, dependencies=[Depends(known_parameters)])


@router.get("/whoami", summary="Who a token belongs to, and what it may do")
def whoami(request: Request) -> Whoami:
    """For a program that wants to know before it tries."""
    person = asking(request)
    return Whoami(name=person.name, scopes=[one.value for one in AccessScope if person.may(one)])


@router.get("/tokens", summary="Tokens, newest first")
def tokens_listed(request: Request) -> TokenList:
    """One's own; an admin sees all. Never their secrets."""
    return TokenList(tokens=[_entry(one) for one in tokens_of(request)])


def _entry(token: ApiToken) -> TokenEntry:
    same = ("token_id", "name", "what_for", "made_at", "until", "used_at", "revoked_at", "revoked_by")
    scopes = [one.value for one in AccessScope if one in token.scopes]
    return TokenEntry.model_validate({"scopes": scopes, **{name: getattr(token, name) for name in same}})


@router.post("/tokens", summary="Make a token")
def token_made(request: Request, sent: TokenMake) -> TokenMade:
    """Of the user who asks; it may do no more than they may, also later, and ends no later than the token that asks."""
    text, token_id = make_token(request, sent.what_for, sent.scopes, sent.days)
    return TokenMade(token=text, token_id=token_id)


@router.post("/tokens/revoke", summary="Revoke a token")
def token_revoked(request: Request, sent: TokenRevoke) -> TokenList:
    """It holds at once."""
    revoke_token(request, sent.token_id)
    return tokens_listed(request)


def tokens_of(request: Request) -> list[ApiToken]:
    """Tokens that somebody may see: their own, or all."""
    person = asking(request)
    if not person.may(AccessScope.ADMIN) and not person.is_user:
        return []
    return parts_of(request).people.tokens.all("" if person.may(AccessScope.ADMIN) else person.name)


def make_token(request: Request, what_for: str, scopes: Sequence[str], days: float) -> tuple[str, str]:
    """A token of who asks, and its id. Raises UsageError."""
    person = asking(request)
    if not person.is_user:
        raise UsageError("cannot make a token: the API token is nobody's; log in as a user")
    if beyond := [one for one in scopes if not person.may(one)]:
        raise UsageError(f"cannot make a token with the scope {', '.join(beyond)}: you do not have it")
    days = min(days, max((person.until - time.time()) / DAY_S, 0.0))
    text, token_id = parts_of(request).people.tokens.make(person.name, what_for, scopes, days)
    noted(request, "token made", token_id, f"{what_for}: {' '.join(scopes)}, {days:g} days")
    return text, token_id


def revoke_token(request: Request, token_id: str) -> None:
    """Revoke a token of one's own that may do no more than who asks; an admin, anybody's. Raises UsageError."""
    person = asking(request)
    of = "" if person.may(AccessScope.ADMIN) else person.name
    if any(one.token_id == token_id and one.may - person.scopes for one in tokens_of(request)):
        raise UsageError(f"cannot revoke {token_id}: it may do more than the token that asks")
    gone = parts_of(request).people.tokens.revoke(token_id, person.name or "API", of)
    gate_of(request).forget()
    noted(request, "token revoked", token_id, f"of {gone.name}: {gone.what_for}")
