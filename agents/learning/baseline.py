"""What the package ships in baseline/: benign names, golden names and tunnel sessions, and the first model.

scripts/maintainer/make_baseline.py makes the names and the model, scripts/maintainer/make_golden_tunnels.py makes the
sessions from captures of our own.
"""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import numpy as np

from agents.core import types
from agents.core.types import UNKNOWN, QueryBatch, Sample
from agents.dns.name import domain_text, from_text, wires_of
from agents.scoring.features import extract

GOLDEN_CLIENTS, GOLDEN_SPAN_S = 50, 86_400.0
"""The golden names as traffic: so many clients over one day."""
GOLDEN_START = 1_700_000_000.0
BURST = 20
"""Look-alikes that one client asks for in as many seconds."""


def _bytes(name: str) -> bytes:
    return resources.files("agents.learning").joinpath("baseline", name).read_bytes()


def _lines(name: str) -> list[str]:
    return gzip.decompress(_bytes(name)).decode().splitlines()


def model_bytes() -> bytes:
    """The first model's file."""
    return _bytes("model.npz")


@lru_cache(maxsize=1)
def benign_names() -> Sequence[str]:
    """Ordinary names to learn from and to calibrate on."""
    return _lines("benign_names.txt.gz")


@lru_cache(maxsize=1)
def golden_names() -> Sequence[str]:
    """Ordinary names that no model has learned from."""
    return _lines("golden_names.txt.gz")


@lru_cache(maxsize=1)
def lookalike_names() -> Sequence[str]:
    """Names that look like exfiltration and are none."""
    return _lines("lookalike_names.txt.gz")


def sample_of(names: Sequence[str]) -> Sample:
    """Presentation names as training material without client and time."""
    wires = wires_of(names)
    domains = [domain_text(wire) for wire in wires]
    return Sample(np.zeros(len(wires)), [""] * len(wires), list(names), domains, extract(wires))


def benign_sample(count: int, seed: int) -> Sample:
    """At most `count` of the benign names, chosen by seed."""
    names = benign_names()
    chosen = random.Random(seed).sample(range(len(names)), min(count, len(names)))  # noqa: S311
    return sample_of([names[i] for i in sorted(chosen)])


def asked_batch(ts: Sequence[float], clients: Sequence[str], names: Sequence[str], qtypes: Sequence[int]) -> QueryBatch:
    """Queries of which only time, client, name and type are known."""
    asked = zip(ts, clients, map(from_text, names), qtypes, strict=True)
    return types.batch_of([(*one, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, math.nan, "") for one in asked])


def golden_traffic() -> QueryBatch:
    """Golden names and look-alikes as a day of traffic: look-alikes in bursts, as mail and antivirus servers ask."""
    rng = random.Random(7)  # noqa: S311
    rows = [(rng.random() * GOLDEN_SPAN_S, f"192.0.2.{rng.randrange(GOLDEN_CLIENTS) + 1}", n) for n in golden_names()]
    for i, name in enumerate(lookalike_names()):
        burst = i // BURST
        at = burst * GOLDEN_SPAN_S * BURST / len(lookalike_names()) + i % BURST
        rows.append((at, f"192.0.2.{burst % GOLDEN_CLIENTS + 1}", name))
    rows.sort()
    return asked_batch([GOLDEN_START + r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], [1] * len(rows))


@lru_cache(maxsize=1)
def golden_sessions() -> dict[str, QueryBatch]:
    """Real tunnel sessions, captured by ourselves: session name to its queries."""
    sessions: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(_lines("golden_tunnels.tsv.gz"), delimiter="\t", quoting=csv.QUOTE_NONE):
        sessions.setdefault(row["session"], []).append(row)
    return {
        session: asked_batch(
            [float(row["ts"]) for row in rows],
            [row["client"] for row in rows],
            [row["qname"] for row in rows],
            [int(row["qtype"]) for row in rows],
        )
        for session, rows in sessions.items()
    }
