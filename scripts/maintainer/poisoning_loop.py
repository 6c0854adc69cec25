#!/usr/bin/env python3
"""Measures what somebody inside gains who makes profile, online learner and sequence model learn from what he asks.

    python scripts/maintainer/poisoning_loop.py [--only TEXT] [--part profile|flow|sequences]

Each week ordinary traffic of this network is learnt with his among it, by the same cycles, shares and gates as in
production, over a database in a temporary folder; no person labels anything. "Deployed": weeks whose model went into
use. Profile: bytes a day that are explained below his domain. Flow model: how near to a
tunnel's nine of ten of his flow-hours may be (between the logarithms of both) and still be labelled benign, and golden
tunnels that are found. Sequence model (needs the extra deep): golden
tunnel sessions that are odd.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import TrainingError
from agents.core.types import Row, Verdicts, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.explanations.habits import Habits
from agents.detection.explanations.kinds import KINDS
from agents.detection.explanations.network_profile import SETTLED_TIMES, kind_cap
from agents.detection.limits import BudgetChoice, Scale
from agents.dns.name import from_text
from agents.learning.baseline import model_bytes
from agents.learning.comparison.bounds import USUAL_BOUNDS
from agents.learning.comparison.listed_diff import ListedDiff
from agents.learning.comparison.sequence_listing import odd_sessions, odd_sessions_gate
from agents.learning.comparison.step_drift import step_drift
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.flow_model import FlowModel
from agents.learning.loop.golden import golden_flow_hours
from agents.learning.loop.online import CycleState, OnlineLearner, label_by_probability
from agents.learning.loop.options import SPEC
from agents.learning.profile.difference import profile_gates
from agents.learning.profile.making import Known, Reach, make_profile
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.learnable_windows import HeardSteps, learnable_windows
from agents.learning.sequences.learning import SequenceComparison, learn_sequences
from agents.learning.sequences.steps import Windows, heard_part, step_rows_of, step_windows
from agents.scoring.model import Model
from agents.store import open_store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore

WEEKS, LONG = 5, 20
HOUR, WEEK_HOURS = 490_992, 168
"""The first hour, of 2026-01-05."""
ORDINARY, HIS_COUNT = 300, 150
"""Flow-hours a week, ordinary ones and the attacker's."""
GROWTH = 1.05
ATTACKS: tuple[tuple[str, int], ...] = (
    ("a client that grows by 5 % a week", LONG),
    ("a flood of one domain", WEEKS),
    ("ten colluding clients", WEEKS),
)
HIS = "his.example"
KIND = max(KINDS, key=lambda one: kind_cap(one.name)).name
"""The kind of service that explains most."""
EPOCHS = 5
DEEP = {"device": "auto", "deep_batch": 64, "deep_rate": 0.01}


def attackers(attack: str) -> list[str]:
    """Who asks for the attacker."""
    if "one domain" in attack:
        return [f"10.66.{at // 250}.{at % 250}" for at in range(150)]
    return [f"10.66.0.{at}" for at in range(10 if "colluding" in attack else 1)]


def between(share: float, seed: int) -> NDArray[np.float32]:
    """HIS_COUNT flow-hours between ordinary ones and a tunnel's. share: 0 = ordinary, 1 = a tunnel's."""
    numbers, tunnel = golden_flow_hours()
    draw = np.random.default_rng(seed)
    calm, loud = (numbers[draw.choice(np.flatnonzero(tunnel == kind), HIS_COUNT)] for kind in (False, True))
    logs = (1 - share) * np.log1p(np.maximum(calm, 0)) + share * np.log1p(np.maximum(loud, 0))
    found: NDArray[np.float32] = np.expm1(logs).astype(np.float32)
    return found


def edge_of(model: FlowModel, benign_to: float) -> float:
    """The largest share of a tunnel at which nine of ten of his flow-hours are labelled benign."""
    shares = np.arange(0.0, 1.0, 0.01)
    passes = [(model.probabilities(between(share, 1)) <= benign_to).mean() >= 0.9 for share in shares.tolist()]
    return float(shares[passes.index(False) - 1]) if False in passes and passes[0] else 0.0


def his_flow_hours(attack: str, week: int, share: float) -> FlowHours:
    """His flow-hours of a week, below one domain or thirty."""
    clients, count = attackers(attack), HIS_COUNT
    domains = ["flood.example"] * count if "one domain" in attack else [f"a{at % 30}.example" for at in range(count)]
    hours = HOUR + week * WEEK_HOURS + np.arange(count) % WEEK_HOURS
    who = [clients[at % len(clients)] for at in range(count)]
    return FlowHours(SCHEMA, hours, who, domains, [()] * count, between(share, 100 + week))


def ordinary_flow_hours(week: int, draw: np.random.Generator) -> FlowHours:
    """What everybody else does in a week."""
    numbers, tunnel = golden_flow_hours()
    rows = draw.choice(np.flatnonzero(~tunnel), ORDINARY)
    made = numbers[rows] * draw.uniform(0.8, 1.25, (ORDINARY, len(NUMBERS)))
    hours = HOUR + week * WEEK_HOURS + np.arange(ORDINARY) % WEEK_HOURS
    clients = [f"192.0.2.{at % 200}" for at in range(ORDINARY)]
    domains = [f"usual{at % 150}.example" for at in range(ORDINARY)]
    return FlowHours(SCHEMA, hours, clients, domains, [()] * ORDINARY, made.astype(np.float32))


@contextmanager
def learner_in(folder: Path) -> Iterator[OnlineLearner]:
    """An online learner that has begun from the golden flow-hours."""
    store = open_store(f"sqlite:///{folder / 'q.db'}")
    store.migrate()
    try:
        learner = OnlineLearner(store, folder / "flow", SPEC.factory(SPEC.values({})), lambda: HOUR * 3600.0)
        learner.cycle()
        yield learner
    finally:
        store.close()


def flow_row(attack: str, weeks: int) -> str:
    """The online learner, a cycle a week. He comes as near to a tunnel as is called benign, or 5 % nearer each week."""
    draw, deployed, missed = np.random.default_rng(7), 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder, learner_in(Path(folder)) as learner:
        first = _in_use(learner)
        benign_to = learner.options.benign_to
        edge = edge_of(first, benign_to)
        for week in range(weeks):
            model = _in_use(learner)
            share = edge / 2 * GROWTH**week if "grows" in attack else edge_of(model, benign_to)
            for rows in (ordinary_flow_hours(week, draw), his_flow_hours(attack, week, share)):
                FlowHourStore(learner.store).add(rows)
            end = HOUR + (week + 1) * WEEK_HOURS
            for hour in range(end - WEEK_HOURS, end):
                label_by_probability(learner.store, model, learner.options, hour, (hour + 1) * 3600.0)
            found = _at(learner, end * 3600.0).cycle()
            deployed += found["state"] == CycleState.DEPLOYED
            missed.update(gate["name"] for gate in found.get("gates", ()) if not gate["passed"])
            print(f"  flow, {attack}, {week}: {found['state']}, {found['new_labels']}", file=sys.stderr, flush=True)
        last = _in_use(learner)
        numbers, tunnel = golden_flow_hours()
        found_share = [float((one.probabilities(numbers[tunnel]) > 0.5).mean()) for one in (first, last)]
        gained = f"called benign up to {edge:.0%} → {edge_of(last, benign_to):.0%} of the way to a tunnel"
    gained += f"; golden tunnels found {found_share[0]:.1%} → {found_share[1]:.1%}"
    return _row("online learner", attack, deployed, weeks, missed, gained)


def _in_use(learner: OnlineLearner) -> FlowModel:
    model = learner.model()
    assert model is not None, "it has begun"
    return model


def _at(learner: OnlineLearner, now: float) -> OnlineLearner:
    return replace(learner, clock=lambda: now)


def profile_row(attack: str, weeks: int) -> str:
    """The network profile, one a week: what is explained below his domain by the habit that he makes.

    He carries in names of a kind of service: 5 % more a week, or as much as is explained at present.
    """
    habits, before, deployed, missed = Habits(), None, 0, Counter[str]()
    explained = kind_cap(KIND) / SETTLED_TIMES
    begun, carried = explained, explained / 3
    for week in range(weeks):
        for day in range(7):
            ts = (HOUR + week * WEEK_HOURS + day * 24) * 3600.0
            for client in ["*"] if "one domain" in attack else attackers(attack):
                habits.note(ts, f"{client} {HIS}", min(carried, explained), KIND)
        end = (HOUR + (week + 1) * WEEK_HOURS) * 3600.0
        reach = {HIS: Reach(len(attackers(attack)), int(HOUR // 24))}
        choice = BudgetChoice(1.0, min(7 * (week + 1), 28), 3.0, ())
        made = make_profile(Known(list(habits.all_usual(end)), reach, choice, (), (), before, end))
        gates = profile_gates(made)
        missed.update(gate.name for gate in gates if not gate.passed)
        if all(gate.passed for gate in gates):
            before, deployed = made, deployed + 1
            explained = max([begun, *(one.allows for one in made.habits)])
        carried = carried * GROWTH if "grows" in attack else explained
    cap = kind_cap(KIND)
    common = bool(before and before.reach)
    gained = f"explained a day below his domain: {begun:,.0f} → {explained:,.0f} bytes, the bound's cap is {cap:,.0f}"
    return _row(
        "network profile", attack, deployed, weeks, missed, f"{gained}{'; old and common here' if common else ''}"
    )


def his_steps(attack: str, week: int) -> list[Row]:
    """Queries of his machines: encoded names at an even pace, that come to be a larger part of what is learnt."""
    draw = random.Random(week)
    size = min(round(6 * GROWTH**week), 25) if "grows" in attack else 20
    rows: list[Row] = []
    for at, client in enumerate(attackers(attack)[:30]):
        domain = "flood" if "one domain" in attack else f"a{at}"
        rows += [_query(3.0 * one, client, f"{draw.randbytes(size).hex()}.{domain}.example", 16) for one in range(60)]
    return rows


def browsing(week: int, clients: int = 40) -> list[Row]:
    """What people ask: bursts of a few sites' names, then a pause."""
    draw, rows = random.Random(1000 + week), list[Row]()
    for client in range(clients):
        at = draw.uniform(0, 60)
        for _ in range(20):
            site = f"site{draw.randrange(30)}.example"
            for name in (f"www.{site}", f"cdn.{site}", f"api{draw.randrange(3)}.{site}"):
                rows.append(_query(at, f"192.0.2.{client}", name, draw.choice((1, 28))))
                at += draw.uniform(0.01, 0.3)
            at += draw.uniform(2, 120)
    return rows


def _query(after_s: float, client: str, name: str, qtype: int) -> Row:
    wire = from_text(name)
    return HOUR * 3600.0 + after_s, client, wire, qtype, len(wire) + 17, 0, 1, len(wire) + 40, 60, 12.0, ""


def judged_rows(rows: Sequence[Row]) -> Verdicts:
    """Queries, judged by a detector that has seen nothing."""
    detector = TunnelDetector(Model.from_bytes(model_bytes()), 200_000, 3600.0, Scale())
    return detector.detect(batch_of(sorted(rows, key=lambda row: row[0])), explain=False)


def windows_of(rows: Sequence[Row]) -> Windows:
    """Windows of ten steps of queries."""
    return step_windows(step_rows_of(judged_rows(rows), {}, (0, 0)), 10)


def learnt_of(rows: Sequence[Row]) -> Windows:
    """Windows that a cycle learns of what it collected: no loud flows, within the shares of clients and domains."""
    numbers = dict[str, int]()
    part = heard_part(judged_rows(rows), numbers, (0, 0))
    return learnable_windows(HeardSteps([part], numbers, (0, 0)), 10)


def sequence_row(attack: str, weeks: int) -> str:
    """The sequence model, a cycle a week over an hour of everybody, with the anchor of the week before he came."""
    anchor = learn_sequences(learnt_of(browsing(-1)), EPOCHS, DEEP, None).model
    in_use, deployed, missed = anchor, 0, Counter[str]()
    for week in range(weeks):
        windows = learnt_of([*browsing(week), *his_steps(attack, week)])
        found = learn_sequences(windows, EPOCHS, DEEP, in_use, compare=partial(_beside_anchor, anchor))
        missed.update(gate.name for gate in found.gates if not gate.passed)
        if found.passed:
            in_use, deployed = found.model, deployed + 1
        print(f"  sequences, {attack}, {week}: {found.passed}", file=sys.stderr, flush=True)
    gained = f"golden sessions that are odd {odd_sessions(anchor):.0%} → {odd_sessions(in_use):.0%}"
    his = windows_of(his_steps(attack, weeks))
    shares = [float((one.surprise(his) >= one.odd_from).mean()) for one in (anchor, in_use)]
    return _row(
        "sequence model", attack, deployed, weeks, missed,
        f"{gained}; his windows that are odd {shares[0]:.0%} → {shares[1]:.0%}",
    )  # fmt: skip


def _beside_anchor(anchor: SequenceModel, new: SequenceModel, windows: Windows) -> SequenceComparison:
    """As production does, but for what is listed: nothing is stored here."""
    moved = step_drift(windows, anchor, anchor)
    return SequenceComparison(ListedDiff(), (odd_sessions_gate(new, anchor, USUAL_BOUNDS),), moved)


def _row(what: str, attack: str, deployed: int, weeks: int, missed: Counter[str], gained: str) -> str:
    why = ", ".join(f"{name} {count}" for name, count in missed.most_common()) or "none"
    return f"| {what} | {attack} | {deployed} of {weeks} | {why} | {gained} |"


PARTS: dict[str, Callable[[str, int], str]] = {"profile": profile_row, "flow": flow_row, "sequences": sequence_row}


def main(only: str = "", part: str = "") -> None:
    """Print the table. only: of attacks with this text in their name; part: of one of PARTS."""
    print("| what learns | attack | deployed | gates that refused | what he gains |")
    print("| --- | --- | ---: | --- | --- |", flush=True)
    for name, row in PARTS.items():
        for attack, weeks in ATTACKS:
            if only in attack and part in ("", name):
                try:
                    print(row(attack, weeks), flush=True)
                except TrainingError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks with this text in their name")
    parser.add_argument("--part", default="", choices=("", *PARTS), help="what learns")
    options = parser.parse_args()
    main(options.only, options.part)
