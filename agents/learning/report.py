"""TrainingRun → one self-contained HTML page, and the same as JSON beside it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from agents.core.drawing.spark import sparkline
from agents.core.files import write_atomic
from agents.core.text import command, printable, utc
from agents.core.types import CaseResult, Gate, Severity
from agents.detection.explanations.budget_trade import budget_trade
from agents.learning import charts
from agents.learning.run import (
    REPORT_PREFIX,
    FeatureDrift,
    RunState,
    TrainingRun,
    TypeResult,
    Validation,
    alerts_text,
    change_text,
    plain,
)

SIDES_MAX = 60
"""Rows of the comparison of two manifests."""
_TIMES = ("since", "until", "at", "trained_at")
"""Manifest keys that hold Unix seconds."""
_DRAWN = ("features", "curve")
"""Manifest keys that have a section of their own."""
_HEADLINES = {
    RunState.DEPLOYED: ("good", "The new model passed every gate"),
    RunState.WAITING: ("open", "The new model passed every gate and waits for approval"),
    RunState.CANARY: ("open", "The new model passed every gate and judges some clients first"),
    RunState.RUNNING: ("open", "The run is under way"),
    RunState.REJECTED: ("poor", "The new model did not pass; the old one stays"),
    RunState.FAILED: ("poor", "The run failed; the old model stays"),
    RunState.UNCHANGED: ("open", "Nothing new to learn; the old model stays"),
}


def write_report(folder: Path, run: TrainingRun) -> tuple[Path, Path]:
    """Write training_report_<run id>.html and .json into `folder`; returns their paths. Raises OSError."""
    html = folder / f"{REPORT_PREFIX}{run.run_id}.html"
    data = html.with_suffix(".json")
    write_atomic(data, json.dumps(run.to_json(), indent=1, ensure_ascii=True).encode())
    write_atomic(html, render(run).encode("utf-8", "replace"))
    return html, data


def prune_reports(folder: Path, before: float) -> int:
    """Delete reports of runs started before that time (Unix seconds); the newest stays. Returns how many went."""
    limit = f"{REPORT_PREFIX}{datetime.fromtimestamp(before, UTC):%Y%m%d_%H%M%S}"
    pages = sorted(folder.glob(f"{REPORT_PREFIX}[0-9]*_[0-9]*.html"))
    old = [page for page in pages[:-1] if page.stem < limit]
    for page in old:
        page.with_suffix(".json").unlink(missing_ok=True)
        page.unlink(missing_ok=True)
    return len(old)


def render(run: TrainingRun) -> str:
    """The page: no script, no outside address; text is escaped, control characters become \\DDD."""
    tone, headline = _HEADLINES[run.state]
    values: dict[str, Any] = {"run": run, "tone": tone, "headline": headline}
    values |= {"recommendation": recommendation(run), "tiles": _tiles(run), "facts": _facts(run)}
    sides = _sides(run)
    values |= {"changed": [one for one in sides if one[1] != one[2]]}
    values |= {"alike": [one for one in sides if one[1] == one[2]]}
    values |= {"features": _features(run), "sample": _sample(run), "mark": passed_mark}
    values |= {"days": charts.days(run.sample.by_day, "queries by day") if run.sample else ""}
    values |= {"types": [_type_row(one) for one in run.types]}
    values |= {"trade": budget_trade(run.candidate.get("limits", {}))}
    values |= {
        "alerts": _alerts(run),
        "drift": [drift_row(one) for one in sorted(run.drift, key=lambda one: -one.psi)],
    }
    values |= _validation(run.validation, run.options.scores) if run.validation else {}
    return report_page("training_report.html.j2", values)


def report_page(template: str, values: Mapping[str, Any]) -> str:
    """A page of these templates, whose policy has the hash of its style (CSP level 3, section 6.7.3)."""
    templates = report_templates()
    style = Markup(f"\n{templates.get_template('training_report.css').render()}\n")  # noqa: S704 - a file of ours
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return templates.get_template(template).render(values, style=style, digest=digest)


def recommendation(run: TrainingRun) -> str:
    """What a person should do now, in a sentence or two."""
    if run.state is RunState.FAILED:
        return f"The step “{run.step}” failed. Mend the cause below, then retrain; nothing was changed."
    if run.state is RunState.UNCHANGED:
        if run.sample and run.sample.known:
            return "The same queries and settings give the model that is in use. Retrain when there is new traffic."
        if run.sample and run.sample.fresh is not None and run.sample.fresh < run.options.new_min:
            return f"Wait for more traffic: {run.sample.fresh} of the {run.options.new_min} new queries are there."
        return (
            f"In {run.options.days} days the store has {run.sample.live if run.sample else 0} NORMAL queries. "
            f"Look whether the listener runs and clients use it (“{command('doctor')}”), then retrain."
        )
    if run.state is RunState.REJECTED:
        gates = ", ".join(f"{gate.name} (by {abs(gate.margin):.4g})" for gate in run.missed)
        wrong = [one.case.qname for one in run.validation.cases if not one.passed] if run.validation else []
        text = f"Missed: {gates}. " if gates else ""
        text += f"Wrong on: {', '.join(printable(name, 60) for name in wrong)}. " if wrong else ""
        return f"{text}Do not deploy. {_where_to_look(run)}"
    if run.state is RunState.WAITING:
        return (
            f"Read the gates and the comparison, then run “{command(f'models approve {run.candidate_id}')}”, "
            f"or “{command(f'models reject {run.candidate_id}')}”."
        )
    if run.state is RunState.CANARY:
        return (
            f"Rules promote it or turn it down by themselves; “{command('models canary')}” shows how it does, "
            f"“{command(f'models reject {run.candidate_id}')}” stops it."
        )
    tight = [gate.name for gate in run.validation.gates if _tight(gate)] if run.validation else []
    watch = f"Close to its threshold: {', '.join(tight)}. " if tight else ""
    return f"{watch}Watch the incidents for 48 hours; “{command('models rollback')}” goes back."


def _where_to_look(run: TrainingRun) -> str:
    """The sample, unless the old model misses all the same cases: then this sample did not cause it."""
    wrong = [one for one in run.validation.cases if not one.passed] if run.validation else []
    shared = [one for one in wrong if _old_misses(one, run.options.scores)]
    if not shared:
        return "Look at the sample first: traffic that is no longer normal shifts a model."
    names = ", ".join(printable(one.case.qname, 60) for one in shared)
    text = f"The old model misses {names} too, so the sample is not the cause: look at the case first."
    others = len(shared) < len(wrong) or any(not gate.name.startswith("wrong ") for gate in run.missed)
    return f"{text} For the rest look at the sample." if others else text


def _old_misses(one: CaseResult, scores: Sequence[float]) -> bool:
    if one.champion_score is None:
        return False
    if one.case.expected is Severity.NORMAL:
        return one.champion_score >= scores[0]
    return one.champion_score < scores[1]


def _tight(gate: Gate) -> bool:
    return gate.passed and gate.threshold != 0 and 0 < gate.margin < 0.02 * abs(gate.threshold)


def _tiles(run: TrainingRun) -> list[tuple[str, str, str]]:
    tiles = []
    if run.validation:
        gates, cases = run.validation.gates, run.validation.cases
        passed = sum(gate.passed for gate in gates)
        tiles.append(("Gates passed", f"{passed} of {len(gates)}", "all are needed"))
        tiles.append(("Cases passed", f"{sum(one.passed for one in cases)} of {len(cases)}", "known names"))
    if run.sample:
        total = run.sample.live + run.sample.topped_up
        tiles.append(("Sample", f"{total:,}", f"{run.sample.topped_up:,} from the baseline"))
    spent = max(run.finished - run.started, 0.0)
    return [*tiles, ("Duration", f"{spent:.1f} s", utc(run.started))]


def _validation(found: Validation, scores: Sequence[float]) -> dict[str, Any]:
    names = [one.name for one in Severity]
    old, new = dict(found.old.severities), dict(found.new.severities)
    counts = [[side.get(name, 0) for name in names] for side in (old, new)]
    return {
        "gates": [gate_row(gate) for gate in found.gates],
        "suspicious": f"{scores[0]:g}",
        "benign": f"{sum(found.new.histogram):,}",
        "histogram": charts.histogram(found.old.histogram, found.new.histogram, scores, "score distribution"),
        "severities": charts.grouped(names, counts[0], counts[1], "severity breakdown"),
        "legend": Markup('<span class="legend"><i class="c-old"></i>old model<i class="c-new"></i>new model</span>'),
    }


def _alerts(run: TrainingRun) -> dict[str, Any]:
    """The alert diff in words and rows; {} where nothing was compared."""
    if run.alerts is None or not run.alerts.queries:
        return {}
    rows = [plain(one) | {"what": change_text(one)} for one in run.alerts.changes]
    return {"sentence": alerts_text(run.alerts), "rows": rows}


def drift_row(one: FeatureDrift) -> dict[str, Any]:
    """A feature's drift, as text and a small chart."""
    return {
        "name": one.name,
        "psi": f"{one.psi:.3f}",
        "psi_anchor": "–" if one.psi_anchor is None else f"{one.psi_anchor:.3f}",
        "jensen_shannon": f"{one.jensen_shannon:.3f}",
        "wasserstein": f"{one.wasserstein:.3f}",
        "spark": sparkline(one.old, one.new, f"{one.name}, then and now"),
    }


def _type_row(found: TypeResult) -> dict[str, Any]:
    """A detector type in one scene, as text."""
    return {
        "scene": found.scene,
        "type": found.type,
        "problem": found.problem,
        "false_alarms": f"{found.false_alarms:.2%}",
        "found": f"{found.found:.1%}",
        "missed": f"{found.missed:.1%}",
        "accuracy": f"{found.accuracy:.3f}",
        "by_tool": ", ".join(f"{tool} {share:.0%}" for tool, share in found.by_tool.items()),
        "fit": f"{found.fit_s:.2f} s",
        "score": f"{found.score_us:.0f} µs",
    }


def gate_row(gate: Gate) -> dict[str, Any]:
    """A gate, as text and a bar."""
    return {
        "name": gate.name,
        "detail": gate.detail,
        "passed": gate.passed,
        "sign": "≥" if gate.at_least else "≤",
        "value": f"{gate.value:.4g}",
        "threshold": f"{gate.threshold:.4g}",
        "margin": f"{gate.margin:+.3g}" if gate.margin else "0",
        "bar": charts.gate_bar(gate.value, gate.threshold, gate.passed),
    }


def _sample(run: TrainingRun) -> list[tuple[str, str]]:
    if run.sample is None:
        return []
    found, options = run.sample, run.options
    stored = [(f"Stored as {name}", f"{count:,}") for name, count in found.stored]
    return [
        ("NORMAL queries from the store", f"{found.live:,}"),
        ("Topped up from the baseline", f"{found.topped_up:,}"),
        ("Clients", f"{found.clients:,}"),
        *([("Most of them from", f"{found.top_client} ({found.top_client_share:.1%})")] if found.dominated else []),
        ("Domains", f"{found.domains:,}"),
        ("Asked for, at most", f"{options.samples:,}"),
        ("Score below", f"{options.max_score:g}"),
        ("Most from one client", f"{options.client_share:.1%}"),
        ("Most from one domain", f"{options.domain_share:.1%}"),
        *stored,
        *((f"Flow-hours labelled {what}", f"{count:,}") for what, count in run.labels),
    ]


def _facts(run: TrainingRun) -> list[tuple[str, str]]:
    facts = [
        ("Started", utc(run.started)),
        ("Finished", utc(run.finished)) if run.finished else ("Finished", "not yet"),
        ("Data window", f"{utc(run.since)} to {utc(run.until)} ({run.options.days} days)"),
        ("Seed", str(run.options.seed)),
        ("Deployment", run.options.deploy),
    ]
    facts += [(f"Path: {name.replace('_', ' ')}", path) for name, path in run.paths.items()]
    return facts + [(f"Step: {name}", f"{spent:.2f} s") for name, spent in run.seconds.items()]


def _sides(run: TrainingRun) -> list[tuple[str, str, str]]:
    """Both manifests flattened, a row for each key; but for what has a section of its own."""
    if not run.champion_id:
        return []
    old, new = (_flat(plain(side)) for side in (run.champion, run.candidate))
    keys = list(dict.fromkeys([*new, *old]))[:SIDES_MAX]
    unset = {"limits": "factor 1, as every model begins"}
    missing = [unset.get(key, "–") for key in keys]
    rows = [(key, old.get(key, none), new.get(key, none)) for key, none in zip(keys, missing, strict=True)]
    return [("model id", run.champion_id, run.candidate_id or "–"), *rows]


def _flat(manifest: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in manifest.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if key == "limits" and isinstance(value, Mapping):
            out[name] = _limits(value)
        elif isinstance(value, Mapping):
            out |= _flat(value, f"{name}: ")
        elif key in _TIMES and isinstance(value, int | float):
            out[name] = utc(value)
        elif key not in _DRAWN:
            out[name] = _shown(value)
    return out


def _limits(value: Mapping[str, Any]) -> str:
    """What limits.BudgetChoice.to_json says, without its curve."""
    factor, days, budget = (_shown(value.get(name)) for name in ("factor", "days", "budget_per_week"))
    return f"factor {factor}, by {days} days of history, for {budget} investigations a week"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        text = ", ".join(_shown(item) for item in value[:12])
        return f"{text}, … ({len(value)})" if len(value) > 12 else text
    return "–" if value is None else str(value)


def _features(run: TrainingRun) -> Sequence[str]:
    found = (run.candidate or run.champion).get("features", ())
    return [str(one.get("name", one)) if isinstance(one, Mapping) else str(one) for one in found]


def passed_mark(passed: bool) -> Markup:
    """Whether a gate was passed."""
    if passed:
        return Markup('<span class="mark">✓ passed</span>')
    return Markup('<span class="mark">✗ missed</span>')


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@lru_cache(maxsize=1)
def report_templates() -> Environment:
    """What renders reports; undefined names are errors, and all text is escaped."""
    env = Environment(
        loader=PackageLoader("agents.learning"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    env.filters |= {"printable": lambda value: printable(value, 2000), "score": _score}
    return env
