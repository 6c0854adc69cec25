"""The application: routes, headers and errors put together."""

from __future__ import annotations

import threading
from importlib import resources
from typing import Any

from fastapi import FastAPI
from fastapi.middleware import Middleware
from starlette.staticfiles import StaticFiles

from agents.store.people.roles import AccessScope
from agents.web import api, errors, learning, metrics, pages, reviews
from agents.web.auth import Gatekeeper, needs
from agents.web.blocking import blocks
from agents.web.console import (
    components,
    hunt_pages,
    hunting,
    incident_pages,
    incidents,
    live,
    present,
    services,
    weekly,
)
from agents.web.fleet import exchange, status
from agents.web.headers import SafeHeaders
from agents.web.models import jobs, learnt, staged, versions
from agents.web.months import hunts, month_pages
from agents.web.parts import Parts
from agents.web.people import login, people_pages, tokens, users

DESCRIPTION = """\
Everything but `/health` needs a token: `Authorization: Bearer <token>`, the one of setting `API_TOKEN` or one of a
user, whose scopes are `metrics`, `read`, `triage`, `operate` or `admin`.

Times are Unix seconds in UTC. Names are in presentation form (RFC 1035): a byte outside printable ASCII is
`\\DDD`. Errors are `{"error": "cannot …"}`.
"""

__all__ = ["Parts", "create_app"]

_ROUTERS = (
    (api.router, AccessScope.OPERATE),
    (incidents.router, AccessScope.TRIAGE),
    (incidents.views_router, AccessScope.TRIAGE),
    (hunting.router, AccessScope.OPERATE),
    (hunts.router, AccessScope.OPERATE),
    (components.router, AccessScope.OPERATE),
    (present.router, AccessScope.OPERATE),
    (weekly.router, AccessScope.OPERATE),
    (services.router, AccessScope.TRIAGE),
    (learning.router, AccessScope.OPERATE),
    (reviews.router, AccessScope.TRIAGE),
    (blocks.router, AccessScope.OPERATE),
    (jobs.router, AccessScope.OPERATE),
    (staged.router, AccessScope.OPERATE),
    (versions.router, AccessScope.OPERATE),
    (learnt.router, AccessScope.OPERATE),
)
"""Routes of the API, each with the scope of what changes something; what only reads needs READ."""


def create_app(parts: Parts) -> FastAPI:
    """The application with its collaborators. Raises ValueError for an empty token."""
    app = FastAPI(
        title="DNS tunnel detector",
        version=parts.version,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(SafeHeaders)],
        exception_handlers=errors.HANDLERS,
    )
    attach(app, parts)
    app.include_router(api.open_router)
    for router, changing in _ROUTERS:
        app.include_router(router, dependencies=[needs(changing)])
    app.include_router(exchange.router)
    app.include_router(status.router, dependencies=[needs(AccessScope.OPERATE)])
    app.include_router(metrics.router, dependencies=[needs(AccessScope.METRICS, AccessScope.METRICS)])
    app.include_router(users.router, dependencies=[needs(AccessScope.ADMIN, AccessScope.ADMIN)])
    app.include_router(tokens.router, dependencies=[needs(AccessScope.READ)])
    app.include_router(pages.described_router)
    app.include_router(pages.router)
    app.include_router(login.page_router)
    app.include_router(people_pages.page_router)
    app.include_router(incident_pages.page_router)
    app.include_router(hunt_pages.page_router)
    app.include_router(month_pages.page_router)
    app.include_router(live.page_router)
    app.include_router(weekly.page_router)
    app.include_router(services.page_router)
    app.include_router(reviews.page_router)
    app.include_router(blocks.page_router)
    app.include_router(staged.page_router)
    app.include_router(versions.page_router)
    app.include_router(jobs.page_router)
    app.include_router(learnt.page_router)
    app.include_router(learning.page_router)
    app.include_router(status.page_router)
    app.mount("/static", StaticFiles(directory=str(resources.files("agents.web") / "static")), name="static")
    _describe(app)
    return app


def attach(app: FastAPI, parts: Parts) -> None:
    """Give an application its collaborators, and nothing of those that it had. Raises ValueError for an empty token."""
    app.state.parts = parts
    app.state.gate = Gatekeeper(parts)
    app.state.strip = live.LiveStrip(parts)
    app.state.closing = threading.Event()  # set when the server is about to end: streams end then


def _describe(app: FastAPI) -> None:
    """Serve the OpenAPI document to clients with a token or a session."""

    @app.get("/openapi.json", include_in_schema=False, dependencies=[needs(AccessScope.READ)])
    def openapi() -> dict[str, Any]:
        return app.openapi()
