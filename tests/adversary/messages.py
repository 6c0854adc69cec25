"""Channels out beside name and type: letter case, EDNS, class, header, bytes after the message. The name is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from struct import pack

from tests.adversary.channel import DOMAIN, Channel, Exchange, Send, Sent
from tests.support.captures import answer, question

NAME = f"www.{DOMAIN}"
MIXED = f"customer-portal-and-account-services.{DOMAIN}"
"""A long known name: a bit for every letter."""
PADDING, SUBNET, COOKIE, LOCAL = 12, 8, 10, 65_001
"""EDNS options: RFC 7830, RFC 7871, RFC 7873, and the first for local use (RFC 6891 section 9)."""
DATA = 16
"""Bytes of data in one option."""


def _edns(ask: bytes, code: int, data: bytes, size: int = 1232) -> bytes:
    """The query with one option (RFC 6891 section 6.1.2)."""
    option = pack("!HH", code, len(data)) + data
    return ask[:10] + pack("!H", 1) + ask[12:] + b"\0" + pack("!HHIH", 41, size, 0, len(option)) + option


def _option(code: int, size: int, head: bytes = b"") -> Callable[[random.Random], tuple[bytes, float]]:
    def make(rng: random.Random) -> tuple[bytes, float]:
        return _edns(question(NAME), code, head + rng.randbytes(size)), size

    return make


def _letter_case(rng: random.Random) -> tuple[bytes, float]:
    letters = sum(map(str.isalpha, MIXED))
    return question("".join(rng.choice((one.lower(), one.upper())) for one in MIXED)), letters / 8


def _few_cases(rng: random.Random) -> tuple[bytes, float]:
    """Four bits a name in the case of its first four letters; the rest stays as it is."""
    first = "".join(rng.choice((one.lower(), one.upper())) for one in MIXED[:4])
    return question(first + MIXED[4:]), 0.5


def _trailing(rng: random.Random) -> tuple[bytes, float]:
    return question(NAME) + rng.randbytes(DATA), DATA


def _class(rng: random.Random) -> tuple[bytes, float]:
    return question(NAME)[:-2] + rng.randbytes(2), 2


def _header(rng: random.Random) -> tuple[bytes, float]:
    """Z, AD, CD and the response bits that a query does not use: seven bits."""
    free = 0x0400 | 0x0200 | 0x0080 | 0x0040 | 0x0020 | 0x0010 | 0x0008
    return question(NAME, flags=0x0100 | (rng.getrandbits(16) & free)), 7 / 8


def _edns_size(rng: random.Random) -> tuple[bytes, float]:
    """The size that the client says it can take."""
    return _edns(question(NAME), PADDING, b"", 512 + rng.randrange(1 << 12)), 1.5


def _sent(make: Callable[[random.Random], tuple[bytes, float]]) -> Send:
    def send(rng: random.Random) -> Iterator[Sent]:
        while True:
            ask, carried = make(rng)
            yield Sent(NAME, carried, exchange=Exchange(ask, answer(ask[:10] + bytes(2) + ask[12:], 0)))

    return send


CHANNELS = tuple(
    Channel(what, "beside the name", _sent(make))
    for what, make in (
        ("letter case of a known name", _letter_case),
        ("letter case of four letters", _few_cases),
        ("an EDNS option for local use", _option(LOCAL, DATA)),
        ("EDNS padding", _option(PADDING, 4 * DATA)),
        ("an EDNS client subnet, IPv6 /128", _option(SUBNET, DATA, b"\0\2\x80\0")),
        ("an EDNS cookie", _option(COOKIE, 8)),
        ("the size that EDNS announces", _edns_size),
        ("bytes after the message", _trailing),
        ("the class", _class),
        ("bits of the header", _header),
    )
)
