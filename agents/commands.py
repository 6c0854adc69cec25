"""What the commands of the command line do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from tqdm import tqdm

from agents import bootstrap, processes, warm
from agents.doctor import run_doctor
from agents.errors import AgentsError, ModelError, StoreError, UsageError
from agents.judging import replay, run_evaluation, score, tell
from agents.keeping import known
from agents.messages import cases_text, command
from agents.model import Model
from agents.registry import ModelRegistry
from agents.retraining import STEPS, passed_exit_code
from agents.runs import RunState, TrainingRun
from agents.settings import Settings
from agents.showing import evidence_text, incident_text
from agents.signals import ENDING, first_of, live

__all__ = ["api", "doctor", "evaluate", "explain", "models", "replay", "retrain", "schedule"]
__all__ += ["known", "score"]

RUNS_MAX = 100
"""Newest runs among which a candidate's own is looked for."""
_log = structlog.get_logger()
evaluate = run_evaluation
doctor = run_doctor


def _serve(settings: Settings, parts: Sequence[str]) -> int:
    bootstrap.check_settings(settings)
    return live(processes.serve(settings, parts, stopping=lambda: _log.info("stopping")))


def api(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel api`."""
    return _serve(settings, ("api",))


def schedule(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel schedule`."""
    return _serve(settings, ("scheduler",))


def retrain(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel retrain`."""
    with (
        first_of(ENDING) as asked,
        tqdm(total=len(STEPS), bar_format="{desc:<28} {bar} {n_fmt}/{total_fmt}", disable=None, file=sys.stderr) as bar,
    ):

        def progress(step: int, total: int, text: str) -> None:
            if asked:  # between two steps, so that nothing is half done, and the run is recorded as one that failed
                raise AgentsError(f"cannot go on: stopped by {asked[0].name}")
            bar.set_description_str(text)
            bar.update(step - 1 - bar.n)

        run_: TrainingRun = processes.retrain_once(
            settings, days=options.days, samples=options.samples, deploy=options.deploy, progress=progress
        )
        bar.update(len(STEPS) - bar.n)
    print(_run_text(run_))
    stopped = bool(asked) and run_.state is RunState.FAILED
    return 128 + asked[0] if stopped else passed_exit_code(run_)


def _run_text(run_: TrainingRun) -> str:
    lines = [f"{run_.state.value} {run_.candidate_id}".rstrip()]
    if run_.error:
        lines.append(f"  {run_.error}")
    if run_.sample is not None:
        lines.append(f"  learned from {run_.sample.live} stored queries and {run_.sample.topped_up} shipped names")
    lines += [f"  missed: {gate.name} is {gate.value:.4g}, by {-gate.margin:.4g}" for gate in run_.missed]
    lines += [f"  failed: {text}" for text in cases_text(run_.validation)]
    lines += [f"  {channel.channel}: {'sent' if channel.ok else channel.error}" for channel in run_.channels]
    lines += [f"  warning: {warning}" for warning in run_.warnings]
    if run_.state is RunState.WAITING:
        lines.append(f"  approve it with: {command(f'models approve {run_.candidate_id}')}")
    if "report" in run_.paths:
        lines.append(f"report: {run_.paths['report']}")
    return "\n".join(lines)


def explain(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel explain`."""
    store = bootstrap.store_of(settings)
    store.migrate()
    incident = store.incident(options.client, options.domain.rstrip(".").lower())
    if incident is None:
        where = f"DATA_DIR is {settings.data_dir.absolute()}"
        raise AgentsError(f"cannot explain {options.client} {options.domain}: there is no such incident ({where})")
    print(incident_text(incident))
    print(evidence_text(incident.evidence))
    times = (("first seen", incident.first_seen), ("found", incident.detected_at), ("last seen", incident.last_seen))
    for what, at in times:
        print(f"  {what:<10} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at))} UTC")
    print(f"  {'closed' if incident.closed_at else 'still open'}")
    return 0


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
    warm.up(tell)
    try:
        return registry.restore(file, bootstrap.check_by_gates(settings))
    except ModelError as error:
        raise ModelError(f"cannot restore {file}: {str(error).removeprefix('cannot restore ')}") from None


def _note_run(settings: Settings, model_id: str, state: RunState) -> None:
    """Note in the stored run of a candidate what a person decided; without a database the decision stands."""
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
