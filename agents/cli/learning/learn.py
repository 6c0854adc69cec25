"""`dns-tunnel learn`: the online learner, and cycles of the sequence model."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from agents.cli.output import login_name, print_note
from agents.core.errors import AgentsError, TrainingError, UsageError
from agents.core.text import counted, printable, utc
from agents.learning.loop.looking import FlowLook
from agents.learning.loop.online import CycleState
from agents.learning.release.learnt_registry import KIND_NAMES
from agents.learning.sequences.cycle import CyclePhase, CycleRequests, checked_ask
from agents.learning.sequences.history import EndedCycle
from agents.runtime import bootstrap, warmup
from agents.settings import Settings
from agents.store.sql import Store

CYCLES_SHOWN, NOTHING_DEPLOYED = 20, 3
CYCLE_LOOK_S = 0.5
"""Seconds between two looks at a cycle that is waited for."""
CYCLE_BEGINS_S = 30.0
"""What judges takes a request up within a second or two; after so long it does not."""


def learn(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel learn …`; where nothing was deployed, `now`, and a cycle that is waited for, end with 3."""
    if options.action == "cycle":
        return _stored_cycle(settings, options) if options.from_store else _live_cycle(settings, options)
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        if options.action == "images":
            return _images(settings, store)
        if options.action == "rollback":
            desk, kind = bootstrap.learnt_desk_of(settings, store), options.which
            replaced = desk.registry(kind).in_use()
            model_id = desk.take_back(kind, options.reason, options.author or login_name())
            print(f"in use: {KIND_NAMES[kind]} {model_id}, instead of {replaced or 'none'}")
            return 0
        learner = bootstrap.learner_of(settings, store)
        if options.action == "now":
            warmup.up(print)
            cycle = learner.cycle()
            print(_line(cycle))
            return 0 if cycle["state"] == CycleState.DEPLOYED else NOTHING_DEPLOYED
        if options.action == "store":
            print(json.dumps(FlowLook(store).kept(), indent=1))
        elif options.action == "history":
            for one in learner.history(CYCLES_SHOWN):
                print(f"{utc(one['started_at'])}  {_line(one)}")
        else:
            if options.action != "status":
                learner.enable(options.action == "start")
            print(json.dumps(learner.status(), indent=1))
    return 0


def _images(settings: Settings, store: Store) -> int:
    """Learn ordinary images of flows now, and say what came of it."""
    found = bootstrap.image_learner_of(settings, store).learn()
    for gate in found["gates"]:
        print(
            f"{'ok  ' if gate['passed'] else 'miss'} {gate['name']}: {gate['value']:.3f}, bound {gate['threshold']:.3f}"
        )
    print(f"{found['state']} {found['model_id']}: {found['type']}, {found['images']:,} images")
    return 0 if found["state"] == "deployed" else NOTHING_DEPLOYED


def _live_cycle(settings: Settings, options: argparse.Namespace) -> int:
    desk = bootstrap.cycle_requests_of(settings)
    if options.what == "history":
        for one in desk.history(CYCLES_SHOWN):
            print(_sequence_line(one))
    elif options.what == "status":
        print(json.dumps(desk.state(), indent=1))
    else:
        chosen = {name: getattr(options, name) for name in ("minutes", "length", "epochs", "again")}
        if options.what == "run" and options.again:
            raise UsageError("cannot wait for the end of a cycle that begins again and again: start --again")
        begins = options.what in ("start", "run")
        number = desk.ask("start" if begins else options.what, **(chosen if begins else {}))
        if options.what == "run":
            return _waited(settings, desk, number)
        print(f"{options.what}: asked for; dns-tunnel learn cycle shows how it goes")
    return 0


def _waited(settings: Settings, desk: CycleRequests, number: str) -> int:
    """Wait for the cycle of a request, say how it goes, and how it ended. Raises AgentsError."""
    shown, ended, unheard_at = "", desk.ended(number), time.monotonic() + CYCLE_BEGINS_S
    while ended is None:
        state = desk.state()
        if state["ask"] != number and time.monotonic() > unheard_at:
            raise AgentsError("cannot run a cycle: what judges here does not take it up; see its log")
        said = _progress_of(state) if state["ask"] == number else "waiting for what judges"
        if said != shown:
            print_note(said)
            shown = said
        time.sleep(CYCLE_LOOK_S)
        ended = desk.ended(number)
    print(_sequence_line(ended))
    if ended["decision"] == CyclePhase.FAILED:
        raise AgentsError(f"cannot learn: {ended['reason']}")
    return 0 if ended["decision"] == CyclePhase.DEPLOYED else NOTHING_DEPLOYED


def _progress_of(state: Mapping[str, Any]) -> str:
    """How far a cycle is, by steps of a tenth of its time."""
    if state["phase"] != CyclePhase.COLLECTING:
        return f"{state['phase']}: {counted(state['windows'], 'window')}"
    share = 1 - state["remaining_s"] / max(state["minutes"] * 60, 1)
    return f"collecting: {int(share * 10) * 10} % of {state['minutes']:g} min"


def _sequence_line(one: Mapping[str, Any]) -> str:
    """An ended cycle in one line."""
    loss = f", surprise {one['loss']:.3f}" if one["loss"] is not None else ""
    heard = f"{counted(one['collected'], 'query')} of {counted(one['clients'], 'client')}" if one["collected"] else ""
    parts = [f"{one['seconds']:.0f} s", heard, f"{counted(one['trained'], 'window')} trained{loss}"]
    made = f", sequence model {one['model_id']}" if one["model_id"] else ""
    why = f": {one['reason']}" if one["reason"] else ""
    learnt = "" if one["source"] == "a person" else f" ({one['source']}, {', '.join(filter(None, parts))})"
    return printable(f"{utc(one['began_at'])}  {one['decision']}{learnt}{made}{why}, by {one['by']}", 500)


def _stored_cycle(settings: Settings, options: argparse.Namespace) -> int:
    """Learn from stored queries in this process."""
    asked, began = checked_ask(length=options.length, epochs=options.epochs), time.time()
    models = bootstrap.sequence_models_of(settings)
    cycle = EndedCycle(
        began_at=began,
        decision=str(CyclePhase.FAILED),
        by=login_name(),
        source="store",
        length=asked.length,
        epochs=asked.epochs,
    )
    with closing(bootstrap.store_of(settings)) as store, models.training():
        store.migrate()
        warmup.up(print)
        try:
            found = bootstrap.learn_stored_sequences(settings, store, asked.length, asked.epochs, options.days)
        except TrainingError as error:
            now = time.time()
            models.failed(cycle.model_copy(update={"seconds": now - began, "reason": str(error)}), now)
            raise
    for gate in found.gates:
        mark = "ok  " if gate.passed else "miss"
        print(f"{mark} {gate.name}: {gate.value:.3f}, threshold {gate.threshold:.3f}")
    learnt = {"seconds": round(time.time() - began, 3), "trained": found.model.manifest["windows"]}
    learnt |= {"clients": found.model.manifest["clients"]}
    ended = models.end(cycle.model_copy(update=learnt), found, time.time())
    if not found.passed:
        return NOTHING_DEPLOYED
    if ended.decision != CyclePhase.DEPLOYED:
        print(f"{ended.decision}: {ended.reason if ended.decision == CyclePhase.REJECTED else found.model.model_id}")
        return NOTHING_DEPLOYED
    print(f"deployed {found.model.model_id}: {found.model.manifest['windows']} windows")
    return 0


def _line(cycle: Mapping[str, Any]) -> str:
    """A cycle in one line."""
    if "needed" in cycle:
        return f"{cycle['state']}: {cycle['new_labels']} of {cycle['needed']} are there"
    found = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in cycle["metrics"].items())
    missed = "; ".join(gate["name"] for gate in cycle["gates"] if not gate["passed"])
    named = f", flow model {cycle['model_id']}" if cycle["model_id"] else f"; missed: {missed}"
    origins = ", ".join(f"{count} by {origin}" for origin, count in cycle.get("origins", {}).items() if count)
    labels = f"{cycle['new_labels']} new labels{f' ({origins})' if origins else ''}"
    return printable(f"{cycle['state']}: {labels}, {found}{named}", 400)
