"""The application: routes, headers and errors put together."""

from __future__ import annotations

import threading
from importlib import resources
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware import Middleware
from starlette.staticfiles import StaticFiles

from agents.web import api, errors, learning, metrics, pages, reviews
from agents.web.auth import Gatekeeper
from agents.web.blocking import blocks
from agents.web.console import hunt_pages, hunting, incident_pages, incidents, live, services
from agents.web.fleet import exchange, link, status
from agents.web.headers import SafeHeaders
from agents.web.models import versions
from agents.web.parts import Parts

DESCRIPTION = """\
Everything but `/health` needs the token of setting `API_TOKEN`: `Authorization: Bearer <token>`.

Times are Unix seconds in UTC. Names are in presentation form (RFC 1035): a byte outside printable ASCII is
`\\DDD`. Errors are `{"error": "cannot …"}`.
"""

__all__ = ["Parts", "create_app"]


def create_app(parts: Parts) -> FastAPI:
    """The application with its collaborators. Raises ValueError for an empty token."""
    gate = Gatekeeper(parts.token)
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
    app.state.parts = parts
    app.add_middleware(link.FleetLink, parts=parts)
    app.state.gate = gate
    app.state.strip = live.LiveStrip(parts)
    app.state.closing = threading.Event()  # set when the server is about to end: streams end then
    app.include_router(api.open_router)
    app.include_router(api.router, dependencies=[Depends(gate.require)])
    app.include_router(incidents.router, dependencies=[Depends(gate.require)])
    app.include_router(incidents.views_router, dependencies=[Depends(gate.require)])
    app.include_router(hunting.router, dependencies=[Depends(gate.require)])
    app.include_router(services.router, dependencies=[Depends(gate.require)])
    app.include_router(learning.router, dependencies=[Depends(gate.require)])
    app.include_router(reviews.router, dependencies=[Depends(gate.require)])
    app.include_router(blocks.router, dependencies=[Depends(gate.require)])
    app.include_router(versions.router, dependencies=[Depends(gate.require)])
    app.include_router(exchange.router)
    app.include_router(status.router, dependencies=[Depends(gate.require)])
    app.include_router(metrics.router, dependencies=[Depends(gate.require)])
    app.include_router(pages.described_router)
    app.include_router(pages.router)
    app.include_router(incident_pages.page_router)
    app.include_router(hunt_pages.page_router)
    app.include_router(live.page_router)
    app.include_router(services.page_router)
    app.include_router(reviews.page_router)
    app.include_router(blocks.page_router)
    app.include_router(versions.page_router)
    app.include_router(learning.page_router)
    app.include_router(status.page_router)
    app.mount("/static", StaticFiles(directory=str(resources.files("agents.web") / "static")), name="static")
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Serve the OpenAPI document to clients with the token or a session."""
    gate: Gatekeeper = app.state.gate

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(gate.require)])
    def openapi() -> dict[str, Any]:
        return app.openapi()
