"""`dns-tunnel learn`: what the online learner is doing; a cycle now; start and stop."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from agents.core.text import printable, utc
from agents.learning.loop.online import CycleState
from agents.runtime import bootstrap, warmup
from agents.settings import Settings

CYCLES_SHOWN, NOTHING_DEPLOYED = 20, 3


def learn(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel learn …`; `now` ends with 3 where nothing was deployed."""
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        learner = bootstrap.learner_of(settings, store)
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


def _line(cycle: Mapping[str, Any]) -> str:
    """A cycle in one line."""
    if "needed" in cycle:
        return f"{cycle['state']}: {cycle['new_labels']} of {cycle['needed']} are there"
    found = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in cycle["metrics"].items())
    missed = "; ".join(gate["name"] for gate in cycle["gates"] if not gate["passed"])
    named = f", flow model {cycle['model_id']}" if cycle["model_id"] else f"; missed: {missed}"
    return printable(f"{cycle['state']}: {cycle['new_labels']} new labels, {found}{named}", 400)
