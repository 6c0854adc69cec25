"""A seeded history of the bus: publishers, a stream, workers, leases, snapshots and a store, where anything may fail.

All decisions are those of agents.stream.bus.protocol; what is simulated is what lies between them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from agents.stream.bus.protocol import (
    Committed,
    Counted,
    LeaseKeeper,
    Leases,
    MessageLabel,
    MessageStep,
    Outbound,
    StreamPosition,
    committed_of,
    follows,
    leases_of,
    may_commit,
    position_in,
)

SLOTS = (0, 1)
LEASE_S = 2.0
Key = tuple[str, int, int]  # run, slot, number


@dataclass
class Sent:
    """A request to publish that is on its way."""

    slot: int
    label: MessageLabel
    message_id: str


@dataclass
class Server:
    """Streams, the bucket of leases and of committed states, objects. A lost stream begins anew with another epoch."""

    streams: dict[int, list[MessageLabel]] = field(default_factory=lambda: {slot: [] for slot in SLOTS})
    ids: dict[int, dict[str, int]] = field(default_factory=lambda: {slot: {} for slot in SLOTS})
    epochs: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SLOTS, 1))
    first: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SLOTS, 1))
    revision: int = 1
    leases: tuple[int, bytes] = (1, Leases().packed())
    committed: dict[int, tuple[int, bytes]] = field(
        default_factory=lambda: {slot: (0, Committed().packed()) for slot in SLOTS}
    )
    objects: dict[str, tuple[Key, ...]] = field(default_factory=dict)

    def store(self, sent: Sent) -> StreamPosition:
        """Put a message into its stream; one whose id is known is not put again."""
        slot = sent.slot
        if sent.message_id not in self.ids[slot]:
            self.streams[slot].append(sent.label)
            self.ids[slot][sent.message_id] = len(self.streams[slot])
        return StreamPosition(str(self.epochs[slot]), self.ids[slot][sent.message_id])

    def lose(self, slot: int) -> None:
        self.streams[slot], self.ids[slot], self.first[slot] = [], {}, 1
        self.epochs[slot] += 1

    def put_leases(self, table: Leases, expected: int) -> int | None:
        if self.leases[0] != expected:
            return None
        self.revision += 1
        self.leases = self.revision, table.packed()
        return self.revision

    def put_committed(self, slot: int, state: Committed, expected: int) -> bool:
        if self.committed[slot][0] != expected:
            return False
        self.revision += 1
        self.committed[slot] = self.revision, state.packed()
        return True


@dataclass
class Database:
    """What is stored, once each; of each slot the highest token that wrote, and what its newest incident counts."""

    rows: set[Key] = field(default_factory=set)
    incidents: dict[int, Key] = field(default_factory=dict)
    fences: dict[int, int] = field(default_factory=dict)

    def write(self, slot: int, token: int, key: Key) -> bool:
        """Store a row, and what an incident counts with it."""
        if not self.note(slot, token, key):
            return False
        self.rows.add(key)
        return True

    def note(self, slot: int, token: int, key: Key) -> bool:
        """Store what an incident counts, as when it is closed."""
        if token < self.fences.get(slot, 0):
            return False
        self.fences[slot] = token
        self.incidents[slot] = key
        return True


class Publisher:
    """One with a spool on disk; a crash leaves the spool, and a new process goes on with a run of its own."""

    def __init__(self, name: str) -> None:
        self.name, self.process = name, 0
        self.spool: dict[int, dict[str, list[int]]] = {slot: {} for slot in SLOTS}
        self.made: list[Key] = []
        self.out: dict[tuple[int, str], Outbound] = {}

    def spool_one(self, slot: int) -> None:
        run = f"{self.name}{self.process}"
        out = self.out.setdefault((slot, run), Outbound(run))
        number = out.add()
        self.spool[slot].setdefault(run, []).append(number)
        self.made.append((run, slot, number))

    def crash(self) -> None:
        self.process += 1
        self.out = {}
        for slot, runs in self.spool.items():
            for run, numbers in runs.items():
                if numbers:
                    self.out[slot, run] = Outbound(run, min(numbers), max(numbers), min(numbers))

    def take_up(self, slot: int, committed: Committed) -> None:
        for (of, run), out in self.out.items():
            if of == slot:
                kept = out.note(committed)
                self.spool[slot][run] = [number for number in self.spool[slot].get(run, []) if number >= kept]


@dataclass
class Slot:
    """A worker's state of one slot. judged: what its detector has counted, in order."""

    token: int
    revision: int
    position: StreamPosition
    counted: Counted
    judged: list[Key]
    dirty: bool = False


class Worker:
    """One with a monotonic clock of its own. paused: it does nothing, and time goes on."""

    def __init__(self, name: str) -> None:
        self.name, self.process, self.clock = name, 0, random.Random(name).uniform(0, 1000)
        self.crash()

    def crash(self) -> None:
        self.process += 1
        self.keeper = LeaseKeeper(f"{self.name}{self.process}", SLOTS, LEASE_S)
        self.slots: dict[int, Slot] = {}

    def lease(self, server: Server, rng: random.Random) -> None:
        revision, data = server.leases
        self.keeper.observe(leases_of(data), revision, self.clock)
        begun = self.clock
        table = self.keeper.next_table(begun, 8)
        give = [slot for slot in self.keeper.surplus(begun)[:1] if not (slot in self.slots and self.slots[slot].dirty)]
        table = table.without(self.keeper.me, give)
        if rng.random() < 0.1:  # another one came first
            return
        if (written := server.put_leases(table, revision)) is not None and rng.random() > 0.05:  # or no answer came
            self.keeper.wrote(table, written, begun)
        self.slots = {
            slot: one for slot, one in self.slots.items() if self.keeper.table.of(self.keeper.me).get(slot) == one.token
        }

    def open(self, server: Server, slot: int) -> None:
        """Take over what is committed."""
        revision, data = server.committed[slot]
        committed = committed_of(data)
        judged = list(server.objects[committed.name]) if committed.name else []
        token = self.keeper.table.of(self.keeper.me)[slot]
        self.slots[slot] = Slot(token, revision, committed.position, committed.counted.copy(), judged)

    def read(self, server: Server, database: Database, slot: int, skip: bool) -> None:
        """Judge the next message. skip: the consumer leaves one out."""
        one, stream = self.slots[slot], server.streams[slot]
        one.position = position_in(one.position, str(server.epochs[slot]), server.first[slot])
        sequence = one.position.sequence + 1 + skip
        if sequence > len(stream) or not follows(one.position, sequence):
            return
        label = stream[sequence - 1]
        if one.counted.step(label) is MessageStep.NEW:
            key = (label.run, slot, label.number)
            if not database.write(slot, one.token, key):
                del self.slots[slot]
                return
            one.judged.append(key)
            one.counted.count(label, 0.0)
        one.position, one.dirty = one.position._replace(sequence=sequence), True

    def commit(self, server: Server, slot: int, fails_at: int) -> None:
        """Snapshot, then compare and set. fails_at: the process ends after so many steps."""
        one = self.slots[slot]
        name = f"{slot}-{one.token}-{one.position.epoch}-{one.position.sequence}-{len(one.judged)}"
        server.objects[name] = tuple(one.judged)
        if fails_at == 1:
            return self.crash()
        revision, data = server.committed[slot]
        before = committed_of(data)
        if revision != one.revision or not may_commit(one.token, before):
            server.objects.pop(name, None) if name != before.name else None
            del self.slots[slot]
            return None
        state = Committed(one.token, one.position, one.counted.copy(), len(one.judged), name)
        assert server.put_committed(slot, state, revision)
        if fails_at == 2:
            return self.crash()
        one.revision, one.dirty = server.committed[slot][0], False
        if before.name and before.name != name:
            del server.objects[before.name]
        return None


class History:
    """One history of `steps` steps, and then a calm in which all must come to its end."""

    def __init__(self, seed: int, steps: int) -> None:
        self.rng, self.steps = random.Random(seed), steps
        self.server, self.database = Server(), Database()
        self.publishers = [Publisher("p"), Publisher("q")]
        self.workers = [Worker("v"), Worker("w"), Worker("x")]
        self.under_way: list[tuple[Publisher, Sent]] = []
        self.stopped: dict[str, int] = {}  # processes that do nothing until a step, while time goes on

    def run(self, busy: bool = False) -> None:
        """Raise AssertionError for a loss or a double. busy: before the end, a stream forgets amid steady traffic."""
        for at in range(self.steps):
            self.step(at)
        if busy:
            self.busy()
        self.calm()
        made = sorted(key for one in self.publishers for key in one.made)
        judged = sorted(key for slot in SLOTS for key in self.final(slot))
        assert judged == made, (
            f"lost {set(made) - set(judged)}, double {[k for k in set(judged) if judged.count(k) > 1]}"
        )
        assert self.database.rows == set(made)
        assert self.database.incidents == {slot: self.final(slot)[-1] for slot in SLOTS if self.final(slot)}
        assert not any(numbers for one in self.publishers for runs in one.spool.values() for numbers in runs.values())

    def final(self, slot: int) -> tuple[Key, ...]:
        committed = committed_of(self.server.committed[slot][1])
        return self.server.objects[committed.name] if committed.name else ()

    def step(self, at: int) -> None:
        """Something happens, or fails."""
        rng, chance = self.rng, self.rng.random()
        publisher, worker, slot = rng.choice(self.publishers), rng.choice(self.workers), rng.choice(SLOTS)
        if chance < 0.2:
            publisher.spool_one(slot)
        elif chance < 0.4:
            self.send(publisher, slot)
        elif chance < 0.5:
            self.arrive(rng.randrange(len(self.under_way)) if self.under_way else None)
        elif chance < 0.85:
            if at >= self.stopped.get(worker.name, 0):
                self.work(worker, slot)
        elif chance < 0.89:
            publisher.take_up(slot, committed_of(self.server.committed[slot][1]))
        elif chance < 0.92:
            publisher.crash()
        elif chance < 0.95:
            worker.crash()
        elif chance < 0.96:
            self.server.lose(slot)
        elif chance < 0.97:
            self.server.first[slot] = rng.randint(self.server.first[slot], len(self.server.streams[slot]) + 1)
        elif chance < 0.98:
            self.stopped[worker.name] = at + 60
        for one in self.workers:
            one.clock += rng.choice((0.0, 0.05, 0.1))

    def work(self, worker: Worker, slot: int) -> None:
        rng = self.rng
        stopped = rng.random() < 0.3  # between its look at the lease and what it does then
        if slot in worker.slots and not worker.keeper.holds(slot, worker.clock) and not stopped:
            return worker.lease(self.server, rng)
        if slot not in worker.slots:
            worker.lease(self.server, rng)
            if worker.keeper.holds(slot, worker.clock):
                worker.open(self.server, slot)
            return None
        if (judged := worker.slots[slot].judged) and rng.random() < 0.1:
            self.database.note(slot, worker.slots[slot].token, judged[-1])
        if rng.random() < 0.7:
            return worker.read(self.server, self.database, slot, rng.random() < 0.1)
        return worker.commit(self.server, slot, rng.choice((0, 0, 0, 1, 2)))

    def send(self, publisher: Publisher, slot: int) -> None:
        """Begin to publish what is next; the request may be repeated, come late, or be lost with its answer."""
        for (of, _), out in publisher.out.items():
            if of != slot or (label := out.to_send()) is None:
                continue
            sent = Sent(slot, label, f"{out.message_id(label)}")
            fate = self.rng.random()
            if fate < 0.6:
                out.stored(label, self.server.store(sent))
            elif fate < 0.9:  # no answer in time: it is sent again, and this one may yet come
                self.under_way.append((publisher, sent))
            return

    def arrive(self, at: int | None) -> None:
        if at is not None:
            self.server.store(self.under_way.pop(at)[1])

    def busy(self) -> None:
        """Nothing fails but that streams forget once; each turn has more, and readers are some messages behind."""
        self.under_way.clear()
        for turn in range(90):
            for publisher in self.publishers:
                for slot in SLOTS:
                    publisher.spool_one(slot)
                self.send_all(publisher)
            if turn == 30:
                self.server.first = {slot: len(self.server.streams[slot]) - 2 for slot in SLOTS}
            self.work_all(behind=3)
            for publisher in self.publishers:
                for slot in SLOTS:
                    publisher.take_up(slot, committed_of(self.server.committed[slot][1]))
        waiting = [len(numbers) for one in self.publishers for runs in one.spool.values() for numbers in runs.values()]
        assert max(waiting) < 20, f"messages wait that nobody sends again: {waiting}"

    def send_all(self, publisher: Publisher) -> None:
        for (slot, _), out in publisher.out.items():
            out.note_epoch(str(self.server.epochs[slot]))
            while (label := out.to_send()) is not None:
                out.stored(label, self.server.store(Sent(slot, label, out.message_id(label))))

    def work_all(self, behind: int = 0) -> None:
        """All workers read what there is but the last messages, and commit it."""
        for worker in self.workers:
            worker.clock += LEASE_S / 4
            worker.lease(self.server, random.Random(2))
            for slot in SLOTS:
                if worker.keeper.holds(slot, worker.clock) and slot not in worker.slots:
                    worker.open(self.server, slot)
                while slot in worker.slots:
                    before = worker.slots[slot].position
                    if not behind or before.sequence < len(self.server.streams[slot]) - behind:
                        worker.read(self.server, self.database, slot, False)
                    if slot not in worker.slots or worker.slots[slot].position == before:
                        break
                if slot in worker.slots:
                    worker.commit(self.server, slot, 0)

    def calm(self) -> None:
        """Nothing fails any more, and what has not arrived never will."""
        self.under_way.clear()
        for _ in range(200):
            for publisher in self.publishers:
                self.send_all(publisher)
                for slot in SLOTS:
                    publisher.take_up(slot, committed_of(self.server.committed[slot][1]))
            self.work_all()
            if self.at_rest():
                return

    def at_rest(self) -> bool:
        return not any(n for one in self.publishers for runs in one.spool.values() for n in runs.values())
