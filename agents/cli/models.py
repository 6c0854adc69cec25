"""`dns-tunnel models`: list, show, approve, reject, roll back, restore."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from agents.cli.output import tell
from agents.core.errors import ModelError, StoreError, UsageError
from agents.learning.registry import ModelRegistry
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
    elif action == "approve":
        model_id = registry.approve(options.model_id or _waiting(registry)).model_id
        print(f"deployed {model_id}")
        _note_run(settings, model_id, RunState.DEPLOYED)
    elif action == "reject":
        model_id = options.model_id or _waiting(registry)
        registry.reject(model_id)
        print(f"rejected {model_id}")
        _note_run(settings, model_id, RunState.REJECTED)
    elif action == "rollback":
        print(f"back to {registry.rollback().model_id}")
    else:
        print(f"restored {_restored(registry, options.file, settings).model_id}")
    return 0


def _restored(registry: ModelRegistry[Model], file: Path, settings: Settings) -> Model:
    warmup.up(tell)
    try:
        return registry.restore(file, bootstrap.check_by_gates(settings))
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
        print(f"{row['model_id']}  {row['state']:<9}  {at}  {row['path']}")
