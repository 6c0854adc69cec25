"""A large capture of distinct names: python -m tests.support.make_capture FILE [--names 1000000] [--clients 500]

Every query is answered 5 ms later. Names are numbered hosts and words below many domains, so that no two are equal.
"""

from __future__ import annotations

import argparse
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.support.captures import T0

_WORDS = b"mail www api cdn img static login shop news blog assets video edge auth data files app dev test web".split()
_TOPS = b"com net org de co.uk io com.br fr jp info".split()
_EVERY_S, _ANSWERED_S = 1e-4, 5e-3
_QUESTIONS = 50
"""Queries that are under way when the first is answered."""


def names(count: int, seed: int = 1) -> Iterator[bytes]:
    """Distinct wire names."""
    rng = np.random.default_rng(seed)
    words, hosts = rng.integers(len(_WORDS), size=(2, count)).tolist()
    numbers, tops = rng.integers(20_000, size=count).tolist(), rng.integers(len(_TOPS), size=count).tolist()
    for i in range(count):
        host = _WORDS[hosts[i]] + b"-%x" % (i * 2_654_435_761 % 2**32)
        labels = (host, b"%s%d" % (_WORDS[words[i]], numbers[i]), *_TOPS[tops[i]].split(b"."))
        yield b"".join(bytes((len(label),)) + label for label in labels)


def _frame(ts: float, message: bytes, host: int, port: int, answers: bool) -> bytes:
    client, server = struct.pack("!4B", 10, 0, host >> 8, host & 0xFF), socket.inet_aton("192.0.2.53")
    ends = ((server, 53), (client, port)) if answers else ((client, port), (server, 53))
    udp = struct.pack("!4H", ends[0][1], ends[1][1], len(message) + 8, 0) + message
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends[0][0] + ends[1][0]
    packet = bytes(12) + b"\x08\x00" + ip + udp
    return struct.pack("<4I", int(ts), int(ts % 1 * 1e6), len(packet), len(packet)) + packet


def records(count: int, clients: int = 500) -> Iterator[bytes]:
    """Records of a pcap file, in time order: 2 * count of them. At most 65,536 clients, in turn."""
    waiting: list[bytes] = []
    for i, name in enumerate(names(count)):
        ts, ident, host, port = T0 + i * _EVERY_S, i & 0xFFFF, i % clients, 1024 + i % 60_000
        asked = name + b"\0\0\1\0\1"
        yield _frame(ts, struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + asked, host, port, False)
        reply = struct.pack("!6H", ident, 0x8180, 1, 1, 0, 0) + asked + b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\1"
        waiting.append(_frame(ts + _ANSWERED_S, reply, host, port, True))
        if len(waiting) == _QUESTIONS:
            yield waiting.pop(0)
    yield from waiting


def write(path: Path, count: int, clients: int = 500) -> None:
    """Write the capture."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
        file.writelines(records(count, clients))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=500, help="few clients with many new names are incidents")
    found = parser.parse_args()
    write(found.file, found.names, found.clients)
