"""Channels in: what answers of each type carry below one young domain, as messages of a capture."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from struct import pack

from tests.adversary.channel import DOMAIN, Channel, Exchange, Send, Sent, typed
from tests.support.captures import question

Records = list[tuple[int, bytes]]
"""Type and data of each record."""
Make = Callable[[random.Random], tuple[str, Records, float]]
"""The question's type, the answer's records, and the bytes of the attacker's own in them."""


def _reply(ask: bytes, records: Records, ttl: int) -> bytes:
    body = b"".join(pack("!HHHIH", 0xC00C, kind, 1, ttl, len(data)) + data for kind, data in records)
    return ask[:2] + pack("!5H", 0x8180, 1, len(records), 0, 0) + ask[12:] + body


def _name(label: bytes) -> bytes:
    return bytes((len(label),)) + label + b"\xc0\x10"


def _letters(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(size).hex().encode()


def _txt(size: int) -> Make:
    def make(rng: random.Random) -> tuple[str, Records, float]:
        return "TXT", [(typed("TXT"), bytes((size,)) + rng.randbytes(size))], size

    return make


def _https(qtype: str) -> Make:
    """A service's key for encrypted hellos (RFC 9460, RFC 9849): 200 bytes that look random by themselves."""

    def make(rng: random.Random) -> tuple[str, Records, float]:
        data = b"\0\1\0" + pack("!HH", 5, 200) + rng.randbytes(200)
        return qtype, [(typed(qtype), data)], 200

    return make


def _caa(rng: random.Random) -> tuple[str, Records, float]:
    return "CAA", [(typed("CAA"), b"\0\5issue" + _letters(rng, 60))], 60


def _addresses(qtype: str, number: int) -> Make:
    size = 16 if qtype == "AAAA" else 4

    def make(rng: random.Random) -> tuple[str, Records, float]:
        return qtype, [(typed(qtype), rng.randbytes(size)) for _ in range(number)], size * number

    return make


def _mx(rng: random.Random) -> tuple[str, Records, float]:
    return "MX", [(typed("MX"), pack("!H", 10) + _name(_letters(rng, 8)))], 8


def _srv(rng: random.Random) -> tuple[str, Records, float]:
    return "SRV", [(typed("SRV"), rng.randbytes(6) + b"\3srv\xc0\x10")], 6


def _soa(rng: random.Random) -> tuple[str, Records, float]:
    data = b"\2ns\xc0\x10\4host\xc0\x10" + rng.randbytes(20)
    return "SOA", [(typed("SOA"), data)], 20


def _cname(rng: random.Random) -> tuple[str, Records, float]:
    """An A answer by way of an alias: the type of the question says nothing of it."""
    return "A", [(typed("CNAME"), _name(_letters(rng, 20))), (1, b"\xc0\0\2\1")], 20


def _any_type(rng: random.Random) -> tuple[str, Records, float]:
    return "TYPE65280", [(65_280, rng.randbytes(200))], 200


def _sent(make: Make, named: bool, ttl: int = 0) -> Send:
    """To one known name, or to a name of three digits that counts up so that no cache answers."""

    def send(rng: random.Random) -> Iterator[Sent]:
        for number in count():
            qtype, records, carried = make(rng)
            name = f"r{number % 1000:03}.{DOMAIN}" if named else f"www.{DOMAIN}"
            ask = question(name, qtype=typed(qtype))
            yield Sent(name, 0.0, carried, exchange=Exchange(ask, _reply(ask, records, ttl)), qtype=typed(qtype))

    return send


def _quick_script(rng: random.Random) -> Iterator[Sent]:
    """19 short names in two minutes, a script in their texts, and never again."""
    for number in range(19):
        name = f"{number:x}.{DOMAIN}"
        ask = question(name, qtype=typed("TXT"))
        reply = _reply(ask, [(typed("TXT"), bytes((180,)) + rng.randbytes(180))], 60)
        yield Sent(name, 0.0, 180, beats=0, gap_s=6, exchange=Exchange(ask, reply), qtype=typed("TXT"))


_MAKES: tuple[tuple[str, Make], ...] = (
    ("HTTPS", _https("HTTPS")),
    ("SVCB", _https("SVCB")),
    ("CAA", _caa),
    ("AAAA, sixty at once", _addresses("AAAA", 60)),
    ("AAAA, one", _addresses("AAAA", 1)),
    ("A, one", _addresses("A", 1)),
    ("A, twenty at once", _addresses("A", 20)),
    ("TXT of one size", _txt(200)),
    ("TXT of 40 bytes", _txt(40)),
    ("MX", _mx),
    ("SRV", _srv),
    ("SOA", _soa),
    ("CNAME before A", _cname),
    ("a type for private use", _any_type),
)
CHANNELS = (
    *(Channel(f"{what}, one name, TTL 0", "in", _sent(make, False)) for what, make in _MAKES),
    *(Channel(f"{what}, counted names", "in", _sent(make, True)) for what, make in _MAKES),
    Channel("19 short TXT names in two minutes", "in once", _quick_script, once=True),
)
