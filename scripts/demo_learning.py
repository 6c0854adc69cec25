"""make demo-learning: two weeks of a made-up network, from the shipped model to a promotion, a refusal and a roll-back.

    python scripts/demo_learning.py [DIRECTORY]

DIRECTORY (data/demo-learning) is made anew, and kept. Traffic is made of shipped names and sessions; a week takes no
week: it is judged at once, and the canary's 48 hours pass on a clock of the demo's own.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agents.core import logs
from agents.core.types import DAY_S, HOUR_S, QueryBatch, Verdicts
from agents.detection.detector import TunnelDetector
from agents.learning.baseline import asked_batch, benign_names
from agents.learning.loop.collector import HourCollector
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.labels import Labeller, label_counts
from agents.learning.loop.review import Reviewer, ReviewLimits
from agents.learning.registry import ModelRegistry
from agents.learning.release.canary import CanaryTrial
from agents.learning.run import TrainingRun, alerts_text, change_text
from agents.runtime import bootstrap, warmup
from agents.scoring.model import Model
from agents.settings import Settings
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore

CLIENTS, NAMES_A_DAY, BATCH_ROWS = 40, 4_000, 1_024
TUNNEL_CLIENT, TUNNEL, BACKUP_CLIENT, BACKUP = "10.0.0.66", "leak.example", "10.0.0.7", "copies.example"
"""Domains of the half that teaches (learning/loop/review.py): labels of the other half are validation cases."""
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
MARK = ".demo"
Asked = list[tuple[float, str, str, int]]
"""Time, client, name and type of queries."""


def step(title: str) -> None:
    """The heading of a step."""
    print(f"\n== {title}", flush=True)


def odd_name(rng: random.Random, domain: str) -> str:
    """A name that carries some bytes."""
    return "".join(rng.choices(LETTERS, k=rng.randrange(20, 30))) + f".{domain}"


def week(begin: float, seed: int) -> Asked:
    """A week of ordinary names, a backup service that looks odd, and a slow tunnel on its fourth day."""
    rng, names = random.Random(seed), benign_names()
    asked = [
        (begin + rng.random() * 7 * DAY_S, f"10.0.0.{rng.randrange(CLIENTS) + 1}", rng.choice(names), 1)
        for _ in range(7 * NAMES_A_DAY)
    ]
    for day in range(7):
        asked += [
            (begin + (day + 0.1 + hour / 24) * DAY_S, BACKUP_CLIENT, odd_name(rng, BACKUP), 16) for hour in range(12)
        ]
    asked += [(begin + 3.3 * DAY_S + 60 * at, TUNNEL_CLIENT, odd_name(rng, TUNNEL), 16) for at in range(120)]
    return sorted(asked)


def batches(asked: Asked) -> list[QueryBatch]:
    """Queries as batches, none longer than an hour."""
    out: list[QueryBatch] = []
    rows: Asked = []
    for one in [*asked, None]:
        full = rows and (one is None or len(rows) >= BATCH_ROWS or one[0] // HOUR_S != rows[0][0] // HOUR_S)
        if full:
            ts, clients, names, types = zip(*rows, strict=True)
            out.append(asked_batch(ts, clients, names, types))
            rows = []
        if one is not None:
            rows.append(one)
    return out


class Network:
    """The made-up network: its settings, store, models, and the detector that judges it."""

    def __init__(self, folder: Path) -> None:
        self.settings: Settings = bootstrap.load_settings(
            data_dir=folder, compare_types="none", deploy="canary", learning_min_samples=10, canary_queries_min=100
        )
        bootstrap.make_folders(self.settings)
        self.store: Store = bootstrap.store_of(self.settings)
        self.store.migrate()
        self.registry: ModelRegistry[Model] = bootstrap.registry_of(self.settings)
        self.detector: TunnelDetector = bootstrap.detector_of(self.settings, self.registry.current())
        self.trial = CanaryTrial(
            self.registry,
            self.detector,
            lambda model: bootstrap.detector_of(self.settings, model),
            self.settings.state_dir / "canary.json",
        )

    def judge(self, asked: Asked) -> int:
        """Judge and store a week, with its flow-hours and their labels; returns the number of queries."""
        label = Labeller(self.store, bootstrap.scale_of(self.settings))
        hours = HourCollector(self.detector, FlowHourStore(self.store), self.settings.state_dir / "hours.npz", label)
        hours.start()
        hours.turn(asked[0][0])
        count = 0
        for batch in batches(asked):
            hours.turn(float(batch.ts[0]))
            verdicts = self.trial.judge(batch, self.detector.detect(batch))
            hours.see(verdicts)
            self.store.write(verdicts, f"{float(batch.ts[0])}-{count}")
            count += len(batch)
        hours.turn(asked[-1][0] + HOUR_S)
        hours.close(60.0)
        review = Reviewer(self.store, ReviewLimits(per_week=20))
        for hour in range(int(asked[0][0] // HOUR_S), int(asked[-1][0] // HOUR_S) + 1):
            review(hour)
        last = self.detector.flush()
        if last is not None:
            self.store.write(last, f"end of {asked[-1][0]}")
        return count

    def retrain(self, now: float) -> TrainingRun:
        """A retraining as of then."""
        run = bootstrap.retraining_of(self.settings, spawned=False)(now=now)
        print(f"   {run.state.value} {run.candidate_id}")
        if run.alerts is not None and run.alerts.queries:
            print(f"   {alerts_text(run.alerts)}")
            for one in run.alerts.changes[:3]:
                print(f"     {one.domain}: {change_text(one)}")
        passed = [gate for gate in run.validation.gates if gate.passed] if run.validation else []
        print(f"   gates: {len(passed)} passed, {len(run.missed)} missed")
        for gate in run.missed:
            print(f"     missed: {gate.name} is {gate.value:.4g}, by {abs(gate.margin):.3g}")
        print(f"   report: {run.paths.get('report', run.error)}")
        return run


def poison(network: Network, begin: float) -> None:
    """A week in which many colluding clients asked for nothing but data, stored as if a detector had let it pass."""
    rng = random.Random(9)
    asked: Asked = []
    for number in range(12_000):
        domain = f"attacker-{number % 300}.example"
        asked.append(
            (begin + number * 7 * DAY_S / 12_000, f"10.1.{number % 20}.{number % 250}", odd_name(rng, domain), 16)
        )
    for at, batch in enumerate(batches(asked)):
        verdicts: Verdicts = bootstrap.detector_of(network.settings, network.registry.current()).detect(batch)
        quiet = np.full(len(batch), 0.1, np.float32)
        passed = replace(verdicts, score=quiet, severity=np.zeros(len(batch), np.uint8), incidents=())
        network.store.write(replace(passed, reasons=[()] * len(batch)), f"poison-{at}")


def roll_out(network: Network, begin: float) -> None:
    """The canary judges a part of the next week; then its 48 hours pass at once."""
    lock = threading.Lock()
    network.trial.poll(lock)
    count = network.judge([one for one in week(begin, 2) if one[0] < begin + 2 * DAY_S])
    network.trial.close()
    desk = bootstrap.model_desk_of(network.settings, network.store)
    state = desk.canary()
    assert state is not None
    seen = state["seen"]
    print(f"   {count:,} queries were judged, {seen['queries']:,} of them by the canary, too")
    print(f"   alerts: {seen['candidate_alerts']} beside {seen['champion_alerts']} of the model in use")
    print(f"   scoring a name: {seen['candidate_us'] or 0:.1f} µs beside {seen['champion_us'] or 0:.1f} µs")
    hours = state["terms"]["hours"]
    later = float(state["begun_at"]) + hours * 3600
    made = replace(bootstrap.rollout_of(network.settings, network.store), clock=lambda: later).look()
    assert made is not None
    print(f"   {hours:g} hours later: {made.text} ({made.reason})")
    told = network.trial.poll(lock)
    model = network.registry.poll()
    if model is not None:
        network.detector.reload(model)
    print(
        f"   the detector uses {network.registry.current().model_id}; incidents that ended with the canary: {len(told)}"
    )


def learn(network: Network, now: float) -> None:
    """Reviews, and a cycle of the online learner."""
    reviews = ReviewStore(network.store)
    for item in reviews.items(limit=5):
        print(f"   {item.informativeness:.2f} {item.domain}: {item.why}")
    reviews.decide([BACKUP], Label.BENIGN, "our backup", "ann", now)
    reviews.decide([TUNNEL], Label.TUNNEL, "a slow channel", "ann", now)
    print(f"   ann labelled {BACKUP} benign and {TUNNEL} a tunnel")
    print(f"   labels: {dict(label_counts(network.store, now - 7 * DAY_S, now))}")
    found = bootstrap.learner_of(network.settings, network.store).cycle()
    measures = {name: round(value, 3) for name, value in found.get("metrics", {}).items() if isinstance(value, float)}
    print(f"   online learner: {found['state']}, {found.get('new_labels', 0)} new labels, {measures}")
    print(f"   report: {network.settings.reports_dir / found['report']}")


def main(arguments: Sequence[str]) -> int:
    """Run all steps; 0 if each came out as it should."""
    parser = argparse.ArgumentParser(description="From the shipped model to a promotion, a refusal and a roll-back.")
    parser.add_argument("directory", nargs="?", default="data/demo-learning", help="made anew, and kept")
    folder = Path(parser.parse_args(arguments).directory).absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        print(f"cannot use {folder}: it is neither empty nor an earlier demo's", file=sys.stderr)
        return 2
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    os.chdir(folder)  # no .env of the user's is read
    logs.setup("error")
    warmup.up(lambda text: print(text, file=sys.stderr))
    begun, begin = time.monotonic(), (time.time() // DAY_S - 30) * DAY_S
    network = Network(folder)

    step(f"1 baseline: the shipped model {network.registry.current().model_id}")
    step("2 a week of traffic")
    print(f"   {network.judge(week(begin, 1)):,} queries judged and stored")
    print(f"   flow-hours: {len(FlowHourStore(network.store).read(SCHEMA)):,}")
    for one in network.store.incidents(limit=9):
        print(f"   {one.severity.name} {one.client} {one.domain}: {one.reasons[0]}")
    step("3 labels of the review queue, and an online update")
    learn(network, begin + 7 * DAY_S)
    step("4 a candidate, its gates, and what it would have told of that week")
    first = network.retrain(begin + 7 * DAY_S)
    step("5 a canary, on a clock of its own, and its promotion")
    roll_out(network, begin + 7 * DAY_S)
    promoted = network.registry.current().model_id
    step("6 a poisoned week is refused")
    poison(network, begin + 9 * DAY_S)
    bad = network.retrain(begin + 16 * DAY_S)
    step("7 back to the model before")
    done = bootstrap.model_desk_of(network.settings, network.store).decide("rollback", "", "ann", "end of the demo")
    print(f"   {done.made.text}")
    step("models/CHANGELOG.md")
    print((folder / "models" / "CHANGELOG.md").read_text())
    network.store.close()
    well = first.state.value == "CANARY" and promoted == first.candidate_id and bad.state.value == "REJECTED"
    print(
        f"{'Each step came out as it should' if well else 'A step did not come out as it should'},"
        f" in {time.monotonic() - begun:.0f} s. All of it is in {folder}."
    )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
