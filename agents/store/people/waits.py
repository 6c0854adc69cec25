"""How long to wait after wrong passwords: longer each time, told apart by who asks."""

from __future__ import annotations

import threading
from collections import OrderedDict

FAILED_FREE = 5
"""Wrong passwords in a row for a name, from one address or one known browser, that nobody waits for."""
NAME_FREE = 50
"""The same for a name from all addresses together, and for it in all known browsers together."""
LOCKED_S, LOCKED_MAX_S = 30.0, 900.0
"""The wait after the next one; it doubles with each, up to the most: who guesses gets 100 tries a day and user."""
FORGOTTEN_S = LOCKED_MAX_S
"""Of a name's wrong passwords one is forgotten in so many seconds: a login by somebody else forgets none."""
KEPT_MAX = 4096
"""Keys whose wrong passwords are counted; of the one that matters least no more is known then."""
Asker = tuple[str, str]
"""A name, and who asks for it; "" = anybody."""


def wait_after(failed: int, free: int) -> float:
    """Seconds to wait after so many wrong passwords in a row. free: so many that nobody waits for."""
    beyond = failed - free
    return min(LOCKED_S * 2.0 ** min(beyond, 30), LOCKED_MAX_S) if beyond >= 0 else 0.0


def wait_left(until: float, now: float) -> float:
    """Seconds that are left of a wait; beyond the longest the clock was set back, and nobody waits for that."""
    left = until - now
    return left if 0 < left <= LOCKED_MAX_S else 0.0


def still_counted(failed: int, until: float, now: float) -> int:
    """How many wrong passwords of a name still count, where the wait after the last was until then (Unix seconds)."""
    last = until - wait_after(failed, NAME_FREE)
    return max(0, failed - max(0, int((now - last) // FORGOTTEN_S)))


class Waits:
    """Wrong passwords in a row, counted in memory, bounded. Times are Unix seconds. Safe between threads.

    A try counts before it is looked at, so that of many at once no more are looked at than may come.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._failed: OrderedDict[Asker, tuple[int, float]] = OrderedDict()

    def left(self, asker: Asker, now: float) -> float:
        """Seconds that somebody has to wait still."""
        with self._guard:
            return wait_left(self._failed.get(asker, (0, 0.0))[1], now)

    def take(self, asker: Asker, now: float) -> tuple[float, float]:
        """Count a try as a wrong one: 0, and seconds until the next may come; or what is left of a wait, twice.

        A name without a further word is counted as one from all addresses: NAME_FREE of them, and they are forgotten.
        """
        with self._guard:
            failed, until = self._failed.get(asker, (0, 0.0))
            if left := wait_left(until, now):
                return left, left
            of_name = not asker[1]
            failed = 1 + (still_counted(failed, until, now) if of_name else failed)
            wait = wait_after(failed, NAME_FREE if of_name else FAILED_FREE)
            self._keep(asker, failed, wait, now)
        return 0.0, wait

    def give_back(self, asker: Asker, now: float, wait: float) -> None:
        """The try that was taken then was not wrong, or was not looked at; only the wait that it began ends."""
        with self._guard:
            failed, until = self._failed.get(asker, (0, 0.0))
            if failed > 1:
                self._failed[asker] = failed - 1, now if until == now + wait else until
            else:
                self._failed.pop(asker, None)

    def forget(self, asker: Asker) -> None:
        """Somebody has shown who they are."""
        with self._guard:
            self._failed.pop(asker, None)

    def forget_name(self, name: str) -> None:
        """Nobody waits for this name any more."""
        with self._guard:
            self._failed = OrderedDict((asker, one) for asker, one in self._failed.items() if asker[0] != name)

    def _keep(self, asker: Asker, failed: int, wait: float, now: float) -> None:
        """Keep a count; the one that matters least goes: of few wrong passwords, or long ago."""
        self._failed.pop(asker, None)
        while len(self._failed) >= KEPT_MAX:
            del self._failed[min(self._failed, key=lambda one: _weight(self._failed[one], now))]
        self._failed[asker] = failed, now + wait


def _weight(count: tuple[int, float], now: float) -> float:
    failed, until = count
    return failed - max(0.0, now - until) / FORGOTTEN_S
