"""Flow-hours of slots that move between hosts with their saved state: each is stored once, as by one host."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from agents.core.types import Row, batch_of
from agents.detection.limits import Scale
from agents.detection.shared.slotted import SlottedDetector, slot_files_of, slot_state_of
from agents.detection.shared.view import Facts, NetworkView, known_tables
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.runtime.bus import slot_hours
from agents.runtime.bus.slot_hours import SlotHours
from agents.store import Store, open_store
from agents.store.feedback.flow_hours import FlowHourStore
from agents.stream.slots import slot_of_client
from tests.support.detecting import KEYS_MAX, QUIET_S, query, shipped_model
from tests.support.flow_hours import HOUR, HOUR_S
from tests.support.listening import wait_until

SLOTS, CLIENT = 4, "192.0.2.7"
SLOT = slot_of_client(CLIENT) % SLOTS
BEGIN = HOUR * float(HOUR_S)


class Host:
    """A host that holds one slot, with a lease's token; messages are judged in the order in which they are given."""

    def __init__(self, store: Store, token: int, state: bytes = b"") -> None:
        tables = known_tables()

        def view(slot: int) -> NetworkView:
            return NetworkView(str(slot), tables, Facts)

        self.detector = SlottedDetector(
            lambda client: slot_of_client(client) % SLOTS, view, shipped_model(), KEYS_MAX, QUIET_S, Scale(), None,
            (0, 0), None, 0, None,
        )  # fmt: skip
        self.followed: list[int] = []
        self.hours = SlotHours(self.detector, FlowHourStore(store), SLOTS, self.followed.append)
        self.detector.open_slot(SLOT, state)
        self.hours.open_slot(SLOT, token, state)
        self.hours.start()

    def judge(self, *messages: list[Row]) -> None:
        for rows in messages:
            self.hours.begin_message(SLOT, rows[-1][0], nullcontext())
            self.hours.see(self.detector.detect(batch_of(rows)))

    def saved(self) -> bytes:
        wait_until(lambda: not self.hours.has_unwritten(SLOT))
        return self.detector.saved_slot(SLOT, nullcontext(), self.hours.saved_files(SLOT))

    def close(self) -> None:
        self.hours.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    made.migrate()
    yield made
    made.close()


def asked(minute: float, *labels: str) -> list[Row]:
    """A message: one client asks for these names below one domain, so many minutes after BEGIN."""
    return [query(BEGIN + 60 * minute + at, CLIENT, f"{label}.shop.example") for at, label in enumerate(labels)]


def stored(store: Store) -> list[tuple[int, float, float]]:
    """Hour, queries and new names of each flow-hour."""
    rows = FlowHourStore(store).read(SCHEMA)
    if not len(rows):
        return []
    assert set(rows.client) <= {CLIENT} and set(rows.domain) <= {"shop.example"}
    queries, names = (rows.numbers[:, NUMBERS.index(name)].tolist() for name in ("queries", "names"))
    return list(zip((rows.hour - HOUR).tolist(), queries, names, strict=True))


MESSAGES = [asked(10, "a", "b"), asked(50, "c", "a"), asked(61, "d"), asked(119, "d", "e"), asked(121, "f")]
WHOLE = [(0, 4.0, 3.0), (1, 3.0, 2.0)]


@pytest.mark.parametrize("moves", [0, 1, 2, 3, 4])
def test_a_slot_that_moves_after_any_message_gives_what_one_host_gives(store: Store, moves: int) -> None:
    one = Host(store, 1)
    one.judge(*MESSAGES[:moves])
    two = Host(store, 2, one.saved() if moves else b"")
    one.close()
    two.judge(*MESSAGES[moves:])
    two.close()
    assert stored(store) == WHOLE
    assert sorted({*one.followed, *two.followed}) == [HOUR, HOUR + 1]


def test_a_slot_that_is_judged_again_gives_nothing_twice(store: Store) -> None:
    one = Host(store, 1)
    one.judge(*MESSAGES[:1])
    state = one.saved()
    one.judge(*MESSAGES[1:3])
    one.close()  # what it judged since is not in its saved state
    two = Host(store, 2, state)
    two.judge(*MESSAGES[1:])
    two.close()
    assert stored(store) == WHOLE


def test_what_a_host_writes_whose_slot_another_one_has_is_refused(store: Store) -> None:
    """It was taken for dead, and ends an hour without what the other one judged of it."""
    late, holder = Host(store, 1), Host(store, 2)
    for host in (late, holder):
        host.judge(MESSAGES[0])
    holder.judge(asked(11, "x"), asked(61, "y"))
    wait_until(lambda: not holder.hours.has_unwritten(SLOT))
    late.judge(asked(62, "z"), asked(121, "z"))
    holder.judge(asked(122, "z"))
    for host in (late, holder):
        host.close()
    assert stored(store) == [(0, 3.0, 3.0), (1, 1.0, 1.0)]
    assert late.followed == []


def test_a_slot_that_hears_nothing_ends_its_hour_by_the_clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_hours, "REST_S", 0.0)
    host = Host(store, 1)
    host.judge(MESSAGES[0])
    host.hours.rest(SLOT, BEGIN + HOUR_S - 1, nullcontext())
    assert not host.hours.has_unwritten(SLOT) and stored(store) == []
    host.hours.rest(SLOT, BEGIN + HOUR_S, nullcontext())
    host.saved()
    assert stored(store) == [(0, 2.0, 2.0)]
    host.close()


def test_flow_hours_that_wait_for_the_database_are_said_to_wait(store: Store, tmp_path: Path) -> None:
    """So no state is saved that would not give them again."""
    host = Host(store, 1)
    host.judge(MESSAGES[0])
    with closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        host.judge(MESSAGES[2])
        assert host.hours.has_unwritten(SLOT)
        other.execute("ROLLBACK")
    host.saved()
    assert stored(store) == [(0, 2.0, 2.0)]
    host.close()


@pytest.mark.parametrize("damage", [b"", b"x", b"PK"])
def test_an_hour_that_cannot_be_read_begins_anew(store: Store, damage: bytes) -> None:
    one = Host(store, 1)
    one.judge(MESSAGES[0])
    files = {**slot_files_of(one.saved()), slot_hours.READING_FILE: damage}
    one.close()
    two = Host(store, 2, slot_state_of(files))
    two.judge(MESSAGES[1], MESSAGES[2])
    two.close()
    assert [hour for hour, *_ in stored(store)] == [0]
