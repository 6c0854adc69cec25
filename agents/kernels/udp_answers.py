"""Upstreams' datagrams: matched with what was asked, recorded, sent to the clients."""

from __future__ import annotations

from typing import Any

from agents.kernels import kernel_in_place
from agents.kernels.answer import (
    OPT_CLASS,
    OPT_END,
    OPT_START,
    answer_facts,
    tell,
)
from agents.kernels.question import HEADER_SIZE, int64, u16
from agents.kernels.udp_libc import EAGAIN, EINTR, c_write, errno, fence, recvmmsg
from agents.kernels.udp_replies import send_replies
from agents.kernels.udp_slots import NONE, carry, copy, hand_over, release, unlink
from agents.kernels.udp_sockets import fail_over, owner_of
from agents.kernels.udp_state import BATCH, SLOT, TRUNCATED, State, offset_of

PLAIN_UDP_SIZE = 512
"""Largest UDP answer to a client without EDNS (RFC 1035 section 4.2.1)."""
_TC = 0x02
_ADDRESS_AT, _CONTROL_AT = offset_of(SLOT, "address"), offset_of(SLOT, "control")


@kernel_in_place
def on_answers(s: State, socket: int, now: int) -> None:
    """Take one batch from an upstream socket. now: monotonic nanoseconds."""
    count = recvmmsg(s.sockets[socket].fd, s.from_upstream.ctypes.data, BATCH, 0, 0)
    if count <= 0:
        error = errno()
        if count < 0 and error != EAGAIN and error != EINTR:
            fail_over(s, socket)
        return
    port = -1
    for place in range(count):
        size = int64(s.from_upstream[place].size & 0xFFFFFFFF)
        number = _asked(s, socket, s.inbox[place], size)
        if number == NONE:
            s.counted[0].mismatched_answers += 1
            continue
        s.failures[s.sockets[socket].upstream] = 0
        if s.inbox[place, 2] & _TC and _to_tcp(s, number, s.inbox[place], size):
            continue
        if s.slots[number].port != port and port >= 0:
            send_replies(s, port)
        port = s.slots[number].port
        _finish(s, number, place, size, now)
    if port >= 0:
        send_replies(s, port)
    publish(s)


@kernel_in_place
def _asked(s: State, socket: int, message: Any, size: int) -> int:
    """The slot that this answers: same id, a response (QR set, opcode QUERY) to the very question; or NONE."""
    if size < HEADER_SIZE:
        return NONE
    number = owner_of(s, socket, u16(message, 0))
    if number == NONE:
        return NONE
    slot = s.slots[number]
    if message[2] & 0xF8 != 0x80 or u16(message, 4) != 1 or size < slot.end:
        return NONE
    for at in range(HEADER_SIZE, slot.end):
        if message[at] != slot.query[at]:
            return NONE
    return number


@kernel_in_place
def _to_tcp(s: State, number: int, message: Any, size: int) -> bool:
    """Python asks again over TCP; False if it has too much to do: the client then gets the truncated answer."""
    row = carry(s, message, size)
    if row == NONE:
        return False
    unlink(s, number)
    hand_over(s, number, TRUNCATED, row, size)
    s.cells[0].active -= 1
    return True


@kernel_in_place
def _finish(s: State, number: int, place: int, size: int, now: int) -> None:
    """Record the answer and put it among the replies."""
    c, slot, message = s.cells[0], s.slots[number], s.inbox[place]
    unlink(s, number)
    s.counted[0].answered += 1
    answer_facts(message, 0, slot.end, size, s.facts)
    _record(s, number, size, now)
    message[0], message[1] = slot.id >> 8, slot.id & 0xFF
    if size > PLAIN_UDP_SIZE:
        size = _fitted(s, number, message, size)
    # The slot keeps its bytes until the next query is taken, which is after these replies were sent.
    header, part = s.to_clients[c.replies], s.to_clients_parts[c.replies]
    base = int64(s.slots.ctypes.data) + number * s.slots.itemsize
    header.name, header.name_size = base + _ADDRESS_AT, slot.address_size
    header.control, header.control_size = base + _CONTROL_AT, slot.control_size
    part.base, part.size = s.in_parts[place].base, size
    c.replies += 1
    release(s, number)
    c.active -= 1


@kernel_in_place
def _fitted(s: State, number: int, message: Any, size: int) -> int:
    """Truncate in place (wire.truncate) what is larger than the client takes (wire.udp_size); the size left.

    s.facts holds the answer's facts.
    """
    slot, start, end = s.slots[number], s.facts[OPT_START], s.facts[OPT_END]
    answer_facts(slot.query, 0, slot.end, slot.size, s.facts)
    if size <= s.facts[OPT_CLASS]:
        return size
    message[2] |= _TC
    message[6:HEADER_SIZE] = 0
    message[11] = 1 if start > 0 else 0
    copy(message, slot.end, message, start, end - start)
    return slot.end + end - start  # type: ignore[no-any-return]


@kernel_in_place
def _record(s: State, number: int, size: int, now: int) -> None:
    """Write what is known of the query into the ring, to be published; counted instead where that is full."""
    c, slot = s.cells[0], s.slots[number]
    head = s.ring_head[0] + c.recorded
    if head - s.ring_tail[0] >= len(s.ring_records):
        s.ring_shed[0] += 1
        return
    record = s.ring_records[head % len(s.ring_records)]
    record.ts, record.rtt_ms = slot.ts, (now - slot.started) / 1e6
    tell(s.facts, record)
    record.qlen, record.rlen, record.qtype = slot.size, size, u16(slot.query, slot.end - 4)
    if s.ports[slot.port].v6:
        copy(record.client, 0, slot.address, 8, 16)
    else:
        record.client[:10] = 0
        record.client[10:12] = 0xFF
        copy(record.client, 12, slot.address, 4, 4)
    name_size = slot.end - 5 - HEADER_SIZE
    record.qname_size = name_size
    copy(record.qname, 0, slot.query, HEADER_SIZE, name_size)
    c.recorded += 1


@kernel_in_place
def publish(s: State) -> None:
    """Let the taker of the ring see what was recorded, and wake it where it sleeps: ring.Ring.put is the definition."""
    c = s.cells[0]
    if c.recorded == 0:
        return
    fence()
    s.ring_head[0] += c.recorded
    c.recorded = 0
    fence()
    if s.ring_sleeping[0] != 0:
        s.ring_sleeping[0] = 0
        c_write(c.taker, s.scratch.ctypes.data, 1)
