"""A hundred clients that ask one listener, in a process of their own: `-m tests.e2e.crowd PORT HOST FIRST PER_S`.

Each query has a name of its own. Now and then it is one below CARRIER that carries ten bytes, of another client each
time. It ends with its standard input, and then says what it met with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import select
import socket
import subprocess
import sys
import time

from agents.dns.name import from_text
from tests.support.commands import ROOT
from tests.support.patience import patient

CLIENTS = 100
CARRIER = "carrier.test"
CARRIED_PER_S = 10
NAMES = 40
"""Names below each ordinary domain."""
UNDER_WAY = 128
"""Queries without an answer, at most: a listener's socket holds so many."""
TICK_S, PATIENCE_S = 0.005, 10.0
"""A client waits so long: an upstream that lost a query is asked again after seconds."""


def name_of(host: str, number: int, per_s: int) -> str:
    """What is asked as number `number`."""
    if number % max(per_s // CARRIED_PER_S, 1):
        return f"h{number}.{host}{number // NAMES}.test"
    data = hashlib.sha256(f"{host}{number}".encode()).digest()[:10]
    return f"{base64.b32encode(data).decode().lower()}.{CARRIER}"


def _asking(port: int, host: str, first: str, per_s: int) -> dict[str, float]:
    network, _, last = first.rpartition(".")
    clients = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(CLIENTS)]
    poll, of = select.epoll(), dict[int, int]()
    for number, one in enumerate(clients):
        one.bind((f"{network}.{int(last) + number}", 0))
        one.connect(("127.0.0.1", port))
        one.setblocking(False)
        poll.register(one, select.EPOLLIN)
        of[one.fileno()] = number
    poll.register(0, select.EPOLLHUP)
    under_way = dict[tuple[int, int], float]()
    sent = answered = 0
    worst_s, begun, end = 0.0, time.monotonic(), float("inf")
    while (now := time.monotonic()) < end and (under_way or end == float("inf")):
        due = min(int((now - begun) * per_s) - sent, UNDER_WAY - len(under_way)) if end == float("inf") else 0
        for number in range(sent, sent + max(due, 0)):
            turn = number // CLIENTS
            client, ident = (number + turn) % CLIENTS, turn & 0xFFFF
            question = from_text(name_of(host, number, per_s)) + b"\0\0\1\0\1"
            clients[client].send(ident.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + question)
            under_way[client, ident] = now
            sent += 1
        for handle, _ in poll.poll(TICK_S):
            if handle == 0:
                poll.unregister(0)
                end = now + patient(PATIENCE_S)
                continue
            try:
                ident = int.from_bytes(clients[of[handle]].recv(4096)[:2])
            except ConnectionRefusedError:  # nobody listens: the query stays without an answer
                continue
            asked = under_way.pop((of[handle], ident), None)
            if asked is not None:
                answered += 1
                worst_s = max(worst_s, time.monotonic() - asked)
    return {"sent": sent, "answered": answered, "worst_s": worst_s, "asked_s": now - begun}


class Crowd:
    """The process; it asks until it is stopped. first: address of the first of its clients."""

    def __init__(self, port: int, host: str, first: str, per_s: int) -> None:
        command = [sys.executable, "-m", "tests.e2e.crowd", str(port), host, first, str(per_s)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def stop(self) -> dict[str, float]:
        """Ask no more, wait for what is due, and end: how many were sent and answered, and what took longest."""
        out, _ = self._process.communicate()
        found: dict[str, float] = json.loads(out)
        return found


if __name__ == "__main__":
    print(json.dumps(_asking(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))))
