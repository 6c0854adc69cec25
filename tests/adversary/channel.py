"""What an attacker inside sends over one channel: queries, the bytes of his own that each carries, and the pauses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agents.core.types import UNKNOWN
from agents.dns.message import type_number

CLIENT = "10.9.0.9"
DOMAIN = "evil-tunnel.net"
"""A registered domain that nobody else asks below."""


class Answer(NamedTuple):
    """What a query got: distinct record types, records, bytes of their data with their heads, TTL in seconds."""

    types: str = "A"
    records: int = 1
    size: int = 16
    ttl: int = 60
    rcode: int = 0


NOTHING_THERE = Answer("", 0, 60, UNKNOWN, 3)
NO_ANSWER = Answer("", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)


class Exchange(NamedTuple):
    """A query and its answer as messages (RFC 1035 section 4), for channels outside the name and the type."""

    ask: bytes
    reply: bytes


class Sent(NamedTuple):
    """One query. `up` and `down` are bytes of the attacker's own that it and its answer carry.

    Its time is the time of the query before it, `beats` times the channel's pace, and `gap_s` seconds.
    """

    name: str | bytes
    up: float = 0.0
    down: float = 0.0
    beats: float = 1.0
    gap_s: float = 0.0
    qtype: int = 1
    client: str = CLIENT
    answer: Answer = Answer()
    exchange: Exchange | None = None


Send = Callable[[random.Random], Iterator[Sent]]


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to carry data past the detector.

    what: as a row of a table names it. kind: the row of the summary that it counts for. send: its queries, without an
    end. fastest_s: seconds between two beats at the fastest pace. once: it is one query or one short exchange, whose
    pace means nothing. flows_max: (client, domain) pairs that the detector has room for. own: clients whose incidents
    tell of this channel; empty = any.
    """

    what: str
    kind: str
    send: Send
    fastest_s: float = 1.0
    once: bool = False
    flows_max: int = 200_000
    own: frozenset[str] = field(default_factory=frozenset)


def typed(text: str) -> int:
    """The number of a record type."""
    return type_number(text)
