"""Roles of people and scopes of tokens: each role includes the one before it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from agents.core.errors import UsageError
from agents.core.text import printable


class AccessScope(StrEnum):
    """What a route needs."""

    METRICS = "metrics"  # /metrics alone
    READ = "read"  # everything that is shown
    TRIAGE = "triage"  # incidents, reviews, views, known services
    OPERATE = "operate"  # models, learning, blocks, what is sent
    ADMIN = "admin"  # users, and tokens of others


class Role(StrEnum):
    """What a person may do."""

    VIEWER = "viewer"
    ANALYST = "analyst"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def scopes(self) -> frozenset[AccessScope]:
        """All that this role may do."""
        return SCOPES_OF[self]


SCOPES_OF = {role: frozenset(list(AccessScope)[: at + 2]) for at, role in enumerate(Role)}
"""A viewer has METRICS and READ, each further role one scope more."""


def role_of(text: str) -> Role:
    """The role of that name. Raises UsageError."""
    try:
        return Role(text.strip().lower())
    except ValueError:
        raise UsageError(f"cannot use role {printable(text, 40)!r}; there are {', '.join(Role)}") from None


def scopes_of(texts: Iterable[str]) -> frozenset[AccessScope]:
    """The scopes of those names, at least one. Raises UsageError."""
    found = set()
    for text in texts:
        try:
            found.add(AccessScope(text.strip().lower()))
        except ValueError:
            raise UsageError(f"cannot use scope {printable(text, 40)!r}; there are {', '.join(AccessScope)}") from None
    if not found:
        raise UsageError(f"cannot make a token without a scope; there are {', '.join(AccessScope)}")
    return frozenset(found)


def with_smaller(scopes: Iterable[AccessScope]) -> frozenset[AccessScope]:
    """Scopes, and what they include: who may change things may read them."""
    wanted = frozenset(scopes)
    return wanted | {AccessScope.READ, AccessScope.METRICS} if wanted - {AccessScope.METRICS} else wanted
