"""`dns-tunnel models`: list, show, log, approve, reject, roll back, restore, pin, unpin."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from agents.cli.output import login_name, tell
from agents.core.errors import ModelError, StoreError, UsageError
from agents.core.text import printable, utc
from agents.learning.messages import decision_message, decision_text
from agents.learning.registry import Author, Decision, ModelRegistry
from agents.learning.run import RunState
from agents.runtime import bootstrap, warmup
from agents.scoring.model import Model
from agents.settings import Settings

RUNS_MAX = 100
"""Newest runs that are searched for a candidate's run, at most."""


def models(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel models …`."""
    registry = bootstrap.registry_of(settings)
    action = options.action
    if action == "list":
        _list_models(registry)
    elif action == "show":
        model = registry.get(options.model_id) if options.model_id else registry.current()
        print(json.dumps({"model_id": model.model_id, **model.manifest}, indent=1))
    elif action == "log":
        for one in registry.decisions():
            print(f"{utc(one.at)}  {_line_of(one)}")
    else:
        _decide(settings, registry, options)
    return 0


def _decide(settings: Settings, registry: ModelRegistry[Model], options: argparse.Namespace) -> None:
    """Do what a person asked for, print it in one sentence, and tell the channels."""
    author, action = Author(options.author or login_name(), options.reason), options.action
    if action in ("approve", "reject"):
        model_id = options.model_id or _waiting(registry)
        {"approve": registry.approve, "reject": registry.reject}[action](model_id, author)
    elif action == "restore":
        _restore(registry, options.file, settings, author)
    else:
        {"rollback": registry.rollback, "pin": registry.pin, "unpin": registry.unpin}[action](author)
    made = registry.decisions()[-1]
    print(printable(decision_text(made)))
    if action in ("approve", "reject"):
        _note_run(settings, made.model_id, RunState.DEPLOYED if action == "approve" else RunState.REJECTED)
    for one in asyncio.run(bootstrap.alert_manager_of(settings).broadcast(decision_message(made))):
        if not one.ok:
            print(f"warning: {one.error}", file=sys.stderr)


def _line_of(decision: Decision) -> str:
    reason = f": {printable(decision.reason)}" if decision.reason else ""
    return f"{printable(decision_text(decision))} (by {printable(decision.by) or 'unknown'}{reason})"


def _restore(registry: ModelRegistry[Model], file: Path, settings: Settings, author: Author) -> None:
    warmup.up(tell)
    try:
        registry.restore(file, bootstrap.check_by_gates(settings), author=author)
    except ModelError as error:
        raise ModelError(f"cannot restore {file}: {str(error).removeprefix('cannot restore ')}") from None


def _note_run(settings: Settings, model_id: str, state: RunState) -> None:
    """Write a person's decision into the stored run of a candidate; it holds even if the database is away."""
    store = bootstrap.store_of(settings)
    try:
        for row in store.runs(limit=RUNS_MAX):
            if row["payload"].get("candidate_id") == model_id:
                payload = row["payload"] | {"state": state.value}
                store.save_run(row["run_id"], started_at=row["started_at"], state=state.value, payload=payload)
                return
    except StoreError as error:
        print(f"warning: the run is not updated: {error}", file=sys.stderr)
    finally:
        store.close()


def _waiting(registry: ModelRegistry[Model]) -> str:
    waiting = [str(row["model_id"]) for row in registry.list() if row["state"] == "waiting"]
    if len(waiting) != 1:
        raise UsageError(f"cannot choose a model: {f'{len(waiting)} wait, name one' if waiting else 'none waits'}")
    return waiting[0]


def _list_models(registry: ModelRegistry[Model]) -> None:
    current = registry.current()
    if registry.origin == "baseline":
        print(f"{current.model_id}  shipped    in use until a first retraining deploys another")
    for row in registry.list():
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row["created"]))
        print(f"{row['model_id']}  {row['state']:<11}  {at}  {row['path']}")
    if pinned := registry.pinned():
        print(pinned)
