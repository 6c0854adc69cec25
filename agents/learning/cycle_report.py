"""LearntCycle → one self-contained HTML page, and the same as JSON beside it, as of a retraining (report.py)."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agents.core.files import write_atomic
from agents.core.text import command, printable, utc
from agents.learning import charts
from agents.learning.comparison.listed_diff import listed_text
from agents.learning.release.learnt_registry import KIND_NAMES
from agents.learning.report import drift_row, gate_row, passed_mark, report_page
from agents.learning.run import REPORT_PREFIX, LearntCycle, RunState

CYCLE_REPORTS_KEPT = 30
"""Reports of a kind that are kept in any case, the newest; beside them those of versions that are kept."""
_HEADLINES = {
    RunState.DEPLOYED: ("good", "The new model passed every gate"),
    RunState.WAITING: ("open", "The new model passed every gate and waits for approval"),
    RunState.CANARY: ("open", "The new model passed every gate and judges some clients first"),
    RunState.REJECTED: ("poor", "The new model does not go into use; what was in use stays"),
    RunState.FAILED: ("poor", "The cycle failed; what was in use stays"),
}
_DRIFT_OF = {"sequences": "Steps that were learned from"}
_log = structlog.get_logger("agents.learning")


@dataclass(frozen=True, slots=True)
class CycleReports:
    """Writes reports into a folder."""

    folder: Path

    def __call__(self, cycle: LearntCycle, kept: Collection[str]) -> None:
        """Write the report of a cycle, and drop old ones of its kind; one that cannot be written is logged.

        kept: file names of reports that stay: those of versions that are kept.
        """
        html = self.folder / cycle.report
        try:
            write_atomic(html.with_suffix(".json"), json.dumps(cycle.to_json(), indent=1).encode())
            write_atomic(html, render_cycle(cycle).encode("utf-8", "replace"))
            for page in sorted(self.folder.glob(f"{REPORT_PREFIX}*_{cycle.kind}.html"))[:-CYCLE_REPORTS_KEPT]:
                if page.name not in kept:
                    page.with_suffix(".json").unlink(missing_ok=True)
                    page.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("report_not_written", path=str(html), error=str(error))


def render_cycle(cycle: LearntCycle) -> str:
    """The page: no script, no outside address; text is escaped, control characters become \\DDD."""
    tone, headline = _HEADLINES[cycle.state]
    values: dict[str, Any] = {"cycle": cycle, "tone": tone, "headline": headline, "name": KIND_NAMES[cycle.kind]}
    values |= {"recommendation": cycle_recommendation(cycle), "tiles": _tiles(cycle), "facts": _facts(cycle)}
    values |= {"gates": [gate_row(gate) for gate in cycle.gates], "mark": passed_mark}
    values |= {"error": cycle.reason if cycle.state is RunState.FAILED else "", "listed": listed_text(cycle.listed)}
    values |= {"drift": [drift_row(one) for one in sorted(cycle.drift, key=lambda one: -one.psi)]}
    values |= {"drift_of": _DRIFT_OF.get(cycle.kind, "This network's flow-hours of a week")}
    counts = [count for _, count in cycle.labels]
    values |= {
        "labels": charts.bars([printable(name, 40) for name, _ in cycle.labels], counts, "new labels") if counts else ""
    }
    return report_page("cycle_report.html.j2", values)


def cycle_recommendation(cycle: LearntCycle) -> str:
    """What a person should do now, in a sentence or two."""
    if cycle.state is RunState.FAILED:
        return "Mend the cause below; the next cycle begins anew, and nothing was changed."
    if cycle.state is RunState.REJECTED:
        missed = ", ".join(f"{gate.name} (by {abs(gate.margin):.4g})" for gate in cycle.missed)
        return f"Missed: {missed}. The next cycle tries again." if missed else f"{cycle.reason}."
    if cycle.state is RunState.WAITING:
        approve, reject = (command(f"models {verb} {cycle.model_id}") for verb in ("approve", "reject"))
        return f"Read the gates and the comparison, then run “{approve}”, or “{reject}”."
    if cycle.state is RunState.CANARY:
        show = command(f"models show canary --of {cycle.kind}")
        return f"Rules promote it or turn it down by themselves; “{show}” shows how it does."
    return f"“{command(f'learn rollback {cycle.kind} --reason TEXT')}” goes back."


def _tiles(cycle: LearntCycle) -> list[tuple[str, str, str]]:
    tiles = []
    if cycle.gates:
        passed = sum(gate.passed for gate in cycle.gates)
        tiles.append(("Gates passed", f"{passed} of {len(cycle.gates)}", "all are needed"))
    tiles += [(label, value, "") for label, value in cycle.data[:2]]
    return [*tiles, ("Duration", f"{max(cycle.finished - cycle.started, 0.0):.1f} s", utc(cycle.started))]


def _facts(cycle: LearntCycle) -> list[tuple[str, str]]:
    facts = [("Began", utc(cycle.started)), ("Ended", utc(cycle.finished)), ("Model in use", cycle.parent or "none")]
    facts += [("Candidate", cycle.model_id)] if cycle.model_id else []
    return [*facts, *([("Reason", cycle.reason)] if cycle.reason else [])]
