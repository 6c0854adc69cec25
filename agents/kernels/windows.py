"""Sums over several windows at once: each is the current bucket, and the share of the one before that still counts.

Fixed memory, and no reset that a patient sender could wait for. A flow with one name and nothing else needs none yet.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place
from agents.kernels.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    INFORMATION,
    NAMES,
    NONE,
    SUMS,
    WINDOWS_S,
    Room,
)

ROWS, FREE = int(Room.WINDOWS), int(Room.FREE_WINDOWS)
COUNT = len(WINDOWS_S)
SECONDS = np.array(WINDOWS_S, np.float64)


@kernel_in_place
def turn(windows: Any, number: int, bucket: int) -> None:
    """Let a window's current bucket be this one; an earlier one changes nothing."""
    old = windows["bucket"][number]
    if bucket <= old:
        return
    for one in range(SUMS):
        windows["before"][number, one] = windows["now"][number, one] if bucket == old + 1 else 0.0
        windows["now"][number, one] = 0.0
    windows["bucket"][number] = bucket


@kernel_in_place
def add(windows: Any, ts: float, amounts: NDArray[np.float32]) -> None:
    """Count amounts (in the order of the sums) at ts, in every window."""
    for number in range(COUNT):
        bucket = math.floor(ts / SECONDS[number])
        if bucket < windows["bucket"][number] - 1:
            # the clock was set back: what lies in a future that never comes would never age
            windows["bucket"][number] = bucket
        turn(windows, number, bucket)
        for one in range(SUMS):
            windows["now"][number, one] += amounts[one]


@kernel_in_place
def sums(windows: Any, ts: float, number: int, out: NDArray[np.float64]) -> None:
    """The sums of a window at ts, not before the last add."""
    seconds = SECONDS[number]
    turn(windows, number, math.floor(ts / seconds))
    left = 1 - (ts / seconds - windows["bucket"][number])
    left = min(max(left, 0.0), 1.0)
    for one in range(SUMS):
        out[one] = windows["now"][number, one] + left * windows["before"][number, one]


@kernel_in_place
def _empty(windows: Any) -> None:
    for number in range(COUNT):
        windows["bucket"][number] = NONE
        for one in range(SUMS):
            windows["now"][number, one] = 0.0
            windows["before"][number, one] = 0.0


@kernel_in_place
def settle(flow: Any, windows: NDArray[Any]) -> None:
    """A flow's incident is over and has told what the windows hold: they begin anew."""
    flow["watched"] = flow["alone"] = 0
    for one in range(SUMS):
        flow["single"][one] = 0.0
    if flow["windows"] != NONE:
        _empty(windows[flow["windows"]])


@kernel_in_place
def _take(windows: NDArray[Any], room: NDArray[np.int64]) -> int:
    """A fresh row; there is room for it (see judging.lacks)."""
    row = room[FREE]
    if row != NONE:
        room[FREE] = windows[row]["bucket"][0]
    else:
        row = room[ROWS]
        room[ROWS] += 1
    _empty(windows[row])
    return int(row)


@kernel_in_place
def give(windows: NDArray[Any], room: NDArray[np.int64], row: int) -> None:
    """Give a row back."""
    windows[row]["bucket"][0] = room[FREE]
    room[FREE] = row


@kernel_in_place
def note(flow: Any, windows: NDArray[Any], room: NDArray[np.int64], ts: float, amounts: NDArray[np.float32]) -> None:
    """Count for a flow what a query carried; the first name alone is kept beside the flow."""
    if flow["windows"] == NONE:
        if amounts[ANSWERS] == 0 and amounts[CHOICE] == 0 and flow["names"] <= 1:
            flow["single_ts"] = ts
            for one in range(SUMS):
                flow["single"][one] = amounts[one]
            return
        flow["windows"] = _take(windows, room)
        if flow["single"][NAMES] != 0:
            add(windows[flow["windows"]], flow["single_ts"], flow["single"])
    add(windows[flow["windows"]], ts, amounts)


@kernel_in_place
def take_back(flow: Any, windows: NDArray[Any], encoded: float) -> None:
    """Count so many bytes no more, as far as they lie in the current buckets."""
    for one in (INFORMATION, ENCODED):
        if flow["windows"] == NONE:
            flow["single"][one] = max(flow["single"][one] - encoded, 0.0)
            continue
        now = windows[flow["windows"]]["now"]
        for number in range(COUNT):
            now[number, one] = max(now[number, one] - encoded, 0.0)


assert tuple(range(SUMS)) == (INFORMATION, ENCODED, NAMES, ENCODED_NAMES, ANSWERS, CHOICE)
