"""Sessions of criminals' malware and of the frameworks they rent, after public reports; where they are silent, the
quieter reading."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from tests.corpora.families_base import (
    DIGITS,
    Beat,
    Beats,
    Family,
    about,
    base32,
    base64url,
    card,
    greeting,
    hexed,
    labels,
    output,
    pieces,
)
from tests.corpora.lookalike_kinds import ALNUM, HEX, LETTERS, token


def cobalt_strike(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Cobalt Strike's DNS beacon (its user guide 4.x; NCC Group, F-Secure 2021): the session's eight hex digits below
    each domain in turn once a minute, always the same; told by an address that there is a task, it fetches it (`api`,
    `cdn` or `www6` with a counter and random digits, four bytes an address) and sends output below `post`."""
    session, kind = f"{rng.getrandbits(32):08x}", rng.choice((("api", "TXT"), ("cdn", "A"), ("www6", "AAAA")))
    for number in count():
        where = domains[number % len(domains)]
        yield Beat(60, f"{session}.{where}")
        if task and number % 5 == 4:
            yield from _cobalt_task(rng, session, where, kind)


def _cobalt_task(rng: random.Random, session: str, where: str, kind: tuple[str, str]) -> Iterator[Beat]:
    nonce = f"{rng.getrandbits(28):07x}"
    for step in range(2 if kind[1] == "TXT" else 8):
        yield Beat(0.5, f"{kind[0]}.{step:x}{nonce}.{session}.{where}", kind[1], 200 if kind[1] == "TXT" else 28)
    for step, part in enumerate(pieces(rng.randbytes(80), 28)):
        yield Beat(0.5, f"post.{step + 1:x}{hexed(part)}.{step:x}{nonce}.{session}.{where}")


def cobalt_strike_polls(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """A beacon like it whose polls carry eight new hex digits each, below each domain in turn."""
    for number in count():
        where = domains[number % len(domains)]
        yield Beat(about(rng, 60), f"{rng.getrandbits(32):08x}.{where}")
        if task and number % 5 == 4:
            yield from _cobalt_task(rng, f"{rng.getrandbits(32):08x}", where, ("api", "TXT"))


def anchor(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Anchor_DNS (NTT Security 2019, Stage 2 Security 2020): twenty bytes, each combined with 0xb9, as hex; started by
    the scheduler each quarter of an hour, more while it talks."""
    bot = rng.randbytes(16)
    while True:
        for step in range(4 if task else 1):
            head = bytes(byte ^ 0xB9 for byte in bytes((0x31, step)) + bot + rng.randbytes(2))
            yield Beat(2 if step else about(rng, 900, 0.05), f"{hexed(head)}.{domains[0]}")


def framework_pos(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """FrameworkPOS (G Data 2014): an id below `beacon` again and again; a card that was read as hex below it, each byte
    combined with 0xaa, address and host name beside it."""
    victim = token(rng, HEX, 8)
    for number in count():
        yield Beat(about(rng, 120), f"{victim}.beacon.{domains[0]}")
        if task and number % 2:
            yield Beat(1, f"{victim}.{hexed(bytes(b ^ 0xAA for b in card(rng)[:30]))}.{domains[0]}")


def multigrain(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """MULTIGRAIN (FireEye 2016): `install` with hash, host and version in base32; then each five minutes the cards
    read since, each 128 encrypted bytes in base32 below `log`; an idle one says who it is again each five minutes."""
    machine = rng.randbytes(4) + greeting(rng)[:15]
    yield Beat(0, f"install.{base32(machine)}.{domains[0]}")
    while True:
        if task:
            yield Beat(about(rng, 300), f"log.{labels(base32(rng.randbytes(128)), 60)}.{domains[0]}")
        else:
            yield Beat(about(rng, 300), f"{base32(machine[:4] + rng.randbytes(4))}.{domains[0]}")


def udpos(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """UDPoS (Forcepoint 2018): fifteen hex digits of the machine, one of five words, an index and hex; `ping` while
    idle."""
    machine = token(rng, HEX, 15)
    while True:
        yield Beat(about(rng, 90), f"{machine}.ping.{token(rng, HEX, 4)}.{domains[0]}")
        for number, part in enumerate(pieces(card(rng) + output(rng), 30) if task else ()):
            yield Beat(about(rng, 1), f"{machine}.trp.{number}.{hexed(part)}.{domains[0]}")


def alina(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Alina's DNS variant (Black Lotus Labs 2020): location, process and card, each byte combined with 0xaa, as hex,
    below one of four domains that read like a content network's; a ping from time to time."""
    place = token(rng, LETTERS, 8).encode()
    while True:
        text = place + (b":epos:" + card(rng)[:17] if task else b":Ping" + token(rng, DIGITS, 3).encode())
        yield Beat(about(rng, 30 if task else 300), f"{hexed(bytes(b ^ 0xAA for b in text))}.{rng.choice(domains)}")


def feederbot(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Feederbot (Dietrich and others 2011): short names of random hex, and encrypted pieces of orders in text
    records."""
    while True:
        yield Beat(about(rng, 3 if task else 60), f"{token(rng, HEX, 10)}.{rng.choice(domains)}", "TXT", 220)


def madmxshell(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """MadMxShell (Zscaler 2024): three letters or digits of a table of its own for two bytes, mail exchangers as
    answers; heartbeats of a few bytes each some seconds."""
    while True:
        size = rng.randint(40, 60) if task else 12
        yield Beat(about(rng, 3), f"{labels(token(rng, ALNUM, size), 50)}.{domains[0]}", "MX", 60)


def b1txor(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """B1txor20 (Netlab 2022): head and body combined with a key, base64 of its own, below one domain; text records."""
    while True:
        size = rng.randint(60, 90) if task else 12
        yield Beat(about(rng, 10), f"{labels(base64url(rng.randbytes(size)), 60)}.{domains[0]}", "TXT", 60)


def morto(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Morto (Symantec 2011): text records of a few fixed hosts below several domains, encrypted orders in them; the
    names carry nothing."""
    hosts = "ss flt d1 e".split()
    for number in count():
        size = rng.randint(150, 250) if task else 200
        yield Beat(about(rng, 300), f"{hosts[number % 4]}.{domains[number % len(domains)]}", "TXT", size)


CRIME = (
    Family(cobalt_strike, 3, leaks=False),
    Family(cobalt_strike_polls, 4),
    Family(anchor),
    Family(framework_pos, leaks=False),
    Family(multigrain),
    Family(udpos),
    Family(alina, 4),
    Family(feederbot, 2),
    Family(madmxshell),
    Family(b1txor),
    Family(morto, 4, leaks=False),
)
