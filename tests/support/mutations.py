"""Queries for one name in every form that a client could give them, for hypothesis."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hypothesis import strategies as st

from agents.dns.message import CD, DO, HEADER_SIZE, OPT, question_end

_FREE_FLAGS = 0x0100 | 0x0400 | 0x0200 | 0x0080 | 0x0070 | 0x000F
"""RD, AA, TC, RA, Z with AD and CD, RCODE: all but QR and the opcode."""


class Mutation(NamedTuple):
    """A query, and the two bits of it that may be passed on."""

    message: bytes
    checking_disabled: bool
    dnssec_ok: bool


def _cased(name: bytes, bits: int) -> bytes:
    """The wire name with upper-case letters where `bits` has ones."""
    mixed = bytearray(name)
    for at, byte in enumerate(mixed):
        if 97 <= byte <= 122 and bits >> at & 1:
            mixed[at] -= 32
    return bytes(mixed)


def _option(code: int, data: bytes) -> bytes:
    return struct.pack("!HH", code, len(data)) + data


_OPTIONS = st.lists(
    st.one_of(
        st.builds(_option, st.sampled_from([3, 5, 10, 11, 12, 15, 65001]), st.binary(max_size=40)),
        st.builds(
            lambda family, bits, address: _option(8, struct.pack("!HBB", family, bits, 0) + address),
            st.sampled_from([0, 1, 2, 3]), st.integers(0, 140), st.binary(max_size=17),
        ),
    ),
    max_size=3,
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn, name: bytes, qtype: int) -> Mutation:
    """A message that asks for the wire name (without root byte), in class IN."""
    flags = draw(st.integers(0, 0xFFFF)) & _FREE_FLAGS
    question = _cased(name, draw(st.integers(0, 2**80))) + b"\0" + struct.pack("!HH", qtype, 1)
    records = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 9, 4) + draw(st.binary(min_size=4, max_size=4))]
    records *= draw(st.integers(0, 2))
    dnssec_ok = False
    if draw(st.booleans()):
        dnssec_ok = draw(st.booleans())
        options = b"".join(draw(_OPTIONS))
        ttl = draw(st.integers(0, 255)) << 24 | draw(st.integers(0, 0x7FFF)) | (DO if dnssec_ok else 0)
        records.append(b"\0" + struct.pack("!HHIH", OPT, draw(st.integers(0, 65535)), ttl, len(options)) + options)
    head = struct.pack("!6H", draw(st.integers(0, 65535)), flags, 1, 0, 0, len(records))
    message = head + question + b"".join(records) + draw(st.binary(max_size=30))
    return Mutation(message, bool(flags & CD), dnssec_ok)


def essence(message: bytes) -> bytes:
    """A message without its id, and with its name in lower case."""
    end = question_end(message)
    return message[2:HEADER_SIZE] + message[HEADER_SIZE : end - 4].lower() + message[end - 4 :]
