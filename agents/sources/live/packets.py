"""Packets of an interface (packet(7)): a ring that kernel and process share, with a filter in front of it.

Opening needs CAP_NET_RAW; binding to an interface and reading need nothing. The supervisor holds the socket, so packets
that come while a reader is started again wait in the ring. What finds no room there the kernel counts. Where an
interface is made later, or again, the socket is bound to it then.
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import mmap
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import AgentsError
from agents.sources.capture import capture_kernels as kernels
from agents.sources.capture.capture_kernels import AT, FULL, LINK, MALFORMED, UNIT, WAITING
from agents.sources.capture.frame_kernels import ETHERNET, RAW
from agents.sources.capture.walk import FrameWalk
from agents.sources.live.block_kernels import records_of_block
from agents.sources.live.packet_filter import PORTS_MAX, program
from agents.stream.record import RECORD

BLOCK = 1 << 20
"""Bytes of a block of the ring; the largest packet, with segments put together by the driver, has 64 KiB."""
BLOCK_MS = 100
"""A block that is not full is given to the reader after so many milliseconds."""
OUT_ROWS = 1024
"""Rows that are given at once."""
_FRAME_SIZE = 2048
_ETH_P_ALL = 3
_SOL_PACKET, _SOL_SOCKET = 263, 1
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 1, 5, 6, 10, 23
_TPACKET_V3, _MR_PROMISC, _ATTACH_FILTER = 2, 1, 26
"""Numbers of <linux/if_packet.h> and <asm/socket.h>."""
_STATUS, _SEQUENCE = 8, 24
"""Offsets in struct tpacket_block_desc: block_status, seq_num."""
_TO_KERNEL, _TO_USER = 0, 1
_LINKS = {1: (14, ETHERNET), 772: (14, ETHERNET), 65534: (0, RAW), 768: (0, RAW), 776: (0, RAW), 778: (0, RAW)}
"""ARPHRD_… of <linux/if_arp.h> to the link header's size and type: Ethernet, loopback, none (tun), IPIP, SIT, GRE."""
_LOOPBACK = 772
_SIOCGIFFLAGS, _SIOCGIFHWADDR = 0x8913, 0x8927
_IFF_UP = 1


class PacketOptions(NamedTuple):
    """How an interface is heard. size: bytes of the ring."""

    promiscuous: bool
    size: int


def _kind_of(interface: str) -> int:
    """An interface's ARPHRD_…, asked in the namespace of this process (netdevice(7)). Raises OSError."""
    return _asked(interface, _SIOCGIFHWADDR)


def _asked(interface: str, request: int) -> int:
    """The number that an ioctl gives for an interface. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        found = fcntl.ioctl(asking, request, struct.pack("16s24x", interface.encode()))
    return int(struct.unpack_from("16xH", found)[0])


def _link_of(interface: str) -> tuple[int, int]:
    """Size and type of an interface's link header. Raises OSError or AgentsError."""
    kind = _kind_of(interface)
    if kind not in _LINKS:
        raise AgentsError(f"cannot hear packet://{interface}: its link layer (ARPHRD {kind}) is not read")
    return _LINKS[kind]


def packet_options(values: Mapping[str, Any]) -> PacketOptions:
    """The options of the fields of RECEIVE."""
    return PacketOptions(values["packet_promiscuous"] == "on", int(values["packet_buffer_mb"]) << 20)


def new_packet_socket(interface: str, options: PacketOptions) -> socket.socket:
    """A socket with a ring, which hears nothing yet. Raises OSError or AgentsError."""
    if sys.platform != "linux":
        raise AgentsError(f"cannot hear packet://{interface}: packets are heard on Linux alone")
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
        blocks = max(options.size // BLOCK, 2)
        frames = BLOCK // _FRAME_SIZE * blocks
        ring = struct.pack("7I", BLOCK, blocks, _FRAME_SIZE, frames, BLOCK_MS, 0, 0)
        sock.setsockopt(_SOL_PACKET, _RX_RING, ring)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def capture_interface(sock: socket.socket, interface: str, options: PacketOptions, ports: Sequence[int]) -> None:
    """Let a socket hear an interface from now on; it may have heard one of this name that is gone.

    Raises OSError or AgentsError.
    """
    if len(ports) > PORTS_MAX:
        raise AgentsError(f"cannot hear packet://{interface}: REPLAY_PORTS has more than {PORTS_MAX} ports")
    try:
        number = socket.if_nametoindex(interface)
    except OSError:
        raise AgentsError(f"cannot hear packet://{interface}: there is no such interface") from None
    size, _ = _link_of(interface)
    _attach(sock, program(ports, size))
    with suppress(OSError):  # older than Linux 4.20: copies are known by what they are
        is_loopback = _kind_of(interface) == _LOOPBACK  # there each packet is seen twice
        sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, int(is_loopback))
    if options.promiscuous:
        sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("iHH8s", number, _MR_PROMISC, 0, b""))
    sock.bind((interface, _ETH_P_ALL))


def _attach(sock: socket.socket, code: bytes) -> None:
    """Let the kernel run a filter (socket(7), SO_ATTACH_FILTER)."""
    kept = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(_SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", len(code) // 8, ctypes.addressof(kept)))


class PacketReader:
    """Reads the ring of one interface's socket, which may wait for its interface (`tend`)."""

    def __init__(self, sock: socket.socket, interface: str, ports: Sequence[int], options: PacketOptions) -> None:
        self._sock, self._interface, self._ports, self._options = sock, interface, ports, options
        self._blocks = max(options.size // BLOCK, 2)
        self._ring = mmap.mmap(sock.fileno(), self._blocks * BLOCK)
        self._memory = np.frombuffer(self._ring, np.uint8).reshape(self._blocks, BLOCK)
        self._status = self._memory[:, _STATUS : _STATUS + 4].view(np.uint32)[:, 0]
        self._copy, self._out = np.zeros(BLOCK, np.uint8), np.zeros(OUT_ROWS, RECORD)
        self._frames = FrameWalk(frozenset(ports))
        self._frames.walk.times[UNIT] = 1e-9
        self._knows_link = False
        self._next = self._oldest()
        self.packets = self.dropped = 0
        self.error = ""
        self.tend()

    def tend(self) -> None:
        """Look whether the interface is there, and hear it where it was made later, or again; `error` says why not.

        A socket whose interface is removed is bound to none, and nothing else tells (packet(7)).
        """
        name, found = self._interface, ""
        try:
            if self._sock.getsockname()[0] != name:
                capture_interface(self._sock, name, self._options, self._ports)
                self._knows_link = False
            if not self._knows_link:
                self._frames.numbers[LINK] = _link_of(name)[1]
                self._knows_link = True
            if not _asked(name, _SIOCGIFFLAGS) & _IFF_UP:
                found = f"cannot hear packet://{name}: the interface is down"
        except AgentsError as error:
            found = str(error)
        except OSError as error:  # it went while it was looked at
            found = f"cannot hear packet://{name}: {(error.strerror or str(error)).lower()}"
        self.error = found

    def _oldest(self) -> int:
        """The block that comes next: another reader may have taken some."""
        waiting = np.flatnonzero(self._status & _TO_USER)
        if not len(waiting):
            return -1
        numbers = self._memory[waiting, _SEQUENCE : _SEQUENCE + 8].copy().view(np.uint64)[:, 0]
        return int(waiting[int(np.argmin(numbers))])

    def read(self, put: Callable[[NDArray[np.void]], None]) -> bool:
        """Read one block; whether there was one. put: takes RECORDs of queries that waited for their answers."""
        if self._next < 0:
            self._next = self._oldest()
        at = self._next
        if at < 0 or not self._status[at] & _TO_USER:
            self._rest(put)
            return False
        data = self._copy[: int(records_of_block(self._memory[at], self._copy))].copy()
        self._status[at] = _TO_KERNEL
        self._next = (at + 1) % self._blocks
        data.flags.writeable = False
        self._frames.numbers[AT] = 0
        reason = FULL
        while reason == FULL:
            reason, written = self._frames.scan(data, self._out, 0)
            put(self._out[:written])
        return True

    def _rest(self, put: Callable[[NDArray[np.void]], None], now: float = 0.0) -> None:
        """Give the rows that wait no longer for their answers, while no packet comes."""
        joiner: Any = self._frames.joiner
        while joiner.numbers[WAITING]:
            written = kernels.ready(joiner, now or time.time() - BLOCK_MS / 1000, self._out, 0)
            put(self._out[:written])
            if written < len(self._out):
                return

    def close(self, put: Callable[[NDArray[np.void]], None]) -> None:
        """Give the rows that wait for an answer."""
        self._frames.finish()
        self._rest(put, math.inf)

    def count(self) -> None:
        """Take over what the kernel counted since the last time (packet(7), PACKET_STATISTICS): it begins anew then."""
        packets, dropped, _ = struct.unpack("3I", self._sock.getsockopt(_SOL_PACKET, _STATISTICS, 12))
        self.packets += packets
        self.dropped += dropped

    @property
    def malformed(self) -> int:
        """Messages that are not DNS, though their ports say so."""
        return int(self._frames.numbers[MALFORMED])
