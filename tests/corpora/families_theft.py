"""Sessions of further criminal malware, of poisoned packages and of agents that were talked into it, after public
reports; where they are silent, the quieter reading."""

from __future__ import annotations

import random
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
    host,
    labels,
    output,
    pieces,
)
from tests.corpora.lookalike_kinds import ALNUM, HEX, LETTERS, guid, octets, token, word


def ebury(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Ebury (ESET 2014): each login that it stole as hex of encrypted bytes and the address of the server, at once when
    it happens; idle ones ask a made-up domain's address once a while."""
    while True:
        if task:
            yield Beat(about(rng, 120, 0.9), f"{hexed(rng.randbytes(rng.randint(16, 28)))}.{octets(rng)}.{domains[0]}")
        else:
            yield Beat(about(rng, 3600), f"{token(rng, ALNUM, 10)}.{domains[0]}", "TXT", 60)


def bernhard(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """BernhardPOS (Booz Allen 2015): a card's track as base64 with a length below one domain, when it is read."""
    while True:
        text = base64url(card(rng) if task else token(rng, DIGITS, 6).encode())
        yield Beat(about(rng, 100 if task else 600), f"{text}.{domains[0]}")


def godlua(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Godlua (360 Netlab 2019): text records of a few fixed names say where to connect; the names carry nothing."""
    for number in count():
        yield Beat(about(rng, 300), f"{('c', 't', 'd')[number % 3]}.{domains[number % len(domains)]}", "TXT", 90)


def chachi(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ChaChi (BlackBerry 2021; made from Chashell): an encrypted message as hex in labels of at most 63, text records;
    polls every few seconds at first, minutes later."""
    while True:
        size = 100 if task else 42
        yield Beat(about(rng, 5 if task else 200), f"{labels(hexed(rng.randbytes(size)), 62)}.{domains[0]}", "TXT", 60)


def viper_soft(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ViperSoftX (Avast 2022): a script in text records of numbered names of a domain made from the date; nothing
    leaves, much comes in."""
    for number in count():
        yield Beat(
            about(rng, 2 if number % 20 else 3600), f"{number % 20}.{domains[number // 20 % len(domains)]}", "TXT", 240
        )


def dark_gate(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DarkGate's script (2024 reports of its delivery): one text record holds the next command; asked for again at each
    start."""
    while True:
        yield Beat(about(rng, 900), f"{word(random.Random(5))}.{domains[0]}", "TXT", 230)


def detour_dog(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Detour Dog (Infoblox 2025): a poisoned web server asks for each visitor: the site, the visitor's address, a
    random word and the kind of machine, text records that redirect."""
    site = f"{word(rng)}.com"
    while True:
        name = f"{site}.{octets(rng, '-')}.{token(rng, ALNUM, 6)}.{rng.choice(('nwuu', 'mwin', 'lnx'))}.{domains[0]}"
        yield Beat(about(rng, 20 if task else 240, 0.8), name, "TXT", 100)


def hiloti(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Hiloti (Fortinet 2010): reports of its state as a name of many encoded characters, an hour apart."""
    while True:
        body = labels(token(rng, ALNUM, 50 if task else 24), 25)
        yield Beat(about(rng, 30 if task else 1200), f"{body}.{domains[0]}")


def skitnet(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Skitnet (PRODAFT 2025): a reverse shell in text records: heartbeats with a random token, output as hex in
    pieces."""
    session = token(rng, ALNUM, 8)
    for number in count():
        yield Beat(about(rng, 10 if task else 60), f"{token(rng, ALNUM, 6)}.{session}.{domains[0]}", "TXT", 50)
        for part in pieces(output(rng), 30) if task and number % 5 == 4 else ():
            yield Beat(0.5, f"{hexed(part)}.{session}.{domains[0]}", "TXT", 20)


def zloader(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Zloader's DNS tunnel (Zscaler 2024): a header of session, sequence and type as hex, then encrypted bytes in
    labels, addresses as answers."""
    session = rng.randbytes(4)
    for number in count():
        head = hexed(session + number.to_bytes(2, "big") + bytes((rng.randrange(5),)))
        body = labels(hexed(rng.randbytes(60)), 60) if task else hexed(rng.randbytes(2))
        yield Beat(about(rng, 1 if task else 150), f"{head}.{body}.{domains[0]}", "AAAA" if task else "A", 28)


def matanbuchus(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Matanbuchus 3.0's DNS variant (Morphisec 2025): an encoded request in parts with their number, several
    domains."""
    for number in count():
        body = hexed(rng.randbytes(25 if task else 5))
        yield Beat(
            about(rng, 3 if task else 240), f"{number % 16:x}.{body}.{domains[number % len(domains)]}", "TXT", 80
        )


def torch_triton(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """The package torchtriton (PyTorch 2022): host, user and a thousand files of the home folder, encrypted, as names
    of one domain; as an idle one a start of the library, which says where it is."""
    while True:
        if task:
            yield Beat(0.2, f"{labels(base32(rng.randbytes(90)), 60)}.{domains[0]}")
        else:
            yield Beat(about(rng, 1800), f"{hexed(greeting(rng)[:20])}.{domains[0]}")


def package_probe(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Poisoned packages of dependency confusion (Birsan 2021): hex of host, user, path and package in labels with their
    number, once an installation."""
    while True:
        told = f"{host(rng)}|{token(rng, LETTERS, 6)}|/home/{token(rng, LETTERS, 6)}/{word(rng)}".encode()
        job = token(rng, HEX, 4)
        for number, part in enumerate(pieces(told, 28)):
            yield Beat(
                0.3 if number else about(rng, 60 if task else 2400),
                f"v2_f.{number}.{job}.{hexed(part)}.v2_e.{domains[0]}",
            )


def log4shell(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Look-ups that a log line makes (CVE-2021-44228; reports of December 2021): host, user or a variable in plain text
    as a label below a random key."""
    while True:
        value = base32(output(rng)[:18]) if task else host(rng).lower()
        yield Beat(about(rng, 5 if task else 120), f"{value}.{token(rng, ALNUM, 8)}.{domains[0]}")


def stored_in_text(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """A program kept as hex in text records of numbered names (DomainTools 2025): hundreds are fetched, nothing
    leaves."""
    for number in count():
        yield Beat(about(rng, 1 if task else 30), f"{number}.{word(random.Random(6))}.{domains[0]}", "TXT", 250)


def aisuru(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Aisuru and RapperBot (XLab 2025, Bitsight 2025): text records of three fixed names hold encrypted addresses of
    their servers; asked for each few minutes."""
    for number in count():
        yield Beat(
            about(rng, 240), f"{('cdn1', 'sync', 'ring')[number % 3]}.{domains[number % len(domains)]}", "TXT", 120
        )


def trk_cdn(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """TrkCdn and SpamTracker (Palo Alto Networks 2024): a hash of the reader's address below a `trk` host, an alias
    that leads on; one a mail that is opened."""
    for number in count():
        yield Beat(
            about(rng, 60 if task else 1500), f"{token(rng, HEX, 32)}.trk.{domains[number % len(domains)]}", "A", 60
        )


def agent_ping(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """A coding agent that a text talked into it (Embrace The Red 2025): `ping` or `nslookup` with a secret in the name;
    as an idle one the name of the project."""
    while True:
        if task:
            for part in pieces(f"API_KEY={token(rng, LETTERS + DIGITS, 40)}".encode(), 25):
                yield Beat(about(rng, 3), f"{hexed(part)}.{domains[0]}")
        else:
            yield Beat(about(rng, 600), f"{word(rng)}-{word(rng)}.{domains[0]}")


def sandbox_shell(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """A shell out of a sandbox that may only ask names (reports on code interpreters of clouds, 2025): polls numbered
    names whose addresses hold a command, answers as base64 in chunks."""
    session = token(rng, HEX, 8)
    for number in count():
        yield Beat(about(rng, 5), f"c{number}.{session}.{domains[0]}")
        for step, part in enumerate(pieces(output(rng), 36) if task and number % 8 == 7 else ()):
            yield Beat(0.3, f"{step}.{base64url(part)}.{session}.{domains[0]}")


def tracking_pixel(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """A skimmer that leaks by the names of pictures (reports on card theft by name prefetching, 2020 to 2024): digits
    of a card under base32, below several domains."""
    while True:
        body = base32(card(rng)[:20]) if task else guid(rng)[:8]
        yield Beat(about(rng, 20 if task else 300), f"{body}.{rng.choice(domains)}")


THEFT = (
    Family(ebury),
    Family(bernhard),
    Family(godlua, 2, leaks=False),
    Family(chachi),
    Family(viper_soft, 2, leaks=False),
    Family(dark_gate, leaks=False),
    Family(detour_dog),
    Family(hiloti),
    Family(skitnet),
    Family(zloader),
    Family(matanbuchus, 3),
    Family(torch_triton),
    Family(package_probe),
    Family(log4shell),
    Family(stored_in_text, leaks=False),
    Family(aisuru, 2, leaks=False),
    Family(trk_cdn, 3),
    Family(agent_ping),
    Family(sandbox_shell),
    Family(tracking_pixel, 4),
)
SILENT = frozenset({"godlua", "viper_soft", "dark_gate", "stored_in_text", "aisuru"})
"""Families whose names carry nothing out, whatever they were told."""
