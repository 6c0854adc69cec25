#!/usr/bin/env python3
"""Measures what somebody inside gains who makes the retrainings learn from what he asks.

    python scripts/maintainer/poisoning.py [--only TEXT]

Each week's sample is ordinary shipped names with his among them, as far as the shares of a client and of a domain let
them in (RETRAIN_CLIENT_SHARE, RETRAIN_DOMAIN_SHARE); candidates are trained, measured and gated as in production, and
deployed where they pass. "Before a first deployment": there is no sample of this network to compare with yet, and the
first one that is deployed becomes the anchor. "Told": the first week whose message names who may be behind rejections
in a row, and what it says; everybody else's names come from 200 clients. "Pass as words": of 2,000 random labels of 24
letters; "tunnel names": golden ones above NORMAL, both by the model that is in use at the end.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from agents.core.types import Sample
from agents.dns.name import from_text
from agents.learning.baseline import benign_names, benign_sample, golden_sessions, model_bytes, sample_of
from agents.learning.comparison.bounds import USUAL_BOUNDS
from agents.learning.comparison.drift import creep_gates, drift, drift_gates, reference_of
from agents.learning.comparison.strangest import TOLD_FROM, strangest_text
from agents.learning.run import RetrainOptions
from agents.runtime.bootstrap import load_settings, model_type_of, validator_of
from agents.scoring.features import extract
from agents.scoring.information import EDGE, SYMBOLS, CharModel
from agents.scoring.model import Model

WEEKS, LONG = 5, 20
SAMPLE = 5_000
OTHERS = 200
"""Clients of the ordinary names."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
OPTIONS = RetrainOptions()
Attack = Callable[[int, Model, random.Random], Iterator[tuple[str, str]]]
"""Of a week and the model in use: clients and names, without end."""


def growing(week: int, model: Model, draw: random.Random) -> Iterator[tuple[str, str]]:
    """One client whose names carry 5 % more each week, in words."""
    return _in_words(round(20 * 1.05**week), week, draw)


def blocking(week: int, model: Model, draw: random.Random) -> Iterator[tuple[str, str]]:
    """One client whose names carry so much in words from the first week on that no candidate passes."""
    return _in_words(60, week, draw)


def _in_words(size: int, week: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    words = sorted({label for name in benign_names()[:3000] for label in name.split(".")[:-2] if label.isalpha()})
    while True:
        text = ""
        while len(text) < size:
            text += draw.choice(words)
        yield "10.0.0.66", f"{text[: min(size, 60)]}.d{draw.randrange(40)}-{week}.example"


def flooding(week: int, model: Model, draw: random.Random) -> Iterator[tuple[str, str]]:
    """All clients ask for random names below one domain."""
    while True:
        yield f"10.0.0.{draw.randrange(200)}", f"{''.join(draw.choices(LETTERS, k=24))}.flood.example"


def colluding(week: int, model: Model, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Ten clients ask for random letters below sixty domains."""
    while True:
        name = "".join(draw.choices(LETTERS, k=24))
        yield f"10.0.0.{draw.randrange(10)}", f"{name}.c{draw.randrange(60)}.example"


def below_margin(week: int, model: Model, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Ten clients ask for letters that are as random as passes for words to the model in use, below sixty domains."""
    while True:
        for label in labels_below(model.chars, 500, draw):
            yield f"10.0.0.{draw.randrange(10)}", f"{label}.m{draw.randrange(60)}.example"


def alone_below_margin(week: int, model: Model, draw: random.Random) -> Iterator[tuple[str, str]]:
    """The same by one client."""
    return (("10.0.0.66", name) for _, name in below_margin(week, model, draw))


def labels_below(chars: CharModel, count: int, draw: random.Random) -> list[str]:
    """Labels of 24 letters, drawn from the model's own chances made flatter, that do not read as encoded."""
    chances = np.exp2(-chars.bits[:, :, :26].astype(float) / 3)
    steps = np.cumsum(chances / chances.sum(axis=2, keepdims=True), axis=2)
    found = []
    for _ in range(count):
        before, last, label = EDGE, EDGE, bytearray()
        for _ in range(24):
            letter = min(int(np.searchsorted(steps[before, last], draw.random())), 25)
            label.append(SYMBOLS[letter])
            before, last = last, letter
        found.append(bytes(label))
    return [label.decode() for label, odd in zip(found, chars.encoded(found).tolist(), strict=True) if not odd]


def week_of(attack: Attack, week: int, model: Model) -> tuple[Sample, float]:
    """A week's sample with its clients, and the attacker's share of it."""
    draw = random.Random(week)
    clients, domains = dict[str, int](), dict[str, int]()
    asked: dict[str, str] = {}
    for tried, (client, name) in enumerate(attack(week, model, draw)):
        domain = name.partition(".")[2]
        fits = clients.get(client, 0) < OPTIONS.client_share * SAMPLE
        if fits and domains.get(domain, 0) < OPTIONS.domain_share * SAMPLE and name not in asked:
            clients[client], domains[domain] = clients.get(client, 0) + 1, domains.get(domain, 0) + 1
            asked[name] = client
        if len(asked) >= SAMPLE // 2 or tried > 4 * SAMPLE:
            break
    normal = _normal(list(asked), model)
    own = benign_sample(SAMPLE - len(normal), week).qname
    joined = sample_of([*own, *normal])
    others = [f"192.0.2.{draw.randrange(OTHERS)}" for _ in own]
    return replace(joined, client=[*others, *(asked[name] for name in normal)]), len(normal) / SAMPLE


def _normal(names: Sequence[str], model: Model) -> list[str]:
    """Names that the model in use calls NORMAL: others are not learnt."""
    wires = [from_text(name) for name in names]
    scores = model.score(extract(wires), wires) if wires else np.empty(0)
    return [name for name, score in zip(names, scores.tolist(), strict=True) if score < OPTIONS.max_score]


def measured(model: Model) -> tuple[float, float]:
    """Shares of random labels that pass as words, and of golden tunnel names above NORMAL."""
    draw = random.Random(99)
    labels = ["".join(draw.choices(LETTERS, k=24)).encode() for _ in range(2000)]
    names = [qname.lower() for session in golden_sessions().values() for qname in session.qname]
    found = float((model.score(extract(names), names) >= OPTIONS.scores[0]).mean())
    return 1 - float(model.chars.encoded(labels).mean()), found


def run(name: str, attack: Attack, weeks: int = WEEKS, first: bool = False) -> str:
    """One row of the table. first: nothing was deployed here before."""
    settings = load_settings()
    validator, kind = validator_of(settings), model_type_of(settings)
    model = Model.from_bytes(model_bytes())
    calibration = sample_of(benign_names())
    anchor = None if first else reference_of(benign_sample(SAMPLE, 0).features)
    reference, refused, in_a_row, reasons, shares, told = anchor, 0, 0, dict[str, int](), [], ""
    for week in range(1, weeks + 1):
        sample, share = week_of(attack, week, model)
        shares.append(share)
        candidate = kind.train(sample, calibration, 42, {})
        gates = [*validator(candidate, model).gates]
        if reference is not None and anchor is not None:
            gates += drift_gates(drift(reference, sample.features), USUAL_BOUNDS)
            gates += creep_gates(anchor, sample.features, USUAL_BOUNDS)
        missed = [gate.name for gate in gates if not gate.passed]
        in_a_row = in_a_row + 1 if missed else 0
        if missed:
            refused += 1
            reasons |= {one: reasons.get(one, 0) + 1 for one in missed}
        else:
            model, reference = candidate, reference_of(sample.features)
            anchor = anchor or reference
        if in_a_row == TOLD_FROM and not told:
            told = f"week {week}: {strangest_text(sample, model, missed)}"
        print(f"  {name} {week}: {share:.0%}, {missed or 'deployed'}", file=sys.stderr, flush=True)
    words, tunnels = measured(model)
    why = ", ".join(f"{one} {count}" for one, count in sorted(reasons.items(), key=lambda row: -row[1])) or "none"
    took = f"{weeks - refused} of {weeks}"
    return f"| {name} | {np.mean(shares):.0%} | {took} | {why} | {told or 'nobody'} | {words:.1%} | {tunnels:.1%} |"


ATTACKS: tuple[tuple[str, Attack, int, bool], ...] = (
    ("a client that grows by 5 % a week", growing, LONG, False),
    ("a client that lets every candidate fail", blocking, WEEKS, False),
    ("a flood of one domain", flooding, WEEKS, False),
    ("ten clients together, random letters", colluding, WEEKS, False),
    ("ten clients, letters just below the margin", below_margin, WEEKS, False),
    ("one client, letters just below the margin", alone_below_margin, WEEKS, False),
    ("before a first deployment: ten clients together, random letters", colluding, WEEKS, True),
    ("before a first deployment: ten clients, letters just below the margin", below_margin, WEEKS, True),
    ("before a first deployment: a client that would let every candidate fail", blocking, WEEKS, True),
)


def main(only: str = "") -> None:
    """Print the table. only: of attacks with this text in their name."""
    words, tunnels = measured(Model.from_bytes(model_bytes()))
    print("| attack | share of the sample | deployed | gates that refused | told | pass as words | tunnel names |")
    print("| --- | ---: | ---: | --- | --- | ---: | ---: |")
    print(f"| none: the shipped model | | | | | {words:.1%} | {tunnels:.1%} |", flush=True)
    for name, attack, weeks, first in ATTACKS:
        if only in name:
            print(run(name, attack, weeks, first), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks with this text in their name")
    main(parser.parse_args().only)
