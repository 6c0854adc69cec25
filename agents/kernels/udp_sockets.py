"""Upstream sockets on random ports, and random ids on them. The definition is sources/upstream.py, which says why."""

from __future__ import annotations

from agents.kernels import kernel_in_place
from agents.kernels.question import int64, u16
from agents.kernels.udp_libc import (
    SOCK_DGRAM_NONBLOCK_CLOEXEC,
    c_bind,
    c_close,
    c_connect,
    c_socket,
    getrandom,
    watch,
)
from agents.kernels.udp_slots import NONE, give_up
from agents.kernels.udp_state import IDS, POOL, UNSENT, UPSTREAM, State, offset_of

_BIND_TRIES = 8
_PORT_MIN = 1024
_ADDRESS_AT = offset_of(UPSTREAM, "address")
UPSTREAM_EVENT = 1 << 33
"""Marks events of upstream sockets; the number of the socket is added."""


@kernel_in_place
def draw(s: State) -> int:
    """A random number 0..65535 from the kernel's generator, read in blocks: one system call per 2,048."""
    c = s.cells[0]
    if c.drawn + 2 > len(s.random):
        while getrandom(s.random.ctypes.data, len(s.random), 0) != len(s.random):
            continue
        c.drawn = 0
    c.drawn += 2
    return u16(s.random, c.drawn - 2)


@kernel_in_place
def choose_socket(s: State, upstream: int, now: int) -> int:
    """A random socket of the pool, fresh where it is due; NONE if none can be opened."""
    pool = s.upstreams[upstream].pool
    place = draw(s) % POOL
    number = pool[place]
    if number >= 0 and s.sockets[number].uses < s.cells[0].uses_max:
        return number  # type: ignore[no-any-return]
    if number >= 0:
        s.sockets[number].place = NONE
    pool[place] = fresh = _open(s, upstream, place, now)
    return fresh


@kernel_in_place
def _open(s: State, upstream: int, place: int, now: int) -> int:
    number = 0
    while number < len(s.sockets) and s.sockets[number].fd >= 0:
        number += 1
    if number == len(s.sockets):
        return NONE
    server = s.upstreams[upstream]
    fd = c_socket(server.family, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0)
    if fd < 0:
        return NONE
    _bind_random(s, fd, server.family, server.address_size)
    address = int64(s.upstreams.ctypes.data) + upstream * s.upstreams.itemsize
    connected = c_connect(fd, address + _ADDRESS_AT, server.address_size) == 0
    if not (connected and watch(s.cells[0].epoll, fd, UPSTREAM_EVENT + number, s.scratch_event)):
        c_close(fd)
        return NONE
    socket = s.sockets[number]
    socket.fd, socket.upstream, socket.place, socket.uses, socket.pending, socket.born = fd, upstream, place, 0, 0, now
    s.ids[number, :] = NONE
    s.owners[number, :] = NONE
    return number


@kernel_in_place
def _bind_random(s: State, fd: int, family: int, size: int) -> None:
    """Bind to a random unprivileged port; the kernel chooses (at random too) if luck is bad."""
    s.scratch[:4] = 0
    for attempt in range(_BIND_TRIES + 1):
        port = draw(s) if attempt < _BIND_TRIES else 0
        if 0 < port < _PORT_MIN:
            continue
        # struct sockaddr_in and sockaddr_in6 begin alike: family as the machine has it, port in network order.
        s.scratch[0] = family | (port >> 8) << 16 | (port & 0xFF) << 24
        if c_bind(fd, s.scratch.ctypes.data, size) == 0:
            return


@kernel_in_place
def claim_id(s: State, socket: int, slot: int) -> int:
    """A random id that nothing pending on the socket has, entered for the slot."""
    while True:
        ident = draw(s)
        entry = ident % IDS
        while s.ids[socket, entry] not in (NONE, ident):
            entry = (entry + 1) % IDS
        if s.owners[socket, entry] == NONE:
            s.ids[socket, entry] = ident
            s.owners[socket, entry] = slot
            s.sockets[socket].uses += 1
            s.sockets[socket].pending += 1
            s.slots[slot].socket, s.slots[slot].entry = socket, entry
            return ident


@kernel_in_place
def owner_of(s: State, socket: int, ident: int) -> int:
    """The slot that asked with this id on this socket, or NONE."""
    entry = ident % IDS
    while s.ids[socket, entry] != ident:
        if s.ids[socket, entry] == NONE:
            return NONE
        entry = (entry + 1) % IDS
    return s.owners[socket, entry]  # type: ignore[no-any-return]


@kernel_in_place
def fail_over(s: State, socket: int) -> None:
    """The upstream is unreachable: what waits on the socket goes to Python, which asks the next one."""
    for entry in range(IDS):
        if s.owners[socket, entry] >= 0:
            give_up(s, s.owners[socket, entry], UNSENT)


@kernel_in_place
def retire_old(s: State, now: int) -> None:
    """Take old sockets out of their pools, close those that wait for nothing."""
    for number in range(len(s.sockets)):
        socket = s.sockets[number]
        if socket.fd < 0:
            continue
        if socket.place >= 0 and now - socket.born >= s.cells[0].age_max_ns:
            s.upstreams[socket.upstream].pool[socket.place] = NONE
            socket.place = NONE
        if socket.place < 0 and socket.pending == 0:
            c_close(socket.fd)
            socket.fd = NONE
