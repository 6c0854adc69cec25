"""Clients' datagrams: received in batches, answered at once or sent upstream."""

from __future__ import annotations

from agents.kernels import kernel_in_place
from agents.kernels.decide import DROP, FORMERR, FORWARD, NOTIMP, REFUSED, SERVFAIL, decide, make_error
from agents.kernels.networks import number64
from agents.kernels.question import int64, u16, uint64
from agents.kernels.udp_libc import CLOCK_REALTIME, clock_ns, recvmmsg
from agents.kernels.udp_outgoing import flush
from agents.kernels.udp_replies import reply, send_replies
from agents.kernels.udp_slots import NONE, carry, copy, give_up, hand_over, inflight, link, release, take_slot
from agents.kernels.udp_sockets import choose_socket, claim_id
from agents.kernels.udp_state import (
    ADDRESS_SIZE,
    BATCH,
    CONTROL_ROOM,
    CONTROL_SIZE,
    LONG,
    QUERY_MAX,
    SLOT,
    UNSENT,
    State,
    offset_of,
)

_QUERY_AT = offset_of(SLOT, "query")


@kernel_in_place
def on_queries(s: State, port: int, now: int) -> None:
    """Take one batch from a socket. now: monotonic nanoseconds."""
    c = s.cells[0]
    count = recvmmsg(s.ports[port].fd, s.from_clients.ctypes.data, BATCH, 0, 0)
    if count <= 0:
        return
    for upstream in range(len(s.upstreams)):
        s.upstreams[upstream].chosen = NONE
    ts = clock_ns(CLOCK_REALTIME, s.scratch) / 1e9
    for place in range(count):
        _on_query(s, port, place, ts, now)
    flush(s)
    send_replies(s, port)
    for place in range(count):  # as datapath_state made them: the system call shrinks what it does not fill
        header = s.from_clients[place]
        header.name_size, header.control_size, header.flags = ADDRESS_SIZE, CONTROL_ROOM, 0
    c.target = NONE


@kernel_in_place
def _on_query(s: State, port: int, place: int, ts: float, now: int) -> None:
    header = s.from_clients[place]
    size, message = int64(header.size & 0xFFFFFFFF), s.inbox[place]
    s.counted[0].received += 1
    if header.control_size > 0:
        _answer_from(s, port, place)
    name = s.names[place]
    if s.ports[port].v6:
        verdict, end, zone = decide(message, size, number64(name, 8), number64(name, 16), s.ranges6, s.zones)
    else:
        low = number64(name, 0) & uint64(0xFFFFFFFF)
        verdict, end, zone = decide(message, size, uint64(0), low, s.ranges4, s.zones)
    if verdict == FORWARD:
        if _forward(s, port, place, size, end, zone, ts, now):
            return
        verdict = SERVFAIL
    _count(s, verdict)
    if verdict != DROP:
        reply(s, header, s.in_parts[place].base, make_error(message, verdict, end))


@kernel_in_place
def _count(s: State, verdict: int) -> None:
    c = s.counted[0]
    if verdict in (DROP, FORMERR):
        c.malformed += 1
    elif verdict == REFUSED:
        c.refused += 1
    elif verdict == NOTIMP:
        c.notimp += 1
    else:
        c.shed += 1


@kernel_in_place
def _answer_from(s: State, port: int, place: int) -> None:
    """Make of the received packet info the one to send with: same local address, any interface (ip(7), ipv6(7))."""
    control = s.controls[place]
    if s.ports[port].v6:
        control[32:36] = 0
    else:
        control[16:20] = 0
        control[24:28] = 0
    s.from_clients[place].control_size = min(s.from_clients[place].control_size, uint64(CONTROL_SIZE))


@kernel_in_place
def _forward(s: State, port: int, place: int, size: int, end: int, zone: int, ts: float, now: int) -> bool:
    """Put a query in flight; False if there is no room."""
    c, header, message = s.cells[0], s.from_clients[place], s.inbox[place]
    number = take_slot(s) if inflight(s) < c.inflight_max else NONE
    if number == NONE:
        return False
    slot = s.slots[number]
    slot.ts, slot.started, slot.port, slot.zone, slot.asked = ts, now, port, zone, s.preferred[zone]
    slot.size, slot.end, slot.id, slot.socket = min(size, QUERY_MAX), end, u16(message, 0), NONE
    slot.address_size, slot.control_size = header.name_size, header.control_size
    copy(slot.address, 0, s.names[place], 0, ADDRESS_SIZE)
    if header.control_size > 0:
        copy(slot.control, 0, s.controls[place], 0, CONTROL_SIZE)
    if size > QUERY_MAX:
        row = carry(s, message, size)
        if row == NONE:
            release(s, number)
            return False
        hand_over(s, number, LONG, row, size)
        return True
    copy(slot.query, 0, message, 0, size)
    link(s, number)
    _ask(s, number, s.zone_upstreams[zone, slot.asked], now)
    return True


@kernel_in_place
def _ask(s: State, number: int, upstream: int, now: int) -> None:
    """Give a query a random id on the socket of this batch, and put it among those to send."""
    c, server, slot = s.cells[0], s.upstreams[upstream], s.slots[number]
    if server.chosen == NONE or s.sockets[server.chosen].uses >= c.uses_max:
        server.chosen = choose_socket(s, upstream, now)
    if server.chosen == NONE:
        give_up(s, number, UNSENT)
        return
    if server.chosen != c.target or c.outgoing == BATCH:
        flush(s)
        c.target = server.chosen
    ident = claim_id(s, server.chosen, number)
    slot.query[0], slot.query[1] = ident >> 8, ident & 0xFF
    part = s.to_upstream_parts[c.outgoing]
    part.base = int64(s.slots.ctypes.data) + number * s.slots.itemsize + _QUERY_AT
    part.size = slot.size
    s.to_upstream_slots[c.outgoing] = number
    c.outgoing += 1
