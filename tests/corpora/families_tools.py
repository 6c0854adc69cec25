"""Sessions of public tools after their own documentation, as quiet as they can be set, and of what nobody wrote yet."""

from __future__ import annotations

import base64
import random
from itertools import count

from tests.corpora.families_base import (
    Beat,
    Beats,
    Family,
    about,
    base32,
    base64url,
    hexed,
    labels,
    output,
    pieces,
)
from tests.corpora.lookalike_kinds import ALNUM, HEX, token


def pupy(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Pupy's DNS transport and Decoy Dog (Infoblox 2023): an encrypted message in base32, 9 for padding, and a label
    of a counter and random bits; minutes apart while idle."""
    nonce = rng.getrandbits(30)
    for number in count():
        size = rng.randint(30, 35) if task else 15
        text = base64.b32encode(rng.randbytes(size)).decode().replace("=", "9").lower()
        stamp = base64.b32encode((nonce + number).to_bytes(4, "big")).decode().replace("=", "9").lower()
        yield Beat(about(rng, 5 if task else 240), f"{text}.{stamp}.{domains[number % len(domains)]}", "A", 48)


def sliver(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Sliver (Bishop Fox; its DNS guide): an encrypted protobuf in base32, the least message while it polls, several
    parents."""
    for number in count():
        size = rng.randint(90, 110) if task else 13
        yield Beat(
            about(rng, 2 if task else 60), f"{labels(base32(rng.randbytes(size)), 63)}.{domains[number % len(domains)]}"
        )


def godoh(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """goDoH (SensePost 2018): the agent's hex id as a text query each ten seconds, always the same; output as hex with
    type, number and checksum in labels before it."""
    agent = hexed(token(rng, ALNUM, 5).encode())
    while True:
        yield Beat(about(rng, 10), f"{agent}.{domains[0]}", "TXT", 40)
        for number, part in enumerate(pieces(output(rng), 60) if task else ()):
            yield Beat(
                0.5, f"{agent[:4]}.ef.{number}.{rng.getrandbits(32):08x}.1.3.{labels(hexed(part), 60)}.{domains[0]}"
            )


def det(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DET (SensePost, Paul Amar 2016): a file as hex of `id|!|number|!|data`, pauses of some seconds that its user
    sets."""
    job = token(rng, ALNUM, 7)
    for number in count():
        data = f"{job}|!|{number}|!|".encode() + rng.randbytes(rng.randint(10, 20))
        yield Beat(about(rng, 5 if task else 60, 0.5), f"{labels(hexed(data), 60)}.{domains[0]}")


def dnsteal(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """dnsteal (m57 2015): labels of base64 that end in a hyphen, then the file's name; as few bytes as it can be
    told."""
    while True:
        size = 30 if task else 12
        part = base64.b64encode(rng.randbytes(size)).decode().replace("+", "*").replace("/", "_").rstrip("=")
        yield Beat(about(rng, 1 if task else 60), f"{part}-.passwd-.{domains[0]}")


def dnsexfiltrator(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DNSExfiltrator (Arno0x 2017): `init` with file name and count in base32, then numbered base64 labels; with its
    `r` and `t` options few bytes and long pauses."""
    yield Beat(1, f"init.{base32(b'report.xlsx|120')}.base64.{domains[0]}", "TXT", 20)
    for number in count():
        yield Beat(
            about(rng, 2 if task else 60),
            f"{number}.{base64url(rng.randbytes(40 if task else 9))}.{domains[0]}",
            "TXT",
            20,
        )


def heyoka(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Heyoka (Revelli and Leidecker 2009): base32, from many spoofed addresses; here what one address sends."""
    while True:
        yield Beat(
            about(rng, 1 if task else 30), f"{base32(rng.randbytes(30 if task else 12))}.{domains[0]}", "TXT", 100
        )


def tuns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """TUNS (Nussbaum 2009): packets in base32, `d` before them, CNAME records; short polls while idle, with a counter
    that keeps them from caches."""
    for number in count(rng.randrange(10**4)):
        body = "d" + labels(base32(rng.randbytes(100)), 60) if task else f"r{base32(number.to_bytes(3, 'big'))}"
        yield Beat(about(rng, 1 if task else 2), f"{body}.{domains[0]}", "CNAME", 40)


def tcp_over_dns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """tcp-over-dns (Analogbit 2008): head and data in base32 labels of at most 63; a few letters while it polls."""
    for number in count():
        body = number.to_bytes(2, "big") + rng.randbytes(60 if task else 4)
        yield Beat(about(rng, 1 if task else 5), f"{labels(base32(body), 63)}.{domains[0]}", "TXT", 80)


def dnstt(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """dnstt (Fifield 2020): eight bytes of client id, padding and packets in base32, text records; polls each ten
    seconds at last."""
    client = rng.randbytes(8)
    while True:
        body = client + rng.randbytes(120 if task else 5)
        yield Beat(about(rng, 1 if task else 10), f"{labels(base32(body), 63)}.{domains[0]}", "TXT", 100)


def weasel(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """weasel (Facebook 2017): a session's few base32 letters and a sequence number, IPv6 addresses as answers."""
    session = base32(rng.randbytes(3))
    for number in count(1):
        body = base32(number.to_bytes(2, "big") + rng.randbytes(rng.randint(20, 30) if task else 4))
        yield Beat(about(rng, 2 if task else 60), f"{body}.{session}.{domains[0]}", "AAAA", 28)


def spread(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Nobody's yet: six to nine letters and digits, a domain of several at random, minutes apart."""
    while True:
        body = token(rng, ALNUM, rng.randint(6, 9))
        yield Beat(about(rng, 5 if task else 75, 0.5), f"{body}.{rng.choice(domains)}")


def spread_of_two(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """The same over two domains."""
    return spread(rng, domains, task)


def spread_of_ten(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """The same over ten domains."""
    return spread(rng, domains, task)


def short_hex(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Nobody's yet: a word that never changes and six hex digits, the domains in turn."""
    for number in count():
        yield Beat(about(rng, 5 if task else 60), f"{token(rng, HEX, 6)}.static.{domains[number % len(domains)]}")


TOOLS = (
    Family(pupy, 2),
    Family(sliver, 2),
    Family(godoh, leaks=False),
    Family(det),
    Family(dnsteal),
    Family(dnsexfiltrator),
    Family(heyoka),
    Family(tuns),
    Family(tcp_over_dns),
    Family(dnstt),
    Family(weasel),
    Family(spread, 4),
    Family(spread_of_two, 2),
    Family(spread_of_ten, 10),
    Family(short_hex, 3),
)
