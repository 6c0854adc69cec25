"""The sink that blocks tunnels without a person, and counts what meets blocks; it never holds judging up.

It blocks what is CRITICAL and paged, or below a domain that a person has labelled a tunnel. A thread of its own asks
the brakes, writes the file that is in force, and keeps the database's record; where the database is away nothing new
is blocked without a person, and what is blocked stays so.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from agents.alerting.manager import is_paged
from agents.core.errors import AgentsError, StoreError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.text import NETWORK, command, harmless, printable, utc
from agents.core.types import Incident, Message, Severity, Verdicts
from agents.dns.blocks import Block, BlockFile, BlockList, BlockTable, address_range
from agents.dns.name import domain_text, from_text
from agents.enforcement.keeper import HITS_FILE, BlockKeeper, read_hits
from agents.enforcement.options import EnforceMode

TURN_S = 0.25
SAVE_S, CONFIRMED_S = 10.0, 15.0
"""How often hits and the database's record are written, and decisions of people looked for."""
LIST_AGAIN_S = 5.0
"""A list for other programs that could not be written is tried again after so many seconds."""
OPEN_MAX, CANDIDATES_MAX = 10_000, 1000
"""Open incidents that are remembered in case a person confirms one; incidents that wait for the brakes."""
_log = structlog.get_logger()


class Enforcer:
    """A sink of verdicts. counts: blocks made, incidents held back by a brake, queries that met a block, dry or not.

    confirmed: gives the domains that people have labelled tunnels; record: writes blocks and hits into the database;
    both raise StoreError. tell: sends a message.
    """

    name = "enforcement"
    incidents_only = False

    def __init__(
        self,
        keeper: BlockKeeper,
        tell: Callable[[Message], None] = lambda message: None,
        confirmed: Callable[[], frozenset[str]] = frozenset,
        record: Callable[[Sequence[Block], dict[str, int]], None] = lambda blocks, hits: None,
    ) -> None:
        self._keeper, self._tell, self._read_confirmed, self._record = keeper, tell, confirmed, record
        self.counts: Counter[str] = Counter()
        self._faults: dict[str, str] = {}  # what cannot be done now, and why
        self._file, self._table = BlockFile(keeper.path), BlockTable()
        self._counted = BlockList()  # what `accept` counts by; the file's own list is ahead of it for a moment
        self._hits_path = keeper.path.with_name(HITS_FILE)
        self._hits: Counter[str] = Counter(read_hits(self._hits_path))
        self._watched: frozenset[str] = frozenset()
        self._candidates: deque[Incident] = deque(maxlen=CANDIDATES_MAX)
        self._open: OrderedDict[str, Incident] = OrderedDict()
        self._handled: OrderedDict[str, float] = OrderedDict()
        self._confirmed: frozenset[str] = frozenset()
        self._saved_at = self._confirmed_at = self._ends = 0.0
        self._guard, self._stop, self._dirty = threading.Lock(), threading.Event(), True
        self._list_tried_at, self._again = 0.0, dict[str, Incident]()
        self._thread = threading.Thread(target=self._work, name="enforcement", daemon=True)

    @property
    def mode(self) -> EnforceMode:
        """Whether anything is blocked, or counted."""
        return self._keeper.options.mode

    @property
    def alive(self) -> bool:
        """Whether the thread lives, where there is to be one."""
        return self._thread.ident is None or self._thread.is_alive()

    def start(self) -> None:
        """Begin; where it is off, only see that other programs block nothing any more."""
        if self.mode != EnforceMode.OFF:
            self._thread.start()
        else:
            self._write_list(BlockList(), time.time())

    @property
    def fault(self) -> str:
        """What cannot be done now, and why; "" where all can be."""
        return next(iter(self._faults.values()), "")

    def state(self) -> dict[str, Any]:
        """For health: blocks in force and dry, sums, why none is made any more."""
        if self.mode == EnforceMode.OFF:
            return {"mode": str(self.mode)}
        now, blocks = time.time(), self._counted
        lasting = blocks.lasting(now)
        return {
            "mode": str(self.mode),
            "in_force": sum(not one.dry for one in lasting),
            "dry": sum(one.dry for one in lasting),
            "paused": blocks.paused,
            "error": self.fault or self._file.fault,
            **{name: self.counts[name] for name in ("made", "held", "hits", "dry_hits")},
        }

    def accept(self, verdicts: Verdicts) -> None:
        """Count what meets a block, and line up incidents; waits for nobody."""
        if self._watched and len(verdicts):
            self._count(verdicts)
        for incident in verdicts.incidents:
            self._note(incident)

    def _note(self, incident: Incident) -> None:
        with self._guard:
            if incident.closed_at is not None:
                self._open.pop(incident.incident_id, None)
                return
            self._open[incident.incident_id] = incident
            self._open.move_to_end(incident.incident_id)
            if len(self._open) > OPEN_MAX:
                self._open.popitem(last=False)
            if self._why(incident):
                self._candidates.append(incident)

    def _why(self, incident: Incident) -> str:
        """Why an incident may be blocked; "" where it may not."""
        if incident.domain in self._confirmed:
            return "a person has labelled it a tunnel"
        critical = incident.severity >= Severity.CRITICAL and is_paged(incident)
        return "CRITICAL: " + (incident.reasons[0] if incident.reasons else "") if critical else ""

    def _count(self, verdicts: Verdicts) -> None:
        """Queries that meet a block. All names of a block's lie below one registered domain."""
        table, watched, queries = self._table, self._watched, verdicts.queries
        for row, domain in enumerate(verdicts.domain):
            if domain in watched:
                self._count_one(table, queries.client[row], bytes(queries.qname[row]))

    def _count_one(self, table: BlockTable, client: str, name: bytes) -> None:
        try:
            address = address_range(client.partition("%")[0])[0]
        except ValueError:
            address = bytes(16)
        block = table.find(address, name)
        if block is not None:
            with self._guard:  # the thread saves hits meanwhile
                self._hits[block.block_id] += 1
                self._dirty = True
            self.counts["dry_hits" if block.dry else "hits"] += 1

    def close(self) -> None:
        """Write down what was counted, and end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
            self._save(time.time())

    def _work(self) -> None:
        self._guarded("begin", self._keeper.watch)
        while not self._stop.is_set():
            now = time.time()
            self._take_file(now)
            if abs(now - self._confirmed_at) >= CONFIRMED_S:
                self._confirmed_at = now
                if "begin" in self._faults or self._keeper.began_counting is not None:  # the clock may have been set
                    self._guarded("begin", self._keeper.watch)
                self._guarded("decisions", self._look_for_decisions)
                self._line_up_again()
            while self._candidates and not self._stop.is_set():
                self._take_candidate(self._candidates.popleft(), now)
            if abs(now - self._saved_at) >= SAVE_S:
                self._save(now)
            self._stop.wait(TURN_S)

    def _guarded(self, what: str, work: Callable[[], object]) -> bool:
        """Do it, and note why it could not be done until it can; whether it was."""
        try:
            work()
        except (AgentsError, OSError) as error:
            text = printable(error, 300)
            if text != self._faults.get(what):
                _log.warning("enforcement_failed", what=what, error=text)
            self._faults = {**self._faults, what: text}  # another thread reads it
            return False
        self._faults = {name: text for name, text in self._faults.items() if name != what}
        return True

    def _take_file(self, now: float) -> None:
        if not self._file.changed() and now < self._ends:
            if "list" in self._faults and abs(now - self._list_tried_at) >= LIST_AGAIN_S:
                self._write_list(self._file.list, now)
            return
        blocks = self._file.list
        self._ends, self._dirty = self._file.next_end(now), True
        self._table = BlockTable.of(blocks.lasting(now))
        self._watched = frozenset(registered_domains(self._table))
        self._counted = blocks
        self._write_list(blocks, now)

    def _write_list(self, blocks: BlockList, now: float) -> None:
        self._list_tried_at = now
        self._guarded("list", lambda: self._keeper.write_list(blocks))

    def _look_for_decisions(self) -> None:
        found = self._read_confirmed()
        with self._guard:
            new = found - self._confirmed
            self._confirmed = found
            self._candidates.extend(one for one in self._open.values() if one.domain in new)

    def _line_up_again(self) -> None:
        """Take up once more what could not be blocked, as long as it goes on."""
        with self._guard:
            again = [one for one in self._again.values() if one.incident_id in self._open]
            self._candidates.extend(again)
        for one in again:
            self._handled.pop(one.incident_id, None)
        self._again = {}
        if not again:
            self._faults = {name: text for name, text in self._faults.items() if name != "block"}

    def _take_candidate(self, incident: Incident, now: float) -> None:
        if not self._why(incident) or now < self._handled.get(incident.incident_id, 0.0):
            return
        if not self._guarded("block", lambda: self._block(incident)) and len(self._again) < CANDIDATES_MAX:
            self._again[incident.incident_id] = incident

    def _block(self, incident: Incident) -> None:
        """Ask the brakes about one incident, and block it."""
        key, now, why = incident.incident_id, time.time(), self._why(incident)
        try:
            brake = self._brake(incident, now)
        except StoreError:
            self._remember(key, now + CONFIRMED_S)  # not with each query of the incident
            raise
        if brake:
            self._hold(key, incident, brake, now)
            return
        before = self._keeper.blocks().paused
        made = self._keeper.add_for(incident, why)
        self._remember(key, now + CONFIRMED_S)
        if made is not None:
            self.counts["made"] += 1
            _log.warning("blocked", domain=made.domain, client=made.client, dry=made.dry, until=utc(made.until))
            if not made.dry:
                self._tell(blocked_message(made))
        elif (paused := self._keeper.blocks().paused) and not before:
            _log.error("blocking_paused", reason=paused)
            self._tell(paused_message(paused))

    def _brake(self, incident: Incident, now: float) -> str:
        if incident.domain in (NETWORK, "."):
            return "its names are scattered over many domains"
        if why := self._keeper.options.people_alone:
            return why
        never = self._keeper.never
        return never.always(incident.domain) or never.usually(incident.domain, now)

    def _hold(self, key: str, incident: Incident, brake: str, now: float) -> None:
        self._remember(key, now + 3600.0)
        self.counts["held"] += 1
        _log.warning("not_blocked", domain=printable(incident.domain), client=printable(incident.client), reason=brake)

    def _remember(self, key: str, until: float) -> None:
        self._handled[key] = until
        self._handled.move_to_end(key)
        if len(self._handled) > OPEN_MAX:
            self._handled.popitem(last=False)

    def _save(self, now: float) -> None:
        """Write hits down, and the database's record; what fails is tried again."""
        self._saved_at = now
        if not self._dirty:
            return
        blocks = self._file.list.blocks
        known = {one.block_id for one in blocks}
        with self._guard:
            self._dirty, hits = False, {one: number for one, number in self._hits.items() if one in known}
            self._hits = Counter(hits)

        def save() -> None:
            write_atomic(self._hits_path, json.dumps(hits).encode(), PRIVATE_MODE)
            self._record(blocks, hits)

        if not self._guarded("record", save):
            self._dirty = True


def registered_domains(table: BlockTable) -> set[str]:
    """Registered domains of all blocks, as verdicts have them."""
    found = set()
    for one in table.blocks:
        try:
            found.add(domain_text(from_text(one.domain)))
        except AgentsError:
            continue
    return found


def blocked_message(block: Block) -> Message:
    """That a block was made without a person, and how to undo it."""
    whom = "all clients" if block.is_for_all else harmless(block.client, 64)
    return Message(
        f"DNS tunnel detector: {harmless(block.domain, 120)} is blocked for {whom}",
        f"Until {utc(block.until)} queries below it get {block.action}.",
        [("Why", harmless(block.reason, 300)), ("Undo", command(f"block remove {block.block_id}"))],
        Severity.HIGH,
    )


def paused_message(why: str) -> Message:
    """That no block is made any more."""
    return Message(
        "DNS tunnel detector: no more blocks are made",
        f"Blocking without a person is paused: {harmless(why, 200)}. What is blocked stays so until it ends."
        " So many tunnels at once are an attack, or a mistake: look at them first.",
        [
            ("Look", command("block list")),
            ("Undo all", command("block undo-all")),
            ("Go on", command("block resume")),
        ],
        Severity.CRITICAL,
    )
