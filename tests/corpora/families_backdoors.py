"""Sessions of further espionage malware, after public reports of its DNS protocols; where they are silent, the quieter
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
    base64url,
    greeting,
    hexed,
    labels,
    output,
    pieces,
    shuffled,
)
from tests.corpora.lookalike_kinds import ALNUM, HEX, LETTERS, guid, token, word


def glimpse(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Glimpse (APT34's leaked tool; Chronicle and IronNet 2019): agent id, counter, action and a checksum as hex digits
    mixed with random ones; text records bring orders, address queries take results out."""
    agent = token(rng, ALNUM, 10)
    for number in count():
        head = f"{number % 1000:03}{agent}{rng.randrange(10**3):03}C{rng.randrange(10)}T"
        yield Beat(about(rng, 90), f"{head}.{domains[0]}", "A")
        for step, part in enumerate(pieces(output(rng), 20) if task else ()):
            yield Beat(about(rng, 2), f"{step:03}{agent}{hexed(part)}C{rng.randrange(10)}T.{domains[0]}")


def poison_frog(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Poison Frog (APT34's leaked tool; Kaspersky and NSFOCUS 2019): an agent's ten characters, part number and file as
    characters whose order says which, ten minutes apart; results as hex in the first label."""
    agent = token(rng, ALNUM, 10)
    while True:
        yield Beat(about(rng, 600, 0.1), f"{shuffled(rng, agent[:4])}{agent[4:]}0{token(rng, DIGITS, 6)}.{domains[0]}")
        for step, part in enumerate(pieces(output(rng), 30) if task else ()):
            yield Beat(about(rng, 1), f"{hexed(part)}.{agent}{step:03}.{domains[0]}")


def rdat(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """RDAT (Palo Alto Networks 2020): base32 of an encrypted message in labels, text records or addresses in answer;
    polls with a few bytes."""
    session = rng.randbytes(4)
    while True:
        body = session + rng.randbytes(60 if task else 4)
        yield Beat(about(rng, 5 if task else 120), f"{labels(base32(body), 60)}.{domains[0]}", "TXT", 60)


def milan(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Milan (Lyceum; ClearSky, Prevailion and Accenture 2021): base32 of an id and a request, an address of IPv6 as
    answer, one of two domains; a few an hour."""
    victim = rng.randbytes(3)
    while True:
        for part in pieces(output(rng), 24) if task else (b"",):
            body = base32(victim + rng.randbytes(2) + part)
            yield Beat(about(rng, 3 if task else 420), f"{body}.{rng.choice(domains)}", "AAAA", 28)


def dns_system(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DnsSystem (Lyceum; Zscaler 2022): user's hash as a name for text records every few seconds; output as base64 in
    names."""
    user = token(rng, HEX, 8)
    while True:
        yield Beat(about(rng, 30), f"{user}.{domains[0]}", "TXT", 40)
        for part in pieces(output(rng), 40) if task else ():
            yield Beat(about(rng, 1), f"{user}.{base64url(part)}.{domains[0]}", "TXT", 20)


def danbot(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DanBot (Lyceum; Secureworks 2019): characters of base32 with a random prefix, IPv4 and IPv6 addresses in answer,
    minutes apart."""
    bot = token(rng, ALNUM, 5)
    while True:
        kind = rng.choice((("A", 16), ("AAAA", 28)))
        yield Beat(about(rng, 150), f"{token(rng, LETTERS, 3)}{bot}{base32(rng.randbytes(3))}.{domains[0]}", *kind)
        for part in pieces(output(rng), 25) if task else ():
            yield Beat(about(rng, 2), f"{bot}.{base32(part)}.{domains[0]}", *kind)


def kevin(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Kevin (Lyceum; Kaspersky 2021): a number in place of each byte of a short request, addresses as answers."""
    bot = token(rng, LETTERS, 4)
    while True:
        text = output(rng)[:90] if task else rng.randbytes(2)
        for part in pieces(text, 12):
            yield Beat(about(rng, 4 if task else 300), f"{bot}{''.join(f'{byte:03}' for byte in part)}.{domains[0]}")


def goopy(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Goopy (OceanLotus; Cybereason 2017): base64 labels of an encrypted request, text records in answer, several
    domains in turn."""
    for number in count():
        size = rng.randint(40, 60) if task else 12
        text = labels(base64url(rng.randbytes(size)), 50)
        yield Beat(about(rng, 4 if task else 200), f"{text}.{domains[number % len(domains)]}", "TXT", 90)


def http_browser(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """HTTPBrowser's DNS mode (Dell SecureWorks 2015): hex of machine and process in names, text records bring
    orders."""
    head = hexed(rng.randbytes(6))
    while True:
        yield Beat(about(rng, 240), f"{head}{hexed(rng.randbytes(2))}.{domains[0]}", "TXT", 60)
        for part in pieces(output(rng), 28) if task else ():
            yield Beat(about(rng, 2), f"{head}.{hexed(part)}.{domains[0]}", "TXT", 20)


def snugy(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Snugy (xHunt; Palo Alto Networks 2020): one of several domains, an order of letters made anew for each request in
    front, addresses as answers."""
    while True:
        for part in pieces(output(rng), 10) if task else (rng.randbytes(2),):
            key = "".join(rng.sample(LETTERS, 5))
            yield Beat(about(rng, 5 if task else 240), f"{key}{base32(part)}.{rng.choice(domains)}")


def cashy200(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """CASHY200 (xHunt; Palo Alto Networks 2019): hex of a mark, host name's piece and a counter; orders in the octets
    of the answers; an idle one asks the same each minute but for two digits."""
    bot = rng.randbytes(3)
    for number in count():
        yield Beat(about(rng, 120), f"{hexed(b'L' + bot + bytes((number & 255,)))}.{domains[0]}")
        for part in pieces(output(rng), 20) if task else ():
            yield Beat(about(rng, 2), f"{hexed(b'D' + bot + part)}.{domains[0]}")


def nan_hai_shu(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """NanHaiShu (F-Secure 2016): a script's requests for text records, an encoded name of machine and user before the
    domain, an hour apart."""
    who = hexed(greeting(rng)[:12])
    while True:
        yield Beat(about(rng, 60 if task else 1800), f"{who}{token(rng, HEX, 6)}.{domains[0]}", "TXT", 120)
        for part in pieces(output(rng), 25) if task else ():
            yield Beat(about(rng, 2), f"{hexed(part)}.{who[:8]}.{domains[0]}", "TXT", 20)


def mori(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Mori (MuddyWater; CISA and Cyber Command 2022): base64 of a request in names, junk before it, several domains."""
    while True:
        size = 40 if task else 9
        name = f"{token(rng, LETTERS, rng.randint(2, 5))}.{base64url(rng.randbytes(size))}.{rng.choice(domains)}"
        yield Beat(about(rng, 5 if task else 180), name, "TXT", 60)


def well_mess(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """WellMess's DNS mode (JPCERT 2018, NCSC 2020): base32 of an encrypted request, an id and a number, hosts of one
    domain; answers in text records."""
    session = token(rng, ALNUM, 6)
    for number in count():
        body = base32(rng.randbytes(35 if task else 5))
        yield Beat(about(rng, 5 if task else 300), f"{body}.{number}.{session}.{domains[0]}", "TXT", 80)


def invisi_mole(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """InvisiMole's DNS downloader (ESET 2020): base32 with an alphabet of its own: an id, a kind and a piece's number,
    text and IPv6 records in answer; bursts while it fetches, an hour of silence."""
    alphabet = shuffled(rng, ALNUM)
    victim = "".join(rng.choice(alphabet) for _ in range(8))
    for number in count():
        step = f"{number:04x}{token(rng, HEX, 4)}"
        yield Beat(about(rng, 2 if task or number % 6 else 1200), f"{victim}{step}.{domains[0]}", "AAAA", 28 * 4)


def sombrat(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """SombRAT (CostaRicto; BlackBerry 2020): a made-up word and an encrypted request in base32 below a subdomain, text
    records."""
    while True:
        body = labels(base32(rng.randbytes(45 if task else 8)), 60)
        yield Beat(about(rng, 4 if task else 150), f"{body}.{word(rng)[:6]}.{domains[0]}", "TXT", 70)


def squidoor(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Squidoor, also FinalDraft (Palo Alto Networks and Elastic 2025): encoded requests with a counter in names of its
    DNS mode; heartbeats five minutes apart."""
    session = token(rng, HEX, 8)
    for number in count():
        body = hexed(rng.randbytes(28 if task else 4))
        yield Beat(about(rng, 3 if task else 300), f"{body}.{number:x}.{session}.{domains[0]}", "TXT", 60)


def msupedge(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Msupedge (Symantec 2024): made from dnscat2's code: hex of session, type and data; its orders are in the third
    octet of an address."""
    session = f"{rng.getrandbits(16):04x}"
    for number in count():
        body = f"{token(rng, HEX, 4)}01{session}{number & 0xFFFF:04x}{hexed(rng.randbytes(50 if task else 2))}"
        yield Beat(about(rng, 2 if task else 120), f"{labels(body, 60)}.{domains[0]}")


def oil_alert(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """OilRig's ThreeDollars and its kin (Palo Alto Networks 2018): a victim's number, a random one and a step in
    decimal digits."""
    victim = token(rng, DIGITS, 4)
    for number in count():
        yield Beat(about(rng, 100), f"{victim}{rng.randrange(10**4):04}{number % 100:02}.{domains[0]}")
        for part in pieces(output(rng), 15) if task else ():
            yield Beat(about(rng, 2), f"{victim}.{hexed(part)}.{domains[0]}")


def karkoff_check(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """An implant that only asks whether there is work (as of DNSpionage's first stage, Talos 2018): an identity that
    never changes, text records of many bytes once there is."""
    own = guid(rng)
    while True:
        yield Beat(about(rng, 600), f"{own}.{domains[0]}", "TXT", 180 if task else 20)
        if task:
            for number in range(4):
                yield Beat(about(rng, 2), f"{number}.{own}.{domains[0]}", "TXT", 220)


BACKDOORS = (
    Family(glimpse),
    Family(poison_frog),
    Family(rdat),
    Family(milan, 2),
    Family(dns_system, leaks=False),
    Family(danbot),
    Family(kevin),
    Family(goopy, 3),
    Family(http_browser),
    Family(snugy, 5),
    Family(cashy200),
    Family(nan_hai_shu),
    Family(mori, 3),
    Family(well_mess),
    Family(invisi_mole),
    Family(sombrat),
    Family(squidoor),
    Family(msupedge),
    Family(oil_alert),
    Family(karkoff_check, leaks=False),
)
