"""Sessions of espionage malware, after public reports of its DNS protocols; where they are silent, the quieter
reading."""

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
    base36,
    base64url,
    greeting,
    hexed,
    labels,
    nibbles,
    output,
    pieces,
    shuffled,
)
from tests.corpora.lookalike_kinds import ALNUM, HEX, LETTERS, guid, token


def saitama(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Saitama (Malwarebytes 2022, Fox-IT 2022): base36 of an alphabet that is shuffled anew for each message, three
    characters of counter, one of three domains at random, about a minute between messages; orders come in addresses."""
    counter = rng.randrange(36**2)
    while True:
        for part in pieces(output(rng), 15) if task else (b"alive",):
            alphabet = shuffled(rng, ALNUM)
            body = "".join(alphabet[byte % 36] + (alphabet[byte // 36] if task else "") for byte in part)
            yield Beat(about(rng, 60, 0.33), f"{body}{base36(counter, 3)}.{rng.choice(domains)}")
            counter += 1


def sunburst(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """SUNBURST (FireEye 2020): an encoded user id with a piece of the victim's domain name, or with the state of its
    security products, below a cloud region of one domain; half an hour to two hours apart, minutes once it is told."""
    while True:
        region = rng.choice(("eu-west-1", "us-west-2", "us-east-1", "us-east-2"))
        body = token(rng, ALNUM, rng.randint(20, 32))
        yield Beat(
            rng.uniform(60, 540) if task else rng.uniform(1800, 7200), f"{body}.appsync-api.{region}.{domains[0]}"
        )


def helminth(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Helminth (Palo Alto Networks 2016): a script's requests of digits (what it wants, its id, a random number), and
    its output as 23 bytes of hex; answered with addresses."""
    bot = rng.randrange(10)
    while True:
        yield Beat(about(rng, 120), f"00{bot}{rng.randrange(10**5):05}30.{domains[0]}")
        for number, part in enumerate(pieces(output(rng), 23) if task else ()):
            yield Beat(about(rng, 2), f"00{bot}{number:03}{rng.randrange(10**3):03}{hexed(part)}.{domains[0]}")


def alma(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ALMA Communicator (Palo Alto Networks 2017): random digits, `ID`, the victim's ten digits, which piece of how
    many, and ten bytes as hex; the answers are text."""
    victim = token(rng, DIGITS, 10)
    while True:
        yield Beat(
            about(rng, 150), f"{rng.randrange(10**4):04}ID{victim}-0-1-{hexed(b'REQ')}-0.{domains[0]}", "TXT", 60
        )
        parts = list(pieces(output(rng), 10)) if task else []
        for number, part in enumerate(parts):
            name = f"{rng.randrange(10**4):04}ID{victim}-{number}-{len(parts)}-{hexed(part)}-9.{domains[0]}"
            yield Beat(about(rng, 1), name, "A")


def bondupdater(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """BONDUPDATER (Palo Alto Networks 2018) and the leaked PoisonFrog and Glimpse (2019): ten characters of id mixed
    with a sequence number, an action, and `B007`; one query a minute, output as hex in between."""
    victim = token(rng, HEX, 10)
    for number in count():
        mixed = "".join(a + b for a, b in zip(victim, f"{number:04}{token(rng, HEX, 6)}", strict=True))
        yield Beat(about(rng, 60, 0.02), f"{mixed}M0000B007.{domains[0]}", "A" if number % 2 else "TXT", 44)
        for part in pieces(output(rng), 25) if task and number % 5 == 4 else ():
            yield Beat(about(rng, 1), f"{token(rng, HEX, 8)}2{rng.randrange(1000):03}B007.{hexed(part)}.{domains[0]}")


def quadagent(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """QUADAGENT (Palo Alto Networks 2018): `mail` and six digits to begin with, `ns1` and a session of its server's
    choice later, data as hex; answers are IPv6 addresses."""
    session = token(rng, DIGITS, 6)
    while True:
        yield Beat(about(rng, 60), f"mail.{token(rng, DIGITS, 6)}.{domains[0]}", "AAAA", 28)
        for number, part in enumerate(pieces(output(rng), 25) if task else ()):
            yield Beat(about(rng, 1), f"ns1.{session}{number:02}.{hexed(part)}.{domains[0]}", "AAAA", 28)


def roguerobin(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """RogueRobin (Palo Alto Networks 2018, 2019): three random letters and the process id, its digits written as the
    letters from h on, `c`; many record types, the next of eight domains each time; output as base64 between
    hyphens."""
    process = "".join(chr(ord("h") + int(digit)) for digit in str(rng.randrange(1000, 9999)))
    for number in count():
        kind = rng.choice(("A", "AAAA", "TXT", "CNAME", "MX", "SRV", "SOA"))
        yield Beat(about(rng, 45), f"{token(rng, LETTERS, 3)}{process}c.{domains[number % len(domains)]}", kind, 40)
        for offset, part in enumerate(pieces(output(rng), 15) if task and number % 4 == 3 else ()):
            where = domains[(number + offset) % len(domains)]
            yield Beat(
                about(rng, 2), f"{token(rng, LETTERS, 2)}{process}-{offset}-{base64url(part)}-r.{where}", kind, 40
            )


def pisloader(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Pisloader (Palo Alto Networks 2016): four random upper-case letters or digits, and base32 without padding, below
    `ns1`; text records."""
    while True:
        beacon = base32(rng.randbytes(4)).upper()
        yield Beat(about(rng, 60), f"{token(rng, ALNUM, 4).upper()}.{beacon}.ns1.{domains[0]}", "TXT", 40)
        for part in pieces(output(rng), 20) if task else ():
            yield Beat(
                about(rng, 2), f"{token(rng, ALNUM, 4).upper()}.{base32(part).upper()}.ns1.{domains[0]}", "TXT", 30
            )


def denis(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Denis (Kaspersky 2017), SOUNDBITE (FireEye 2017): base64 of a session id, a counter and a message, NULL records,
    a domain of several at each start."""
    session, where = rng.randbytes(4), rng.choice(domains)
    for number in count():
        head = session + number.to_bytes(2, "big") + rng.randbytes(2)
        yield Beat(about(rng, 30), f"{base64url(head)}.z.{where}", "NULL", 40)
        for part in pieces(output(rng), 60) if task and number % 5 == 4 else ():
            yield Beat(about(rng, 1), f"{labels(base64url(head + part), 60)}.z.{where}", "NULL", 40)


def dnsmessenger(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DNSMessenger (Cisco Talos 2017): text records below `www` and `mail` of one of several domains, a random name
    every half hour, the next stage in answers; output as hex."""
    machine = token(rng, ALNUM, 10)
    while True:
        where = rng.choice(domains)
        yield Beat(about(rng, 1200), f"{machine}.{rng.choice(('www', 'mail'))}.{where}", "TXT", 220 if task else 30)
        for part in pieces(output(rng), 25) if task else ():
            yield Beat(about(rng, 2), f"{token(rng, ALNUM, 4)}.{hexed(part)}.mail.{where}", "TXT", 30)


def shadowpad(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ShadowPad (Kaspersky 2017): what host, user and domain are called, encrypted, two letters a byte, as text
    queries below a domain made of the month; every eight hours, some seconds apart once it is activated."""
    while True:
        yield Beat(about(rng, 5 if task else 8 * 3600), f"{nibbles(rng.randbytes(25))}.{domains[0]}", "TXT", 60)


def dnspionage(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DNSpionage (Cisco Talos 2018): four random letters and a few bytes of base32, a little at a time."""
    number = rng.randrange(100)
    while True:
        beacon = base32(f"0{number % 100:02}|".encode())
        yield Beat(about(rng, 60), f"{token(rng, LETTERS, 4)}{beacon}0.{domains[0]}")
        for part in pieces(output(rng), 12) if task else ():
            yield Beat(about(rng, 3), f"{token(rng, LETTERS, 4)}{base32(part)}0.{domains[0]}")
        number += 1


def ismdoor(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ISMDoor (Arbor Networks 2017, Kaspersky 2018): a session's GUID below `n.n.c`, then `d` with numbered base64; the
    commands are in IPv6 addresses."""
    while True:
        session = guid(rng)
        yield Beat(about(rng, 60), f"n.n.c.{session}.{domains[0]}", "AAAA", 28)
        for number, part in enumerate(pieces(output(rng) if task else b"M:CC?", 30)):
            yield Beat(about(rng, 1), f"{number}.{len(part)}.d.{base64url(part)}.{session}.{domains[0]}", "AAAA", 28)


def sauron(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ProjectSauron (Kaspersky, Symantec 2016): what it has to tell, at most 30 bytes a query as base64."""
    while True:
        size = rng.randint(20, 30) if task else rng.randint(6, 10)
        yield Beat(about(rng, 20 if task else 300), f"{base64url(rng.randbytes(size))}.{domains[0]}")


def plugx(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """PlugX over DNS (Airbus 2014): sixteen bytes of head, two letters a byte, groups of letters as labels, text
    records."""
    while True:
        size = rng.randint(40, 60) if task else 16
        yield Beat(about(rng, 5 if task else 90), f"{labels(nibbles(rng.randbytes(size)), 60)}.{domains[0]}", "TXT", 80)


def matryoshka(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """A RAT like Matryoshka (ClearSky 2015) or xHunt's Snugy (Palo Alto Networks 2020): the bot's number and a counter
    in letters and digits, a few of them, over two domains in turn."""
    bot = base36(rng.randrange(36**3), 3)
    for number in count(rng.randrange(36**2)):
        body = token(rng, ALNUM, rng.randint(20, 30) if task else 3)
        yield Beat(about(rng, 3 if task else 45), f"{bot}{base36(number, 3)}{body}.{domains[number % 2]}")


def chameldoh(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ChamelDoH (Stairwell 2023): an encrypted head and message in base64 of an alphabet of its own, below `ns1` of
    some domains, text records."""
    while True:
        size = rng.randint(30, 45) if task else 14
        yield Beat(
            about(rng, 8 if task else 60), f"{base64url(rng.randbytes(size))}.ns1.{rng.choice(domains)}", "TXT", 90
        )


def symbiote(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Symbiote (BlackBerry 2022): a stolen password, encrypted, hex, numbered, with the machine's id; when there is
    one."""
    machine = token(rng, HEX, 8)
    while True:
        yield Beat(about(rng, 900), f"0.{machine}.{hexed(rng.randbytes(8))}.{domains[0]}")
        for number, part in enumerate(pieces(greeting(rng), 12) if task else ()):
            yield Beat(about(rng, 1), f"{number}.{machine}.{hexed(bytes(b ^ 0x5A for b in part))}.{domains[0]}")


SPIES = (
    Family(saitama, 3),
    Family(sunburst),
    Family(helminth),
    Family(alma),
    Family(bondupdater),
    Family(quadagent),
    Family(roguerobin, 8),
    Family(pisloader),
    Family(denis, 3),
    Family(dnsmessenger, 4, leaks=False),
    Family(shadowpad),
    Family(dnspionage),
    Family(ismdoor),
    Family(sauron),
    Family(plugx),
    Family(matryoshka, 2),
    Family(chameldoh, 3),
    Family(symbiote),
)
