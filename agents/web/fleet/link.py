"""The link to the fleet's page in the navigation of all pages, where a fleet is set up."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from agents.web.parts import Parts


class FleetLink:
    """ASGI middleware: while a request is answered, `fleet_linked` knows whether a fleet is set up here."""

    _ask: ContextVar[Callable[[], bool]] = ContextVar("fleet_linked", default=lambda: False)

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = self._ask.set(self._set_up)
        try:
            await self._app(scope, receive, send)
        finally:
            self._ask.reset(token)

    def _set_up(self) -> bool:
        return any(one is not None and one.is_set_up() for one in (self._parts.fleet, self._parts.fleet_site))

    @classmethod
    def linked(cls) -> bool:
        """Whether the page that is rendered now has a link to the fleet's."""
        return cls._ask.get()()
