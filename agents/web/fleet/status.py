"""How a fleet does, for people: over the API and on a page."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from agents.core.errors import AgentsError
from agents.web.api import PROBLEMS, known_parameters
from agents.web.fleet.schemas import FleetStatus
from agents.web.pages import InSession, page
from agents.web.parts import Parts, parts_of
from agents.web.schemas import Problem

PREVIEW = "preview"
"""Parameter of the page's address: what would be sent is made then alone, since it takes seconds."""
HASHES_ON_PAGE = 20
router = APIRouter(prefix="/fleet", responses=PROBLEMS, dependencies=[Depends(known_parameters)])
page_router = APIRouter(include_in_schema=False)


def fleet_status_of(parts: Parts) -> dict[str, Any]:
    """See FleetStatus. Raises AgentsError."""
    return {
        "coordinator": parts.fleet.overview() if parts.fleet is not None else None,
        "site": parts.fleet_site.overview() if parts.fleet_site is not None else None,
    }


@router.get("/status", summary="How the fleet does")
def fleet_status(request: Request) -> FleetStatus:
    """As coordinator: sites, the open round, what was joined last. As site: what was taken, and how clients compare."""
    return FleetStatus.model_validate(fleet_status_of(parts_of(request)))


@router.get("/contribution", summary="What this site would send", responses={404: {"model": Problem}})
def fleet_contribution(request: Request) -> dict[str, Any]:
    """Exactly that: numbers and keyed hashes. It asks the coordinator for the round, and sends nothing else."""
    site = parts_of(request).fleet_site
    if site is None or site.overview() is None:
        raise HTTPException(404, "cannot show a contribution: this installation takes part in no fleet")
    return site.preview()


@page_router.get("/console/fleet", dependencies=[InSession])
def fleet_page(request: Request) -> Response:
    """Both sides of a fleet, as far as this installation has them."""
    parts, problem, sent = parts_of(request), "", None
    found: dict[str, Any] = {"coordinator": None, "site": None}
    try:
        found = fleet_status_of(parts)
        if PREVIEW in request.query_params and parts.fleet_site is not None and found["site"] is not None:
            sent = _shortened(parts.fleet_site.preview())
    except AgentsError as error:
        problem = str(error)
    return page(request, "fleet.html", problem=problem, sent=sent, shown=HASHES_ON_PAGE, **found)


def _shortened(sent: dict[str, Any]) -> dict[str, Any]:
    """A contribution whose long lists are cut, with their lengths beside them."""
    counted = {f"{name}_sent": len(sent[name]) for name in ("domains", "habits")}
    forest = sent["forest"]
    habits = [{**one, "clients": f"{one['clients'][:16]}…"} for one in sent["habits"][:HASHES_ON_PAGE]]
    cut = {"domains": sent["domains"][:HASHES_ON_PAGE], "habits": habits, "trees": forest["trees"] if forest else 0}
    return {name: value for name, value in sent.items() if name != "forest"} | counted | cut
