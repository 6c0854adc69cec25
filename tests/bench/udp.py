"""Both ends of the line for measuring forwarders, compiled, so that they cost little: an upstream, and a probe.

python -m tests.bench.udp answers every query with one A record, prints its port and runs until it is ended.
python -m tests.bench.udp PORT RATE SECONDS NAMES sends queries for the names in that file at an even rate, whatever
comes back, and prints latencies as JSON. Both need numba and Linux.
"""

from __future__ import annotations

import json
import math
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from agents.core.jit import kernel
from agents.dns.message_kernels import int64, question_end
from agents.sources.listener.datapath_kernels import CLOCK_MONOTONIC, MESSAGE, PART, clock_ns, recvmmsg, sendmmsg
from tests.bench.load import percentile

BATCH, ROOM, NAME_ROOM = 64, 4096, 32
RECORD = np.frombuffer(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01", np.uint8)
WAIT_FOR_ONE = 0x10000
"""MSG_WAITFORONE of recvmmsg(2)."""
_c_send: Any = types.ExternalFunction("send", types.intp(types.int32, types.uintp, types.intp, types.int32))
_c_recv: Any = types.ExternalFunction("recv", types.intp(types.int32, types.uintp, types.intp, types.int32))
_ppoll: Any = types.ExternalFunction("ppoll", types.int32(types.uintp, types.uint64, types.uintp, types.uintp))
_POLLIN, _DONT_WAIT = 1, 0x40
_GRACE_NS = 1_000_000_000


@kernel
def answer_all(
    fd: int, buffers: NDArray[np.uint8], headers: Any, parts: Any, record: NDArray[np.uint8], rounds: int
) -> None:
    """Answer batch after batch, in place."""
    for _ in range(rounds):
        for place in range(BATCH):
            headers[place].name_size, parts[place].size = 16, ROOM
        count = recvmmsg(fd, headers.ctypes.data, BATCH, WAIT_FOR_ONE, 0)
        for place in range(count):
            message = buffers[place]
            end = question_end(message, 0, int64(headers[place].size & 0xFFFFFFFF))
            if end == 0:
                continue
            message[2] |= 0x80
            message[3] = 0x80
            message[6:12] = 0
            message[7] = 1
            message[end : end + len(record)] = record
            parts[place].size = end + len(record)
        if count > 0:
            sendmmsg(fd, headers.ctypes.data, count, 0)


def upstream() -> None:
    """Serve on a free port of loopback until ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        server.bind(("127.0.0.1", 0))
        buffers, names = np.zeros((BATCH, ROOM), np.uint8), np.zeros((BATCH, NAME_ROOM), np.uint8)
        parts, headers = np.zeros(BATCH, PART), np.zeros(BATCH, MESSAGE)
        numbers = np.arange(BATCH, dtype=np.uint64)
        parts["base"] = np.uint64(buffers.ctypes.data) + numbers * np.uint64(ROOM)
        headers["name"] = np.uint64(names.ctypes.data) + numbers * np.uint64(NAME_ROOM)
        headers["parts"] = np.uint64(parts.ctypes.data) + numbers * np.uint64(PART.itemsize)
        headers["parts_count"] = 1
        answer_all(server.fileno(), buffers, headers, parts, RECORD, 0)
        print(server.getsockname()[1], flush=True)
        while True:
            answer_all(server.fileno(), buffers, headers, parts, RECORD, 1 << 20)


@kernel
def send_evenly(
    fd: int, queries: NDArray[np.uint8], sizes: NDArray[np.int64], gap_ns: int, sent_at: NDArray[np.int64],
    took: NDArray[np.int64], scratch: NDArray[np.int64], buffer: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Send query i at i gaps from the start; took[i] = nanoseconds to its answer, or -1. Ids count up."""
    began = clock_ns(CLOCK_MONOTONIC, scratch)
    number = 0
    while True:
        now = clock_ns(CLOCK_MONOTONIC, scratch)
        while number < len(sent_at) and began + number * gap_ns <= now:
            query = queries[number % len(queries)]
            query[0], query[1] = number >> 8 & 0xFF, number & 0xFF
            sent_at[number] = clock_ns(CLOCK_MONOTONIC, scratch)
            _c_send(fd, query.ctypes.data, sizes[number % len(queries)], 0)
            number += 1
        wait = began + number * gap_ns - now if number < len(sent_at) else _GRACE_NS
        scratch[2], scratch[3] = wait // 1_000_000_000, max(0, wait) % 1_000_000_000
        scratch[4] = fd | _POLLIN << 32
        if _ppoll(scratch[4:].ctypes.data, 1, scratch[2:].ctypes.data, 0) == 0 and number == len(sent_at):
            return
        while _c_recv(fd, buffer.ctypes.data, len(buffer), _DONT_WAIT) >= 2:
            ident = int64(buffer[0]) << 8 | int64(buffer[1])
            # The latest query with this id; one that is older than 65,536 queries counts as lost.
            found = number - 1 - ((number - 1 - ident) & 0xFFFF)
            if found >= 0 and took[found] < 0:
                took[found] = clock_ns(CLOCK_MONOTONIC, scratch) - sent_at[found]


def probe(port: int, rate: float, seconds: float, wires: list[bytes]) -> dict[str, float]:
    """Latencies in microseconds at so many queries a second, and the share that was lost."""
    tail = b"\0\0\1\0\1"
    queries, sizes = np.zeros((len(wires), 300), np.uint8), np.zeros(len(wires), np.int64)
    for row, wire in enumerate(wires):
        message = b"\0\0\1\0\0\1\0\0\0\0\0\0" + wire + tail
        queries[row, : len(message)], sizes[row] = np.frombuffer(message, np.uint8), len(message)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        client.connect(("127.0.0.1", port))
        for count in (0, int(rate * seconds)):
            sent_at, took = np.zeros(count, np.int64), np.full(count, -1, np.int64)
            scratch, buffer = np.zeros(8, np.int64), np.zeros(ROOM, np.uint8)
            if count == 0:
                sent_at = np.zeros(1, np.int64)
                took = np.full(1, -1, np.int64)
            send_evenly(client.fileno(), queries, sizes, int(1e9 / rate), sent_at, took, scratch, buffer)
    answered = took[took >= 0] / 1000
    lost = 1 - len(answered) / len(took)
    found = answered.tolist()
    if not found:
        return {"p50": math.inf, "p99": math.inf, "lost": lost}
    return {"p50": percentile(found, 0.5), "p99": percentile(found, 0.99), "lost": lost}


def main() -> None:
    if len(sys.argv) == 1:
        upstream()
        return
    port, rate, seconds, names = sys.argv[1:]
    wires = [bytes.fromhex(line) for line in Path(names).read_text("ascii").split()]
    print(json.dumps(probe(int(port), float(rate), float(seconds), wires)))


if __name__ == "__main__":
    main()
