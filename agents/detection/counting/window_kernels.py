"""Sums of a flow in sliding windows: adding, ageing, comparing, taking back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.detection.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    FIRST,
    INFORMATION,
    NAMES,
    NONE,
    ORDERED,
    SUMS,
    UNNUMBERED,
    WINDOWS_S,
    Room,
    State,
)

WINDOW_ROWS, FREE_WINDOWS = int(Room.WINDOWS), int(Room.FREE_WINDOWS)
COUNT = len(WINDOWS_S)
SECONDS = np.array(WINDOWS_S, np.float64)


@kernel_in_place
def turn(windows: Any, number: int, bucket: int) -> None:
    """Make this bucket the window's current one; an earlier bucket changes nothing."""
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
            # the clock was set back: counters of a later bucket would not age until the clock reaches it again
            windows["bucket"][number] = bucket
        turn(windows, number, bucket)
        for one in range(SUMS):
            windows["now"][number, one] += amounts[one]


@kernel_in_place
def sums(windows: Any, ts: float, number: int, out: NDArray[np.float64]) -> None:
    """The sums of a window at ts, which is not earlier than the last add."""
    seconds = SECONDS[number]
    turn(windows, number, math.floor(ts / seconds))
    left = 1 - (ts / seconds - windows["bucket"][number])
    left = min(max(left, 0.0), 1.0)
    for one in range(SUMS):
        out[one] = windows["now"][number, one] + left * windows["before"][number, one]


@kernel_in_place
def empty_windows(windows: Any) -> None:
    """Set all sums to 0."""
    for number in range(COUNT):
        windows["bucket"][number] = NONE
        for one in range(SUMS):
            windows["now"][number, one] = 0.0
            windows["before"][number, one] = 0.0


@kernel_in_place
def settle(flow: Any, windows: NDArray[Any]) -> None:
    """Empty the windows of a flow whose incident is over: the incident has reported their contents."""
    flow["watched"] = flow["alone"] = 0
    for one in range(SUMS):
        flow["single"][one] = 0.0
    if flow["windows"] != NONE:
        empty_windows(windows[flow["windows"]])


@kernel_in_place
def _take_windows(windows: NDArray[Any], room: NDArray[np.int64]) -> int:
    """A fresh row; the caller checked that there is room for it (judge_kernels._lacks)."""
    row = room[FREE_WINDOWS]
    if row != NONE:
        room[FREE_WINDOWS] = windows[row]["bucket"][0]
    else:
        row = room[WINDOW_ROWS]
        room[WINDOW_ROWS] += 1
    empty_windows(windows[row])
    return int(row)


@kernel_in_place
def give_windows(windows: NDArray[Any], room: NDArray[np.int64], row: int) -> None:
    """Give a row back."""
    windows[row]["bucket"][0] = room[FREE_WINDOWS]
    room[FREE_WINDOWS] = row


@kernel_in_place
def note(flow: Any, windows: NDArray[Any], room: NDArray[np.int64], ts: float, amounts: NDArray[np.float32]) -> None:
    """Count the amounts of a query for its flow. A flow with one name keeps them in its own row, without windows."""
    if flow["windows"] == NONE:
        if amounts[ANSWERS] == 0 and amounts[CHOICE] == 0 and flow["names"] <= 1:
            flow["single_ts"] = ts
            for one in range(SUMS):
                flow["single"][one] = amounts[one]
            return
        flow["windows"] = _take_windows(windows, room)
        if flow["single"][NAMES] != 0:
            kept = windows[flow["windows"]]
            add(kept, flow["single_ts"], flow["single"])
            for number in range(COUNT):  # the first name aged until last_seen, even if the clock is set back now
                turn(kept, number, math.floor(flow["last_seen"] / SECONDS[number]))
    add(windows[flow["windows"]], ts, amounts)


@kernel_in_place
def take_back(flow: Any, windows: NDArray[Any], carried: float, last: int = ENCODED) -> None:
    """Subtract so many bytes from the current buckets of UNNUMBERED and INFORMATION to `last`, at most down to 0."""
    for one in range(SUMS):
        if one > last and one != UNNUMBERED:
            continue
        if flow["windows"] == NONE:
            flow["single"][one] = max(flow["single"][one] - carried, 0.0)
            continue
        now = windows[flow["windows"]]["now"]
        for number in range(COUNT):
            now[number, one] = max(now[number, one] - carried, 0.0)


@kernel_in_place
def take_sum_back(flow: Any, windows: NDArray[Any], other: Any, others: NDArray[Any]) -> None:
    """Subtract what the current buckets of another flow hold from those of the same time, at most down to 0."""
    if flow["windows"] == NONE or other["windows"] == NONE:
        return
    mine, its = windows[flow["windows"]], others[other["windows"]]
    for number in range(COUNT):
        if mine["bucket"][number] == its["bucket"][number]:
            for one in range(SUMS):
                mine["now"][number, one] = max(mine["now"][number, one] - its["now"][number, one], 0.0)


@kernel_in_place
def take_words_back(state: State, flow: Any, client: int, spared: float) -> None:
    """Count a flow no more for a client's sum of words, since it is an incident by itself."""
    at = state.clients[client]["scattered"]
    if at != NONE and flow["leaked"] > spared:
        take_back(state.flows[at], state.windows, flow["leaked"] - spared, INFORMATION)


assert tuple(range(SUMS)) == (INFORMATION, ENCODED, NAMES, ENCODED_NAMES, ANSWERS, CHOICE, UNNUMBERED)
assert (FIRST, ORDERED) == (ANSWERS, CHOICE)
