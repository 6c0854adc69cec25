"""What messages say of a retraining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from agents.alerting.manager import AlertManager
from agents.core.text import command, counted, harmless, printable
from agents.core.types import ChannelResult, Gate, Message, Severity
from agents.learning.comparison.listed_diff import listed_lines, listed_text
from agents.learning.release.transitions import Transition
from agents.learning.run import AlertDiff, RunState, SampleFacts, TrainingRun, Validation, alerts_text, change_text

CASES_SHOWN = 5
"""Failed cases that a text names; the report has all."""
DOMAINS_SHOWN = 5
"""Domains whose alerts change that a message names; the report has all."""
PROFILE_SHOWN = 5
"""Changes of the network profile that a message names; the report has all."""
ATTACHMENT_MAX = 5_000_000
"""Bytes of a report that still goes along with mail; common servers refuse 10 MB."""
_OUTLOOK = {
    RunState.DEPLOYED: "the new model passed every gate and is deployed",
    RunState.REJECTED: "the new model is rejected, the old one stays",
    RunState.WAITING: "the new model passed every gate and waits for approval",
    RunState.CANARY: "the new model passed every gate and judges some clients first, as a canary",
    RunState.FAILED: "the run failed, the old model stays",
    RunState.RUNNING: "the run is under way",
    RunState.UNCHANGED: "nothing new to learn, the old model stays",
}
_RUN_SEVERITY = {
    RunState.DEPLOYED: Severity.NORMAL,
    RunState.WAITING: Severity.SUSPICIOUS,
    RunState.CANARY: Severity.SUSPICIOUS,
    RunState.RUNNING: Severity.NORMAL,
    RunState.UNCHANGED: Severity.SUSPICIOUS,
    RunState.REJECTED: Severity.HIGH,
    RunState.FAILED: Severity.CRITICAL,
}


async def send_run(alerts: AlertManager, link_base: str, run: TrainingRun) -> tuple[ChannelResult, ...]:
    """Send the outcome of a retraining over every channel; mail has the report attached."""
    return await alerts.broadcast(await asyncio.to_thread(run_message, run, link_base))


def run_message(run: TrainingRun, link_base: str = "") -> Message:
    """A retraining: summary, gates, link to the report, report attached."""
    report = run.paths.get("report", "")
    name = PurePath(report).name
    return Message(
        title=f"Retraining {run.run_id}: {run.state.value}",
        summary=_run_summary(run),
        facts=_run_facts(run),
        severity=_RUN_SEVERITY[run.state],
        thread_id=f"model {run.candidate_id or run.run_id}",
        link=f"{link_base}/reports/{name}" if link_base and name else None,
        attachments=_attachments(report),
    )


def transition_message(made: Transition, kind: str = "model") -> Message:
    """What became of a model, for every channel. kind: what such a model is called."""
    facts = [("Model", made.model_id), ("By", harmless(made.by) or ("unknown" if made.by_person else "the program"))]
    facts += [("Replaced", made.replaced)] if made.replaced else []
    facts += [("Reason", harmless(made.reason))] if made.reason else []
    return Message(
        title=f"{kind.capitalize()} {made.model_id}: {made.action}{' by hand' if made.by_person else ''}",
        summary=_sentence(harmless(made.text, 500)),
        facts=facts,
        severity=Severity.SUSPICIOUS,
        thread_id=f"{kind} {made.model_id}",
    )


def flow_message(cycle: Mapping[str, Any]) -> Message:
    """How a cycle of the online learner ended, or that a person took its model back. cycle: a row of its history."""
    state = str(cycle["state"])
    refused = cycle.get("reason") or f"It missed {_missed_text(cycle)}"
    said = {
        "deployed": f"The flow model {cycle['model_id']} passed its gates and is in use",
        "rolled back": f"{refused}; the flow model in use stays",
        "waits for a person": f"The flow model {cycle['model_id']} passed its gates and {_waits('flow', cycle)}",
        "taken back": f"The flow model {cycle['model_id']} is in use again, instead of {cycle['parent'] or 'none'}",
    }
    facts = [(f"Labels: {origin}", f"{count:,}") for origin, count in cycle["origins"].items()]
    facts += [(name.replace("_", " ").capitalize(), f"{value:.3f}") for name, value in cycle["metrics"].items()]
    return _learnt_message("Online learner", state, said[state], facts, cycle)


def sequence_message(cycle: Mapping[str, Any]) -> Message:
    """How a cycle of the sequence model ended. cycle: a row of its history."""
    decision = str(cycle["decision"])
    said = {
        "deployed": f"The sequence model {cycle['model_id']} passed its gates and is in use",
        "canary": f"The sequence model {cycle['model_id']} passed its gates and is on trial beside the one in use",
        "waiting": f"The sequence model {cycle['model_id']} passed its gates and {_waits('sequences', cycle)}",
        "rejected": f"{_refused(cycle)}; the sequence model in use stays",
        "failed": f"Nothing was learnt: {cycle['reason']}; the sequence model in use stays",
        "taken back": f"The sequence model {cycle['model_id']} is in use again, instead of {cycle['parent'] or 'none'}",
    }
    facts = [("Collected", f"{cycle['collected']:,} queries of {cycle['clients']:,} clients")]
    facts += [("Windows", f"{cycle['trained']:,} of {cycle['length']} steps")]
    facts += [("Surprise of what was held out", f"{cycle['loss']:.3f}")] if cycle["loss"] is not None else []
    return _learnt_message("Sequence model", decision, said[decision], facts, cycle)


def image_message(found: Mapping[str, Any]) -> Message:
    """How a training of images of flows ended. found: what ImageLearner.learn gives, with what is listed."""
    said = {
        "deployed": f"The model of images {found['model_id']} passed its gates and is in use",
        "waiting": f"The model of images {found['model_id']} passed its gates and {_waits('images', found)}",
        "rejected": f"It missed {_missed_text(found)}; the model of images in use stays",
    }
    facts = [("Type", str(found["type"])), ("Images", f"{found['images']:,}")]
    facts += [("Model before", f"{found['parent'] or 'of another type'}, kept as {found['kept_as']}")] * bool(
        found["kept_as"]
    )
    return _learnt_message("Images of flows", found["state"], said[found["state"]], facts, found)


def _waits(kind: str, cycle: Mapping[str, Any]) -> str:
    approve = command(f"models approve {cycle['model_id']} --of {kind}")
    return f"waits for approval: {approve}, or reject"


def _refused(cycle: Mapping[str, Any]) -> str:
    """Why a sequence model does not go into use: gates that it missed, or what ended its trial."""
    missed = _missed_text(cycle)
    return f"It missed {missed}" if missed else str(cycle["reason"])


def _missed_text(cycle: Mapping[str, Any]) -> str:
    """The gates that a cycle missed, each with its value, its bound, and by how much."""
    missed = [one for one in cycle["gates"] if not one["passed"]]
    margins = [abs(one["value"] - one["threshold"]) for one in missed]
    return ", ".join(
        f"{one['name']} ({one['value']:.3f}, bound {one['threshold']:.3f}, by {margin:.3g})"
        for one, margin in zip(missed, margins, strict=True)
    )


def _learnt_message(
    what: str, state: str, said: str, facts: list[tuple[str, str]], cycle: Mapping[str, Any]
) -> Message:
    by, reason = cycle.get("author") or cycle.get("by") or "the program", cycle.get("reason", "")
    facts = [("By", harmless(str(by))), *([("Reason", harmless(str(reason), 300))] if reason else []), *facts]
    listed = cycle.get("listed") or {}
    facts += [("Listed on the last days", said_listed)] if (said_listed := listed_text(listed)) else []
    lines = listed_lines(listed, harmless)
    facts += [("Listing that changes", line) for line in lines[:DOMAINS_SHOWN]]
    left = len(lines) - DOMAINS_SHOWN
    facts += [("Listing that changes", f"below {counted(left, 'other domain')}")] if left > 0 else []
    return Message(
        title=f"{what}: {state}",
        summary=_sentence(harmless(said, 500)),
        facts=facts,
        severity=Severity.NORMAL if state == "deployed" else Severity.SUSPICIOUS,
        thread_id=f"{what.lower()} {cycle['model_id'] or state}",
    )


def gate_text(gate: Gate) -> str:
    """A gate in one line: value, threshold, and by how much it was met or missed."""
    sign = "≥" if gate.at_least else "≤"
    verb = "met" if gate.passed else "missed"
    return f"{gate.value:.6g} {sign} {gate.threshold:.6g}, {verb} by {abs(gate.margin):.6g}"


def cases_text(validation: Validation | None, name: Callable[[str, int], str] = printable) -> list[str]:
    """The first few cases that a candidate got wrong, a line each. name: makes a name fit to be shown."""
    failed = validation.failed if validation else ()
    shown = [
        f"{name(one.case.qname, 80)}: {one.case.expected.name} expected, {one.severity.name} found"
        f" (score {one.score:.3f})"
        for one in failed[:CASES_SHOWN]
    ]
    left = len(failed) - len(shown)
    return [*shown, f"and {counted(left, 'other case')}"] if left else shown


def sample_text(run: TrainingRun) -> str:
    """The sample in one line; "" for a run that failed before it had one."""
    if run.sample is None:
        return ""
    if run.state is RunState.UNCHANGED:
        if run.sample.known:
            return (
                "nothing new to learn: the model in use has learned the same from the same queries"
                f" (data {run.sample.data_sha256[:12]}), with the same settings"
            )
        if run.sample.fresh is not None and run.sample.fresh < run.options.new_min:
            found = counted(run.sample.fresh, "NORMAL query")
            return f"nothing new to learn: {found} since the last training, RETRAIN_NEW_MIN={run.options.new_min}"
        found = counted(run.sample.live, "stored NORMAL query")
        if run.sample.live == 0 and dict(run.sample.stored).get(Severity.NORMAL.name):
            return f"nothing new to learn: {found} that may be, in the last {run.options.days} × 24 hours; {_LEFT_OUT}"
        return f"nothing new to learn: {found} in the last {run.options.days} × 24 hours"
    text = f"learned from {run.sample.live} stored queries and {run.sample.topped_up} shipped names"
    return f"{text}; {most_text(run.sample)}" if run.sample.dominated else text


_LEFT_OUT = "those near an incident of their client, labelled ones, and those that wait for a review are left out"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def most_text(sample: SampleFacts) -> str:
    """The client that gives most of the stored queries, with its share."""
    return f"{printable(sample.top_client, 60)} gave {sample.top_client_share:.0%} of the stored queries"


def _run_summary(run: TrainingRun) -> str:
    text = f"Result: {_OUTLOOK[run.state]}."
    if run.error:
        return f"{text} {harmless(run.error, 500)}"
    if run.state is RunState.UNCHANGED:
        return f"{text} {_sentence(sample_text(run))}"
    missed = [f"{gate.name} ({gate_text(gate)})" for gate in run.missed]
    missed += cases_text(run.validation, harmless)
    text += f" Missed: {printable('; '.join(missed), 1500)}." if missed else ""
    if run.state is RunState.REJECTED:
        text += "".join(f" {_sentence(harmless(one, 300))}" for one in run.warnings)
    if run.state is RunState.WAITING:
        text += f" To decide: {command(f'models approve {run.candidate_id}')}, or reject."
        text += "".join(f" {_sentence(harmless(one, 300))}" for one in run.warnings)
    return text


def _run_facts(run: TrainingRun) -> list[tuple[str, str]]:
    facts = [("State", run.state.value)]
    if run.sample is not None:
        topped = f" + {run.sample.topped_up:,} from the baseline" if run.sample.topped_up else ""
        facts.append(("Sample", f"{run.sample.live:,} NORMAL queries{topped}"))
        facts += [("One client", most_text(run.sample))] if run.sample.dominated else []
    if run.labels:
        facts.append(("Labelled flow-hours", printable(", ".join(f"{count:,} {what}" for what, count in run.labels))))
    facts += _alert_facts(run.alerts) if run.alerts is not None and run.alerts.queries else []
    facts += _profile_facts(run)
    facts += [("Old model", run.champion_id)] if run.champion_id else []
    facts += [("New model", run.candidate_id)] if run.candidate_id else []
    gates = run.validation.gates if run.validation else ()
    facts += [(printable(f"{'✓' if g.passed else '✗'} {g.name}", 80), gate_text(g)) for g in gates[:20]]
    report = run.paths.get("report")
    return facts + ([("Report", printable(report))] if report else [])


def _alert_facts(found: AlertDiff) -> list[tuple[str, str]]:
    """Alerts a week, and the domains where they change."""
    facts = [("Alerts on the last days", harmless(alerts_text(found), 400))]
    for one in found.changes[:DOMAINS_SHOWN]:
        names = f", as {', '.join(harmless(name, 60) for name in one.names[:2])}" if one.names else ""
        severities = f"{one.old or 'no alert'} → {one.new or 'no alert'}"
        text = f"{harmless(one.domain, 80)}: {change_text(one)}, {severities}{names}"
        facts.append(("Alerts that change", text))
    left = len(found.changes) - DOMAINS_SHOWN
    return [*facts, ("Alerts that change", f"below {counted(left, 'other domain')}")] if left > 0 else facts


def _profile_facts(run: TrainingRun) -> list[tuple[str, str]]:
    """What the candidate's network profile would change; the report has all."""
    facts = [("Network profile", harmless(one.text, 300)) for one in run.profile[:PROFILE_SHOWN]]
    left = len(run.profile) - PROFILE_SHOWN
    return [*facts, ("Network profile", f"and {counted(left, 'other change')}")] if left > 0 else facts


def _attachments(report: str) -> list[tuple[str, str, bytes]]:
    path = Path(report)
    if not report or not path.is_file() or path.stat().st_size > ATTACHMENT_MAX:
        return []
    return [(path.name, "text/html", path.read_bytes())]
