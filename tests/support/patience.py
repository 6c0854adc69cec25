"""How long tests wait: one factor for every time limit, measured once a session on the machine that they run on.

`patient(5)` is five seconds on a quiet machine like the one that the limits were set on, and more on a slower or busier
one. The environment variable TEST_PATIENCE sets the factor instead of measuring it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from functools import cache

VARIABLE = "TEST_PATIENCE"
REFERENCE_S = 0.35
"""What `_work` takes where the limits were set."""
FACTOR_MAX = 10.0
_ROUNDS, _STARTS = 200_000, 2


def _work() -> None:
    """What tests spend their time on: Python, and processes that start."""
    digest = b""
    for number in range(_ROUNDS):
        digest = hashlib.sha256(digest + number.to_bytes(4)).digest()
    for _ in range(_STARTS):
        subprocess.run([sys.executable, "-c", "import asyncio, json"], check=True)


def measured() -> float:
    """How many times longer this machine takes, now, than the one that the limits were set on; from 1 to FACTOR_MAX."""
    since = time.perf_counter()
    _work()
    return min(max((time.perf_counter() - since) / REFERENCE_S, 1.0), FACTOR_MAX)


@cache
def factor(processes: int = 1) -> float:
    """What every time limit is multiplied by, where so many processes run tests.

    The processes of this session, xdist's too, are handed the same.
    """
    given = os.environ.get(VARIABLE)
    found = float(given) if given else measured() * max(1.0, processes / len(os.sched_getaffinity(0)))
    os.environ[VARIABLE] = f"{found:.2f}"
    return float(os.environ[VARIABLE])


def patient(seconds: float) -> float:
    """A time limit for this machine."""
    return seconds * factor()
