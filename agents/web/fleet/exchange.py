"""The routes below /fleet/: sites of a fleet are known by their signatures, not by the token of people.

What a request means is the coordinator's business (core.protocols.FleetDesk); here its size is bounded.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, HTTPException, Request, Response

from agents.web.parts import parts_of

router = APIRouter(prefix="/fleet", include_in_schema=False)


@router.api_route("/round", methods=["GET", "POST"])
async def fleet_round(request: Request) -> Response:
    """The open round, and a site's contribution to it."""
    desk, body = parts_of(request).fleet, bytearray()
    if desk is None:
        raise HTTPException(404, "cannot answer: this installation coordinates no fleet")
    async for chunk in request.stream():
        body += chunk
        if len(body) > desk.body_max:
            raise HTTPException(413, "cannot read a contribution of that size")
    headers = {name: value for name, value in request.headers.items() if name.startswith("x-fleet-")}
    found = await asyncio.to_thread(desk.answer, request.method, request.url.path, headers, bytes(body))
    return Response(found.body, found.status, dict(found.headers), "application/json")
