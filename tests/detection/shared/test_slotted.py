"""Detectors of slots, which move between hosts as saved state, find what one detector of all clients finds."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from agents.core.columns import coded
from agents.core.npz import FormatError
from agents.core.text import NETWORK
from agents.core.types import Incident, QueryBatch, batch_of
from agents.detection.limits import Scale
from agents.detection.shared.slotted import SlottedDetector, slot_files_of, slot_state_of
from agents.detection.shared.view import NetworkView
from agents.runtime.drill.drill import part_of
from agents.stream.slots import slot_of_client
from tests.detection.shared.test_several import CAPTURES, LAG_S
from tests.support.detecting import BATCH, KEYS_MAX, QUIET_S, shipped_model
from tests.support.several import Several, incidents_of_slices, slices, told

SLOTS = 8


def slot_of(client: str) -> int:
    return slot_of_client(client) % SLOTS


class Hosts(Several):
    """Two hosts that share the slots; after each slice one slot moves to the other host."""

    def __init__(self) -> None:
        super().__init__(shipped_model(), Scale(), 1, lag_s=LAG_S)
        tables = self.parts[0]._view.tables

        def view(slot: int) -> NetworkView:
            return NetworkView(str(slot), tables, self._read)

        self.hosts = [
            SlottedDetector(slot_of, view, shipped_model(), KEYS_MAX, QUIET_S, Scale(), None, (0, 0), None, 0, None)
            for _ in range(2)
        ]
        self.counts = dict.fromkeys(range(SLOTS), 0)
        for slot in range(SLOTS):
            self.hosts[slot % 2].open_slot(slot, b"")

    def _detect(self, batch: QueryBatch) -> list[Incident]:
        clients, found = coded(batch.client), list[Incident]()
        slots = np.array([slot_of(one) for one in clients.values], np.int64)[clients.codes]
        for slot in np.unique(slots).tolist():
            host = next(one for one in self.hosts if slot in one.open)
            found += host.detect(part_of(batch, slots == slot)).incidents
            self.counts[slot] += 1
            said = host.report_of_slot(slot, self.counts[slot])
            self._waiting += [said.packed()] if said is not None else []
        self._number += 1
        self.move(self._number % SLOTS)
        return [*found, *self.exchange()]

    def move(self, slot: int) -> None:
        here, there = sorted(self.hosts, key=lambda one: slot not in one.open)
        open_there = [one for key, one in here.open_incidents.items() if slot_of(key[0]) == slot]
        state = here.saved_slot(slot, nullcontext())
        here.close_slot(slot)
        there.open_slot(slot, state)
        there.restore(open_there)

    def flush(self) -> list[Incident]:
        found = list(self.exchange())
        for one in (*(each for host in self.hosts for each in host.open.values()), self.together):
            last = one.flush()
            found += last.incidents if last is not None else ()
        return found


def incidents_of_hosts(rows: list[object]) -> list[Incident]:
    hosts, found = Hosts(), dict[str, Incident]()
    for at in range(0, len(rows), BATCH):
        found |= {one.incident_id: one for one in hosts.detect(batch_of(rows[at : at + BATCH]))}  # type: ignore[arg-type]
    return list((found | {one.incident_id: one for one in hosts.flush()}).values())


QUICK = next(name for name in CAPTURES if name.endswith("25 bytes each 2 s"))


@pytest.mark.parametrize("capture", [QUICK, pytest.param("forty clients, many domains", marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
@pytest.mark.slow
def test_slots_that_move_find_what_one_detector_finds(capture: str) -> None:
    rows = list(CAPTURES[capture]())
    alone = told(incidents_of_slices(rows, shipped_model(), lag_s=LAG_S))
    found = told(incidents_of_hosts(list(rows)))
    of_all = {domain for domain, client, *_ in set(alone) & set(found) if client == NETWORK}
    assert alone and [one for one in found if one in alone or one[0] not in of_all] == alone


def test_saved_state_is_read_back_whole_or_refused() -> None:
    files = {"a": b"12", "b": b"", "c": b"\n\n"}
    assert slot_files_of(slot_state_of(files)) == files
    with pytest.raises(FormatError, match="cut off"):
        slot_files_of(slot_state_of(files)[:-1])
    for line in (b"", b"[]", b'{"a": "2"}', b'{"a": -1}'):
        with pytest.raises(FormatError):
            slot_files_of(line + b"\n12")


@pytest.mark.slow
def test_a_detector_of_slots_is_one_detector_to_others() -> None:
    hosts = Hosts()
    for part in slices(batch_of(list(CAPTURES[QUICK]())[:200]), LAG_S):
        hosts.detect(part)
    one = max(hosts.hosts, key=lambda host: int(host.gauges()["flows"]))
    assert one.gauges()["flows"] == sum(each.gauges()["flows"] for each in one.open.values())
    one.reload(shipped_model())
    assert one.tick(0.0) is None and one.flush() is None and one.save(nullcontext()) == {}
    client = next(iter(next(each for each in one.open.values() if len(each.flows)).flows.clients))
    before = one.gauges()["flows"]
    one.forget(client)
    assert one.gauges()["flows"] < before
