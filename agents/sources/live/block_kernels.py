"""Blocks of the kernel's packet ring (packet(7), TPACKET_V3) as records of a pcap file, as captures are read."""

from __future__ import annotations

import sys
from typing import Any

from agents.core.jit import kernel_in_place
from agents.dns.message_kernels import copy_bytes, int64
from agents.sources.capture.frame_kernels import u32

_BIG = sys.byteorder == "big"
_NUMBER_OF_PACKETS, _FIRST_PACKET = 12, 16
"""Offsets in struct tpacket_block_desc of <linux/if_packet.h>: num_pkts, offset_to_first_pkt."""
_NEXT, _SECONDS, _NANOSECONDS, _CAPTURED, _SIZE, _FRAME_AT = 0, 4, 8, 12, 16, 24
"""Offsets in struct tpacket3_hdr: tp_next_offset, tp_sec, tp_nsec, tp_snaplen, tp_len, tp_mac (16 bits)."""
_HEADER = 28
"""Bytes of it up to and with tp_mac and tp_net."""


@kernel_in_place
def _put(out: Any, at: Any, number: Any) -> None:
    """Write a number of 32 bits, the least significant byte first."""
    for place in range(4):
        out[at + place] = number >> (8 * place) & 0xFF


@kernel_in_place
def records_of_block(block: Any, out: Any) -> Any:
    """Write each packet of a block (u8) to `out` (u8, of the same size) as a record of a pcap file with nanoseconds,
    least significant bytes first (draft-ietf-opsawg-pcap section 5); how many bytes that are."""
    size, to = int64(len(block)), int64(0)
    at = u32(block, _FIRST_PACKET, _BIG)
    for _ in range(u32(block, _NUMBER_OF_PACKETS, _BIG)):
        if at + _HEADER > size:
            break
        captured = u32(block, at + _CAPTURED, _BIG)
        one, other = int64(block[at + _FRAME_AT]), int64(block[at + _FRAME_AT + 1])
        frame = at + (one << 8 | other if _BIG else other << 8 | one)
        if captured > size - frame or captured + 16 > len(out) - to:
            break
        _put(out, to, u32(block, at + _SECONDS, _BIG))
        _put(out, to + 4, u32(block, at + _NANOSECONDS, _BIG))
        _put(out, to + 8, captured)
        _put(out, to + 12, u32(block, at + _SIZE, _BIG))
        copy_bytes(out, to + 16, block, frame, captured)
        to += 16 + captured
        step = u32(block, at + _NEXT, _BIG)
        if step == 0:
            break
        at += step
    return to
