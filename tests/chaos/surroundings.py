"""What the product stands between, all of it real sockets that can be made to fail: database, webhook, upstreams."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from tests.support.patience import patient

TTL_S = 5
RECORD = b"\xc0\x0c\x00\x01\x00\x01" + TTL_S.to_bytes(4) + b"\x00\x04\xc0\x00\x02\x01"
"""One A record of the asked name (RFC 1035 section 4.1.3)."""
FORGED_MAX = 20
"""Answers with a wrong id before the true one."""
LOOK_S = 0.05
SPAWN = multiprocessing.get_context("spawn")
"""A forked process would inherit every socket of this program."""


class Worker:
    """A thread that runs `step` until it is stopped."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._step, self._halt = step, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._halt.is_set():
            self._step()

    def stop(self) -> None:
        self._halt.set()
        self._thread.join()


MODES = ("true", "silent", "lying")


def _answer_all(server: socket.socket, mode: Synchronized[int], dead: Synchronized[int]) -> None:
    """Answer every query as `mode` has it, and none while `dead` is set, until the process is ended."""
    random_ = random.Random(server.getsockname()[1])
    while True:
        query, peer = server.recvfrom(4096)
        if dead.value or MODES[mode.value] == "silent" or len(query) < 17:
            continue
        end = query.find(b"\0", 12) + 5
        answer = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:end] + RECORD
        if MODES[mode.value] == "lying":
            for _ in range(random_.randrange(1, FORGED_MAX)):
                server.sendto(random_.randbytes(2) + answer, peer)
        server.sendto(query[:2] + answer, peer)


class Upstream:
    """A process that answers, unless `dead`. mode: "true", "silent", or "lying" (wrong ids, then the true answer)."""

    def __init__(self, mode: str = "true") -> None:
        server = socket.socket(type=socket.SOCK_DGRAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        server.bind(("127.0.0.1", 0))
        self.port: int = server.getsockname()[1]
        self._mode = SPAWN.Value("i", MODES.index(mode))
        self._dead = SPAWN.Value("i", 0)
        self._process = SPAWN.Process(target=_answer_all, args=(server, self._mode, self._dead), daemon=True)
        self._process.start()
        server.close()

    @property
    def mode(self) -> str:
        return MODES[self._mode.value]

    @mode.setter
    def mode(self, name: str) -> None:
        self._mode.value = MODES.index(name)

    @property
    def dead(self) -> bool:
        return bool(self._dead.value)

    @dead.setter
    def dead(self, dead: bool) -> None:
        self._dead.value = int(dead)

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


class Relay:
    """TCP between the product and its database; `delay_s` holds each message back."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self._behind = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._server.settimeout(LOOK_S)
        self.port: int = self._server.getsockname()[1]
        self._worker = Worker(self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._server.accept()
        except TimeoutError:
            return
        try:
            behind = socket.create_connection(self._behind, timeout=patient(2))
        except OSError:
            client.close()
            return
        for one in (client, behind):
            one.setblocking(False)
        threading.Thread(target=self._carry, args=(client, behind), daemon=True).start()

    def _carry(self, client: socket.socket, behind: socket.socket) -> None:
        """Bytes both ways until one end closes; what came is sent when its delay is over, in order."""
        other = {client: behind, behind: client}
        held: deque[tuple[float, socket.socket, bytes]] = deque()
        with contextlib.suppress(OSError), client, behind, selectors.DefaultSelector() as waiting:
            for one in (client, behind):
                waiting.register(one, selectors.EVENT_READ)
            while True:
                pause = max(held[0][0] - time.monotonic(), 0.0) if held else 1.0
                for key, _ in waiting.select(pause):
                    one = client if key.fileobj is client else behind
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    held.append((time.monotonic() + self.delay_s, other[one], data))
                while held and held[0][0] <= time.monotonic():
                    _, to, data = held.popleft()
                    to.settimeout(patient(10))
                    to.sendall(data)
                    to.setblocking(False)

    def close(self) -> None:
        self._worker.stop()
        self._server.close()


class Channel:
    """A webhook. mode: "takes", "hangs" (reads and never answers), "refuses" (503), "closes", "dribbles"."""

    def __init__(self) -> None:
        self.mode = "takes"
        self.taken: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._server.settimeout(LOOK_S)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/hooks/chaos"
        self._worker = Worker(self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._server.accept()
        except TimeoutError:
            return
        threading.Thread(target=self._answer, args=(client, self.mode), daemon=True).start()

    def _answer(self, client: socket.socket, mode: str) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(patient(60))
            if mode == "closes":
                return
            body = self._read(client)
            if mode == "hangs":
                client.recv(1)  # until the other end gives up
                return
            if mode == "dribbles":
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n":
                    client.sendall(bytes((byte,)))
                    time.sleep(1)
                return
            if mode == "takes":
                self.taken.append(json.dumps(json.loads(body)))
            status = b"200 OK" if mode == "takes" else b"503 Service Unavailable"
            client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    @staticmethod
    def _read(client: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-le"))
        while len(body) < size:
            body += client.recv(65536)
        return body

    def close(self) -> None:
        self._worker.stop()
        self._server.close()


class WallClock:
    """The product's wall clock, apart from everybody else's: `settings` are its part of the environment."""

    def __init__(self, folder: Path) -> None:
        library, file = folder / "wall_clock.so", folder / "wall_clock"
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
        file.write_bytes(bytes(8))
        self._file = file
        self.settings = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(file)}

    def set_ahead(self, seconds: int) -> None:
        """All its processes have the new time at once."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def fill_up(folder: Path) -> Path:
    """Take all room of a disk with one file, which is returned."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    out.write(bytes(size))
    return filler


@contextlib.contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[None]:
    """A file system of so many kB at `folder`; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k,mode=0700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
