"""What is in force and what goes on, over the API: settings, and the rates of the last hour."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends, Request

from agents.web.api import PROBLEMS, known_parameters
from agents.web.console.last_hour import SLOT_S, RateSlot
from agents.web.console.schemas import RateItem, RateList, SettingItem, SettingList
from agents.web.parts import parts_of

router = APIRouter(responses=PROBLEMS, dependencies=[Depends(known_parameters)])


@router.get("/settings", summary="Settings in force, and where each came from")
def settings(request: Request) -> SettingList:
    """Secrets are hidden."""
    in_force = parts_of(request).in_force()
    return SettingList(
        settings=[SettingItem(name=name, value=value, origin=origin) for name, value, origin in in_force]
    )


@router.get("/rates", summary="Queries, answers and what was left out: lately, and in the last hour")
def rates(request: Request) -> RateList:
    """What *Now* draws. A time for which nobody counted is null, which is not zero."""
    lately, slots = parts_of(request).last_hour.look()
    return RateList(
        as_of=time.time(),
        slot_s=SLOT_S,
        now=_item(lately),
        slots=[_item(one) for one in slots],
    )


def _item(slot: RateSlot | None) -> RateItem | None:
    return None if slot is None else RateItem(seconds=slot.seconds, latency_ms=slot.latency_ms, counts=dict(slot.sums))
