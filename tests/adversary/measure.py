"""One channel against the shipped detector: what it carries before an incident, and for ever without one."""

from __future__ import annotations

import random
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.core.text import NETWORK
from agents.core.types import DAY_S, QueryBatch, Row, Severity, batch_of
from agents.detection.limits import Scale
from agents.dns.name import from_text
from agents.sources import open_source
from agents.sources.capture.frame_kernels import ETHERNET
from tests.adversary.channel import Channel, Sent
from tests.support.captures import SERVER, Timed, ip4, linked, pcap, udp
from tests.support.detecting import START, fresh_detector, shipped_model

WEEK_S = 7 * DAY_S
SLOWEST_S = float(DAY_S)
UP_MAX, DOWN_MAX, QUERIES_MAX = 20_000.0, 200_000.0, 20_000
"""A run ends when so much was carried or asked, or after a week."""
SMALL, MIDDLE = 128, 2048
DOZEN, MANY = 16, 512
"""The first SMALL rows that carry something are judged one by one, those up to MIDDLE by the DOZEN, others by MANY:
when an incident opens is known exactly, when it becomes CRITICAL to within a batch."""
CAPTURED = 64
"""Exchanges that are written to one capture."""
MOMENT_S = 1e-4
"""Times of a capture are rounded to microseconds."""
PACES = 6
"""Trials between the fastest pace and the slowest: each halves the span of logarithms."""


@dataclass(frozen=True, slots=True)
class Run:
    """One channel at one pace. Before an incident (HIGH or above), before one of any severity, before it was CRITICAL:
    bytes, None = there was none."""

    pace_s: float
    seconds: float
    queries: int
    up: float
    down: float
    queries_before: int | None
    up_before: float | None
    down_before: float | None
    up_critical: float | None
    down_critical: float | None
    up_listed: float | None
    down_listed: float | None
    incidents: int
    domain: str

    @property
    def found(self) -> bool:
        return self.up_before is not None


@dataclass(frozen=True, slots=True)
class Figure:
    """What one channel carries. worst: the run with most bytes before an incident. ever: the run without an incident
    that carries most bytes a day, None = none."""

    channel: Channel
    fast: Run
    worst: Run
    ever: Run | None

    @property
    def up_a_day(self) -> float:
        return self.ever.up / self.ever.seconds * DAY_S if self.ever and not self.channel.once else 0.0

    @property
    def down_a_day(self) -> float:
        return self.ever.down / self.ever.seconds * DAY_S if self.ever and not self.channel.once else 0.0


class _Talk:
    """The queries of a run as they are judged: times, and sums of what they carried."""

    def __init__(self, channel: Channel, pace_s: float, seed: int) -> None:
        self.times: list[float] = []
        self.up, self.down = [0.0], [0.0]
        self.judged = 0
        self.begun: float | None = None
        self._left = self._timed(channel, pace_s, seed)

    @property
    def seconds(self) -> float:
        """From the first query that carried something to the last query."""
        return self.times[-1] - (self.times[0] if self.begun is None else self.begun)

    def _timed(self, channel: Channel, pace_s: float, seed: int) -> Iterator[tuple[float, Sent]]:
        ts = START
        for one in channel.send(random.Random(f"{channel.what} {seed}")):
            ts += one.beats * pace_s + one.gap_s
            if self.begun is None and (one.up or one.down):
                self.begun = ts
            if (self.begun is not None and ts - self.begun > WEEK_S) or len(self.times) >= QUERIES_MAX:
                return
            self.times.append(ts)
            self.up.append(self.up[-1] + one.up)
            self.down.append(self.down[-1] + one.down)
            yield ts, one
            if self.up[-1] >= UP_MAX or self.down[-1] >= DOWN_MAX:
                return

    def batches(self) -> Iterator[QueryBatch]:
        """In time order; what only prepares is a batch of its own."""
        part: list[tuple[float, Sent]] = []
        carrying = 0
        for ts, one in self._left:
            carries = one.up > 0 or one.down > 0
            if part and carries and not carrying:
                yield self._taken(part)
                part = []
            part.append((ts, one))
            carrying += carries
            if len(part) >= _size(carrying, one):
                yield self._taken(part)
                part = []
        if part:
            yield self._taken(part)

    def _taken(self, part: Sequence[tuple[float, Sent]]) -> QueryBatch:
        self.judged += len(part)
        return captured(part) if part[0][1].exchange is not None else batch_of([_row(*one) for one in part])


def _size(carrying: int, one: Sent) -> int:
    """Rows of a batch: few as long as few have carried something."""
    if one.exchange is not None:
        return CAPTURED
    return 1 if 0 < carrying <= SMALL else DOZEN if 0 < carrying <= MIDDLE else MANY


def run(channel: Channel, pace_s: float, seed: int = 1, until: Severity = Severity.CRITICAL) -> Run:
    """Send at this pace until an incident of severity `until`, or to the run's end."""
    talk = _Talk(channel, pace_s, seed)
    detector = fresh_detector(shipped_model(), Scale(), channel.flows_max)
    opened: float | None = None
    listed: float | None = None
    critical, domain, ids = False, "", set[str]()
    for batch in talk.batches():
        for one in detector.detect(batch, explain=False).incidents:
            if channel.own and one.client not in {*channel.own, NETWORK}:
                continue
            listed = min(one.detected_at, listed or one.detected_at)
            if one.severity < Severity.HIGH:
                continue
            ids.add(one.incident_id)
            if opened is None or one.detected_at < opened:
                opened, domain = one.detected_at, one.domain
            critical = critical or one.severity >= Severity.CRITICAL
        if critical or (opened is not None and until <= Severity.HIGH):
            break
    done = talk.judged
    before = None if opened is None else bisect_right(talk.times, opened + MOMENT_S)
    first = None if listed is None else bisect_right(talk.times, listed + MOMENT_S)
    up, down = talk.up[done], talk.down[done]
    return Run(
        pace_s, max(talk.seconds, pace_s), done, up, down, before,
        None if before is None else talk.up[before], None if before is None else talk.down[before],
        up if critical else None, down if critical else None,
        None if first is None else talk.up[first], None if first is None else talk.down[first], len(ids), domain,
    )  # fmt: skip


def figure_of(channel: Channel, seed: int = 1, paces: int = PACES) -> Figure:
    """Look for the attacker's best pace: the fastest at which a week passes without an incident."""
    fast = run(channel, channel.fastest_s, seed)
    if channel.once or not fast.found:
        return Figure(channel, fast, fast, None if fast.found else fast)
    runs, low, high = [fast], channel.fastest_s, SLOWEST_S
    slow = run(channel, high, seed, Severity.HIGH)
    runs.append(slow)
    for _ in range(paces if not slow.found else 2):
        middle = (low * high) ** 0.5
        one = run(channel, middle, seed, Severity.HIGH)
        runs.append(one)
        low, high = (middle, high) if one.found else (low, middle)
    worst = max((one for one in runs if one.found), key=lambda one: (one.up_before or 0.0) + (one.down_before or 0.0))
    quiet = [one for one in runs if not one.found]
    ever = max(quiet, key=lambda one: (one.up + one.down) / one.seconds) if quiet else None
    return Figure(channel, fast, worst, ever)


def _row(ts: float, one: Sent) -> Row:
    wire = from_text(one.name) if isinstance(one.name, str) else one.name
    size = len(wire) + 17 + one.answer.size if one.answer.size >= 0 else one.answer.size
    answer = one.answer
    return (
        ts, one.client, wire, one.qtype, len(wire) + 17, answer.rcode, answer.records, size, answer.ttl, 12.0,
        answer.types,
    )  # fmt: skip


def captured(part: Sequence[tuple[float, Sent]]) -> QueryBatch:
    """Exchanges as a capture holds them, read as `replay` reads it."""
    frames: list[Timed] = []
    for number, (ts, one) in enumerate(part):
        assert one.exchange is not None, "a channel is in messages altogether, or not at all"
        port, ident = 1024 + number, number.to_bytes(2, "big")
        ask, reply = ident + one.exchange.ask[2:], ident + one.exchange.reply[2:]
        frames.append((ts, linked(ETHERNET, ip4(udp(ask, port), one.client, SERVER))))
        frames.append((ts + 0.01, linked(ETHERNET, ip4(udp(reply, 53, port), SERVER, one.client))))
    frames.sort(key=lambda frame: frame[0])
    with tempfile.TemporaryDirectory(prefix="adversary-") as folder:
        path = Path(folder) / "talk.pcap"
        path.write_bytes(pcap(frames))
        (batch,) = open_source([path]).batches(len(part))
    assert len(batch) == len(part), "every message was read"
    return batch
