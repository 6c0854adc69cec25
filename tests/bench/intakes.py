"""Frames and lines that are read in a second of processor time, reading alone, beside libraries and plain parsers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dnstap_pb
import fstrm

from agents.sources import open_source
from agents.sources.dnstap import DNSTAP
from agents.sources.live.frame_protocol import STOP, control_frame
from tests.bench.table import Figure
from tests.support.frames import client_frame
from tests.support.log_lines import T0, answer_of
from tests.support.resolvers import question_of

FRAMES, LINES, ROUNDS = 400_000, 200_000, 3
BATCH = 4096


def _names(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"h{number % 5000}.mzxw6ytboi3gk5dfnvzsa43p.t{number}.example.com"


def _cpu(call: Callable[[], int]) -> float:
    """Things a second of processor time, the best of some rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        begun = time.process_time()
        count = call()
        best = max(best, count / (time.process_time() - begun))
    return best


def _read(path: Path, things: int) -> Callable[[], int]:
    def call() -> int:
        found = sum(map(len, open_source([path]).batches(BATCH)))
        assert found > 0
        return things

    return call


def _frames(path: Path) -> list[bytes]:
    frames = []
    for number, name in enumerate(_names(FRAMES // 2)):
        ident, at = (number & 0xFFFF), T0 + number / 1e4
        frames.append(client_frame(5, question_of(name, "TXT", ident), at))
        frames.append(client_frame(6, ident.to_bytes(2) + answer_of(name, "TXT")[2:], None, at + 0.01))
    data = b"".join(len(frame).to_bytes(4) + frame for frame in frames)
    path.write_bytes(control_frame(2, DNSTAP) + data + control_frame(STOP))
    return frames


def _by_library(path: Path, most: int) -> Callable[[], int]:
    """fstrm and dnstap-pb as their documents use them, names read by a plain loop."""

    def call() -> int:
        codec, count = fstrm.FstrmCodec(), 0
        with path.open("rb") as file:
            while count < most and (block := file.read(1 << 16)):
                codec.append(block)
                while codec.process():
                    kind, _, payload = codec.decode()
                    if kind != fstrm.FSTRM_DATA_FRAME:
                        continue
                    message = dnstap_pb.Dnstap.FromString(payload).message
                    wire = message.query_message or message.response_message
                    count += bool(wire[12:] and message.query_address)
        return count

    return call


def dnstap(directory: Path) -> Iterator[Figure]:
    """Frames, with pairing and merging, against the libraries that read them into objects."""
    path = directory / "tap.fstrm"
    _frames(path)
    ours, theirs = _cpu(_read(path, FRAMES)), _cpu(_by_library(path, FRAMES // 10))
    yield Figure("dnstap, frames read and joined", ours, "/s CPU", theirs, "fstrm and dnstap-pb, fields alone")


def logs(directory: Path) -> Iterator[Figure]:
    """Lines of BIND and of Suricata, against splitting them, or parsing their JSON."""
    bind, eve, both = directory / "queries.log", directory / "eve.json", directory / "both.json"
    with bind.open("w") as file:
        for number, name in enumerate(_names(LINES)):
            at = f"2026-01-05T00:{number // 60000 % 60:02d}:{number // 1000 % 60:02d}.{number % 1000:03d}Z"
            asked = f"client @0x7f 192.0.2.{number % 250}#4000 ({name}): query: {name} IN TXT + (::1)"
            file.write(f"{at} queries: info: {asked}\n")
    with eve.open("w") as file, both.open("w") as pairs:
        for number, name in enumerate(_names(LINES // 2)):
            row: dict[str, object] = {
                "timestamp": f"2026-01-05T00:{number // 60000 % 60:02d}:{number // 1000 % 60:02d}.000000+0000",
                "flow_id": number, "event_type": "dns", "src_ip": "192.0.2.7", "src_port": 4000, "dest_ip": "192.0.2.1",
                "dest_port": 53, "proto": "UDP",
                "dns": {"type": "request", "id": number & 0xFFFF, "queries": [{"rrname": name, "rrtype": "TXT"}]},
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
            answers = [{"rrname": name, "rrtype": "TXT", "ttl": 60, "rdata": "x" * 40}]
            known = {"type": "response", "id": number & 0xFFFF, "rcode": "NOERROR", "answers": answers}
            answer = row | {"dns": known | {"queries": [{"rrname": name, "rrtype": "TXT"}]}}
            pairs.write(json.dumps(row) + "\n" + json.dumps(answer) + "\n")

    def split() -> int:
        with bind.open() as file:
            return sum(len(line.split(" ")) > 8 for line in file)

    def parsed(path: Path) -> Callable[[], int]:
        def call() -> int:
            with path.open() as file:
                return sum("dns" in json.loads(line) for line in file)

        return call

    yield Figure("BIND's query log, lines read", _cpu(_read(bind, LINES)), "/s CPU", _cpu(split), "split at blanks")
    for name, path, lines in (("queries", eve, LINES // 2), ("queries and answers", both, LINES)):
        ours, theirs = _cpu(_read(path, lines)), _cpu(parsed(path))
        yield Figure(f"Suricata's EVE, {name}, lines read", ours, "/s CPU", theirs, "json.loads alone")


def intakes(directory: Path) -> Iterator[Figure]:
    """All of them."""
    yield from dnstap(directory)
    yield from logs(directory)
