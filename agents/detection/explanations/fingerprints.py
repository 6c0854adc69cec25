"""The tool behind a flow, recognised by marks that the tool's documented protocol puts into names.

Each mark is a function of a `Trace`: the first names of a flow without the zone they share, in the case they were
sent in, and their query types. A mark must hold for most of the names, so that only a clear case names a tool.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from agents.dns.name import labels_of

NAMES_MIN = 3
MOST = 0.7
TXT, KEY, NULL, PRIVATE = 16, 25, 10, 65399


@dataclass(frozen=True, slots=True)
class Trace:
    """The first names of a flow: payload labels (zone removed), as sent, and query types."""

    names: tuple[tuple[bytes, ...], ...]
    whole: tuple[tuple[bytes, ...], ...]  # all labels, with the zone
    qtypes: tuple[int, ...]

    def share(self, fits: Callable[[tuple[bytes, ...]], bool]) -> float:
        return sum(map(fits, self.names)) / len(self.names)

    def asks(self, *qtypes: int) -> float:
        return sum(qtype in qtypes for qtype in self.qtypes) / len(self.qtypes)


def trace_of(samples: Sequence[tuple[bytes, int]]) -> Trace:
    """A trace of (wire name, qtype) pairs; the zone is the longest suffix that all names share, ignoring case."""
    names = [labels_of(wire) for wire, _ in samples]
    backwards = [tuple(label.lower() for label in reversed(name)) for name in names]
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*backwards, strict=False))
    shared = sum(1 for _ in columns) if len(set(backwards)) > 1 else 0
    cut = [name[: max(len(name) - shared, 1)] for name in names]
    return Trace(tuple(cut), tuple(names), tuple(qtype for _, qtype in samples))


def _hex(data: bytes) -> bytes:
    try:
        return binascii.unhexlify(data)
    except (binascii.Error, ValueError):
        return b""


def _base64(data: bytes) -> bytes:
    """Decode base64 in either alphabet without padding, as far as it is complete; empty if it is not base64."""
    text = data.rstrip(b"=")
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(
            text + b"=" * (-len(text) % 4), altchars=b"-_" if set(text) & set(b"-_") else None, validate=True
        )
    except (binascii.Error, ValueError):
        return b""


_CODEC_TESTS = (b"-aaahhh-drink-mal-ein-j", b"aabbccddeeffgghhiijjkkllmmnnoo", b"-la-fl\xfbte-na\xefve-fran")
"""Texts that iodine sends to find out which bytes a path does not change (its protocol notes, "codec check")."""
_VERSION = re.compile(rb"v[a-z2-7]aaak[a-z0-5]{4,6}")


def _iodine(trace: Trace) -> bool:
    """Codec checks; the version hello; NULL or PRIVATE with a command letter or user digit first; Base128 bytes."""

    def handshake(name: tuple[bytes, ...]) -> bool:
        joined = b"".join(name).lower()
        return any(text in joined for text in _CODEC_TESTS) or bool(_VERSION.fullmatch(joined))

    def command(name: tuple[bytes, ...]) -> bool:
        return name[0][:1].lower() in b"0123456789abcdefvlizpsornyw"

    if any(map(handshake, trace.names)):
        return True
    if trace.asks(NULL, PRIVATE) >= MOST:
        return trace.share(command) >= 0.95
    return trace.share(lambda name: sum(byte > 0x7E for label in name for byte in label) >= 4) >= 0.3


_D2T_COMMANDS = (b"=auth", b"=connect", b"=resource")


def _dns2tcp(trace: Trace) -> bool:
    """A command label; or base64 of a seven-byte header (session, acknowledgement, sequence, type), one session."""
    if any(label.lower() in _D2T_COMMANDS for name in trace.names for label in name):
        return True
    if trace.asks(TXT, KEY) < 0.95:
        return False
    heads = [_base64(name[0][:12]) for name in trace.names]
    heads = [head for head in heads if len(head) >= 7 and head[6] < 16]
    sessions = Counter(head[:2] for head in heads).most_common(1)
    return len(heads) >= MOST * len(trace.names) and sessions[0][1] >= MOST * len(heads)


_DNSCAT2_TYPES = frozenset((0, 1, 2, 3, 0xFF))


def _dnscat2(trace: Trace) -> bool:
    """Hex of a packet: id, a known type in the third byte, and the same session in the fourth and fifth."""
    packets = [_hex(b"".join(name[1:] if name[0].lower() == b"dnscat" else name)) for name in trace.names]
    packets = [packet for packet in packets if len(packet) >= 5 and packet[2] in _DNSCAT2_TYPES]
    sessions = Counter(packet[3:5] for packet in packets if packet[2] != 0xFF)
    shared = sum(count for _, count in sessions.most_common(3))
    return len(packets) >= MOST * len(trace.names) and shared >= MOST * len(packets)


_DNSCAPY = re.compile(rb"(?:.*\.)?[a-f](?:\.[a-f])?(?:\.\d{1,4})?\.\d{1,5}", re.DOTALL)


def _dnscapy(trace: Trace) -> bool:
    """Command letters, a connection number, a random number of up to five digits at the end."""
    return trace.share(lambda name: len(name) >= 2 and bool(_DNSCAPY.fullmatch(b".".join(name).lower()))) >= MOST


_BASE32 = re.compile(rb"[a-z2-7]{20,}")
_CLIENT_ID = 12
"""Base32 digits of a dnstt client id of 8 bytes that no other bits share."""


def _dnstt(trace: Trace) -> bool:
    """Base32 in lower case, asked for as TXT, that begins with one client id and goes on differently."""
    joined = [b"".join(name).lower() for name in trace.names]
    ids = Counter(text[:_CLIENT_ID] for text in joined if _BASE32.fullmatch(text))
    same = ids.most_common(1)[0][1] if ids else 0
    return trace.asks(TXT) >= 0.95 and same >= max(4, 0.9 * len(joined)) and len(set(joined)) >= MOST * len(joined)


def _dnsexfiltrator(trace: Trace) -> bool:
    """An `init` name with the file's name in base32, then numbered chunks."""
    if any(len(name) >= 2 and name[0].lower() == b"init" and len(name[1]) >= 8 for name in trace.names):
        return trace.share(lambda name: name[0].isdigit() or name[0].lower() == b"init") >= MOST
    numbers = [int(name[0]) for name in trace.names if len(name) >= 2 and name[0].isdigit() and len(name[0]) <= 6]
    steps = sum(0 <= later - earlier <= 1 for earlier, later in pairwise(numbers))
    long = trace.share(lambda name: len(name) >= 2 and len(b"".join(name[1:])) >= 30)
    if len(numbers) < 0.95 * len(trace.names) or long < MOST:
        return False
    return steps >= 0.9 * (len(numbers) - 1) and numbers[-1] - numbers[0] >= (len(numbers) - 1) / 2


_OZYMAN = re.compile(rb"(?:.*\.)?id-\d+\.(?:u|d|up|down)\..*", re.DOTALL)


def _ozymandns(trace: Trace) -> bool:
    """`id-N` and `up` or `down`, which all names of a transfer may share."""
    return sum(bool(_OZYMAN.fullmatch(b".".join(name).lower())) for name in trace.whole) >= MOST * len(trace.whole)


_BEACON = re.compile(rb"(?:api|cdn|post|www6)\.[0-9a-f]{3,}(?:\.[0-9a-f]+)*")


def _cobalt_strike(trace: Trace) -> bool:
    """The default prefixes of Cobalt Strike's data channels before hexadecimal labels."""
    return trace.share(lambda name: bool(_BEACON.fullmatch(b".".join(name).lower()))) >= MOST


_SLIVER_BASE32 = {letter: value for value, letter in enumerate(b"ab1c2d3e4f5g6h7j8k9m0npqrtuvwxyz")}
_SLIVER_BASE58 = {
    letter: value for value, letter in enumerate(b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
}
_SLIVER_TYPES = frozenset((1, 2, 3, 4, 6, 7, 8, 9))
_SLIVER_BYTES = 4
"""Bytes of the shortest message that is recognised: a type, an id's field number and some of the id."""


def _sliver_message(payload: bytes) -> bool:
    """A Protocol Buffers message in one of Sliver's alphabets: field 1, a known type, then field 2, its id."""
    for digits in (_SLIVER_BASE32, _SLIVER_BASE58):
        values = [digits[letter] for letter in payload if letter in digits]
        if len(values) < len(payload) or len(values) * len(digits).bit_length() < 8 * _SLIVER_BYTES:
            continue
        number = sum(value * len(digits) ** place for place, value in enumerate(reversed(values)))
        if len(digits) == 32:
            number >>= len(values) * 5 % 8
        head = number.to_bytes((number.bit_length() + 7) // 8, "big")[:3]
        if len(head) == 3 and head[0] == 0x08 and head[1] in _SLIVER_TYPES and head[2] == 0x10:
            return True
    return False


def _sliver(trace: Trace) -> bool:
    """Each name is one message: a type and an id before the data (its dns.proto), in its own base32 or in base58."""
    return trace.share(lambda name: _sliver_message(b"".join(name))) >= MOST


MARKS: tuple[tuple[str, Callable[[Trace], bool]], ...] = (
    ("iodine", _iodine),
    ("dnscat2", _dnscat2),
    ("dnscapy", _dnscapy),
    ("ozymandns", _ozymandns),
    ("dnsexfiltrator", _dnsexfiltrator),
    ("cobaltstrike", _cobalt_strike),
    ("sliver", _sliver),
    ("dnstt", _dnstt),
    ("dns2tcp", _dns2tcp),
)


def tool_of(samples: Sequence[tuple[bytes, int]]) -> str | None:
    """The tool that the first names of a flow point to, or None."""
    if len(samples) < NAMES_MIN:
        return None
    trace = trace_of(samples)
    return next((name for name, fits in MARKS if fits(trace)), None)
