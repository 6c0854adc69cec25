"""Labels chosen by the shipped model's public price: the most of the attacker's bytes for what the detector counts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray

from agents.detection.limits import Scale
from agents.dns.name import wire_of
from agents.scoring.information import EDGE, SYMBOLS, CharModel
from agents.scoring.lexical import read_names
from tests.adversary.channel import DOMAIN, Channel, Send, Sent
from tests.corpora.lookalike_kinds import word
from tests.support.detecting import shipped_model

PRICE_MAX = 21.0
"""Bits: labels of a higher trigram price are not looked at."""
LABEL_MAX = 12
PLACES = 3
"""Labels of one name."""
SIZES = (7, 12, 15)
"""Bits of choice of the sets that are tried: few labels are cheaper each, many are seldom seen twice."""


def cheap(chars: CharModel) -> list[bytes]:
    """All labels whose trigram price is at most PRICE_MAX."""
    steps = np.full((len(SYMBOLS) + 2,) * 3, np.inf)
    steps[: chars.bits.shape[0], : chars.bits.shape[1], : chars.bits.shape[2]] = chars.bits
    text, bits = np.zeros((1, 0), np.uint8), np.zeros(1)
    before, last = np.array([EDGE]), np.array([EDGE])
    found: list[bytes] = []
    letters = np.frombuffer(SYMBOLS, np.uint8)
    for _ in range(LABEL_MAX):
        grown = bits[:, None] + steps[before, last][:, : len(SYMBOLS)]
        rows, symbols = np.nonzero(grown <= PRICE_MAX)
        text = np.concatenate([text[rows], letters[symbols][:, None]], axis=1)
        bits, before, last = grown[rows, symbols], last[rows], symbols
        ends = bits + steps[before, last, EDGE] <= PRICE_MAX
        found += [bytes(row) for row in text[ends]]
    return [label for label in found if label.strip(b"-_") == label]


@lru_cache(maxsize=1)
def priced() -> tuple[list[bytes], NDArray[np.float64]]:
    """Labels and their prices in bits, the cheapest first: those that the model's vote leaves below suspicious and
    that do not read as encoded."""
    model = shipped_model()
    pool = sorted({*cheap(model.chars), *model.chars.common})
    found = read_names([wire_of((label, b"evil-tunnel", b"net")) for label in pool], model, (0, 0))
    good = np.flatnonzero((found.part_encoded == 0) & (found.score < Scale().suspicious))
    order = good[np.argsort(found.part_bits[good], kind="stable")]
    return [pool[at] for at in order.tolist()], found.part_bits[order]


def _spread(bits: int, domains: int) -> Send:
    """Names of the 2**bits cheapest labels, below one of so many domains in turn."""

    def send(rng: random.Random) -> Iterator[Sent]:
        labels = [label.decode() for label in priced()[0][: 1 << bits]]
        assert len(labels) == 1 << bits, "PRICE_MAX leaves too few labels"
        zones = [DOMAIN] if domains == 1 else [f"{word(rng)}-{word(rng)}{at}.com" for at in range(domains)]
        for number in count():
            name = ".".join([*(rng.choice(labels) for _ in range(PLACES)), zones[number % domains]])
            yield Sent(name, PLACES * bits / 8)

    return send


CHANNELS = tuple(
    Channel(f"the model's {1 << bits:,} cheapest labels, {where}", "model", _spread(bits, domains))
    for domains, where in ((1, "one domain"), (2_000, "2,000 domains"))
    for bits in SIZES
)
