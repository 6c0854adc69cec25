"""How much of what a sender sent did not arrive, estimated without its help, by the minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.sources.collector import collected
from agents.sources.dnstap.merging_kernels import ANSWERS, QUERIES, UNANSWERED, UNASKED

MINUTE_S = 60.0
FRESH_S = 12.0
"""What a receiver has not written for so long is not of now."""
LOSS_ALARM = 0.001
"""Share of answers without their query above which frames are lost."""
ALONE_MIN = 3
"""Fewer in a minute are chance: a connection begins between a query and its answer."""


def lost_share(told: Mapping[str, Any]) -> float:
    """The largest share that a sender of an intake lost in the last minute, of what HeardLive.to_json saved."""
    senders = told.get("senders")
    found = [one.get("lost") for one in senders.values() if isinstance(one, dict)] if isinstance(senders, dict) else []
    return max((float(share) for share in found if isinstance(share, int | float)), default=0.0)


def losing_intakes(state_dir: Path) -> dict[str, float]:
    """Live intakes of a running receiver that lose more than they may, and the share that each loses."""
    shares = {name: lost_share(one) for name, one in collected(state_dir, FRESH_S).items()}
    return {name: share for name, share in shares.items() if share > LOSS_ALARM}


class SenderLoss:
    """Answers whose query was not seen, of all answers of a sender that sends both.

    Queries without an answer are told, too, but are no alarm: servers leave some unanswered. A sender of answers alone
    tells nothing of what is lost.
    """

    def __init__(self) -> None:
        self.share = self.unanswered = 0.0
        self.known = False
        self._minute_at = 0.0
        self._before: Sequence[int] = (0, 0, 0, 0)

    @property
    def alarm(self) -> bool:
        """Whether more is lost than a sender may lose."""
        return self.share > LOSS_ALARM

    def look(self, counts: Sequence[int], now: float) -> bool:
        """Take over a sender's counts, at the turn of a minute; whether an alarm begins or goes on."""
        if not self._minute_at:
            self._minute_at, self._before = now, (0, 0, 0, 0)
        if now - self._minute_at < MINUTE_S:
            return False
        grown = [new - old for new, old in zip(counts, self._before, strict=True)]
        self._minute_at, self._before = now, list(counts)
        queries, answers, unasked, unanswered = (max(grown[at], 0) for at in (QUERIES, ANSWERS, UNASKED, UNANSWERED))
        self.known = queries > 0 and answers > 0
        self.share = unasked / answers if self.known and unasked >= ALONE_MIN else 0.0
        self.unanswered = unanswered / queries if self.known else 0.0
        return self.alarm

    def look_at_drops(self, packets: int, dropped: int, now: float) -> bool:
        """The same of packets, of which the kernel counts those that found no room."""
        if not self._minute_at:
            self._minute_at, self._before = now, (0, 0)
        if now - self._minute_at < MINUTE_S:
            return False
        came, lost = packets - self._before[0], dropped - self._before[1]
        self._minute_at, self._before, self.known = now, (packets, dropped), True
        self.share = lost / came if came > 0 else 0.0
        return self.alarm

    def to_json(self) -> dict[str, Any]:
        """What is saved, and shown by `doctor`: shares of the last whole minute."""
        return {"known": self.known, "lost": round(self.share, 6), "unanswered": round(self.unanswered, 6)}
