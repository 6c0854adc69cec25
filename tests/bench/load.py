"""A small load generator for DNS over UDP on loopback: bounded in queries and in time."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

IN_FLIGHT = 64
TIMEOUT_S = 1.0


def messages(wires: Sequence[bytes]) -> list[bytes]:
    """One query message a name, ids counting up."""
    head = struct.Struct("!6H")
    return [head.pack(number & 0xFFFF, 0x0100, 1, 0, 0, 0) + wire + b"\0\0\1\0\1" for number, wire in enumerate(wires)]


@contextmanager
def _socket(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        yield client


def rate(port: int, queries: Sequence[bytes], limit_s: float) -> tuple[float, float]:
    """(answers a second, share of queries answered) with IN_FLIGHT queries under way at any time."""
    with _socket(port) as client:
        begun = time.perf_counter()
        sent = answered = lost = 0
        while answered + lost < len(queries) and time.perf_counter() - begun < limit_s:
            while sent < len(queries) and sent - answered - lost < IN_FLIGHT:
                client.send(queries[sent])
                sent += 1
            if not select.select([client], [], [], TIMEOUT_S)[0]:
                lost = sent - answered
                continue
            answered += _drain(client)
        return answered / (time.perf_counter() - begun), answered / max(sent, 1)


def _drain(client: socket.socket) -> int:
    count = 0
    while count < IN_FLIGHT:
        try:
            client.recv(4096)
        except BlockingIOError:
            break
        count += 1
    return count


def latencies(port: int, queries: Sequence[bytes], limit_s: float) -> list[float]:
    """Milliseconds from query to answer, one query at a time."""
    found: list[float] = []
    with _socket(port) as client:
        end = time.perf_counter() + limit_s
        for query in queries:
            begun = time.perf_counter()
            client.send(query)
            if select.select([client], [], [], TIMEOUT_S)[0]:
                client.recv(4096)
                found.append((time.perf_counter() - begun) * 1000)
            if time.perf_counter() > end:
                break
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies."""
    return float(np.percentile(values, 100 * share))
