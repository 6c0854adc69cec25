"""Made-up streams of queries for property tests: few clients, domains, names and labels, so that all of them meet."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

from agents.dns.name import from_text
from tests.support.judged import START, key_of
from tests.support.plain_flow import Part, Query

CLIENTS = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "")
BITS = (0.0, 7.3, 40.0, 64.0, 81.7, 150.0, 300.0)
QTYPES = (1, 1, 1, 28, 16, 5, 10, 65399, *range(200, 220))
GAPS_S = (0, 0, 1, 1, 5, 40, 61, 700, 3601, 90_000, 700_000, -1, -59, -4000, -100_000)
Step = tuple[int, int, int, int, int, int]
STEPS = st.lists(st.tuples(*(st.integers(0, 2**16) for _ in range(6))), min_size=1, max_size=120)
"""Numbers that `stream` reads queries from; they shrink to short ones."""


def stream(steps: Sequence[Step]) -> list[Query]:
    """Queries; no two of them at the same time."""
    found, ts = [], START
    for number, (who, where, what, how, when, more) in enumerate(steps):
        ts += GAPS_S[when % len(GAPS_S)]
        client, domain = CLIENTS[who % len(CLIENTS)], f"{where % 9}.example"
        labels = [f"{what % 40}", *(["shared"] if how % 4 == 1 else [])] if how % 11 else []
        name, digits = ".".join([*labels, domain]), f"{what % 40 % (10 ** (1 + how % 3))}"
        parts = tuple(Part(key_of("." + one), BITS[key_of(one) % len(BITS)], key_of(one) % 3 > 0) for one in labels)
        found.append(
            Query(
                ts + number / 1024,
                client,
                from_text(name),
                key_of(name),
                key_of(domain),
                parts,
                qtype=QTYPES[more % len(QTYPES)],
                rlen=-1 if more % 3 == 0 else more % 2500,
                answer=key_of(f"answer {what % 7}") if more % 4 == 0 else 0,
                data=when * 7 % 900 if more % 4 == 0 else -1,
                left=(1, 1, 2, 0, 1)[how % 5],
                numbered=(key_of(f"#{what % 3}/{len(digits)}"), digits) if labels and how % 3 else None,
                discount=(1.0, 1.0, 1.0, 3.0, 20.0)[where % 5],
                secret=how % 50 == 7,
                scoped=how % 13 % 3 if how % 13 > 8 else 0,
                form=key_of(f"form {how % 2}"),
            )
        )
    return found


def steps_of(seed: int, count: int) -> list[Step]:
    """Steps without hypothesis, for runs that must be the same in two processes."""
    rng = random.Random(seed)
    return [
        (
            rng.randrange(6),
            rng.randrange(9),
            rng.randrange(40),
            rng.randrange(2**16),
            rng.randrange(7),
            rng.randrange(2**16),
        )
        for _ in range(count)
    ]
