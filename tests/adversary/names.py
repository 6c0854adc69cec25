"""Channels out: who asks, below which domain, and what a name, a type and an order carry."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice

from agents.learning.baseline import benign_names
from agents.learning.evaluation import encoded
from tests.adversary.channel import DOMAIN, NO_ANSWER, NOTHING_THERE, Answer, Channel, Send, Sent, typed
from tests.corpora.families_base import DIGITS, OBJECTS, SUBJECTS, base32, domains_of, host
from tests.corpora.lookalike_kinds import ALNUM, HEX, LETTERS, token, word

SIZE = 30
"""Bytes of a name of one label, base32."""
LONG = 120
"""Bytes of a long name, base32."""
SUFFIX, NETWORK = "geekgalaxy.com", "cloudfront.net"
"""Suffixes of the list's private section: of a provider of dynamic names, and of a content network."""
KNOWN_S = 300.0
"""Seconds between two names of a set that becomes known before anything leaves."""
TXT = typed("TXT")


def words() -> list[str]:
    """Words that the shipped model has learned as labels."""
    labels = {name.partition(".")[0] for name in benign_names()}
    return sorted(label for label in labels if label.isalpha() and 3 <= len(label) <= 9)


def plain(rng: random.Random) -> Iterator[Sent]:
    """Base32 below one domain: the control."""
    while True:
        yield Sent(f"{encoded(rng, SIZE)}.{DOMAIN}", SIZE)


def _moving(every: int, size: int) -> Send:
    """A new address of one IPv6 /64 (RFC 8981) after so many names."""

    def send(rng: random.Random) -> Iterator[Sent]:
        for number in count():
            if number % every == 0:
                address = ":".join(f"{rng.randrange(1, 1 << 16):x}" for _ in range(4))
            yield Sent(f"{encoded(rng, size)}.{DOMAIN}", size, client=f"2001:db8:7:9:{address}")

    return send


def _spoofed(rng: random.Random) -> Iterator[Sent]:
    """Each name under another source address of the network."""
    while True:
        yield Sent(
            f"{encoded(rng, LONG)}.{DOMAIN}", LONG, client=f"10.{'.'.join(str(rng.randrange(1, 255)) for _ in 'abc')}"
        )


def _many(clients: int, domains: int = 1) -> Send:
    """Clients in turn, each towards one of the domains."""

    def send(rng: random.Random) -> Iterator[Sent]:
        zones = [DOMAIN] if domains == 1 else domains_of(rng, domains)
        for number in count():
            mine = number % clients
            yield Sent(f"{encoded(rng, SIZE)}.{zones[mine % domains]}", SIZE, client=f"10.9.1.{mine}")

    return send


def _below(suffix: str, size: int = 25) -> Send:
    """A label directly below a suffix: nothing is registered, nothing has to exist."""

    def send(rng: random.Random) -> Iterator[Sent]:
        while True:
            yield Sent(f"{encoded(rng, size)}.{suffix}", size, answer=NOTHING_THERE)

    return send


def _reverse(rng: random.Random) -> Iterator[Sent]:
    """Addresses of an own delegation of ip6.arpa: ten bytes in twenty nibbles of one /48."""
    while True:
        nibbles = ".".join(token(rng, HEX, 20))
        yield Sent(f"{nibbles}.7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", 10, qtype=typed("PTR"), answer=NOTHING_THERE)


def _reverse_wide(rng: random.Random) -> Iterator[Sent]:
    """Addresses of an own /32, a new /48 for each: twelve bytes in twenty-four nibbles."""
    while True:
        nibbles = ".".join(token(rng, HEX, 24))
        yield Sent(f"{nibbles}.8.b.d.0.1.0.0.2.ip6.arpa", 12, qtype=typed("PTR"), answer=NOTHING_THERE)


def _reverse_four(octets: int) -> Send:
    """Addresses of an own part of in-addr.arpa: its last octets, one byte each."""

    def send(rng: random.Random) -> Iterator[Sent]:
        rest = ("100", "51", "198")[octets - 1 :]
        while True:
            name = ".".join([*(str(rng.randrange(256)) for _ in range(octets)), *rest])
            yield Sent(f"{name}.in-addr.arpa", octets, qtype=typed("PTR"), answer=NOTHING_THERE)

    return send


def _throwaway(rng: random.Random, number: int) -> str:
    return f"{rng.choice(SUBJECTS)}{rng.choice(OBJECTS)}{number}.com"


def _letters_after(rng: random.Random) -> Iterator[Sent]:
    """A whole name below a throw-away domain, then a name of four letters, and on to the next domain."""
    for number in count():
        domain = _throwaway(rng, number)
        yield Sent(f"{encoded(rng, 95)}.{domain}", 95)
        yield Sent(f"{token(rng, LETTERS, 4)}.{domain}", 4 * math.log2(26) / 8, beats=0.2)


def _short_names(rng: random.Random) -> Iterator[Sent]:
    """Five bytes below each new domain."""
    for number in count():
        yield Sent(f"{encoded(rng, 5)}.{_throwaway(rng, number)}", 5)


def _signers(rng: random.Random) -> Iterator[Sent]:
    """Data in the place of a mail signer's selector (RFC 6376), below a new domain each time."""
    for number in count():
        name = f"{encoded(rng, LONG)}._domainkey.{_throwaway(rng, number)}"
        yield Sent(name, LONG, qtype=TXT, answer=Answer("TXT", 1, 200))


def _worded(domains: int, digits: int = 0) -> Send:
    """One known word a query, with so many digits, below one of the domains."""

    def send(rng: random.Random) -> Iterator[Sent]:
        known, zones = words(), [f"{word(rng)}{word(rng)}.com" for _ in range(domains)]
        while True:
            carried = math.log2(len(known) * domains * 10**digits) / 8
            yield Sent(f"{rng.choice(known)}{token(rng, DIGITS, digits)}.{rng.choice(zones)}", carried)

    return send


def _rotating(domains: int, size: int) -> Send:
    """Short encoded names below each domain in turn; every second one gets no answer."""

    def send(rng: random.Random) -> Iterator[Sent]:
        zones = domains_of(rng, domains)
        for number in count():
            answer = Answer() if rng.random() < 0.5 else NO_ANSWER
            yield Sent(f"{encoded(rng, size)}.{zones[number % domains]}", size, answer=answer)

    return send


def _knocks(digits: int) -> Send:
    """Names of a few new digits below a domain that no longer answers."""

    def send(rng: random.Random) -> Iterator[Sent]:
        while True:
            yield Sent(f"{token(rng, HEX, digits)}.{DOMAIN}", digits / 2, answer=NO_ANSWER)

    return send


def _one_hour(send: Send) -> Send:
    return lambda rng: islice(send(rng), 25)


def _ordered(hosts: int) -> Send:
    """The order of a fixed set of host names whose answers must not be kept."""

    def send(rng: random.Random) -> Iterator[Sent]:
        for number in range(hosts):
            yield Sent(f"cdn{number}.{DOMAIN}", beats=0, gap_s=KNOWN_S, answer=Answer(ttl=0))
        while True:
            yield Sent(f"cdn{rng.randrange(hosts)}.{DOMAIN}", math.log2(hosts) / 8, answer=Answer(ttl=0))

    return send


def _combined(rng: random.Random) -> Iterator[Sent]:
    """New names of known labels: five places, sixteen ordinary words each."""
    known = words()[::40][:16]
    while True:
        yield Sent(".".join([*(rng.choice(known) for _ in range(5)), DOMAIN]), 2.5)


def _types(types: Sequence[str]) -> Send:
    """The choice of the record type; the name never changes."""

    def send(rng: random.Random) -> Iterator[Sent]:
        while True:
            yield Sent(f"www.{DOMAIN}", math.log2(len(types)) / 8, qtype=typed(rng.choice(types)))

    return send


def _syllables(rng: random.Random) -> Iterator[Sent]:
    while True:
        text = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4))
        yield Sent(f"{text}.{DOMAIN}", 4 * math.log2(70) / 8)


def _numbered(rng: random.Random) -> Iterator[Sent]:
    """Five groups of three digits, as a fleet's hosts are named."""
    while True:
        yield Sent(f"{_host_number(rng)}.{DOMAIN}", 15 * math.log2(10) / 8)


def _host_number(rng: random.Random) -> str:
    return "-".join(["ip", *(token(rng, DIGITS, 3) for _ in range(5))])


def _numbered_over(domains: int) -> Send:
    """The same below each of many domains in turn."""

    def send(rng: random.Random) -> Iterator[Sent]:
        zones = [f"{word(rng)}{word(rng)}.com" for _ in range(domains)]
        for number in count():
            yield Sent(f"{_host_number(rng)}.{zones[number % domains]}", 15 * math.log2(10) / 8)

    return send


def _shop(rng: random.Random) -> Iterator[Sent]:
    """Keys of six letters and digits below twelve domains, as services for sites name their customers."""
    zones = [f"{word(rng)}-{word(rng)}.com" for _ in range(12)]
    while True:
        yield Sent(f"{token(rng, ALNUM, 6)}.{rng.choice(zones)}", 6 * math.log2(36) / 8)


def _familiar(rng: random.Random) -> Iterator[Sent]:
    """A domain that five clients asked below a day ago, now the carrier of one of them."""
    for number in range(5):
        yield Sent(f"www.{DOMAIN}", beats=0, gap_s=1, client=f"10.9.2.{number}")
    yield Sent(f"www.{DOMAIN}", beats=0, gap_s=90_000)
    yield from plain(rng)


def _who_and_where(rng: random.Random) -> bytes:
    home = rng.choice(("/home/", "C:\\Users\\")).encode()
    return (
        f"{host(rng)}|{rng.choice(('jmiller', 'svc-build', 'root'))}|".encode()
        + home
        + token(rng, LETTERS, 12).encode()
    )


def _look_up(how: str) -> Send:
    """Host, user and path in one name, as install scripts of poisoned packages send them."""

    def send(rng: random.Random) -> Iterator[Sent]:
        told = _who_and_where(rng)
        text = told.hex() if how == "hex" else base32(told)
        name = ".".join(text[at : at + 60] for at in range(0, len(text), 60))
        yield Sent(f"{name}.{DOMAIN}", len(told), answer=NOTHING_THERE)

    return send


TOKENS: dict[str, Callable[[random.Random], str]] = {
    "cloud access key": lambda rng: "AKIA" + token(rng, LETTERS.upper() + "234567", 16),
    "code hosting token": lambda rng: "ghp_" + token(rng, LETTERS + LETTERS.upper() + DIGITS, 36),
    "code hosting token, second": lambda rng: "glpat-" + token(rng, LETTERS + LETTERS.upper() + DIGITS, 20),
    "chat token": lambda rng: (
        f"xoxb-{token(rng, DIGITS, 12)}-{token(rng, DIGITS, 12)}-{token(rng, LETTERS + DIGITS, 24)}"
    ),
    "payment key": lambda rng: "sk_live_" + token(rng, LETTERS + LETTERS.upper() + DIGITS, 24),
    "model key": lambda rng: "sk-proj-" + token(rng, LETTERS + LETTERS.upper() + DIGITS, 48),
    "package registry token": lambda rng: "npm_" + token(rng, LETTERS + LETTERS.upper() + DIGITS, 36),
    "map key": lambda rng: "AIza" + token(rng, LETTERS + LETTERS.upper() + DIGITS + "-_", 35),
}
"""Access tokens by their providers' documented prefixes and lengths; each is made up anew."""
CODES: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "hex": lambda text: text.encode().hex(),
    "base32": lambda text: base32(text.encode()),
    "base64": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
}


def _one_token(kind: str, code: str) -> Send:
    def send(rng: random.Random) -> Iterator[Sent]:
        secret = TOKENS[kind](rng)
        text = CODES[code](secret)
        name = ".".join(text[at : at + 60] for at in range(0, len(text), 60))
        yield Sent(f"{name}.{DOMAIN}", len(secret), answer=NOTHING_THERE)

    return send


SEVEN = ("A", "NS", "CNAME", "MX", "TXT", "AAAA", "HTTPS")
EIGHT = (*SEVEN, "SRV")

CHANNELS = (
    Channel("base32 below one domain (control)", "control", plain),
    Channel("a new IPv6 address of one /64 for every name", "who", _moving(1, LONG)),
    Channel("a new IPv6 address every third name", "who", _moving(3, LONG)),
    Channel("a new IPv6 address every tenth name", "who", _moving(10, SIZE)),
    Channel("spoofed sources, each name another", "who", _spoofed),
    Channel("50 clients towards one domain", "who", _many(50)),
    Channel("50 clients, a domain each", "who", _many(50, 50)),
    Channel("a label below a private suffix", "where", _below(SUFFIX)),
    Channel("a label below a content network's suffix", "where", _below(NETWORK)),
    Channel("addresses below an own part of ip6.arpa", "where", _reverse),
    Channel("addresses below an own /32 of ip6.arpa, a /48 each", "where", _reverse_wide),
    Channel("addresses below an own /16 of in-addr.arpa", "where", _reverse_four(2)),
    Channel("95 bytes below a throw-away domain, then 4 letters", "where", _letters_after),
    Channel("5 bytes below each of many throw-away domains", "where", _short_names),
    Channel("TXT below _domainkey of throw-away domains", "where", _signers),
    Channel("words over 50 domains", "where", _worded(50)),
    Channel("words over 200 domains", "where", _worded(200)),
    Channel("rotating over 8 domains, half unanswered", "where", _rotating(8, 5)),
    Channel("rotating over 12 domains, half unanswered", "where", _rotating(12, 5)),
    Channel("rotating over 20 domains, half unanswered", "where", _rotating(20, 8)),
    Channel("customers' keys below 12 domains", "where", _shop),
    Channel("a domain that five clients know", "where", _familiar),
    Channel("words below one domain", "what", _worded(1)),
    Channel("words with a digit each below one domain", "what", _worded(1, 1)),
    Channel("words with a digit each over 200 domains", "what", _worded(200, 1)),
    Channel("syllables below one domain", "what", _syllables),
    Channel("numbers of hosts", "what", _numbered),
    Channel("numbers of hosts over 100 domains", "what", _numbered_over(100)),
    Channel("numbers of hosts over 2,000 domains", "what", _numbered_over(2_000)),
    Channel("new names of known labels", "what", _combined),
    Channel("order of 2 known names, TTL 0", "what", _ordered(2)),
    Channel("order of 16 known names, TTL 0", "what", _ordered(16)),
    Channel("order of 256 known names, TTL 0", "what", _ordered(256)),
    Channel("choice among seven record types", "what", _types(SEVEN)),
    Channel("choice among eight record types", "what", _types(EIGHT)),
    Channel("25 knocks an hour at a dead domain, two bytes each", "beacon", _knocks(4), 144.0),
    Channel("25 knocks an hour at a dead domain, one byte each", "beacon", _knocks(2), 144.0),
    Channel("25 knocks in one hour, two bytes each, then silence", "beacon", _one_hour(_knocks(4)), 144.0, once=True),
    Channel("host, user and path in hex, one look-up", "one name", _look_up("hex"), once=True),
    Channel("host, user and path in base32, one look-up", "one name", _look_up("base32"), once=True),
    *(
        Channel(f"{kind}, {code}", "one name", _one_token(kind, code), once=True)
        for kind in TOKENS for code in CODES
    ),
)  # fmt: skip
