"""The clients' side of the listener: a UDP and a TCP socket for each address, on the same port."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from struct import Struct
from typing import Any

from agents.core.errors import AgentsError

DRAIN_MAX = 64
"""Datagrams taken from one socket per wake-up, so that no socket starves the others."""
_RECEIVE_BUFFER = 4 << 20
"""Bytes requested (the kernel caps them): bursts wait there while a batch is answered."""
_PORT_TRIES = 16
# ip(7); the socket module does not name this constant before Python 3.14.
_IP_PKTINFO = 8
_PKTINFO4 = Struct("=i4s4s")
_PKTINFO6 = Struct("=16sI")
UDP_MAX = 65535
"""Bytes of the largest datagram."""


class UdpPort:
    """One UDP socket with clients behind it.

    `receive` gives (message, client text, way back) and `send` takes that way back. Bound to a wildcard
    address, the way back carries the local address of the query (IP_PKTINFO), so that the answer leaves
    from it; elsewhere the plain, faster calls do. probe: only the supervisor asks here, whether this process answers;
    it is answered without an upstream, and not counted.
    """

    def __init__(self, sock: socket.socket, probe: bool = False) -> None:
        self.sock, self.probe = sock, probe
        self.v6 = sock.family == socket.AF_INET6
        host = sock.getsockname()[0]
        self.wildcard = sys.platform == "linux" and ipaddress.ip_address(host).is_unspecified
        if self.wildcard and self.v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif self.wildcard:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def receive(self) -> tuple[bytes, str, Any]:
        """Next datagram. Raises BlockingIOError when there is none, OSError on a pending socket error."""
        back: Any
        if self.wildcard:
            message, ancillary, _, peer = self.sock.recvmsg(UDP_MAX, 64)
            back = peer, [self._answer_from(*item) for item in ancillary]
        else:
            message, peer = self.sock.recvfrom(UDP_MAX)
            back = peer
        return message, peer[0].partition("%")[0] if self.v6 else peer[0], back

    def send(self, message: bytes, back: Any) -> None:
        """Answer. A client that is gone, or a full socket buffer, loses its answer: that is UDP."""
        try:
            if self.wildcard:
                self.sock.sendmsg([message], back[1], 0, back[0])
            else:
                self.sock.sendto(message, back)
        except OSError:
            return

    def _answer_from(self, level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
        """The received packet info as the one to send with: same local address, any interface."""
        if self.v6:
            address, _ = _PKTINFO6.unpack(data)
            return level, kind, _PKTINFO6.pack(address, 0)
        _, local, _ = _PKTINFO4.unpack(data)
        return level, kind, _PKTINFO4.pack(0, local, bytes(4))


Pair = tuple[socket.socket, socket.socket]
"""A UDP and a listening TCP socket on the same address and port."""


def bind_pairs(hosts: Sequence[str], port: int, processes: int) -> list[list[Pair]]:
    """For each of so many processes a pair of sockets per host, all of a host on one port.

    The kernel spreads clients over the processes (SO_REUSEPORT, socket(7)). Such sockets would share the port with
    another program of the same user without a word, so the port is first had alone. Raises AgentsError.
    """
    found: list[list[Pair]] = [[] for _ in range(processes)]
    try:
        for host in hosts:
            alone = bind_pair(host, port)
            number = alone[0].getsockname()[1]
            for sock in alone:
                sock.close()
            for pairs in found:
                pairs.append(bind_pair(host, number, share=True))
    except AgentsError:
        for sock in [sock for pairs in found for pair in pairs for sock in pair]:
            sock.close()
        raise
    return found


def bind_pair(host: str, port: int, share: bool = False) -> Pair:
    """A UDP and a listening TCP socket on one port, non-blocking; port 0 = one that is free for both.

    `::` takes IPv6 only, so that `0.0.0.0,::` is both. share: with SO_REUSEPORT. Raises AgentsError in one line.
    """
    for attempt in range(_PORT_TRIES):
        udp = _bound(host, port, socket.SOCK_DGRAM, share)
        try:
            tcp = _bound(host, udp.getsockname()[1], socket.SOCK_STREAM, share)
        except AgentsError:
            udp.close()
            if port or attempt == _PORT_TRIES - 1:
                raise
            continue
        tcp.listen(256)
        return udp, tcp
    raise AssertionError("unreachable: the last attempt raises")


def bind_probe() -> socket.socket:
    """A UDP socket on loopback at which one process alone is asked: SO_REUSEPORT hides who answers at the others."""
    return _bound("127.0.0.1", 0, socket.SOCK_DGRAM, share=False)


def _bound(host: str, port: int, kind: socket.SocketKind, share: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise cannot_listen(host, port, error) from None
    return sock


def cannot_listen(host: str, port: int, error: OSError) -> AgentsError:
    """What to raise where a port cannot be had."""
    reason = os.strerror(error.errno or errno.EINVAL).lower()
    return AgentsError(f"cannot listen on {endpoint_text(host, port)}: {reason}")


def endpoint_text(host: str, port: int) -> str:
    """ "192.0.2.1:53" or "[2001:db8::1]:53"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local_address(host: str) -> bool:
    """True if the address belongs to this machine: the kernel lets only those be bound."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
