"""Makes tests/data/demo.pcap.gz: a real tunnel of our own among ordinary clients that are made up.

    python -m tests.support.make_demo CAPTURE CLIENT        takes CLIENT's packets from a capture of a lab tunnel

The ordinary clients' names come from the look-alike suite, so that no name of the demo is anybody's.
"""

from __future__ import annotations

import gzip
import random
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from agents.dns.message import type_number
from agents.sources.capture import frame_kernels as ll
from agents.sources.files import open_bytes
from tests.corpora.lookalike_kinds import page, telemetry, video
from tests.support import captures
from tests.support.captures import Timed

TARGET = Path(__file__).parent / "data" / "demo.pcap.gz"
CLIENTS, RESOLVER = 20, "10.53.0.2"
ETHERNET_HEAD = 14


def packets(path: Path) -> Iterator[Timed]:
    """Time and frame of each packet of a little-endian pcap file of Ethernet frames."""
    stream, _ = open_bytes(path)
    data = stream.read()
    magic, *_, link = struct.unpack_from("<IHHiIII", data)
    if magic not in (0xA1B2C3D4, 0xA1B23C4D) or link != ll.ETHERNET:
        raise SystemExit(f"cannot read {path}: no little-endian pcap of Ethernet frames")
    at, unit = 24, 1e-9 if magic == 0xA1B23C4D else 1e-6
    while at + 16 <= len(data):
        seconds, fraction, size, _ = struct.unpack_from("<4I", data, at)
        yield seconds + fraction * unit, data[at + 16 : at + 16 + size]
        at += 16 + size


def tunnel(path: Path, client: str) -> list[Timed]:
    """The packets of one client and its answers."""
    address = socket.inet_aton(client)
    ends = slice(ETHERNET_HEAD + 12, ETHERNET_HEAD + 20)
    return [(ts, frame) for ts, frame in packets(path) if address in (frame[ends][:4], frame[ends][4:])]


def ordinary(rng: random.Random, client: str, since: float, until: float) -> Iterator[Timed]:
    """One client's page loads, with answers."""
    ts = since + rng.random() * 5
    while ts < until:
        for ask in rng.choice((page, page, page, telemetry, video))(rng):
            ts += ask.after_s if ask.after_s < 1 else rng.random()
            query = captures.question(ask.qname, rng.randrange(65536), type_number(ask.qtype))
            port = rng.randrange(1024, 65536)
            out = captures.ip4(captures.udp(query, port), client, RESOLVER)
            kind, data = (28, rng.randbytes(16)) if ask.qtype == "AAAA" else (1, rng.randbytes(4))
            ttls = (rng.choice((20, 60, 300)),) if ask.answer not in ("", "NX") else ()
            reply = captures.answer(query, *ttls, rcode=3 * (ask.answer == "NX"), kind=kind, data=data)
            back = captures.ip4(captures.udp(reply, 53, port), RESOLVER, client)
            yield ts, captures.linked(ll.ETHERNET, out)
            yield ts + 0.002 + rng.random() / 50, captures.linked(ll.ETHERNET, back)
        ts += rng.expovariate(0.2)


def main() -> None:
    frames = tunnel(Path(sys.argv[1]), sys.argv[2])
    since, until = frames[0][0] - 20, frames[-1][0] + 20
    for number in range(CLIENTS):
        frames += ordinary(random.Random(number), f"10.53.0.{101 + number}", since, until)
    frames.sort(key=lambda timed: timed[0])
    TARGET.parent.mkdir(exist_ok=True)
    with TARGET.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        file.write(captures.pcap(frames))


if __name__ == "__main__":
    main()
