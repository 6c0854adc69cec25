"""Real processes for a tunnel on loopback: Debian's dns2tcp, a TCP sink, and `dns-tunnel` itself."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from tests.support.patience import patient
from tests.support.running import process, wait_for


class Sink:
    """A TCP server that counts bytes and acknowledges each piece with its total, a line each."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.received = 0
        self._server = socket.create_server((host, 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            while piece := connection.recv(65536):
                self.received += len(piece)
                connection.sendall(b"%d\n" % self.received)

    def close(self) -> None:
        self._server.close()


@contextlib.contextmanager
def dns2tcp_server(directory: Path, sink: Sink, port: int, zone: str) -> Iterator[None]:
    config = directory / "dns2tcpd.conf"
    config.write_text(
        f"listen = 127.0.0.1\nport = {port}\ndomain = {zone}\nkey = blah\nresources = sink:127.0.0.1:{sink.port}\n"
    )
    command = ["dns2tcpd", "-F", "-d", "1", "-i", "127.0.0.1", "-f", str(config)]
    log = directory / "dns2tcpd.log"
    with process(command, log):
        wait_for(lambda: b"Listening on" in log.read_bytes(), "dns2tcpd listens", 10)
        yield


@contextlib.contextmanager
def dns2tcp_client(directory: Path, resolver: str, port: int, zone: str) -> Iterator[None]:
    """127.0.0.1:`port` leads through `resolver` to the sink."""
    command = ["dns2tcpc", "-d", "1", "-z", zone, "-k", "blah", "-r", "sink", "-l", str(port), "-T", "TXT", resolver]
    log = directory / "dns2tcpc.log"
    with process(command, log):
        wait_for(lambda: b"Listening on" in log.read_bytes(), "dns2tcpc listens", 10)
        yield


def push(port: int, sink: Sink, size: int, timeout_s: float = 90) -> None:
    """Send `size` bytes into the tunnel; returns when the far end has them all."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(patient(timeout_s))
        reader = threading.Thread(target=_drain, args=(connection,), daemon=True)
        reader.start()
        connection.sendall(os.urandom(size))
        wait_for(lambda: sink.received >= size, f"{size} bytes arrive", timeout_s)


def _drain(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            continue


class Asker:
    """An ordinary client that asks a name every 10 ms; `waits_ms` has what each took, `lost` what got no answer."""

    def __init__(self, resolver: str) -> None:
        self.waits_ms: list[float] = []
        self.lost = 0
        self._resolver = resolver
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            query = dns.message.make_query(f"www{len(self.waits_ms)}.ordinary.example", "A")
            begun = time.perf_counter()
            try:
                dns.query.udp(query, self._resolver, timeout=patient(5))
            except dns.exception.Timeout:
                self.lost += 1
            self.waits_ms.append((time.perf_counter() - begun) * 1000)
