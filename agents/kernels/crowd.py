"""How many clients one address stands for: a router, a proxy and a resolver ask for all of theirs."""

from __future__ import annotations

import math
from typing import Any

from agents.kernels import kernel_in_place

CROWD_DOMAINS, CROWD_MAX = 500, 4.0
"""Domains that a client asks below in a day from which it stands for several: what adds up over
domains may be more in proportion, up to so many times. Limits below one domain stay."""
DAY_S = 86_400


@kernel_in_place
def meet(client: Any, flow: Any, ts: float) -> None:
    """Count a domain that a client asks below for the first time today. client: a row of state.CLIENT."""
    day = math.floor(ts / DAY_S)
    if day > client["day"]:
        client["yesterday"] = client["today"] if day == client["day"] + 1 else 0
        client["today"], client["day"] = 0, day
    if day == client["day"] and (flow["queries"] == 0 or math.floor(flow["last_seen"] / DAY_S) < day):
        client["today"] += 1


@kernel_in_place
def crowd(client: Any) -> float:
    """How many clients it stands for, at least; by today and yesterday."""
    return float(min(max(max(client["today"], client["yesterday"]) / CROWD_DOMAINS, 1.0), CROWD_MAX))
