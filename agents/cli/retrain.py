"""`dns-tunnel retrain`: learn, validate, report, deploy or reject; once, now."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from agents.core.errors import AgentsError
from agents.core.text import command
from agents.learning.messages import cases_text, sample_text
from agents.learning.retraining import STEPS, passed_exit_code
from agents.learning.run import RunState, TrainingRun, alerts_text
from agents.runtime import bootstrap
from agents.runtime.signals import ENDING, first_of
from agents.settings import Settings


def retrain(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel retrain`."""
    with (
        first_of(ENDING) as asked,
        tqdm(total=len(STEPS), bar_format="{desc:<28} {bar} {n_fmt}/{total_fmt}", disable=None, file=sys.stderr) as bar,
    ):

        def progress(step: int, total: int, text: str) -> None:
            if asked:  # between two steps, so that every step is complete, and the run is recorded as FAILED
                raise AgentsError(f"cannot go on: stopped by {asked[0].name}")
            bar.set_description_str(text)
            bar.update(step - 1 - bar.n)

        once = bootstrap.retraining_of(
            settings,
            progress,
            spawned=False,
            days=options.days,
            samples=options.samples,
            deploy=options.deploy,
            replayed=options.replayed,
        )
        run_ = once()
        bar.update(len(STEPS) - bar.n)
    print(_run_text(run_))
    stopped = bool(asked) and run_.state is RunState.FAILED
    return 128 + asked[0] if stopped else passed_exit_code(run_)


def _run_text(run_: TrainingRun) -> str:
    lines = [f"{run_.state.value} {run_.candidate_id}".rstrip()]
    if run_.error:
        lines.append(f"  {run_.error}")
    if run_.sample is not None:
        lines.append(f"  {sample_text(run_)}")
    if run_.alerts is not None and run_.alerts.queries:
        lines.append(f"  {alerts_text(run_.alerts)}")
    lines += [f"  missed: {gate.name} is {gate.value:.4g}, by {-gate.margin:.4g}" for gate in run_.missed]
    lines += [f"  failed: {text}" for text in cases_text(run_.validation)]
    lines += [f"  {channel.channel}: {'sent' if channel.ok else channel.error}" for channel in run_.channels]
    lines += [f"  warning: {warning}" for warning in run_.warnings]
    if run_.state is RunState.WAITING:
        lines.append(f"  approve it with: {command(f'models approve {run_.candidate_id}')}")
    known = run_.sample is not None and run_.sample.known
    if run_.state is RunState.UNCHANGED and not run_.options.replayed and not known:
        lines.append(f"  to learn from stored replays, too: {command('retrain --replayed')}")
    if "report" in run_.paths:
        lines.append(f"report: {run_.paths['report']}")
    return "\n".join(lines)
