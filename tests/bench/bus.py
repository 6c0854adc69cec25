"""What the bus costs a query beside judging it: to send, to read, in the server; and judging in slots.

Needs `nats-server`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.detection.shared.slotted import SlottedDetector
from agents.detection.shared.view import Facts, NetworkView, known_tables
from agents.runtime import warmup
from agents.runtime.bus.publisher_process import BATCH_MAX
from agents.stream.answer_key import HeldKey
from agents.stream.bus.jetstream import subject_of
from agents.stream.bus.link import BusLink
from agents.stream.bus.messages import message_records
from agents.stream.bus.options import SPEC
from agents.stream.bus.outgoing import BusSender, OutgoingSpool
from agents.stream.bus.protocol import StreamPosition
from agents.stream.record import RECORD, batch_of_records
from agents.stream.slots import SLOTS, slot_of_client
from tests.bench.several import QUERIES, ordinary_records
from tests.bench.table import Figure
from tests.support.bus import SLOTS as BUS_SLOTS
from tests.support.bus import Detecting, NatsServer, cluster
from tests.support.detecting import KEYS_MAX, QUIET_S, shipped_model
from tests.support.listening import wait_until

BATCH = 1024
TAKEOVER_LEASE_S = 8.0
JUDGED = "judging alone, batches of 1,024"


def bus(directory: Path) -> Iterator[Figure]:
    """CPU a query, as ratios to what judging takes."""
    warmup.judging()
    warmup.sharing()
    records = np.frombuffer(b"".join(ordinary_records(8)), RECORD)
    judged = _judged(records)
    server = NatsServer(directory / "nats")
    try:
        options = SPEC.factory(SPEC.values({"stream": server.url}))
        before = _cpu_s(server.process.pid)
        sent = _sent(directory, options, records[QUERIES:])
        read, messages = _read(options)
        served = _cpu_s(server.process.pid) - before
    finally:
        server.kill()
    each = 1e6 / QUERIES
    yield Figure("sent to the bus, disk among it, CPU a query", sent * each, "µs", judged * each, JUDGED)
    yield Figure("read from it, CPU a query", read * each, "µs", judged * each, JUDGED)
    yield Figure("the server's own, to store and to send it, CPU a query", served * each, "µs", judged * each, JUDGED)
    slots = _judged_in_slots(records[:QUERIES], messages)
    what = f"judged in {SLOTS} slots, {QUERIES / len(messages):.0f} queries a message, CPU a query"
    yield Figure(what, slots * each, "µs", judged * each, JUDGED)


def takeover(directory: Path) -> Iterator[Figure]:
    """Seconds until the last slot of a host that ends is judged by another."""
    with cluster(directory) as bus:
        bus.settings["STREAM_LEASE_S"] = str(TAKEOVER_LEASE_S)
        one, two = bus.detecting("d1"), bus.detecting("d2")
        for what, end in (("kill -9 of all processes of a host", Detecting.kill_all), ("SIGTERM", _terminate)):
            one.wait_ready()
            two.wait_ready()
            wait_until(partial(_is_shared, one, two), 60)
            begun = time.time()
            end(one)
            wait_until(partial(_has_all, two), 60)
            last = datetime.fromisoformat(two.events("slot_taken")[-1]["timestamp"]).timestamp()
            yield Figure(f"{what}: all slots at another", last - begun, "s", TAKEOVER_LEASE_S, "STREAM_LEASE_S")
            one, two = two, bus.detecting("d3")


def _is_shared(one: Detecting, two: Detecting) -> bool:
    return len(one.slots) == len(two.slots) == BUS_SLOTS // 2


def _has_all(host: Detecting) -> bool:
    return len(host.slots) == BUS_SLOTS


def _terminate(host: Detecting) -> None:
    host.process.terminate()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _judged(records: np.ndarray[Any, Any]) -> float:
    """Seconds of CPU for the second half of the records; the first fills tables and caches."""
    detector, begun = TunnelDetector(shipped_model(), KEYS_MAX, QUIET_S, Scale()), 0.0
    for at in range(0, len(records), BATCH):
        begun = begun or (time.process_time() if at >= QUERIES else 0.0)
        detector.detect(batch_of_records(records[at : at + BATCH]))
    return time.process_time() - begun


def _sent(directory: Path, options: Any, records: np.ndarray[Any, Any]) -> float:
    spool = OutgoingSpool(directory / "spool", 1 << 30, options.slots, options.sending_site)
    sender = BusSender(options, spool, HeldKey(directory / "answer_key.json"))
    assert sender.flush(60)
    begun, count = time.process_time(), 0
    for at in range(0, len(records), BATCH_MAX):
        file = spool.put(f"{at:016x}", records[at : at + BATCH_MAX])
        assert file is not None
        sender.add(file)
        count += len(spool.messages(file))
    while sender.sent < count:
        time.sleep(0.01)
    spent = time.process_time() - begun
    sender.close()
    spool.close()
    return spent


def _read(options: Any) -> tuple[float, list[np.ndarray[Any, Any]]]:
    link, found, count = BusLink(options, "bench"), list[np.ndarray[Any, Any]](), 0
    begun = time.process_time()
    for slot in range(options.slots):
        link.read(subject_of(slot), StreamPosition())
    while count < QUERIES:
        received = link.received(5)
        assert received is not None
        link.done(received)
        found.append(message_records(received.data))
        batch_of_records(found[-1])
        count += len(found[-1])
    spent = time.process_time() - begun
    link.close()
    return spent, found


def _judged_in_slots(first: np.ndarray[Any, Any], messages: list[np.ndarray[Any, Any]]) -> float:
    tables, facts = known_tables(), Facts()

    def view(slot: int) -> NetworkView:
        return NetworkView(str(slot), tables, lambda: facts)

    more = None, (0, 0), None, 0, None
    made = SlottedDetector(slot_of_client, view, shipped_model(), KEYS_MAX, QUIET_S, Scale(), *more)
    for slot in range(SLOTS):
        made.open_slot(slot, b"")
    judge = partial(_judge, made)
    slots = np.array([slot_of_client(one) for one in batch_of_records(first).client])
    for slot in range(SLOTS):
        judge(slot, first[slots == slot])
    begun = time.process_time()
    for records in messages:
        judge(slot_of_client(batch_of_records(records[:1]).client[0]), records)
    return time.process_time() - begun


def _judge(made: SlottedDetector, slot: int, records: np.ndarray[Any, Any]) -> None:
    made.detect(batch_of_records(records))
    said = made.report_of_slot(slot, 1)
    if said is not None:
        said.packed()
