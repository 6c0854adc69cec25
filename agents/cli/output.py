"""Incidents, verdicts and evaluations as text for people and as JSON values for programs."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from agents.alerting.messages import seen_before
from agents.core.errors import UsageError
from agents.core.text import came_in, counted, explanation_text, senders_text, utc, who
from agents.core.types import Incident, Severity, Verdicts
from agents.detection.incidents import attack_names
from agents.dns.message import type_name
from agents.dns.name import to_text
from agents.learning.evaluation import Evaluation, Leak, tools

TIMELINE_SHOWN = 12


def incident_json(incident: Incident) -> dict[str, Any]:
    """One incident as `replay --json` prints it."""
    of_the_store = {"source", "imported_at"}
    row = {name: getattr(incident, name) for name in Incident.__dataclass_fields__ if name not in of_the_store}
    row |= {"severity": incident.severity.name, "score": round(incident.score, 4)}
    for name in ("leaked_bytes", "bytes_before_detection"):
        row[name] = round(row[name], 1)
    return {"type": "incident", "incident_id": incident.incident_id, **row}


def query_json(verdicts: Verdicts) -> Iterator[dict[str, Any]]:
    """One JSON object for each query."""
    queries = verdicts.queries
    for i in range(len(verdicts)):
        yield {
            "type": "query",
            "ts": float(queries.ts[i]),
            "client": queries.client[i],
            "qname": to_text(queries.qname[i]),
            "qtype": type_name(int(queries.qtype[i])),
            "domain": verdicts.domain[i],
            "score": round(float(verdicts.score[i]), 4),
            "severity": Severity(int(verdicts.severity[i])).name,
            "reasons": list(verdicts.reasons[i]),
        }


def incident_text(incident: Incident) -> str:
    """One incident as text for people."""
    lines = [
        f"{incident.severity.name} incident: {who(incident.client)} -> {incident.domain}"
        f" (score {incident.score:.2f}{f', looks like {incident.tool}' if incident.tool else ''})",
        *(f"  - {reason}" for reason in incident.reasons),
        f"  found after {counted(incident.queries_before_detection, 'query')} and"
        f" {counted(incident.bytes_before_detection, 'byte')}; {counted(incident.queries, 'query')},"
        f" {counted(incident.unique_names, 'name')} and {counted(incident.leaked_bytes, 'byte')} in all",
        *([f"  seen before: {before}"] if (before := seen_before(incident)) else ()),
        *(f"  e.g. {name}" for name in incident.sample_names[:3]),
    ]
    return "\n".join(lines)


def evidence_text(evidence: Mapping[str, Any]) -> str:
    """An incident's evidence as text for people."""
    if not evidence:
        return "  no further evidence is kept"
    types = ", ".join(f"{name} {count}" for name, count in evidence["qtypes"].items())
    lines = [
        f"  techniques  {attack_names(evidence['attack'])}",
        f"  types       {types}; {evidence['queries_per_minute']:,.1f} queries a minute",
        f"  came in     {came_in(evidence)}",
        f"  {evidence['benign_if']}",
    ]
    if "clients" in evidence:
        lines.insert(0, f"  sent by     {senders_text(evidence['clients'])}")
    if "explanation" in evidence:
        lines.insert(0, f"  may be      {explanation_text(evidence['explanation'])}")
    if "probability" in evidence:
        lines.append(f"  learnt      probability {evidence['probability']:.3f} that its last hour is a tunnel's")
    if "image" in evidence:
        lines.append(
            f"  image       of its last hours: one ordinary one in {10 ** evidence['image']:,.0f} is as strange"
        )
    if "intakes" in evidence:
        lines.append(f"  heard by    {', '.join(evidence['intakes'])}")
    if "losses" in evidence:
        lines += [f"  not known   {text}" for text in evidence["losses"]]
    if evidence["preview"]:
        lines.insert(0, f"  decodes to  {evidence['preview']}")
    lines += [
        f"  {utc(row['at'])}  {counted(row['queries'], 'query')}, {counted(row['bytes'], 'byte')}"
        for row in evidence["timeline"][:TIMELINE_SHOWN]
    ]
    return "\n".join(lines)


def print_evaluation(found: Evaluation) -> None:
    """Print the tables for people."""
    heading = "queries before (median, worst)  bytes before (median, worst)  above NORMAL"
    print(f"{'tool':<10} {'found':>9} {'named':>6}  {heading}")
    for row in tools(found.sessions):
        print(
            f"{row.tool:<10} {row.found:>3} / {row.sessions:<3} {row.named:>6}"
            f"  {row.queries_median:>14.0f} {row.queries_worst:>12}"
            f"  {row.bytes_median:>16.0f} {row.bytes_worst:>11.0f}  {row.above_normal:>11.1%}"
        )
    for session in found.sessions:
        if not session.found:
            print(f"  missed: {session.file} ({session.queries} queries)")
        for domain in session.others:
            print(f"  false incident beside {session.file}: {domain}")
    hours = sum(row.client_hours for row in found.benign)
    alarms = sum(len(row.incidents) for row in found.benign)
    print(f"\nbenign: {alarms} false incidents in {hours:.0f} client-hours ({_rate(alarms, hours)} a client-week)")
    for capture in found.benign:
        print(f"  {capture.file:<50} {capture.queries:>7} queries {capture.above_normal:>9.3%} above NORMAL")
        for text in capture.incidents:
            print(f"    false incident: {text}")
    if found.names:
        print("\nnames, one by one")
    for names in found.names:
        print(
            f"  {names.file:<62} {names.names:>7} {names.above_normal:>9.3%} above NORMAL"
            f" {names.above_high:>9.3%} HIGH or above, {names.secrets} secrets"
        )
    _print_leaks(found.leak_curve)


def _print_leaks(leaks: Sequence[Leak]) -> None:
    print("\nleak curve: random bytes at a steady rate, over the queries of the busiest benign client")
    print(f"  {'bytes/s':>8} {'bytes a name':>13} {'found after':>17} {'bytes out':>10} {'queries':>8}")
    for leak in leaks:
        cells = leak_cells(leak)
        print(f"  {cells[0]:>8} {cells[1]:>13} {cells[2]:>17} {cells[3]:>10} {cells[4]:>8}")


def leak_cells(leak: Leak) -> tuple[str, str, str, str, str]:
    """Rate, bytes a name, time to detection, bytes out and queries as text."""
    after = "not found" if leak.seconds is None else _span(leak.seconds)
    out, queries = ("–" if number is None else f"{number:,}" for number in (leak.bytes_out, leak.queries))
    return f"{leak.rate:g}", f"{leak.carried}", after, out, queries


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _rate(alarms: int, hours: float) -> str:
    return f"{alarms / hours * 168:.2f}" if hours else "-"


@contextmanager
def json_output(target: str | None) -> Iterator[IO[str] | None]:
    """The stream that --json names: None, standard output for "-", or a file. Raises UsageError."""
    if target is None:
        yield None
    elif target == "-":
        yield sys.stdout
    else:
        try:
            with Path(target).open("w", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise UsageError(f"cannot write {target}: {error.strerror}") from None


def print_note(text: str) -> None:
    """Print a line on standard error, so that the user knows the cause of a wait."""
    print(f"dns-tunnel: {text}", file=sys.stderr)


def login_name() -> str:
    """Who runs this: the user behind sudo, else the user."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user that has no name
        return f"user {os.getuid()}"
