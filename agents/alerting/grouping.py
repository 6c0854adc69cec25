"""Which incidents share a message, and when it is sent: one message per client and interval, at most so many an hour.

An attacker chooses how many domains and clients he shows. What he cannot raise is the number of messages: incidents of
one client wait for the client's next message, and where the hourly ceiling is reached, one digest lists all clients.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from agents.core.files import Queued
from agents.core.types import HOUR_S, Incident, Severity

INTERVAL_S = 300.0
"""Seconds between two messages about one client."""
PER_HOUR_MAX = 30
"""Messages an hour, over all clients."""
LISTED_MAX = 20
"""Incidents that wait for one message of a client; of further ones the number is kept, and the gravest severity."""
CLIENTS_MAX = 1000
"""Clients that wait for a message; further ones are dropped and counted."""
REMEMBERED_MAX = 10_000
"""Clients whose last message is remembered."""


class Event(StrEnum):
    """What became of an incident."""

    NEW = "new"
    UPDATE = "update"  # it was alerted, and is more severe now
    ENDED = "ended"


@dataclass(slots=True)
class Due:
    """One incident to be alerted. file: its place in the outbox; None where the disk did not take it."""

    incident: Incident
    event: Event
    file: Queued | None


@dataclass(slots=True)
class Group:
    """What waits for the next message about a client. more: incidents beyond LISTED_MAX.

    worst: the gravest severity of an incident that is new or has become more severe; NORMAL where all ended.
    """

    client: str
    waiting: dict[str, Due] = field(default_factory=dict)  # by domain
    more: int = 0
    worst: Severity = Severity.NORMAL

    @property
    def entries(self) -> list[Due]:
        """The gravest first, those that ended last."""
        return sorted(self.waiting.values(), key=lambda due: (due.event == Event.ENDED, -due.incident.severity))

    @property
    def incidents(self) -> int:
        """How many are reported or ended."""
        return len(self.waiting) + self.more

    def add(self, due: Due) -> list[Due]:
        """Take one up; returns those whose files are not needed any more."""
        before = self.waiting.get(due.incident.domain)
        if due.event == Event.ENDED and before is not None and before.event != Event.ENDED:
            due.event = before.event  # nobody has heard of it yet
        if due.event != Event.ENDED:
            self.worst = max(self.worst, due.incident.severity)
        self.waiting[due.incident.domain] = due
        replaced = [before] if before is not None else []
        if len(self.waiting) > LISTED_MAX:
            self.more += 1
            replaced.append(self.waiting.pop(self.entries[-1].incident.domain))
        return replaced


class Groups:
    """Incidents that wait for a message, by client. Threads may share it.

    interval_s: between two messages about a client. per_hour_max: messages in any hour: a bucket of half as many tokens
    that fills half as many an hour.
    """

    def __init__(
        self,
        interval_s: float = INTERVAL_S,
        per_hour_max: int = PER_HOUR_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s, self._clock = interval_s, clock
        self._tokens_max = max(per_hour_max / 2, 1.0)
        self._tokens, self._filled = self._tokens_max, clock()
        self._waiting: OrderedDict[str, Group] = OrderedDict()
        self._sent: OrderedDict[str, float] = OrderedDict()
        self._guard = threading.Lock()

    @property
    def incidents(self) -> int:
        """How many wait."""
        with self._guard:
            return sum(group.incidents for group in self._waiting.values())

    def add(self, due: Due) -> list[Due] | None:
        """Take one up; returns those whose files are not needed any more, None where there is no room for it."""
        with self._guard:
            client = due.incident.client
            if client not in self._waiting and len(self._waiting) >= CLIENTS_MAX:
                return None
            return self._waiting.setdefault(client, Group(client)).add(due)

    def refresh(self, incident: Incident) -> None:
        """Newer counts of an incident that waits."""
        with self._guard:
            group = self._waiting.get(incident.client)
            due = group.waiting.get(incident.domain) if group else None
            if due is not None and due.incident.incident_id == incident.incident_id:
                due.incident = incident

    def due(self) -> Iterator[list[Group]]:
        """The groups of each message that is to be sent now; several groups make a digest."""
        with self._guard:
            now = self._clock()
            self._fill(now)
            ready = [group for group in self._waiting.values() if now >= self._ready_at(group.client)]
            ready.sort(key=lambda group: -group.worst)
            free = int(self._tokens)
            messages = [[group] for group in ready] if len(ready) <= free else [ready] if free else []
            self._tokens -= len(messages)
            for group in [group for message in messages for group in message]:
                del self._waiting[group.client]
                self._note(group.client, now)
        yield from messages

    def wait_s(self) -> float | None:
        """Seconds until the next message may be due; None while nothing waits."""
        with self._guard:
            if not self._waiting:
                return None
            now = self._clock()
            self._fill(now)
            token = 0.0 if self._tokens >= 1 else (1 - self._tokens) * HOUR_S / self._tokens_max
            first = min(self._ready_at(client) for client in self._waiting)
            return max(first - now, token, 0.0)

    def _fill(self, now: float) -> None:
        gained = max(now - self._filled, 0.0) * self._tokens_max / HOUR_S
        self._tokens, self._filled = min(self._tokens + gained, self._tokens_max), now

    def _ready_at(self, client: str) -> float:
        return self._sent.get(client, float("-inf")) + self._interval_s

    def _note(self, client: str, now: float) -> None:
        self._sent[client] = now
        self._sent.move_to_end(client)
        if len(self._sent) > REMEMBERED_MAX:
            self._sent.popitem(last=False)
