#!/usr/bin/env python3
"""Measures what somebody inside gains who makes the retrainings learn from what he asks.

    python scripts/maintainer/poisoning.py

Each week's sample is ordinary shipped names with his among them, as far as the shares of a client and of a domain let
them in (RETRAIN_CLIENT_SHARE, RETRAIN_DOMAIN_SHARE); candidates are trained, measured and gated as in production, and
deployed where they pass. "Pass as words": of 2,000 random labels of 24 letters; "tunnel names": golden ones above
NORMAL, both by the model that is in use at the end.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from agents.core.types import Sample
from agents.dns.name import from_text
from agents.learning.baseline import benign_names, benign_sample, golden_sessions, model_bytes, sample_of
from agents.learning.comparison.bounds import USUAL_BOUNDS
from agents.learning.comparison.drift import creep_gates, drift, drift_gates, reference_of
from agents.learning.run import RetrainOptions
from agents.runtime.bootstrap import load_settings, model_type_of, validator_of
from agents.scoring.features import extract
from agents.scoring.information import EDGE, SYMBOLS, CharModel
from agents.scoring.model import Model

WEEKS, LONG = 5, 20
SAMPLE = 5_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"
OPTIONS = RetrainOptions()
Attack = Callable[[int, Model, random.Random], Iterator[tuple[str, str]]]
"""Of a week and the model in use: clients and names, without end."""


def growing(week: int, model: Model, draw: random.Random) -> Iterator[tuple[str, str]]:
    """One client whose names carry 5 % more each week, in words."""
    words = sorted({label for name in benign_names()[:3000] for label in name.split(".")[:-2] if label.isalpha()})
    size = round(20 * 1.05**week)
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
    """A week's sample, and the attacker's share of it."""
    draw = random.Random(week)
    clients, domains = dict[str, int](), dict[str, int]()
    names: dict[str, None] = {}
    for tried, (client, name) in enumerate(attack(week, model, draw)):
        domain = name.partition(".")[2]
        fits = clients.get(client, 0) < OPTIONS.client_share * SAMPLE
        if fits and domains.get(domain, 0) < OPTIONS.domain_share * SAMPLE and name not in names:
            clients[client], domains[domain] = clients.get(client, 0) + 1, domains.get(domain, 0) + 1
            names[name] = None
        if len(names) >= SAMPLE // 2 or tried > 4 * SAMPLE:
            break
    normal = _normal(list(names), model)
    own = benign_sample(SAMPLE - len(normal), week)
    joined = sample_of([*own.qname, *normal])
    return joined, len(normal) / SAMPLE


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


def run(name: str, attack: Attack, weeks: int = WEEKS) -> None:
    """One row of the table."""
    settings = load_settings()
    validator, kind = validator_of(settings), model_type_of(settings)
    model = Model.from_bytes(model_bytes())
    calibration, anchor = sample_of(benign_names()), reference_of(benign_sample(SAMPLE, 0).features)
    reference, refused, reasons, shares = anchor, 0, dict[str, int](), []
    for week in range(1, weeks + 1):
        sample, share = week_of(attack, week, model)
        shares.append(share)
        candidate = kind.train(sample, calibration, 42, {})
        validation = validator(candidate, model)
        gates = [*validation.gates, *drift_gates(drift(reference, sample.features), USUAL_BOUNDS)]
        gates += creep_gates(anchor, sample.features, USUAL_BOUNDS)
        missed = [gate.name for gate in gates if not gate.passed]
        if missed:
            refused += 1
            reasons |= {one: reasons.get(one, 0) + 1 for one in missed}
        else:
            model, reference = candidate, reference_of(sample.features)
        print(f"  {name} {week}: {share:.0%}, {missed or 'deployed'}", file=sys.stderr, flush=True)
    words, tunnels = measured(model)
    why = ", ".join(f"{one} {count}" for one, count in sorted(reasons.items(), key=lambda row: -row[1])) or "none"
    print(f"| {name} | {np.mean(shares):.0%} | {weeks - refused} of {weeks} | {why} | {words:.1%} | {tunnels:.1%} |")


def main() -> None:
    """Print the table."""
    words, tunnels = measured(Model.from_bytes(model_bytes()))
    print("| attack | share of the sample | deployed | gates that refused | pass as words | tunnel names |")
    print("| --- | ---: | ---: | --- | ---: | ---: |")
    print(f"| none: the shipped model | | | | {words:.1%} | {tunnels:.1%} |")
    run("a client that grows by 5 % a week", growing, LONG)
    run("a flood of one domain", flooding)
    run("ten clients together, random letters", colluding)
    run("ten clients, letters just below the margin", below_margin)
    run("one client, letters just below the margin", alone_below_margin)


if __name__ == "__main__":
    main()
