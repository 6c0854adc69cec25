"""Which days maintenance may drop, and whether the clock can be believed by which they are old.

Live queries age by their own day, replays by that of their import.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from agents.core.text import counted
from agents.core.types import DAY_S

JUMP_S = 3600.0
"""A clock that was set by more than an hour against the machine's steady clock is doubted; NTP corrects seconds."""
BELIEVED_S = DAY_S
"""A clock that has gone on evenly for so long since it was set is believed."""
KEPT_DAYS_MIN = 3
"""Maintenance that would leave fewer days with queries looks like one with a wrong clock."""
DROP_SHARE = 4
"""One maintenance drops at most a quarter of the stored days."""


def steady() -> float:
    """Seconds that nobody sets; on Linux they go on while the machine sleeps (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class ClockWatch:
    """Compares the wall clock with the steady one, from its making on. refused: why maintenance was refused last."""

    def __init__(self, wall: Callable[[], float] | None = None, even: Callable[[], float] = steady) -> None:
        self._set_wall, self._even, self.refused = wall, even, ""
        self._usual = self._last = self._wall() - even()
        self._since = even()

    def _wall(self) -> float:
        return self._set_wall() if self._set_wall else time.time()

    def doubt(self) -> str:
        """Why the clock is not believed, "" where it is; to be asked now and then."""
        offset, now = self._wall() - self._even(), self._even()
        if abs(offset - self._last) > JUMP_S:
            self._since = now
        self._last = offset
        jump = offset - self._usual
        if abs(jump) > JUMP_S and now - self._since >= BELIEVED_S:
            self._usual, jump = offset, 0.0
        if abs(jump) <= JUMP_S:
            return ""
        hours, way = abs(jump) / 3600, "ahead" if jump > 0 else "back"
        return f"the clock was set {counted(hours, 'hour')} {way} while this process ran"


def doubt_of(days: Sequence[int], today: int, keep_days: int) -> str:
    """Why the days that have queries, ascending (days since 1970), contradict today; "" where they do not."""
    old = [day for day in days if day < today - keep_days]
    kept = [day for day in days if today - keep_days <= day <= today + 1]
    future = [day for day in days if day > today + 1]
    if future and len([day for day in kept if day > today - KEPT_DAYS_MIN]) < min(2, keep_days):
        return f"the newest stored query lies {counted(future[-1] - today, 'day')} in the future"
    if old and len(kept) < min(KEPT_DAYS_MIN, keep_days):
        newest = counted(today - old[-1], "day")
        return f"only {counted(len(kept), 'day')} with queries would stay, and those before are {newest} old"
    return ""


def doubt_of_imports(imports: Sequence[int], days: Sequence[int], today: int, keep_days: int) -> str:
    """Why the days on which replays were stored contradict today; "" where they do not. days: of live queries.

    Nobody replays every day: a clock is doubted where nothing at all was stored in the days to keep.
    """
    within = [day for day in (*imports, *days) if today - keep_days <= day <= today + 1]
    old = [day for day in imports if day < today - keep_days]
    if not old or within:
        return ""
    return f"nothing was stored in {counted(keep_days, 'day')}, and the newest replay is {today - old[-1]} days old"


def drop_before(days: Sequence[int], limit: int) -> int:
    """The day before which to drop: `limit`, or an earlier one where more than a share of the days would go."""
    old = [day for day in days if day < limit]
    most = max(1, len(days) // DROP_SHARE)
    return limit if len(old) <= most else old[most]
