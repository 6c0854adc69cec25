"""What messages say. A queried name is hostile text: here it becomes printable, short and defanged."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from agents.names import defang
from agents.runs import RunState, TrainingRun, Validation
from agents.types import Gate, Incident, Message, Severity

PROGRAM = "dns-tunnel"
TEXT_MAX = 200
REASONS_MAX = 6
_given: list[str] = []
CASES_SHOWN = 5
"""Failed cases that a text names; the report has all."""
ATTACHMENT_MAX = 5_000_000
"""Bytes of a report that still goes along with mail; common servers refuse 10 MB."""
_OUTLOOK = {
    RunState.DEPLOYED: "the new model passed every gate and is deployed",
    RunState.REJECTED: "the new model is rejected, the old one stays",
    RunState.WAITING: "the new model passed every gate and waits for approval",
    RunState.FAILED: "the run failed, the old model stays",
}
_RUN_SEVERITY = {
    RunState.DEPLOYED: Severity.NORMAL,
    RunState.WAITING: Severity.SUSPICIOUS,
    RunState.REJECTED: Severity.HIGH,
    RunState.FAILED: Severity.CRITICAL,
}


def printable(text: object, size: int = TEXT_MAX) -> str:
    """Text of at most `size` characters; what cannot be printed became \\DDD or \\uXXXX."""
    out = "".join(char if char.isprintable() else _escaped(ord(char)) for char in str(text)[: size + 1])
    return out if len(out) <= size else out[: size - 1] + "…"


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8 (surrogateescape)
        code -= 0xDC00
    return f"\\{code:03d}" if code < 256 else f"\\u{code:04x}"


def harmless(text: object, size: int = TEXT_MAX) -> str:
    """Printable text that no chat or mail client turns into a link."""
    return defang(printable(text, size)).replace("://", "[:]//").replace("@", "[@]")


def alert_message(query: str, client: str, score: float, severity: str, details: dict[str, Any]) -> Message:
    """One query as an alert; an unknown `severity` is shown as it is and coloured as HIGH."""
    known = Severity.__members__.get(severity.upper(), Severity.HIGH)
    facts = [("Query", harmless(query)), ("Client", printable(client)), ("Score", f"{score:.3f}")]
    facts += [("Severity", printable(severity.upper(), 20))]
    facts += [(printable(key, 60), harmless(value)) for key, value in list(details.items())[:10]]
    summary = f"{harmless(query)} asked by {printable(client, 60)} scored {score:.2f}."
    return Message(f"DNS tunnel alert: {printable(severity.upper(), 20)}", summary, facts, known)


def incident_message(incident: Incident, link_base: str = "") -> Message:
    """An incident as an alert: who, where to, how sure, why, and how much has left."""
    domain, client = harmless(incident.domain, 120), printable(incident.client, 60)
    tool = f" It looks like {printable(incident.tool, 40)}." if incident.tool else ""
    leaked = f"{incident.leaked_bytes:,.0f} bytes"
    facts = [
        ("Client", client),
        ("Domain", domain),
        ("Severity", incident.severity.name),
        ("Score", f"{incident.score:.2f}"),
        ("Queries", f"{incident.queries:,} ({incident.unique_names:,} unique names)"),
        ("Leaked", f"about {leaked}"),
        ("First seen", utc(incident.first_seen)),
        ("Last seen", utc(incident.last_seen)),
        *([("Seen before", before)] if (before := seen_before(incident)) else ()),
        *(("Reason", harmless(reason)) for reason in incident.reasons[:REASONS_MAX]),
        *(("Example", harmless(name)) for name in incident.sample_names[:3]),
    ]
    return Message(
        title=f"{incident.severity.name}: {client} sends data through {domain}",
        summary=f"About {leaked} left in {incident.queries:,} queries.{tool}",
        facts=facts,
        severity=incident.severity,
        thread_id=f"incident {incident.client} {incident.domain}",
        link=f"{link_base}/" if link_base else None,
        link_text="Open console",
    )


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


def gate_text(gate: Gate) -> str:
    """A gate in one line: what it measured, what it asked, and by how much it was met or missed."""
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


def utc(seconds: float) -> str:
    """A time for people; the zone is always said."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def given(*options: str) -> None:
    """What every command that is told needs, too, since this one was started with it."""
    _given[:] = options


def command(arguments: str) -> str:
    """A command of ours as a shell takes it here: by the file beside this Python where PATH does not lead to it, and
    with the options that this one was `given`."""
    told = shlex.join((*_given, *shlex.split(arguments)))
    installed, found = Path(sys.executable).with_name(PROGRAM), shutil.which(PROGRAM)
    if not installed.exists() or (found and installed.samefile(found)):
        return f"{PROGRAM} {told}"
    here = installed.relative_to(Path.cwd()) if installed.is_relative_to(Path.cwd()) else installed
    return f"{shlex.quote(str(here))} {told}"


def seen_before(incident: Incident) -> str:
    """How many incidents of the same client and domain were over when this one began, and since when; "" for none."""
    before = incident.evidence.get("before")
    return f"{counted(before['incidents'], 'incident')} since {utc(before['first_seen'])}" if before else ""


def counted(number: float, noun: str) -> str:
    """A number of things: "1 byte", "2,400 bytes", "1 query"."""
    many = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,.0f} {noun if round(number) == 1 else many}"


def _run_summary(run: TrainingRun) -> str:
    text = f"Result: {_OUTLOOK[run.state]}."
    if run.error:
        return f"{text} {harmless(run.error, 500)}"
    missed = [f"{gate.name} ({gate_text(gate)})" for gate in run.missed]
    missed += cases_text(run.validation, harmless)
    text += f" Missed: {printable('; '.join(missed), 1500)}." if missed else ""
    if run.state is RunState.WAITING:
        text += f" To decide: {command(f'models approve {run.candidate_id}')}, or reject."
    return text


def _run_facts(run: TrainingRun) -> list[tuple[str, str]]:
    facts = [("State", run.state.value)]
    if run.sample is not None:
        topped = f" + {run.sample.topped_up:,} from the baseline" if run.sample.topped_up else ""
        facts.append(("Sample", f"{run.sample.live:,} NORMAL queries{topped}"))
    facts += [("Old model", run.champion_id)] if run.champion_id else []
    facts += [("New model", run.candidate_id)] if run.candidate_id else []
    gates = run.validation.gates if run.validation else ()
    facts += [(printable(f"{'✓' if g.passed else '✗'} {g.name}", 80), gate_text(g)) for g in gates[:12]]
    report = run.paths.get("report")
    return facts + ([("Report", printable(report))] if report else [])


def _attachments(report: str) -> list[tuple[str, str, bytes]]:
    path = Path(report)
    if not report or not path.is_file() or path.stat().st_size > ATTACHMENT_MAX:
        return []
    return [(path.name, "text/html", path.read_bytes())]
