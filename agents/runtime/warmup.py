"""Compiles every kernel, once: `python -m agents.runtime.warmup` after installing: no command waits later."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from struct import pack

import numpy as np

from agents.core import jit
from agents.core.columns import coded
from agents.core.jit import COMPILED, KEPT
from agents.detection import snapshot
from agents.detection.detector import TunnelDetector
from agents.detection.flows import Flows
from agents.detection.limits import Scale
from agents.detection.shared.detector_report import detector_report_of
from agents.detection.shared.part import PartDetector
from agents.detection.shared.together import TogetherDetector
from agents.detection.shared.view import NetworkView, known_tables
from agents.detection.tripwires.honeytokens import HoneytokenSearch, new_list
from agents.dns.name import from_text
from agents.learning.baseline import asked_batch, model_bytes
from agents.scoring.features import VERSION
from agents.scoring.lexical import read_names
from agents.scoring.model import Model
from agents.sources.capture.frame_kernels import RAW, TCP, UDP
from agents.sources.capture.source import PcapSource
from agents.sources.dnstap.dnstap_kernels import FRAME_STREAMS, POWERDNS, new_scan, scan_frames
from agents.sources.dnstap.merging_kernels import give, new_merger
from agents.sources.live.block_kernels import records_of_block
from agents.sources.logs import SPECS
from agents.sources.logs.source import log_lines
from agents.store import postgres
from agents.store.opening import open_store
from agents.store.rows import COLUMNS, query_columns
from agents.stream.record import RECORD
from agents.stream.rings import Rings
from agents.stream.slots import NO_PARTED, PartedClients

NOTE = "kernels are compiled for this processor, once, which takes a minute or two; COMPILED=off works without"
_BIND_LINE = b"05-Jan-2026 00:00:00.000 client 192.0.2.1#1: query: www.example.com IN A +\n"
_EVE_LINE = (
    b'{"timestamp":"2026-01-05T00:00:00Z","event_type":"dns","flow_id":1,"src_ip":"192.0.2.1",'
    b'"dns":{"type":"query","id":1,"rrname":"www.example.com","rrtype":"A"}}\n'
)
_QUESTION = b"\0\1\0\0\0\1\0\0\0\0\0\0" + from_text("www.example.com") + b"\0\0\1\0\1"


def up(tell: Callable[[str], None]) -> None:
    """Compile all kernels unless they are; `tell` gets one line before that begins.

    In a process of its own: a compiler's memory would stay with this one for good. Where nothing can be kept, or that
    process fails, each kernel is compiled where it is called first.
    """
    if not COMPILED or KEPT is None or jit.warm_mark(KEPT).exists():
        return
    tell(NOTE)
    subprocess.run(
        [sys.executable, "-m", "agents.runtime.warmup"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def judging() -> None:
    """Load everything that judging may need: counting, making room, forgetting, and windows out of a file."""
    detector = TunnelDetector(Model.from_bytes(model_bytes()), 4, 3600.0, Scale())
    for at in range(2):
        names = [f"{i}.{at}.example{i}.com" for i in range(8)]
        detector.detect(asked_batch([1e6 * at] * 8, ["192.0.2.1"] * 8, names, [16] * 8))
    (row, *_) = detector.flows.rows(lambda flows: flows["used"] == 1)
    detector.flows.forget(row)
    detector.flows.find("192.0.2.1", 0)
    snapshot.load_flows(snapshot.dump_flows(detector.flows), Flows(4))
    read = read_names([from_text("www.example.com")], detector.model, (0, 0))
    HoneytokenSearch(new_list()).find(read, coded(["192.0.2.1"]))


def sharing() -> None:
    """Load what several detectors need beyond that."""
    tables, model, parted = known_tables(), Model.from_bytes(model_bytes()), PartedClients("192.0.2.1")
    together = TogetherDetector(model, 64, 3600.0, Scale(), tables=tables, is_parted=parted.has)
    view = NetworkView("detector-1", tables, together.facts, parted.has)
    part = PartDetector(model, 64, 3600.0, Scale(), view=view)
    for at in range(2):
        part.detect(asked_batch([1e6 * at], ["192.0.2.1"], [f"{at}.example.com"], [16]))
        said = part.take_report(at + 1)
        together.count_reports([detector_report_of(said.packed())] if said is not None else [])
    parted.slot_of("192.0.2.1", from_text("example.com"))
    for ranges in (NO_PARTED, parted.ranges):
        Rings(memoryview(bytearray(Rings.size_of(2, 1))), 1, (-1, -1), ranges).put(bytes(RECORD.itemsize))


def listening() -> None:
    """Load the datapath of a listener."""
    if COMPILED:
        from agents.sources.listener import datapath  # here: it imports numba, which a platform may lack

        datapath.load_datapath()


def scanning() -> None:
    """Load the reader of captures: one query over UDP, and one over TCP."""
    size, address = len(_QUESTION), socket.inet_aton("192.0.2.1")
    udp = pack("!4H", 1024, 53, 8 + size, 0) + _QUESTION
    tcp = pack("!HHIIBBHHHH", 1024, 53, 0, 0, 0x50, 0x18, 0, 0, 0, size) + _QUESTION
    content = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, RAW)
    for proto, body in ((UDP, udp), (TCP, tcp)):
        packet = pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, proto, 0) + address + address + body
        content += pack("<4I", 0, 0, len(packet), len(packet)) + packet
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm.pcap"
        path.write_bytes(content)
        assert sum(map(len, PcapSource(path, {53}).batches(1))) == 2


def storing() -> None:
    """Load what packs and unpacks stored queries, and draws samples of them."""
    detector = TunnelDetector(Model.from_bytes(model_bytes()), 4, 3600.0, Scale())
    verdicts = detector.detect(asked_batch([0.0], ["192.0.2.1"], ["www.example.com"], [1]))
    *_, column = postgres.columns_of(memoryview(postgres.rows_of([query_columns(verdicts, "")])), 1, len(COLUMNS))
    postgres.texts_of(column)
    with tempfile.TemporaryDirectory() as folder, closing(open_store(f"sqlite:///{folder}/dns-tunnel.db")) as store:
        store.migrate()
        store.write(verdicts, "warm")
        store.sample_normal(
            since=-1.0,
            until=1.0,
            limit=1,
            max_score=1.0,
            client_share=1.0,
            domain_share=1.0,
            features_version=VERSION,
            seed=0,
        )


def receiving() -> None:
    """Load the readers of frames and of the packet ring."""
    scan = new_scan(new_merger((0, 0)))
    for framing in (FRAME_STREAMS, POWERDNS):
        scan_frames(scan, np.frombuffer(b"\0", np.uint8), 1, framing, 0, 0.0, 0.0)
    give(scan.merger, 0.0, 0.0, 1, np.zeros(1, RECORD), 0)
    records_of_block(np.zeros(64, np.uint8), np.zeros(64, np.uint8))


def reading() -> None:
    """Load the readers of log lines: lines that are read, one that is not, and a query without an answer."""
    for spec in SPECS:
        reader = spec.reader({}, 0.0) if spec.reader else None
        if reader is not None:
            lines = log_lines(reader)
            lines.take([b"{}\n", _BIND_LINE, _EVE_LINE])
            lines.rest()


LOADS = (judging, sharing, listening, scanning, reading, receiving, storing)
"""All there is to load."""
_ASIDE = (listening, scanning)
"""What a second process loads where the machine has a processor for it: nearly half of all, with kernels in common."""


def _load_each(loads: Iterable[Callable[[], None]]) -> None:
    for load in loads:
        load()


def _load_all() -> None:
    """Load everything, by two processes: the compiler uses one processor, and holds a lock against threads."""
    if len(os.sched_getaffinity(0)) < 2:
        _load_each(LOADS)
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        aside = pool.submit(_load_each, _ASIDE)
        _load_each([load for load in LOADS if load not in _ASIDE])
        aside.result()
    _load_each(_ASIDE)  # they are kept by now, but for one that both processes wrote at once


def main() -> int:
    """Compile what is not compiled yet, all of it; what was kept of other versions goes."""
    if COMPILED and KEPT is not None:
        if jit.warm_mark(KEPT).exists():
            _load_each(LOADS)
        else:
            print(f"dns-tunnel: {NOTE}", file=sys.stderr, flush=True)
            _load_all()
        with suppress(OSError):  # no room: it is tried again
            jit.warm_mark(KEPT).touch()
            jit.prune_caches(KEPT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
