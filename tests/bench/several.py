"""What several detectors cost: CPU a query over one detector, and the gain by the clock; judging alone.

Records wait in the rings; each detector is a process of its own, and so is the one that counts all clients together.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.detection.shared.detector_report import detector_report_of
from agents.detection.shared.part import PartDetector
from agents.detection.shared.together import TogetherDetector
from agents.dns.name import from_text
from agents.learning.baseline import benign_names
from agents.runtime import warmup
from agents.runtime.drill.relay import DrillRelay
from agents.runtime.several.exchange import DetectorExchange
from agents.runtime.several.network_process import PAUSE_S
from agents.stream.ledger import NUMBER_DIGITS
from agents.stream.record import client_bytes, packed_record
from agents.stream.shared import SharedStream
from tests.bench.table import Figure
from tests.support.detecting import KEYS_MAX, QUIET_S, START, shipped_model

QUERIES, CLIENTS, ROUNDS = 120_000, 500, 3
_FORK = multiprocessing.get_context("fork")


def several(directory: Path) -> Iterator[Figure]:
    """CPU a query of two detectors and the process beside them, and queries a second, beside one detector."""
    warmup.judging()
    warmup.sharing()
    for times in (8, 1):
        what = f"one query in {times} for a new name" if times > 1 else "each query for a new name"
        records = ordinary_records(times)
        spent: dict[int, list[tuple[float, ...]]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for detectors, taken in spent.items():
                taken.append(judged_by(detectors, records, directory))
        (cpu1, _, wall1), (cpu2, _, wall2) = (
            [statistics.median(one) / QUERIES * 1e6 for one in zip(*taken, strict=True)] for taken in spent.values()
        )
        yield Figure(f"two detectors, CPU a query, {what}", cpu2, "µs", cpu1, "one detector")
        yield Figure(f"two detectors, by the clock, {what}", 1e6 / wall2, "/s", 1e6 / wall1, "one detector")


def ordinary_records(times: int) -> list[bytes]:
    """Twice QUERIES ordinary queries; of each client's, one in `times` is for a name that it did not ask for lately."""
    rng, names = random.Random(1), [from_text(name) for name in benign_names()]
    clients = [client_bytes(f"10.0.{number // 250}.{number % 250}") for number in range(CLIENTS)]
    lately: dict[bytes, deque[bytes]] = {client: deque(maxlen=times) for client in clients}
    found = []
    for n in range(2 * QUERIES):
        client = rng.choice(clients)
        again = lately[client] and rng.random() >= 1 / times
        name = rng.choice(lately[client]) if again else rng.choice(names)
        lately[client].append(name)
        found.append(packed_record(START + n / 1000, client, name, 1, len(name) + 17, 0, 1, 90, 60, 5.0, (1,)))
    return found


def judged_by(detectors: int, records: Sequence[bytes], directory: Path) -> tuple[float, float, float]:
    """Seconds to judge the second half of the records: the first one fills tables and caches.

    CPU of all processes, that of the process `network` among it, and the wall clock.
    """
    stream = SharedStream(1, 2 * len(records), ["a"], detectors=detectors)
    exchange = DetectorExchange(detectors, (1, 2))
    (rings, _), _ = stream.writers(0)
    barrier, judged = _FORK.Barrier(detectors + 1 + (detectors > 1)), [_FORK.Event(), _FORK.Event()]
    works = [partial(_detect, stream.of(number), exchange, number, directory) for number in range(detectors)]
    works += [partial(_together, exchange, judged)] * (detectors > 1)
    children, ends = [], []
    for work in works:
        mine, its = _FORK.Pipe(duplex=False)
        child = _FORK.Process(target=work, args=(barrier, its))
        child.start()
        children.append(child)
        ends.append(mine)
    for half, ended in enumerate(judged):
        for at in range(half * QUERIES, (half + 1) * QUERIES, 1000):
            rings.put(b"".join(records[at : at + 1000]))
        assert rings.dropped == 0
        barrier.wait()
        begun = time.monotonic()
        cpu = [end.recv() for end in ends[:detectors]]
        wall = time.monotonic() - begun
        ended.set()
        together = sum(end.recv() for end in ends[detectors:])
    for child in children:
        child.join()
    stream.close()
    exchange.close()
    return sum(cpu) + together, together, wall


def _detect(
    stream: SharedStream, exchange: DetectorExchange, number: int, directory: Path, barrier: Barrier, told: Connection
) -> None:
    options = shipped_model(), KEYS_MAX, QUIET_S, Scale()
    stop, relay, name = threading.Event(), DrillRelay(directory), exchange.names[number]
    stop.set()
    part = PartDetector(*options, view=exchange.view(name)) if len(exchange.names) > 1 else None
    detector = part or TunnelDetector(*options)
    for _ in range(2):
        barrier.wait()
        begun = time.process_time()
        while (taken := stream.take(stop)) is not None:
            assert taken.batch is not None
            detector.detect(taken.batch)
            if part is not None:
                exchange.send_report(part, relay, name, int(taken.batch_id[-NUMBER_DIGITS:], 16))
            stream.commit(scored=len(taken.ts))
        told.send(time.process_time() - begun)


def _together(exchange: DetectorExchange, judged: Sequence[Event], barrier: Barrier, told: Connection) -> None:
    together = TogetherDetector(shipped_model(), KEYS_MAX, QUIET_S, Scale(), tables=exchange.tables)
    for ended in judged:
        barrier.wait()
        begun, last = time.process_time(), False
        while not last:
            last = ended.is_set()
            found = {name: box.peek() for name, box in exchange.mailboxes.items()}
            together.count_reports(
                [detector_report_of(message) for waiting, _ in found.values() for message in waiting]
            )
            for name, (_, end) in found.items():
                exchange.mailboxes[name].advance_to(end)
            exchange.facts.write(together.facts().packed())
            time.sleep(PAUSE_S)
        told.send(time.process_time() - begun)
