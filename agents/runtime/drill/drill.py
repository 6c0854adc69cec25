"""Every so often a synthetic tunnel goes through every live intake, to detector, store and, daily, channels.

It tells "nothing was found" from "nothing runs". What is asked at a listener or a resolver takes the way of every
query; a collector whose resolver is not named puts the names into its ring itself: the drill says which. The very
names of the last two drills, so many times each as honest ways repeat them, are taken out of each batch before it is
judged, and judged by a detector of their own that forgets them: they are in no statistics, no training and no budget.
What is stored of them is marked, and deleted again. Any other name below the zone is judged like all that clients ask.
"""

from __future__ import annotations

import json
import queue
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.columns import Names, packed
from agents.core.errors import AgentsError
from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.core.text import counted, utc
from agents.core.types import DAY_S, Message, QueryBatch, Severity, Verdicts, marked
from agents.detection.runner import ReplayDetector, verdicts_of
from agents.dns.drill import DRILL_NAMES, DRILL_REQUEST, DRILL_WIRE, drill_names, drill_of, requested
from agents.runtime.drill.options import DrillOptions

DRILL_MARK = "drill"
"""The mark of what a drill stores: training and statistics leave out what is marked."""
DRILL_STATE = "drill.json"
"""When the last drill was, in the folder of the detector's state."""
FIRST_S = 900.0
"""The first drill of a new DATA_DIR, and the earliest after a start: what just begins has other things to do."""
SEEN_S = 150.0
"""A drill is seen within so many seconds: a Pi-hole writes its database each minute, servers flush logs late."""
ENOUGH = DRILL_NAMES // 2
"""Names that must arrive: a datagram may be lost."""
COPIES_MAX = 16
"""How often a name of a drill is taken out: resolvers repeat what they ask, a tap sees each hop. More is traffic."""
KEPT_DRILLS = 2
"""Drills whose names are taken out: the last one, and one whose rows come late."""
PACE_S = 0.01
_QUESTION_END = b"\0\0\x10\0\1"  # the root, TXT, IN (RFC 1035 section 4.1.2)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DrillTargets:
    """What runs: the address at which a listener is asked, None without one; whether collector and receiver do.

    unasked: why the listener cannot be asked from here.
    """

    listener: tuple[str, int] | None = None
    collector: bool = False
    unasked: str = ""
    receiver: bool = False


@dataclass(slots=True)
class Through:
    """One intake in one drill."""

    what: str
    how: str  # asked or injected
    seen: int = 0
    after_s: float = 0.0
    severity: Severity = Severity.NORMAL
    rows: list[QueryBatch] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether its tunnel arrived and was an incident."""
        return self.seen >= ENOUGH and self.severity >= Severity.HIGH


class Drill:
    """Runs drills in a thread, and takes their rows out of batches.

    make: a detector that has seen nothing. keep: stores verdicts, and says whether the database has them. forget:
    deletes what drills stored; raises StoreError. tell: sends a message.
    """

    def __init__(
        self,
        options: DrillOptions,
        targets: DrillTargets,
        state_dir: Path,
        make: Callable[[], ReplayDetector],
        forget: Callable[[], object] = lambda: None,
        tell: Callable[[Message], None] = lambda message: None,
        *,
        first_s: float = FIRST_S,
        seen_s: float = SEEN_S,
    ) -> None:
        self._options, self._targets, self._dir = options, targets, state_dir
        self._make, self._forget, self._tell = make, forget, tell
        self._first_s, self._seen_s = first_s, seen_s
        self._keep: Callable[[Verdicts], bool] = lambda verdicts: True
        self._rows: queue.SimpleQueue[QueryBatch] = queue.SimpleQueue()  # of COPIES_MAX of each name at most
        self._expected: tuple[dict[bytes, int], ...] = ()  # names of the last drills, and how often they may still come
        self.expects = False  # whether a batch may have rows of a drill: else it need not be split
        if drill := requested(state_dir / DRILL_REQUEST):
            self._expect(drill, self._plan())  # of the process before this one: its rows may come late
        self._stop = threading.Event()
        kept = _kept(state_dir / DRILL_STATE)
        self._at, self._told_at, self._failed = kept["at"], kept["told_at"], bool(kept["failed"])
        self._result: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._work, name="drill", daemon=True)

    @property
    def enabled(self) -> bool:
        """Whether there are drills."""
        return self._options.minutes > 0 and bool(self._plan())

    @property
    def impossible(self) -> str:
        """Why there are none, though there are to be some; "" otherwise."""
        return self._targets.unasked if self._options.minutes > 0 and not self._plan() else ""

    @property
    def alive(self) -> bool:
        """Whether the thread lives, where there is to be one."""
        return self._thread.ident is None or self._thread.is_alive()

    def start(self, keep: Callable[[Verdicts], bool]) -> None:
        """Begin. keep: stores verdicts; whether the database has them."""
        self._keep = keep
        if self.enabled:
            self._thread.start()

    def close(self) -> None:
        """End; a drill under way is given up."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def state(self) -> dict[str, Any]:
        """For health: the last drill, and whether one is overdue."""
        if self.impossible:
            problems = [
                self.impossible,
                "let it ask (ALLOWED_CLIENTS), name resolvers in DRILL_RESOLVERS, or set DRILL_MINUTES=0",
            ]
            return {"minutes": self._options.minutes, "at": 0.0, "ok": False, "problems": problems}
        if not self.enabled:
            return {}
        found = {"minutes": self._options.minutes, "at": self._at, **self._result}
        return found if self._result else {**found, "ok": not self._failed}

    def split(self, batch: QueryBatch) -> QueryBatch:
        """The batch without rows of drills, which are judged apart, whether they come in time or not."""
        expected, names = self._expected, packed(batch.qname)
        if DRILL_WIRE not in names.data.lower():  # resolvers change the case of letters
            return batch
        drilled = np.array([_counted_down(expected, bytes(name).lower()) for name in names], np.bool_)
        if not drilled.any():
            return batch
        self._rows.put(part_of(batch, drilled))
        return part_of(batch, ~drilled)

    def give(self, batch: QueryBatch) -> None:
        """Take rows of a drill that another process took out of its batches."""
        self._rows.put(batch)

    def _expect(self, drill: str, plan: Mapping[str, Through]) -> None:
        """Take the names of a drill out of batches from now on."""
        names = {name: COPIES_MAX for intake in plan for name in drill_names(drill, intake)}
        self._expected, self.expects = (*self._expected, names)[-KEPT_DRILLS:], True

    def _plan(self) -> dict[str, Through]:
        """The intakes of a drill, by the names that they have in its names."""
        plan = {}
        if self._targets.listener is not None:
            plan["listener"] = Through("the listener", "asked")
        for number, (host, _) in enumerate(self._options.resolvers):
            plan[f"resolver{number}"] = Through(f"the resolver {host}", "asked")
        if self._targets.collector:
            plan["collector"] = Through("the collector", "injected")
        if self._targets.receiver:
            plan["receiver"] = Through("the receiver", "injected")
        return plan

    def _work(self) -> None:
        due = time.monotonic() + max(self._first_s, self._options.minutes * 60 - max(time.time() - self._at, 0.0))
        due = min(due, time.monotonic() + max(self._options.minutes * 60, self._first_s))
        while not self._stop.wait(min(max(due - time.monotonic(), 0.0), 1.0)):
            while not self._rows.empty():  # late rows of an earlier drill
                self._rows.get_nowait()
            if time.monotonic() >= due:
                due = time.monotonic() + self._options.minutes * 60
                self.run()

    def run(self) -> Mapping[str, Any]:
        """One drill; what came of it."""
        drill, plan, begun = secrets.token_hex(4), self._plan(), time.monotonic()
        self._expect(drill, plan)
        errors = self._send(drill, plan)
        while time.monotonic() - begun < self._seen_s and not self._stop.is_set():
            with suppress(queue.Empty):
                self._take(drill, plan, self._rows.get(timeout=0.2), time.monotonic() - begun)
            if all(one.seen >= DRILL_NAMES for one in plan.values()):
                break
        if self._stop.is_set():
            return {}
        stored = self._judge(plan)
        with suppress(AgentsError):
            self._forget()
        self._note(plan, stored, errors)
        return self._result

    def _send(self, drill: str, plan: Mapping[str, Through]) -> list[str]:
        errors = []
        try:  # collector and receiver read it, and whoever judges after a restart
            write_atomic(self._dir / DRILL_REQUEST, json.dumps({"drill": drill}).encode(), PRIVATE_MODE, sync=False)
        except OSError as error:
            errors.append(f"cannot write {DRILL_REQUEST}: {error.strerror}")
        places = {"listener": self._targets.listener}
        places |= {f"resolver{number}": place for number, place in enumerate(self._options.resolvers)}
        for intake, one in plan.items():
            try:
                place = places.get(intake)
                if place is not None:
                    ask(place, drill_names(drill, intake))
            except OSError as error:
                errors.append(f"cannot ask {one.what}: {error.strerror}")
        return errors

    def _take(self, drill: str, plan: Mapping[str, Through], rows: QueryBatch, after_s: float) -> None:
        """Sort rows by the intake that they came through."""
        of = [drill_of(bytes(name)) for name in rows.qname]
        for intake, one in plan.items():
            mine = np.array([found == (drill, intake) for found in of], np.bool_)
            if mine.any():
                one.rows.append(part_of(rows, mine))
                one.seen += int(mine.sum())
                one.after_s = round(after_s, 1)

    def _judge(self, plan: Mapping[str, Through]) -> bool:
        """Judge what came through each intake by itself; whether the database has it."""
        stored = []
        for one in plan.values():
            if not one.rows:
                continue
            detector, severities = self._make(), [Severity.NORMAL]
            for verdicts in verdicts_of(detector, one.rows, flush=False):
                severities += [incident.severity for incident in verdicts.incidents]
                stored.append(self._keep(marked(verdicts, DRILL_MARK, time.time())))
            one.severity, one.rows = max(severities), []
        return bool(stored) and all(stored)

    def _note(self, plan: Mapping[str, Through], stored: bool, errors: Sequence[str]) -> None:
        unseen = [one for one in plan.values() if not one.ok]
        problems = [*errors, *(_problem(one) for one in unseen)]
        if len(unseen) < len(plan) and not stored:
            problems.append("what was seen is not in the database")
        ok = not problems
        through = [f"{one.what} ({one.how}): {one.seen} names in {one.after_s:g} s" for one in plan.values() if one.ok]
        through += [self._targets.unasked] if self._targets.unasked else []
        self._at = time.time()
        how = defaultdict(int, {one.how: 0 for one in plan.values()})
        for one in plan.values():
            how[one.how] += 1
        self._result = {"ok": ok, "unseen": len(unseen), "stored": stored, "through": through, "problems": problems}
        self._result |= {name: how[name] for name in ("asked", "injected")}
        (_log.info if ok else _log.error)("drill_ended", ok=ok, through=through, problems=problems)
        self._tell_of(ok, problems, through)
        state = {"at": self._at, "told_at": self._told_at, "failed": int(self._failed)}
        with suppress(OSError):
            write_atomic(self._dir / DRILL_STATE, json.dumps(state).encode(), PRIVATE_MODE)

    def _tell_of(self, ok: bool, problems: Sequence[str], through: Sequence[str]) -> None:
        """A message when a tunnel is not seen, when it is again, and once a day whatever it is."""
        first = not self._told_at
        daily = self._options.daily and abs(self._at - self._told_at) >= DAY_S
        changed = ok == self._failed
        self._failed = not ok
        if first and ok:  # the day begins with the first drill; nobody needs to hear of it
            self._told_at = self._at
        elif changed or (daily and (ok or not first)) or (not ok and abs(self._at - self._told_at) >= DAY_S):
            self._told_at = self._at
            self._tell(drill_message(ok, problems, through, self._at))


def _problem(one: Through) -> str:
    if one.seen < ENOUGH:
        return f"{one.what} ({one.how}): {one.seen} of {DRILL_NAMES} names were seen"
    return f"{one.what} ({one.how}): the tunnel was seen, and judged {one.severity.name}"


def drill_message(ok: bool, problems: Sequence[str], through: Sequence[str], at: float) -> Message:
    """What came of a drill, for people."""
    facts = [("Not seen", text) for text in problems] + [("Seen", text) for text in through]
    if ok:
        title, text = "all is well", "A test tunnel was seen through each intake, judged and stored."
    else:
        title, text = (
            "a test tunnel was not seen",
            "A real one may pass unseen: see dns-tunnel doctor and the log.",
        )
    severity = Severity.NORMAL if ok else Severity.CRITICAL
    return Message(f"DNS tunnel detector: {title}", f"{text} The drill was at {utc(at)}.", facts, severity, "drill")


def ask(place: tuple[str, int], names: Sequence[bytes]) -> None:
    """Ask for TXT records, each from a port of its own, so that each of several listeners has some. Raises OSError."""
    for number, name in enumerate(names):
        with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_DGRAM) as asking:
            head = secrets.randbits(16).to_bytes(2) + b"\1\0\0\1" + bytes(6)
            asking.sendto(head + name + _QUESTION_END, place)
            asking.settimeout(2.0 if number == 0 else PACE_S)
            with suppress(TimeoutError, ConnectionRefusedError):
                asking.recv(512)


def _counted_down(expected: Sequence[dict[bytes, int]], name: bytes) -> bool:
    """Whether a name, in lower case, is one of a drill's that may still come."""
    for names in expected:
        if names.get(name, 0) > 0:
            names[name] -= 1
            return True
    return False


def part_of(batch: QueryBatch, keep: NDArray[np.bool_]) -> QueryBatch:
    columns = {one.name: getattr(batch, one.name) for one in fields(QueryBatch)}
    return QueryBatch(**{name: _kept_rows(column, keep) for name, column in columns.items()})


def _kept_rows(column: Any, keep: NDArray[np.bool_]) -> Any:
    if isinstance(column, np.ndarray):
        return column[keep]
    return [bytes(one) if isinstance(column, Names) else one for one in compress(column, keep.tolist())]


def _kept(path: Path) -> dict[str, float]:
    values = json_state(path)
    return {
        name: float(values[name]) if isinstance(values.get(name), int | float) else 0.0
        for name in ("at", "told_at", "failed")
    }


def drill_text(state: Mapping[str, Any], now: float) -> str:
    """The last drill for people. Raises AgentsError where it was not seen."""
    if not state:
        return "there is none (DRILL_MINUTES)"
    if not state.get("at") and state.get("ok", True):
        return f"none yet; every {counted(state['minutes'], 'minute')}"
    if not state.get("ok", True):
        raise AgentsError(f"cannot see a test tunnel: {'; '.join(state.get('problems', ('see the log',)))}")
    return f"{utc(state['at'])}; " + "; ".join(state.get("through", ()))
