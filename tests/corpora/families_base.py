"""What the generators of malware sessions share: queries, encodings, domains, and what there is to tell.

Protocols are those of public reports (each generator names its own); domains, hosts and users are made up.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.corpora.lookalike_kinds import ALNUM, LETTERS, token

DIGITS = "0123456789"
BASE64URL = LETTERS.upper() + LETTERS + DIGITS + "-_"


class Beat(NamedTuple):
    """One question, the seconds since the one before it, and the bytes of the records that answer it."""

    after_s: float
    qname: str
    qtype: str = "A"
    answer: int = 16  # an A record with its name compressed (RFC 1035 section 4.1.3)


Beats = Iterator[Beat]
Talk = Callable[[random.Random, list[str], bool], Beats]
"""(rng, domains, whether it was told to do something): all that is asked, without an end."""


class Family(NamedTuple):
    """One kind of malware or tool."""

    talk: Talk
    domains: int = 1
    leaks: bool = True  # its beacons alone carry something new; without, only tasks do

    @property
    def name(self) -> str:
        return self.talk.__name__


def hexed(data: bytes) -> str:
    return data.hex()


def base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def nibbles(data: bytes, first: str = "a") -> str:
    """Two letters a byte, from `first` on."""
    return "".join(chr(ord(first) + half) for byte in data for half in (byte >> 4, byte & 15))


def base36(number: int, size: int) -> str:
    text = ""
    for _ in range(size):
        number, digit = divmod(number, 36)
        text = ALNUM[digit] + text
    return text


def shuffled(rng: random.Random, text: str) -> str:
    return "".join(rng.sample(text, len(text)))


def labels(text: str, size: int) -> str:
    """Cut into labels of at most `size` characters."""
    return ".".join(text[at : at + size] for at in range(0, len(text), size))


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def about(rng: random.Random, seconds: float, jitter: float = 0.2) -> float:
    """A pause, give or take a share of it."""
    return seconds * rng.uniform(1 - jitter, 1 + jitter)


SUBJECTS = "cloud office mail update secure portal travel asia global media data print fleet market invest news".split()
OBJECTS = "service center remit group online sync storage access link hub partners report tech works store host".split()
ENDS = "com com com net net org info top live dev".split()


def domains_of(rng: random.Random, count: int) -> list[str]:
    """Registered domains that nobody looks twice at."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"{rng.choice(SUBJECTS)}{rng.choice(('', '-'))}{rng.choice(OBJECTS)}.{rng.choice(ENDS)}"] = None
    return list(found)


USERS = "jmiller asmith kweber lrossi tnguyen mdubois svc-backup administrator".split()


def host(rng: random.Random) -> str:
    return rng.choice(("DESKTOP-", "LAPTOP-", "WS", "FIN-PC")) + token(rng, ALNUM, 5).upper()


def greeting(rng: random.Random) -> bytes:
    """Who and where the implant is."""
    return (
        f"{host(rng)}|{rng.choice(USERS)}|10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(2, 250)}".encode()
    )


def output(rng: random.Random) -> bytes:
    """What a command printed: who, which network, which files."""
    lines = [f"corp\\{rng.choice(USERS)}", f"Host Name . . . . : {host(rng)}"]
    lines += [f"IPv4 Address. . . : 192.168.{rng.randrange(256)}.{rng.randrange(256)}" for _ in range(2)]
    lines += [
        f"{rng.randrange(28):02}.0{rng.randrange(1, 9)}.2026  {rng.randrange(10**6):>8} report{n}.xlsx"
        for n in range(4)
    ]
    return "\r\n".join(lines).encode()


def card(rng: random.Random) -> bytes:
    """A payment card's second track (ISO/IEC 7813)."""
    return f";{token(rng, DIGITS, 16)}={token(rng, DIGITS, 4)}{token(rng, DIGITS, 13)}?".encode()
