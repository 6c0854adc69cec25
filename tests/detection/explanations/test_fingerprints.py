"""A tool is named by what its protocol puts into names, and nothing benign is."""

from __future__ import annotations

import base64
import random

import pytest

from agents.detection.explanations.fingerprints import tool_of
from agents.dns.name import from_text
from agents.learning.baseline import golden_names, golden_sessions, lookalike_names

RNG = random.Random(3)


def b32(size: int) -> str:
    return base64.b32encode(RNG.randbytes(size)).decode().rstrip("=").lower()


def samples(names: list[str], qtype: int) -> list[tuple[bytes, int]]:
    return [(from_text(name), qtype) for name in names]


def test_our_own_captures() -> None:
    for session, batch in golden_sessions().items():
        expected = "dns2tcp" if "dns2tcp" in session else "iodine"
        pairs = dict.fromkeys(zip(batch.qname, batch.qtype.tolist(), strict=True))
        assert tool_of(list(pairs)[:24]) == expected, session


def dnscat2(prefix: str, zone: str) -> list[str]:
    session = RNG.randbytes(2).hex()
    packets = [RNG.randbytes(2).hex() + "01" + session + RNG.randbytes(9).hex() for _ in range(12)]
    return [f"{prefix}{packet}{zone}" for packet in packets]


SLIVER_BASE32 = "ab1c2d3e4f5g6h7j8k9m0npqrtuvwxyz"
SLIVER_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def sliver(alphabet: str) -> list[str]:
    """Polls and data: type, id, start, stop, size and bytes, as Protocol Buffers write them, in one alphabet."""
    names = []
    for number in range(12):
        start = bytes((0x18, number)) if number % 3 else b""
        data = RNG.randbytes(30) if number % 3 else b""
        message = bytes((8, 8 if data else 3, 0x10)) + b"\x83\x94\xb0\x0c" + start
        message += bytes((0x28, 0x40, 0x32, len(data))) + data if data else b""
        if len(alphabet) == 32:
            plain = base64.b32encode(message).decode().rstrip("=")
            text = plain.translate(str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", alphabet))
        else:
            value, text = int.from_bytes(message, "big"), ""
            while value:
                value, digit = divmod(value, 58)
                text = alphabet[digit] + text
        names.append(f"{text[:63]}.{text[63:]}".rstrip(".") + ".sl.test")
    return names


DNSTT_ID = b32(8)[:12]
MADE = {
    "dnscat2": [dnscat2("", ".c2.test"), dnscat2("dnscat.", "")],
    "dnstt": [[f"{DNSTT_ID}{b32(25)}.{b32(20)}.t.test" for _ in range(10)]],
    "ozymandns": [[f"{b32(30)}-{i}.id-4711.up.ozy.test" for i in range(10)]],
    "dnsexfiltrator": [
        [f"init.{b32(20)}.exf.test", *(f"{i}.{b32(35)}.{b32(30)}.exf.test" for i in range(10))],
        [f"{i}.{b32(35)}.{b32(30)}.exf.test" for i in range(40, 60)],
    ],
    "sliver": [sliver(SLIVER_BASE32), sliver(SLIVER_BASE58)],
    "cobaltstrike": [[f"post.{RNG.randbytes(20).hex()}.{RNG.randbytes(4).hex()}.cs.test" for _ in range(10)]],
    "dnscapy": [[f"{b32(25)}.{i}.d.1.{RNG.randrange(65536)}.cap.test" for i in range(10)]],
}
TYPES = {"dnscapy": 5, "cobaltstrike": 1}


@pytest.mark.parametrize(("tool", "names"), [(tool, names) for tool, sets in MADE.items() for names in sets])
def test_each_documented_protocol(tool: str, names: list[str]) -> None:
    assert tool_of(samples(names, TYPES.get(tool, 16))) == tool


@pytest.mark.parametrize("qtype", [1, 16, 28])
def test_benign_names_are_no_tool(qtype: int) -> None:
    names = [*golden_names()[:1500], *lookalike_names()]
    by_end: dict[str, list[str]] = {}
    for name in names:
        by_end.setdefault(".".join(name.split(".")[-2:]), []).append(name)
    for group in by_end.values():
        for start in range(0, len(group), 24):
            assert tool_of(samples(group[start : start + 24], qtype)) is None


def test_two_names_prove_nothing_and_random_hex_is_nobody() -> None:
    assert tool_of(samples(dnscat2("", ".c2.test")[:2], 16)) is None
    assert tool_of(samples([f"{RNG.randbytes(16).hex()}.x.test" for _ in range(20)], 1)) is None
