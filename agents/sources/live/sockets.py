"""The sockets of live intakes, held by the supervisor: what a process leaves when it is killed, the next one reads."""

from __future__ import annotations

import grp
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.core.errors import AgentsError, SettingsError
from agents.core.text import printable
from agents.sources.live import packets
from agents.sources.live.addresses import PACKET, LiveAddress

BACKLOG = 128
UDP_BUFFER = 8 << 20
"""Bytes that the kernel keeps of a datagram socket, as far as net.core.rmem_max lets it."""


@dataclass(frozen=True)
class LiveSocket:
    """An intake and the socket that it is read from. sock: None where it could not be opened. error: why it is not
    heard yet; packets have a socket all the same, which waits for its interface."""

    address: LiveAddress
    sock: socket.socket | None = None
    error: str = ""

    def close(self) -> None:
        """Close the socket."""
        if self.sock is not None:
            self.sock.close()

    def end(self) -> None:
        """Close it for good: a unix socket's path goes, too, where it is ours."""
        self.close()
        if self.address.path and self.sock is not None:
            with suppress(OSError):
                Path(self.address.path).unlink()


def open_sockets(
    addresses: Sequence[LiveAddress], values: Mapping[str, Any], ports: Sequence[int], later: bool = False
) -> list[LiveSocket]:
    """A socket for each intake, with none left open where one raises: see open_socket."""
    found: list[LiveSocket] = []
    try:
        found.extend(open_socket(address, values, ports, later) for address in addresses)
    finally:
        if len(found) < len(addresses):
            for one in found:
                one.end()
    return found


def open_socket(
    address: LiveAddress, values: Mapping[str, Any], ports: Sequence[int], later: bool = False
) -> LiveSocket:
    """The socket of an intake. values: of the fields of RECEIVE. ports: that carry DNS, of packets.

    later: one that cannot be opened now is no error, but told in what is returned. Raises AgentsError.
    """
    try:
        if address.kind == PACKET:
            return _packets(address, values, ports, later)
        return LiveSocket(address, _open(address, values))
    except SettingsError:
        raise
    except (OSError, AgentsError) as error:
        refused = _refused(address, error)
    if not later:
        raise refused
    return LiveSocket(address, error=str(refused))


def _packets(address: LiveAddress, values: Mapping[str, Any], ports: Sequence[int], later: bool) -> LiveSocket:
    """A socket of packets; opening it needs rights that are given up later, binding it to its interface needs none.

    Raises OSError or AgentsError.
    """
    options = packets.packet_options(values)
    sock = packets.new_packet_socket(address.host, options)
    try:
        packets.capture_interface(sock, address.host, options, ports)
    except (OSError, AgentsError) as error:
        if later:
            return LiveSocket(address, sock, str(_refused(address, error)))
        sock.close()
        raise
    return LiveSocket(address, sock)


def _refused(address: LiveAddress, error: OSError | AgentsError) -> AgentsError:
    if isinstance(error, AgentsError):
        return error
    why = (error.strerror or str(error)).lower()
    if isinstance(error, PermissionError) and address.kind == PACKET:
        why = "packets need the capability CAP_NET_RAW"
    elif isinstance(error, PermissionError) and address.port and address.port < 1024:
        why = "a port below 1024 needs root, or the capability CAP_NET_BIND_SERVICE, and is opened at the start alone"
    return AgentsError(f"cannot hear {printable(address.name)}: {why}")


def _open(address: LiveAddress, values: Mapping[str, Any]) -> socket.socket:
    """Raises OSError or AgentsError."""
    if address.transport == "unix":
        return _unix(address, int(values["receive_socket_mode"], 8), str(values["receive_socket_group"]))
    kind = socket.SOCK_DGRAM if address.transport == "udp" else socket.SOCK_STREAM
    family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER)
        sock.bind(place)
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(address: LiveAddress, mode: int, group: str) -> socket.socket:
    """A listening socket at a path. Raises OSError or AgentsError."""
    path, gid = Path(address.path), _group(group)
    _remove_stale(path, address)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        before = os.umask(0o177)  # nobody connects before the mode is set
        try:
            sock.bind(address.path)
        finally:
            os.umask(before)
        if gid >= 0:
            os.chown(path, -1, gid)
        path.chmod(mode)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _group(name: str) -> int:
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingsError(
            f"cannot use setting RECEIVE_SOCKET_GROUP={printable(name)}: there is no such group"
        ) from None


def _remove_stale(path: Path, address: LiveAddress) -> None:
    """Remove a socket that nobody listens at: it was left by a kill. Raises OSError or AgentsError."""
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise AgentsError(f"cannot hear {printable(address.name)}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise AgentsError(f"cannot hear {printable(address.name)}: another process listens there")
