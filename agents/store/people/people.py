"""All of people over one store."""

from __future__ import annotations

from functools import cached_property

from agents.store.people.sessions import SessionStore
from agents.store.people.tokens import TokenStore
from agents.store.people.users import UserStore
from agents.store.sql import Database

__all__ = ["PeopleStore"]


class PeopleStore:
    """All of it over one store."""

    def __init__(self, store: Database) -> None:
        self._store = store

    @cached_property
    def users(self) -> UserStore:
        return UserStore(self._store)

    @cached_property
    def sessions(self) -> SessionStore:
        return SessionStore(self._store)

    @cached_property
    def tokens(self) -> TokenStore:
        return TokenStore(self._store)

    def forget_old(self, now: float) -> int:
        """Delete sessions and tokens that are over; how many."""
        return self.sessions.forget_old(now) + self.tokens.forget_old(now)
