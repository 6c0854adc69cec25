"""`dns-tunnel learn`: the online learner, and cycles of the sequence model."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from agents.cli.output import login_name
from agents.core.errors import AgentsError
from agents.core.text import printable, utc
from agents.learning.loop.online import CycleState
from agents.learning.sequences.cycle import CycleRequests, checked_ask
from agents.runtime import bootstrap, warmup
from agents.runtime.heartbeat import detector_health
from agents.settings import Settings

CYCLES_SHOWN, NOTHING_DEPLOYED = 20, 3


def learn(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel learn …`; where nothing was deployed, `now` and a cycle of stored queries end with 3."""
    if options.action == "cycle":
        return _stored_cycle(settings, options) if options.from_store else _live_cycle(settings, options)
    if options.action == "rollback" and options.which == "sequences":
        print(f"in use: sequence model {bootstrap.sequence_models_of(settings).take_back()}")
        return 0
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        learner = bootstrap.learner_of(settings, store)
        if options.action == "rollback":
            found = learner.take_back(options.reason, options.author or login_name())
            print(f"in use: flow model {found['model_id']}, instead of {found['parent'] or 'none'}")
            return 0
        if options.action == "now":
            warmup.up(print)
            cycle = learner.cycle()
            print(_line(cycle))
            return 0 if cycle["state"] == CycleState.DEPLOYED else NOTHING_DEPLOYED
        if options.action == "history":
            for one in learner.history(CYCLES_SHOWN):
                print(f"{utc(one['started_at'])}  {_line(one)}")
        else:
            if options.action != "status":
                learner.enable(options.action == "start")
            print(json.dumps(learner.status(), indent=1))
    return 0


def _live_cycle(settings: Settings, options: argparse.Namespace) -> int:
    desk = CycleRequests(settings.state_dir, bootstrap.sequence_models_of(settings))
    if options.what != "status":
        chosen = {name: getattr(options, name) for name in ("minutes", "length", "epochs", "again")}
        if not detector_health(settings.state_dir)[0]:
            raise AgentsError("cannot begin a cycle: nothing that judges runs here; --from-store needs none")
        desk.ask(options.what, **(chosen if options.what == "start" else {}))
        print(f"{options.what}: asked for; dns-tunnel learn cycle shows how it goes")
    else:
        print(json.dumps(desk.state(), indent=1))
    return 0


def _stored_cycle(settings: Settings, options: argparse.Namespace) -> int:
    """Learn from stored queries in this process."""
    asked = checked_ask(length=options.length, epochs=options.epochs)
    models = bootstrap.sequence_models_of(settings)
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        warmup.up(print)
        found = bootstrap.learn_stored_sequences(settings, store, asked.length, asked.epochs, options.days)
    for gate in found.gates:
        mark = "ok  " if gate.passed else "miss"
        print(f"{mark} {gate.name}: {gate.value:.3f}, threshold {gate.threshold:.3f}")
    if not found.passed:
        return NOTHING_DEPLOYED
    models.deploy(found.model, time.time())
    print(f"deployed {found.model.model_id}: {found.model.manifest['windows']} windows")
    return 0


def _line(cycle: Mapping[str, Any]) -> str:
    """A cycle in one line."""
    if "needed" in cycle:
        return f"{cycle['state']}: {cycle['new_labels']} of {cycle['needed']} are there"
    found = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in cycle["metrics"].items())
    missed = "; ".join(gate["name"] for gate in cycle["gates"] if not gate["passed"])
    named = f", flow model {cycle['model_id']}" if cycle["model_id"] else f"; missed: {missed}"
    return printable(f"{cycle['state']}: {cycle['new_labels']} new labels, {found}{named}", 400)
