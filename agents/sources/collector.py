"""Follows logs, and puts their queries into a ring, each once: what a collector process does.

Where it was is kept in a file, up to what the detector has taken: after kill -9 of all processes, what was lost in
memory is read again. What a collector that is started again finds in the shared note it had put already.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import AgentsError, CaptureError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.types import DAY_S, HOUR_S, TIME_MAX, QueryBatch
from agents.dns.drill import DRILL_REQUEST, injected, requested
from agents.dns.message import ANSWER_TYPES_MAX
from agents.sources import SPECS, kind_of, pihole
from agents.sources.intake import Intake
from agents.sources.logs.source import LogLines, Rows, log_lines, type_of
from agents.sources.origins import origin_numbers
from agents.sources.pairs import PAIR_WAIT_S
from agents.sources.tail import Position, TailedFile
from agents.stream.note import SharedNote
from agents.stream.record import client_bytes
from agents.stream.rings import Rings
from agents.stream.shared import STEPS

COLLECTED = "collected.json"
"""The file with positions and counts."""
RECEIVED = "received.json"
"""The file with the counts of live intakes."""
POLL_S = 0.25
"""Files are looked at so often."""
SAVE_S = 1.0
WAIT_S = 0.02
"""While the ring has no room, it is looked at so often."""
PUT_MAX = 512
"""Queries put at once."""
KIND_S = 5.0
"""A file whose kind is not known is looked at again after so many seconds."""
STOP_TRIES = 100
"""At a stop, room in the ring is waited for so many times WAIT_S; the detector is still there and takes."""
ASK_S = 5.0
"""A Pi-hole is asked so often."""
HOURS = 24
DAYS = 8
"""Days of the clock (UTC) that are kept: the last week reaches into so many."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_log = structlog.get_logger()


@dataclass(frozen=True)
class Collecting:
    """What is followed. format: "auto", or the name of a kind; options: values of the kinds' fields by name."""

    paths: Sequence[Path]
    state_dir: Path
    format: str = "auto"
    from_start: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    pi_holes: Sequence[str] = ()  # addresses
    pihole_password: str = field(default="", repr=False)
    note: SharedNote = field(default_factory=SharedNote)

    @property
    def names(self) -> list[str]:
        """Paths and addresses."""
        return [*map(str, self.paths), *self.pi_holes]

    def kinds(self, strict: bool) -> tuple[list[Intake], list[Path]]:
        """The kinds of what is followed, and the files whose kind is not known yet: they are not there, or empty.

        Raises CaptureError for a file that cannot be followed; unless `strict`, one whose content does not tell its
        kind, or that cannot be read, only is not known yet.
        """
        found, unknown = [pihole.SPEC] * bool(self.pi_holes), list[Path]()
        for path in self.paths:
            try:
                kind = self.kind(path) if self.format != "auto" or _has_content(path) else None
            except CaptureError:
                if strict or self.format != "auto":
                    raise
                kind = None
            if kind is None:
                unknown.append(path)
            else:
                found.append(kind)
        return found, unknown

    def reported_at_start(self) -> dict[str, dict[str, Any]]:
        """The kinds of what is followed, as far as they are known, by name; see Heard.to_json."""
        told: dict[str, dict[str, Any]] = {url: {"kind": pihole.SPEC.name} for url in self.pi_holes}
        for path in self.paths:
            with suppress(CaptureError):
                if self.format != "auto" or _has_content(path):
                    told[str(path)] = {"kind": self.kind(path).name}
        return told

    def kind(self, path: Path) -> Intake:
        """The kind of a file. Raises CaptureError for one that cannot be followed."""
        kind = kind_of(path) if self.format == "auto" else next(one for one in SPECS if one.name == self.format)
        if kind.reader is None:
            raise CaptureError(f"cannot follow {path}: {kind.summary} is read as a whole, by replay")
        return kind


class Heard:
    """What was heard from one source, over restarts."""

    def __init__(self, saved: Mapping[str, Any]) -> None:
        """saved: what `to_json` gave before."""
        self.counts = {name: _count(saved.get(name)) for name in ("queries", "malformed", "nameless")}
        self._before = dict(self.counts)
        self.hours = {str(hour): number for hour, number in _numbers_of(saved, "hours")}
        self.days = {str(day): number for day, number in _numbers_of(saved, "days")}
        self.heard_at = _time(saved.get("heard_at"), 0.0)
        self.beat: Callable[[], None] = lambda: None
        """Called as a sign of life where reading takes long."""
        self.kind: Intake | None = None
        self.error, self.origin = "", 0

    def counted(self, batch: QueryBatch | None, malformed: int, nameless: int) -> QueryBatch | None:
        """Count what came; a time that is not known is now. malformed, nameless: since this process began."""
        self.counts["malformed"] = self._before["malformed"] + malformed
        self.counts["nameless"] = self._before["nameless"] + nameless
        if batch is None:
            return None
        batch.ts[batch.ts != batch.ts] = time.time()
        self.add(len(batch))
        return batch

    def add(self, queries: int) -> None:
        """Count queries that came now."""
        now = time.time()
        self.counts["queries"] += queries
        self.heard_at, hour = now, int(now // HOUR_S)
        self.hours[str(hour)] = self.hours.get(str(hour), 0) + queries
        self.hours = {name: number for name, number in self.hours.items() if int(name) > hour - HOURS}
        day = int(now // DAY_S)
        self.days[str(day)] = self.days.get(str(day), 0) + queries
        self.days = {name: number for name, number in self.days.items() if int(name) > day - DAYS}

    def note(self, name: str, error: str) -> None:
        """Note why it cannot be heard, "" = it can; the log says what is new."""
        if error and error != self.error:
            _log.warning("intake_not_heard", name=name, error=error)
        self.error = error

    def to_json(self) -> dict[str, Any]:
        """What is saved, and shown by `doctor`."""
        kind = self.kind.name if self.kind else ""
        told = {"kind": kind, "heard_at": self.heard_at, "hours": self.hours, "days": self.days}
        return {**told, "error": self.error, **self.counts}


class CollectedFile(Heard):
    """One log that is followed, and what came of it."""

    def __init__(self, path: Path, collecting: Collecting, saved: Mapping[str, Any]) -> None:
        super().__init__(saved)
        self.name, self.path, self._collecting = str(path), path, collecting
        self.tail = TailedFile(path, Position.of(saved.get("position")), collecting.from_start)
        self.tail.open()
        self._log: LogLines | None = None
        self._kind_at = self._heard = -math.inf

    def read(self, now: float) -> QueryBatch | None:
        """Queries of lines that came, None where nothing new did. now: of time.monotonic(), seconds."""
        log = self._log or self._find_log(now)
        if log is None:
            return None
        lines = self.tail.read()
        self.note(self.name, self.tail.error)
        if lines:
            self._heard = now
            return self._counted(log, log.take(lines))
        return self._counted(log, log.rest()) if now - self._heard > PAIR_WAIT_S else None

    def close(self) -> None:
        """Close the file."""
        self.tail.close()

    def rest(self) -> QueryBatch | None:
        """The queries that wait for an answer."""
        return self._counted(self._log, self._log.rest()) if self._log is not None else None

    def _find_log(self, now: float) -> LogLines | None:
        if now < self._kind_at:
            return None
        if not self.tail.open():
            self.note(self.name, self.tail.error)
            return None
        self._kind_at = now + KIND_S
        try:
            if not self.path.stat().st_size:
                return None
            self.kind = self._collecting.kind(self.path)
        except (CaptureError, OSError) as error:
            self.note(self.name, str(error))
            return None
        assert self.kind.reader is not None
        options = self.kind.values(self._collecting.options)
        self._log = log_lines(self.kind.reader(options, math.inf))
        _log.info("log_followed", path=str(self.path), kind=self.kind.summary, by=self.kind.sign)
        return self._log

    def _counted(self, log: LogLines, batch: QueryBatch | None) -> QueryBatch | None:
        return self.counted(batch, log.malformed, log.reader.nameless)

    def to_json(self) -> dict[str, Any]:
        """What is saved, and shown by `doctor`."""
        return {**super().to_json(), "position": self.tail.position, "lost": self.tail.lost}


class CollectedPiHole(Heard):
    """One Pi-hole that is asked for its queries."""

    def __init__(self, url: str, collecting: Collecting, saved: Mapping[str, Any]) -> None:
        from agents.sources.pihole_api import PiHoleApi  # here: its HTTP client costs a listener's start a tenth

        super().__init__(saved)
        known = _time(saved.get("since"), 0.0 if collecting.from_start else time.time())
        self.name, self.kind = url, pihole.SPEC
        self._api, self._rows, self._due = PiHoleApi(url, collecting.pihole_password, known), Rows("query"), 0.0

    def read(self, now: float) -> QueryBatch | None:
        """Queries that came, None where nothing new did or it is not yet time to ask. now: of time.monotonic().

        What is long ago comes a part at a time, one each call.
        """
        if now < self._due:
            return None
        self._due, self._api.beat = now + ASK_S, self.beat
        try:
            batch = self._rows.batch(self._api.read(time.time()))
        except pihole.PiHoleAwayError as error:
            self.note(self.name, str(error))
            return None
        self.note(self.name, "")
        if self._api.behind:
            self._due = now
        return self.counted(batch, self._api.malformed + self._rows.malformed, self._api.nameless)

    def rest(self) -> QueryBatch | None:
        """Nothing waits here."""
        return None

    def close(self) -> None:
        """Close the connection."""
        self._api.close()

    def to_json(self) -> dict[str, Any]:
        """What is saved, and shown by `doctor`."""
        return {**super().to_json(), "since": self._api.since}


def _has_content(path: Path) -> bool:
    """Whether a file is there and not empty. Raises CaptureError if that cannot be seen."""
    try:
        return path.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise CaptureError(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}") from None


def _count(found: object) -> int:
    return found if isinstance(found, int) and found >= 0 else 0


def _time(found: object, default: float) -> float:
    """A time in a saved JSON value, the default where it is none."""
    return float(found) if isinstance(found, int | float) and 0 <= found <= TIME_MAX else default


def _numbers_of(saved: Mapping[str, Any], unit: str) -> list[tuple[int, int]]:
    """Hours or days since 1970 and their queries, without those of a damaged file. unit: "hours" or "days"."""
    rows = found.items() if isinstance(found := saved.get(unit), dict) else ()
    return [(int(number), _count(queries)) for number, queries in rows if _NUMBER.fullmatch(str(number))]


class Collector:
    """Follows files, and puts their queries into a ring a detector."""

    def __init__(self, collecting: Collecting, ring: Rings) -> None:
        self._collecting, self._ring = collecting, ring
        self._path = collecting.state_dir / COLLECTED
        saved = saved_states(collecting.note.read(), self._path)
        self._sources: list[CollectedFile | CollectedPiHole] = [
            *(CollectedFile(path, collecting, saved.get(str(path), {})) for path in collecting.paths),
            *(CollectedPiHole(url, collecting, saved.get(url, {})) for url in collecting.pi_holes),
        ]
        numbers = origin_numbers(collecting.names)
        for source in self._sources:
            source.origin = numbers[source.name]
        self._unsaved: deque[tuple[tuple[int, ...], bytes]] = deque()  # states, and the rings' mark that they belong to
        self._request = collecting.state_dir / DRILL_REQUEST
        self._drilled = requested(self._request)
        self._saved_at, self._failing, self._written = -math.inf, False, b""

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Follow until `stop` is set; what was read by then is put. beat: called as a sign of life."""
        for source in self._sources:
            source.beat = beat
        while not stop.is_set():
            beat()
            busy = False
            if (drill := requested(self._request)) and drill != self._drilled:
                self._drilled = drill
                self._put(injected(drill), stop, beat)
            for source in self._sources:
                batch = source.read(time.monotonic())
                if batch is not None:
                    busy = True
                    self._put(batch, stop, beat, source.origin)
            self._save()
            if not busy:
                stop.wait(POLL_S)
        for source in self._sources:
            if (batch := source.rest()) is not None:
                self._put(batch, stop, beat, source.origin)
            source.close()
        self._save(last=True)

    def _put(self, batch: QueryBatch, stop: threading.Event, beat: Callable[[], None], origin: int = 0) -> None:
        """Put a batch when there is room: at the first of STEPS the detector begins to leave things out.

        A stop does not wait for room long.
        """
        rows, most = list(packable_rows(batch, origin)), int(self._ring.capacity * STEPS[0]) - PUT_MAX
        for begin in range(0, len(rows), PUT_MAX):
            tries = 0
            while self._ring.waiting > max(most, 0):
                beat()
                tries += stop.is_set()
                if tries > STOP_TRIES:
                    break
                time.sleep(WAIT_S)
            self._ring.put_rows(rows[begin : begin + PUT_MAX])
        state = self._state()
        self._collecting.note.write(state)
        self._unsaved.append((self._ring.mark(), state))

    def _state(self) -> bytes:
        return json.dumps({source.name: source.to_json() for source in self._sources}).encode()

    def _save(self, last: bool = False) -> None:
        """Write down the newest state of which the detector has taken all."""
        now = time.monotonic()
        if now - self._saved_at < SAVE_S and not last:
            return
        self._saved_at = now
        state = b""
        while self._unsaved and (last or self._ring.passed(self._unsaved[0][0])):
            _, state = self._unsaved.popleft()
        if not self._unsaved:  # all is taken: also what changed without a query
            state = self._state()
        if not state:
            return
        try:
            self._write(state)
        except OSError as error:
            if not self._failing:
                _log.warning("positions_not_saved", path=str(self._path), error=str(error))
            self._failing = True
        else:
            self._failing = False

    def _write(self, state: bytes) -> None:
        """Write a state down; one that lies there only gets the time of now, for a disk is slow. Raises OSError."""
        if state == self._written and self._path.exists():
            os.utime(self._path)
            return
        write_atomic(self._path, state, PRIVATE_MODE)
        self._written = state


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _saved_in(data: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(data)
        if isinstance(found, dict) and all(isinstance(one, dict) for one in found.values()):
            return found
    return {}


def saved_states(note: bytes, path: Path) -> dict[str, Any]:
    """What a process had heard, by source: of its shared note, or else of its file."""
    return _saved_in(note) or _saved_in(_read(path))


def collected(state_dir: Path, within_s: float = math.inf) -> dict[str, Any]:
    """What collector and receiver on this folder have heard, by source: see Heard.to_json.

    within_s: nothing of one whose file was not written so lately, seconds; one that runs writes it each second.
    """
    return {name: one for file in (COLLECTED, RECEIVED) for name, one in _fresh(state_dir / file, within_s).items()}


def _fresh(path: Path, within_s: float) -> dict[str, Any]:
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return {}
    return _saved_in(_read(path)) if age_s < within_s else {}


def queries_since(found: Mapping[str, Any], hours: int, now: float) -> int:
    """Queries that came in the last so many hours, in whole hours of the clock."""
    return sum(number for hour, number in _numbers_of(found, "hours") if hour > now // HOUR_S - hours)


def queries_of_days(found: Mapping[str, Any], days: int, now: float) -> int:
    """Queries of today and of so many days of the clock (UTC) before."""
    return sum(number for day, number in _numbers_of(found, "days") if day >= now // DAY_S - days)


@lru_cache(maxsize=4096)
def _types(text: str) -> tuple[int, ...]:
    """Numbers of an answer's types; one that is not known is left out, for the query counts without it."""
    found = []
    for one in text.split(",")[:ANSWER_TYPES_MAX] if text else ():
        with suppress(AgentsError):
            found.append(type_of(one))
    return tuple(found)


def packable_rows(batch: QueryBatch, origin: int = 0) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch as record.packed_record takes them. origin: what heard them, see sources.origins."""
    columns = (batch.qtype, batch.qlen, batch.rcode, batch.ancount, batch.rlen, batch.ttl_min, batch.rtt_ms)
    data = (batch.cached, batch.ans_hash, batch.ans_bytes, batch.negative_ttl)
    for ts, client, qname, types, *rest in zip(
        batch.ts.tolist(),
        batch.client,
        batch.qname,
        batch.ans_types,
        *(column.tolist() for column in (*columns, *data)),
        strict=True,
    ):
        yield ts, client_bytes(client), qname, *rest[:7], _types(types), *rest[7:], origin
