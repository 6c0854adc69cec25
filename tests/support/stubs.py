"""An authoritative DNS server for tests: real UDP and TCP sockets on one port, behaviour as a function."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from agents.core.errors import MessageError
from agents.dns import message as wire
from tests.support.patience import patient


class Asked(NamedTuple):
    """One message that the stub received."""

    message: bytes
    peer: tuple[str, int]
    proto: str  # "udp" or "tcp"


Behaviour = Callable[[Asked], list[bytes]]
"""Raw answers to send, in order; an empty list = silence."""


def reply(asked: Asked, *records: tuple[int, int, bytes], flags: int = 0x8180) -> list[bytes]:
    """An answer with (type, ttl, data) records of the asked name, of any bytes; silence if it is no query."""
    try:
        question = wire.parse_question(asked.message)
    except MessageError:
        return []
    head = asked.message[:2] + struct.pack("!5H", flags, 1, len(records), 0, 0)
    answers = [struct.pack("!HHHIH", 0xC00C, kind, 1, ttl, len(data)) + data for kind, ttl, data in records]
    return [head + asked.message[wire.HEADER_SIZE : question.end] + b"".join(answers)]


def answer_a(asked: Asked, address: str = "192.0.2.1", ttl: int = 60) -> list[bytes]:
    """One A record, whatever is asked."""
    return reply(asked, (1, ttl, socket.inet_aton(address)))


def named(asked: Asked) -> list[bytes]:
    """An address made of the name, so that another name's answer is seen."""
    return answer_a(asked, socket.inet_ntoa(b"\x0a" + asked.message[13:16]))


def answer_large(asked: Asked, records: int = 20) -> list[bytes]:
    """20 TXT records of 200 bytes: truncated on UDP, whole on TCP."""
    if asked.proto == "udp":
        return reply(asked, flags=0x8380)
    return reply(asked, *[(16, 60, b"\xc8%200d" % number) for number in range(records)])


def silent(asked: Asked) -> list[bytes]:
    """No answer at all."""
    return []


def lying(asked: Asked) -> list[bytes]:
    """200 forged answers with wrong ids and one with a wrong question, then the true one; over TCP that alone."""
    (true,) = answer_a(asked)
    if asked.proto == "tcp":
        return [true]
    (forged,) = answer_a(asked, "203.0.113.66")
    ident = int.from_bytes(true[:2])
    wrong_ids = [((ident + n) % 65536).to_bytes(2) + forged[2:] for n in range(1, 201)]
    wrong_question = forged[:13] + b"-" + forged[14:]
    return [*wrong_ids, wrong_question, b"", true[:5], true]


class StubServer:
    """Runs a behaviour on (host, port) in threads; `asked` lists what came. A context manager."""

    def __init__(self, behaviour: Behaviour = answer_a, host: str = "127.0.0.1", port: int = 0) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self._udp, self._tcp = _pair(host, port)
        self.host, self.port = host, int(self._udp.getsockname()[1])
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve_udp, self._serve_tcp)]

    @property
    def endpoint(self) -> tuple[str, int]:
        return self.host, self.port

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; the port is free afterwards."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while not self._closing.is_set():
            try:
                message, peer = self._udp.recvfrom(65535)
            except TimeoutError:
                continue
            asked = Asked(message, peer[:2], "udp")
            self.asked.append(asked)
            for answer in self.behaviour(asked):
                self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        while not self._closing.is_set():
            try:
                connection, peer = self._tcp.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._serve_one, args=(connection, peer[:2]), daemon=True).start()

    def _serve_one(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with connection, contextlib.suppress(ConnectionResetError):  # a client that has had enough
            connection.settimeout(patient(5))
            while size := connection.recv(2, socket.MSG_WAITALL):
                asked = Asked(connection.recv(int.from_bytes(size), socket.MSG_WAITALL), peer, "tcp")
                self.asked.append(asked)
                for answer in self.behaviour(asked):
                    connection.sendall(len(answer).to_bytes(2) + answer)


def _pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port; 0 = one that is free for both."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(16):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((host, port))
        try:
            tcp.bind((host, udp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen(64)
        udp.settimeout(0.02)
        tcp.settimeout(0.02)
        return udp, tcp
    raise OSError(f"cannot bind UDP and TCP on {host}:{port}")
