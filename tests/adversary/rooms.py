"""Channels through full rooms: somebody fills what the detector remembers, then data leaves plainly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import count, islice

from agents.detection.flows import CLIENT_PART
from agents.dns.name import wire_of
from agents.scoring.lexical import read_names
from tests.adversary.channel import CLIENT, Channel, Send, Sent
from tests.adversary.names import plain, words
from tests.corpora.families_base import domains_of
from tests.support.detecting import shipped_model

FLOWS_MAX = 8_000
"""(client, domain) pairs that these detectors have room for: a part of the default, so that filling takes seconds."""
FILLER = "10.9.0.200"
FILL_S = 0.1
"""Seconds between two names that fill."""


@lru_cache(maxsize=1)
def plain_words() -> list[str]:
    """Words that never read as encoded: what fills must not be loud itself."""
    found = read_names([wire_of((word.encode(), b"example", b"com")) for word in words()], shipped_model(), (0, 0))
    return [word for word, encoded in zip(words(), found.part_encoded, strict=True) if not encoded]


def _worded(rng: random.Random, known: list[str], labels: int) -> str:
    """A name below a domain of its own; from a dozen words on it carries enough to be kept as evidence."""
    return f"{'.'.join(rng.choice(known) for _ in range(labels))}.{rng.choice(known)}{rng.randrange(10**6)}.com"


def _client_room(client: str, labels: int) -> Send:
    """One client's share of the rows and a little more; from a dozen labels on each row has evidence."""

    def fill(rng: random.Random) -> Iterator[Sent]:
        known = plain_words()
        for _ in range(FLOWS_MAX // CLIENT_PART * 21 // 20):
            yield Sent(_worded(rng, known, labels), beats=0, gap_s=FILL_S, client=client)

    return fill


def _table(labels: int) -> Send:
    """All rows and a tenth more: sources of their own (spoofed, or addresses of one /64), fifty domains each."""

    def fill(rng: random.Random) -> Iterator[Sent]:
        known = plain_words()
        for number in range(FLOWS_MAX * 11 // 10):
            source = f"10.77.{number // 50 // 250}.{number // 50 % 250}"
            yield Sent(_worded(rng, known, labels), beats=0, gap_s=FILL_S / 10, client=source)

    return fill


def _one_flow(rng: random.Random) -> Iterator[Sent]:
    """One flow's memory of names: words below the tunnel's own domain, from another client."""
    known = plain_words()
    for number in range(8_000):
        yield Sent(
            f"{rng.choice(known)}.{rng.choice(known)}{number}.evil-tunnel.net", beats=0, gap_s=FILL_S, client=FILLER
        )


def _then(fill: Send, send: Send = plain) -> Send:
    def both(rng: random.Random) -> Iterator[Sent]:
        yield from fill(rng)
        yield from send(rng)

    return both


def _refreshed(rng: random.Random) -> Iterator[Sent]:
    """100 bytes, then as many made-up domains as make the detector forget, again and again."""
    for turn in count():
        yield from islice(plain(rng), 3)
        known = words()
        for number in range(3_000):
            name = f"{rng.choice(known)}.{rng.choice(known)}{turn}x{number}.com"
            yield Sent(name, beats=0, gap_s=FILL_S / 10, client=CLIENT)


def _scattered_domains(rng: random.Random) -> Iterator[Sent]:
    """Carriers beyond those that add up for one client: 200 domains, an encoded name each in turn."""
    zones = domains_of(rng, 200)
    for number in count():
        yield Sent(f"{rng.randbytes(6).hex()}.{zones[number % 200]}", 6)


OWN = frozenset({CLIENT})
CHANNELS = (
    Channel("own room filled with words, then base32", "full", _then(_client_room(CLIENT, 1)), flows_max=FLOWS_MAX),
    Channel("own room filled with evidence, then base32", "full", _then(_client_room(CLIENT, 14)), flows_max=FLOWS_MAX),
    Channel("another client's room filled, then base32", "full", _then(_client_room(FILLER, 14)), flows_max=FLOWS_MAX,
            own=OWN),
    Channel("table filled from many sources, then base32", "full", _then(_table(1)), flows_max=FLOWS_MAX, own=OWN),
    Channel("table filled with evidence, then base32", "full", _then(_table(14)), flows_max=FLOWS_MAX, own=OWN),
    Channel("the domain's names filled by another client", "full", _then(_one_flow), flows_max=FLOWS_MAX, own=OWN),
    Channel("100 bytes, then 3,000 domains, and again", "full", _refreshed, flows_max=FLOWS_MAX),
    Channel("an encoded name below each of 200 domains in turn", "where", _scattered_domains),
)  # fmt: skip
