"""The adversary's figures as tables for people, and the worst of each kind beside its target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.adversary.measure import Figure, Run

TARGETS: dict[str, tuple[float, float, str]] = {
    "control": (1_000, 2_000, "out"),
    "who": (1_000, 2_000, "out"),
    "where": (1_000, 2_000, "out"),
    "what": (1_000, 2_000, "out"),
    "beacon": (1_000, 2_000, "out"),
    "beside the name": (1_000, 2_000, "out"),
    "model": (2_000, 2_000, "out"),
    "full": (1_000, 2_000, "out"),
    "in": (8_000, 8_000, "in"),
    "in once": (8_000, 8_000, "in"),
}
"""By kind: most bytes before an incident, most bytes a day without one, and whether they go out or come in."""


def _amount(value: float | None, total: float) -> str:
    return f"{value:,.0f}" if value is not None else f"none in {total:,.0f}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _before(run: Run, way: str) -> float | None:
    return run.up_before if way == "out" else run.down_before


def _total(run: Run, way: str) -> float:
    return run.up if way == "out" else run.down


def _critical(run: Run, way: str) -> float | None:
    return run.up_critical if way == "out" else run.down_critical


def _listed(run: Run, way: str) -> float | None:
    return run.up_listed if way == "out" else run.down_listed


def a_day(one: Figure, way: str) -> float:
    """Bytes a day without an incident at the best pace."""
    return one.up_a_day if way == "out" else one.down_a_day


def _way(one: Figure) -> str:
    return "in" if one.channel.kind.startswith("in") else "out"


def table(figures: Iterable[Figure]) -> str:
    """A row a channel, as Markdown: bytes carried until then. `one_name_line` tells of secrets in one name."""
    lines = [
        "| channel | way | listed | incident, fastest pace | at the worst pace | CRITICAL | a day for ever | at |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in figures:
        if one.channel.kind == "one name":
            continue
        way, fast, worst = _way(one), one.fast, one.worst
        slow = f"{_amount(_before(worst, way), _total(worst, way))} ({_span(worst.pace_s)})" if worst != fast else ""
        ever = f"{a_day(one, way):,.0f}" if one.ever and not one.channel.once else ""
        pace = _span(one.ever.pace_s) if ever and one.ever else ""
        first = _amount(_before(fast, way), _total(fast, way))
        critical = _amount(_critical(fast, way), _total(fast, way))
        listed = _amount(_listed(fast, way), _total(fast, way))
        lines.append(f"| {one.channel.what} | {way} | {listed} | {first} | {slow} | {critical} | {ever} | {pace} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def one_name_line(figures: Sequence[Figure]) -> str:
    """How many secrets in one name were an incident, and which were not."""
    chosen = [one for one in figures if one.channel.kind == "one name"]
    if not chosen:
        return ""
    missed = [one.channel.what for one in chosen if not one.fast.found]
    said = f"Secrets in one name: {len(chosen) - len(missed)} of {len(chosen)} are an incident"
    return f"{said}. Not: {'; '.join(missed)}." if missed else f"{said}."


def summary(figures: Sequence[Figure]) -> str:
    """The worst of each kind beside its target, as Markdown."""
    lines = [
        "| kind | found at the fastest pace | worst before an incident | target | worst a day for ever | target | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for kind, (before_max, day_max, way) in TARGETS.items():
        chosen = [one for one in figures if one.channel.kind == kind]
        if not chosen:
            continue
        found = sum(one.fast.found for one in chosen)
        worst = max(_loss(one, way) for one in chosen)
        daily = max(a_day(one, way) for one in chosen)
        kept = worst <= before_max and daily <= day_max and all(one.fast.found for one in chosen if one.channel.once)
        lines.append(
            f"| {kind} ({way}) | {found} of {len(chosen)} | {worst:,.0f} | {before_max:,.0f} "
            f"| {daily:,.0f} | {day_max:,.0f} | {'kept' if kept else 'missed'} |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""


def _loss(one: Figure, way: str) -> float:
    """Bytes before an incident at the worst pace; where the fastest pace shows none, all that its run carried."""
    before = _before(one.worst, way)
    return _total(one.worst, way) if before is None else before
