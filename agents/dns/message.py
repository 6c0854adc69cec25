"""DNS messages as bytes (RFC 1035 section 4): the facts that forwarding and scoring need, and short replies.

This module never makes an object of a record: a message stays bytes, and a query that is forwarded is made anew of a
few of them (`normalised`).
Functions raise only MessageError, for any input.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from agents.core.errors import MessageError
from agents.dns.name import NAME_MAX
from agents.dns.name_kernels import LABEL_MAX

HEADER_SIZE = 12
"""Bytes of a header (RFC 1035 section 4.1.1)."""
PLAIN_UDP_SIZE = 512
"""Largest UDP answer to a client without EDNS (RFC 1035 section 4.2.1)."""
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
"""RCODEs of RFC 1035 section 4.1.1."""
BADVERS = 16
"""The RCODE of an EDNS version that is not known (RFC 6891 section 6.1.3)."""
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
"""Header flags (RFC 1035 section 4.1.1, RFC 4035 sections 3.1.6 and 3.2.2)."""
OPCODE = 0x7800
"""Mask of the opcode in the flags; 0 = QUERY."""
OPT = 41
"""The EDNS pseudo record (RFC 6891 section 6.1)."""
SOA, SOA_TAIL = 6, 20
"""The record at the head of a zone, and the bytes of the five numbers that end its data; the last is MINIMUM, the TTL
of negative answers (RFC 1035 section 3.3.13, RFC 2308 section 4)."""
UDP_SIZE = 1232
"""UDP answer that we say we accept, bytes: what fits into IPv6's smallest packet (RFC 9715 section 3)."""
HOP_BY_HOP = (10, 11, 12)
"""EDNS options between two neighbours: COOKIE (RFC 7873), TCP keepalive (RFC 7828), padding (RFC 7830)."""
OPT_HEAD = 11
"""Bytes of an OPT record before its options: root name, type, class, TTL, size of the options."""
DO = 0x8000
"""DNSSEC OK, in the flags of an OPT record (RFC 3225 section 3)."""
IN = 1
"""The class of the Internet (RFC 1035 section 3.2.4)."""
ECS, SUBNET_HEAD = 8, 4
"""The EDNS option with a client's subnet, and its bytes before the address: family, two prefix lengths (RFC 7871
section 6)."""
ADDRESS_BYTES = (4, 16)
"""Of the address families 1 and 2."""

TYPE_NAMES = {
    1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL",
    11: "WKS", 12: "PTR", 13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 17: "RP", 18: "AFSDB", 19: "X25",
    20: "ISDN", 21: "RT", 22: "NSAP", 23: "NSAP-PTR", 24: "SIG", 25: "KEY", 26: "PX", 27: "GPOS",
    28: "AAAA", 29: "LOC", 30: "NXT", 31: "EID", 32: "NIMLOC", 33: "SRV", 34: "ATMA", 35: "NAPTR",
    36: "KX", 37: "CERT", 38: "A6", 39: "DNAME", 40: "SINK", 41: "OPT", 42: "APL", 43: "DS", 44: "SSHFP",
    45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID", 50: "NSEC3", 51: "NSEC3PARAM",
    52: "TLSA", 53: "SMIMEA", 55: "HIP", 56: "NINFO", 57: "RKEY", 58: "TALINK", 59: "CDS", 60: "CDNSKEY",
    61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD", 64: "SVCB", 65: "HTTPS", 99: "SPF", 104: "NID",
    105: "L32", 106: "L64", 107: "LP", 108: "EUI48", 109: "EUI64", 249: "TKEY", 250: "TSIG", 251: "IXFR",
    252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "ANY", 256: "URI", 257: "CAA", 258: "AVC", 259: "DOA",
    260: "AMTRELAY", 32768: "TA", 32769: "DLV", 65399: "PRIVATE",
}  # fmt: skip
"""IANA registry "Resource Record (RR) TYPEs". PRIVATE is a type of iodine in the private range (RFC 6895)."""
_TYPE_NUMBERS = {name: number for number, name in TYPE_NAMES.items()} | {"*": 255}
_RCODES = {
    "NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5, "YXDOMAIN": 6, "YXRRSET": 7,
    "NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10, "DSOTYPENI": 11, "BADVERS": 16, "BADSIG": 16, "BADKEY": 17,
    "BADTIME": 18, "BADMODE": 19, "BADNAME": 20, "BADALG": 21, "BADTRUNC": 22, "BADCOOKIE": 23,
}  # fmt: skip
"""IANA registry "DNS RCODEs"."""
_RCODE_MAX = 0xFFF
"""Four bits of the header and eight of EDNS (RFC 6891 section 6.1.3)."""
AXFR, IXFR = 252, 251
ANSWER_TYPES_MAX = 8
"""Distinct types kept of one answer: the answerer chooses them, and real answers have at most three."""

POINTER = 0xC0
"""Bytes from here on begin a compression pointer (RFC 1035 section 4.1.4)."""
TTL_MAX = 0x7FFFFFFF
"""A TTL with the top bit set counts as zero (RFC 2181 section 8)."""

_HEADER = Struct("!6H")
_QUESTION_TAIL = Struct("!HH")
_RECORD = Struct("!HHIH")


class Question(NamedTuple):
    """The one question. qname: wire form without the root byte, case kept; end: offset after the question."""

    id: int
    flags: int
    qname: bytes
    qtype: int
    qclass: int
    end: int

    @property
    def opcode(self) -> int:
        return (self.flags & OPCODE) >> 11


def type_name(number: int) -> str:
    """Mnemonic of a type, else "TYPE" and the number (RFC 3597 section 5)."""
    return TYPE_NAMES.get(number) or f"TYPE{number}"


def type_number(text: str) -> int:
    """Number of a type given as mnemonic, as "TYPE65399" or as plain digits. Raises MessageError."""
    number = _TYPE_NUMBERS.get(text.upper())
    if number is not None:
        return number
    digits = text[4:] if text[:4].upper() == "TYPE" else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 0xFFFF):
        raise MessageError(f"cannot read record type {text[:20]!r}")
    return int(digits)


def rcode_number(text: str) -> int:
    """Number of a response code given as mnemonic, as "RCODE3841" or as plain digits. Raises MessageError."""
    number = _RCODES.get(text.upper())
    if number is None:
        digits = text.upper().removeprefix("RCODE")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 4 and int(digits) <= _RCODE_MAX):
            raise MessageError(f"cannot read response code {text[:20]!r}")
        number = int(digits)
    return number


def question_end(message: bytes) -> int:
    """Offset after the one question of a message with a whole header; 0 unless there is exactly one whole question.

    The question holds the first name of a message, so a compression pointer in it could only point into the header or
    at itself: it is refused.
    """
    if message[4:6] != b"\0\1":
        return 0
    at, size = HEADER_SIZE, len(message)
    while at < size:
        length = message[at]
        if length == 0:
            break
        if length > LABEL_MAX:
            return 0
        at += length + 1
    return at + 5 if at + 5 <= size and at - HEADER_SIZE <= NAME_MAX else 0


def parse_question(message: bytes) -> Question:
    """Read header and question. Raises MessageError unless there is exactly one whole question."""
    ident, flags, questions, _, _, _ = header(message)
    if questions != 1:
        raise MessageError(f"cannot read message: {questions} questions")
    end = question_end(message)
    if not end:
        raise MessageError("cannot read question: it is cut off, compressed, or its name is too long")
    qtype, qclass = _QUESTION_TAIL.unpack_from(message, end - 4)
    return Question(ident, flags, message[HEADER_SIZE : end - 5], qtype, qclass, end)


def skip_name(message: bytes, at: int) -> int:
    """Offset after the name at `at`. Pointers must point strictly backwards (RFC 1035 section 4.1.4)."""
    start, size = at, len(message)
    while at < size:
        length = message[at]
        if length == 0:
            return at + 1
        if length >= POINTER:
            if at + 2 > size:
                break
            if (length & 0x3F) << 8 | message[at + 1] >= start:
                raise MessageError("cannot read name: a compression pointer does not point backwards")
            return at + 2
        if length > LABEL_MAX or at - start > NAME_MAX:
            raise MessageError("cannot read name: bad label")
        at += length + 1
    raise MessageError("cannot read name: it is cut off")


def _records(message: bytes, at: int, count: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (type, class, ttl, start, end) of `count` records. Raises MessageError if a record is cut off."""
    for _ in range(count):
        start = at
        at = skip_name(message, at)
        if at + 10 > len(message):
            raise MessageError("cannot read record: it is cut off")
        rtype, rclass, ttl, length = _RECORD.unpack_from(message, at)
        at += 10 + length
        if at > len(message):
            raise MessageError("cannot read record: its data is cut off")
        yield rtype, rclass, ttl, start, at


def header(message: bytes) -> tuple[int, int, int, int, int, int]:
    """The six header fields (id, flags, four counts). Raises MessageError on fewer than 12 bytes."""
    if len(message) < HEADER_SIZE:
        raise MessageError("cannot read message: shorter than a header")
    ident, flags, questions, answers, authority, additional = _HEADER.unpack_from(message)
    return ident, flags, questions, answers, authority, additional


class Opt(NamedTuple):
    """The OPT record (RFC 6891 section 6.1.3): its place, and its number among the records behind the question.

    payload: as it was sent, see `udp_size`; ttl: extended RCODE, version and flags.
    """

    start: int
    end: int
    number: int
    payload: int
    ttl: int

    @property
    def version(self) -> int:
        return self.ttl >> 16 & 0xFF

    @property
    def dnssec_ok(self) -> bool:
        return bool(self.ttl & DO)

    @property
    def udp_size(self) -> int:
        """Largest UDP answer that its sender accepts, bytes (RFC 6891 section 6.2.3: below 512 counts as 512)."""
        return max(self.payload, PLAIN_UDP_SIZE)


def find_opt(message: bytes, at: int) -> Opt | None:
    """The first OPT record after the question that ends at `at`, or None; damage before it hides it."""
    _, _, _, answers, authority, additional = header(message)
    try:
        for number, (rtype, rclass, ttl, start, end) in enumerate(
            _records(message, at, answers + authority + additional)
        ):
            if rtype == OPT:
                return Opt(start, end, number, rclass, ttl)
    except MessageError:
        return None
    return None


def without_hop_by_hop(query: bytes, question_end: int) -> bytes:
    """The query without the EDNS options that are for us alone. An OPT that is damaged or not last stays as it is."""
    found = find_opt(query, question_end)
    if not found or found.end != len(query) or query[found.start]:
        return query
    at, kept = found.start + OPT_HEAD, b""
    while at + 4 <= found.end:
        end = at + 4 + int.from_bytes(query[at + 2 : at + 4])
        if end > found.end:
            return query
        if int.from_bytes(query[at : at + 2]) not in HOP_BY_HOP:
            kept += query[at:end]
        at = end
    if at != found.end:
        return query
    return query[: found.start + OPT_HEAD - 2] + len(kept).to_bytes(2) + kept


def normalised(query: bytes, question_end: int, opt: Opt | None, prefixes: tuple[int, int] = (0, 0)) -> bytes:
    """A query made of what was asked, and of nothing else that its sender chose: the question, CD, DO.

    RD is set, and AD: it says that an answer's AD is understood (RFC 6840 section 5.7). opt: the query's. prefixes: the
    longest of an IPv4 and of an IPv6 subnet that is passed on (RFC 7871 section 11.1), 0 = none.
    """
    flags = RD | AD | (query[2] << 8 | query[3]) & CD
    subnet = subnet_option(query[opt.start + OPT_HEAD : opt.end], prefixes) if opt else b""
    own = b"\0" + _RECORD.pack(OPT, UDP_SIZE, DO if opt and opt.dnssec_ok else 0, len(subnet)) + subnet
    head = query[:2] + flags.to_bytes(2) + _ONE_AND_OPT
    return head + query[HEADER_SIZE:question_end] + own


_ONE_AND_OPT = b"\0\1\0\0\0\0\0\1"
"""Counts of a message of one question and one additional record."""


def subnet_option(options: bytes, prefixes: tuple[int, int]) -> bytes:
    """The first client's subnet among EDNS options, cut to its family's prefix; empty where it is damaged or none."""
    at = 0
    while at + 4 <= len(options):
        code, size = int.from_bytes(options[at : at + 2]), int.from_bytes(options[at + 2 : at + 4])
        data = options[at + 4 : at + 4 + size]
        if len(data) < size:
            break
        if code == ECS:
            return _cut_subnet(data, prefixes)
        at += 4 + size
    return b""


def _cut_subnet(data: bytes, prefixes: tuple[int, int]) -> bytes:
    if len(data) < SUBNET_HEAD or data[0] or data[1] not in (1, 2):
        return b""
    family, bits, limit = data[1], data[2], prefixes[data[1] - 1]
    if not limit or bits > 8 * ADDRESS_BYTES[family - 1] or len(data) != SUBNET_HEAD + (bits + 7) // 8:
        return b""
    bits = min(bits, limit)
    address = bytearray(data[SUBNET_HEAD : SUBNET_HEAD + (bits + 7) // 8])
    if bits % 8:
        address[-1] &= 0xFF << 8 - bits % 8 & 0xFF
    return ECS.to_bytes(2) + (SUBNET_HEAD + len(address)).to_bytes(2) + bytes((0, family, bits, 0)) + address


def without_opt(answer: bytes, question_end: int) -> bytes:
    """The answer for a client without EDNS: without OPT and what follows it (RFC 6891 section 7)."""
    found = find_opt(answer, question_end)
    _, _, _, answers, authority, _ = header(answer)
    if not found or found.number < answers + authority:
        return answer
    kept = found.number - answers - authority
    return answer[:10] + kept.to_bytes(2) + answer[HEADER_SIZE : found.start]


def truncate(answer: bytes, question_end: int) -> bytes:
    """The answer without its records and with TC set; OPT stays (RFC 2181 section 9, RFC 6891 section 7)."""
    ident, flags, questions, *_ = header(answer)
    found = find_opt(answer, question_end)
    opt = answer[found.start : found.end] if found else b""
    return _HEADER.pack(ident, flags | TC, questions, 0, 0, int(bool(opt))) + answer[HEADER_SIZE:question_end] + opt


def error_reply(query: bytes, rcode: int, question_end: int = HEADER_SIZE, flags: int = 0) -> bytes:
    """A reply without records: the query's id, opcode, RD and CD, its question if its end is given, OPT if it has one.

    rcode: 0..4095; above 15 the query must have an OPT. flags: set besides. Never longer than the query. Raises
    MessageError if the query has no whole header.
    """
    ident, asked, questions, *_ = header(query)
    kept = asked & (OPCODE | RD | CD)
    named = question_end > HEADER_SIZE
    opt = b""
    if (named or not questions) and find_opt(query, question_end):
        opt = b"\0" + _RECORD.pack(OPT, UDP_SIZE, rcode >> 4 << 24, 0)
    head = _HEADER.pack(ident, QR | RA | kept | flags | rcode & 0xF, int(named), 0, 0, int(bool(opt)))
    return head + query[HEADER_SIZE:question_end] + opt
