"""What is promised, and what a run shows of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tests.chaos.clients import QUIET, Told
from tests.chaos.faults import Done, Notes
from tests.chaos.system import ENDS, JUDGED, System
from tests.support.patience import factor, patient

SERVFAIL_MAX, HEALTH_MAX_S = 0.001, 5.0
"""A share, and seconds for /health on a machine whose cores are all in use."""
GROWTH_MAX, SHORT_GROWTH_MAX, SHORT_S = 1.05, 1.2, 300
"""Tables fill up for minutes: a short run may grow more."""
BATCH_MAX = 1024
"""A write that took too long is given to the disk; where that is full it is counted as lost, and may be stored yet."""
SLOW = 2.0
"""From this factor of patience on, a machine cannot be expected to answer every client in time."""
NOTHING_DROPPED = "dropped: 0 queries, 0 incidents seen live; 0 queries, 0 incidents of replays"
WORST = 8
"""Cases that a report names."""


class Promise(NamedTuple):
    """One promise: what it is, what was seen, and whether it was kept.

    timed: it is about seconds, and a machine that is too slow or too busy for its clients may break it.
    """

    text: str
    seen: str
    kept: bool
    timed: bool = False

    @property
    def verdict(self) -> str:
        """In a word for the table."""
        if self.kept:
            return "kept"
        return "not kept on a slow machine" if self.excused else "**broken**"

    @property
    def excused(self) -> bool:
        """Whether the machine was too slow for it."""
        return self.timed and factor() > SLOW


@dataclass(frozen=True)
class Run:
    """What a run leaves behind. mended: what did not come to rest afterwards; code: the product's last exit code."""

    seed: int
    lasted_s: float
    done: Mapping[str, Done]
    notes: Notes
    ordinary: Mapping[str, Told]
    quiet: Told
    tunnels: Mapping[str, tuple[float, float]]
    mended: str
    code: int


def promises(system: System, run: Run) -> list[Promise]:
    """All of them, of a run that has ended."""
    counted = system.counted()
    found = (_counts(system, run, counted), _waiting_it_out(run, counted), _clients(system, run))
    return [*itertools.chain(*found), *_processes(system, run)]


def _counts(system: System, run: Run, counted: Counter[str]) -> Iterator[Promise]:
    ended = sum(counted[name] for name in ENDS)
    left = counted["received"] - ended
    listeners = sum(done.times for name, done in run.done.items() if "listener" in name)
    text = "each message that a listener received came to one end; the rest was in flight when a listener was killed"
    yield Promise(text, f"{counted['received']:,} = {ended:,} + {left:,}", left >= 0 and (left == 0 or listeners > 0))
    seen, judged = sum(counted[name] for name in JUDGED), counted["scored"] + counted["queue_dropped"]
    text = "each query that was answered was judged, or counted as dropped by a full queue"
    numbers = f"{seen:,} = {counted['scored']:,} + {counted['queue_dropped']:,}"
    yield Promise(text, numbers, seen == judged)
    names = ("stored", "spooled", "sampled_out", "lost")
    text = "each verdict was stored, spooled, sampled out under load, or counted as lost"
    numbers = f"{counted['scored']:,} = " + " + ".join(f"{counted[name]:,}" for name in names)
    yield Promise(text, numbers, counted["scored"] == sum(counted[name] for name in names))
    extra, full = system.rows() - counted["stored"] - counted["spooled"], run.notes.full_disks
    text = "the database holds each stored and each spooled query once; beyond that, batches counted as lost too early"
    numbers = f"{counted['stored']:,} + {counted['spooled']:,} + {extra:,} rows"
    yield Promise(text, numbers, 0 <= extra <= min(counted["lost"], full * BATCH_MAX) and not counted["damaged"])
    text = "verdicts are lost only while the disk is full and the database is away at once"
    yield Promise(text, f"{counted['lost']:,} lost, disk full {full} times", not counted["lost"] or full > 0)


def _waiting_it_out(run: Run, counted: Counter[str]) -> Iterator[Promise]:
    """What dead upstreams and wrong clocks do not change."""
    notes = run.notes
    if notes.stale_asked:
        failed = len(notes.with_their_caches(notes.stale_failed))
        text = "while no upstream answers, names in the cache are answered, but by a listener that is new"
        seen = f"{failed} of {notes.stale_asked} not, {len(notes.stale_failed) - failed} by a new one; "
        yield Promise(
            text, seen + f"{counted['cache_stale']:,} stale answers", not failed and counted["cache_stale"] > 0
        )
    if notes.clock_steps:
        let = [said for said in notes.tidied if said and not said.startswith(NOTHING_DROPPED)]
        text = "a wall clock that is 400 days ahead deletes nothing: tidying is refused, or finds nothing"
        seen = f"{notes.clock_steps} times ahead and back, tidied {len(notes.tidied)} times"
        yield Promise(text, "; ".join([seen, *let[:1]]), not let)


def _clients(system: System, run: Run) -> Iterator[Promise]:
    worst = max(run.ordinary.values(), key=lambda told: len(run.notes.apart(told.failed)) / max(told.queries, 1))
    failed = len(run.notes.apart(worst.failed))
    text = f"no ordinary client saw more than {SERVFAIL_MAX:.1%} SERVFAIL, but at a stop or while no upstream answered"
    seen = f"{failed} of {worst.queries:,} at the worst, and {len(worst.failed) - failed} then"
    yield Promise(text, seen, failed <= SERVFAIL_MAX * worst.queries, timed=True)
    in_vain = [span for told in run.ordinary.values() for span in told.in_vain]
    apart = run.notes.apart(in_vain)
    queries = sum(told.queries for told in run.ordinary.values())
    text = "no ordinary client asked three times in vain, but at a start or while no upstream answered"
    yield Promise(
        text, f"{len(apart)} of {queries:,}, and {len(in_vain) - len(apart)} meanwhile", not apart, timed=True
    )
    missing = _not_told(system, run)
    text = "every tunnel of the quiet client was found, and its channel told"
    seen = f"{len(run.tunnels) - len(missing)} of {len(run.tunnels)}" + "".join(f" -{name}" for name in missing[:5])
    yield Promise(text, seen, bool(run.tunnels) and not missing)
    if run.notes.tcp_asked:
        failed = len(run.notes.apart(run.notes.tcp_failed))
        text = "TCP is answered while one client holds all connections, but while the product was being started again"
        restarted = len(run.notes.tcp_failed) - failed
        yield Promise(text, f"{failed} of {run.notes.tcp_asked} not, and {restarted} meanwhile", not failed, timed=True)


def _not_told(system: System, run: Run) -> list[str]:
    """Domains of finished tunnels that no message names."""
    messages = [text.replace("[.]", ".") for text in system.channel.taken if QUIET in text.replace("[.]", ".")]
    return [domain for domain in run.tunnels if not any(domain in message for message in messages)]


def _processes(system: System, run: Run) -> Iterator[Promise]:
    failed = [f"{name}: {done.error}" for name, done in run.done.items() if done.error]
    failed += [f"{name}: never done" for name, done in run.done.items() if not done.times]
    text = "what was killed or stopped was replaced by itself, and all was well within a minute of the last fault"
    seen = "; ".join([*failed, *([run.mended] if run.mended else [])]) or f"{len(run.done)} kinds of fault"
    yield Promise(text, seen, not failed and not run.mended)
    if run.notes.health_s:
        text = f"/health answers within {HEALTH_MAX_S:g} s while the API is held up"
        worst = max(run.notes.health_s)
        yield Promise(text, f"{worst:.2f} s at most", worst < patient(HEALTH_MAX_S), timed=True)
    crashes = len(system.product.events("process_failed"))
    yield Promise(
        "no process failed by itself, and the last one ended well",
        f"{crashes}, exit {run.code}",
        crashes + run.code == 0,
    )
    first, middle, last = (max(system.memory.third(number)) for number in range(3))
    growth = GROWTH_MAX if run.lasted_s >= SHORT_S else SHORT_GROWTH_MAX
    text = f"memory levelled off: the most of the last third is at most {growth - 1:.0%} above that of the second"
    change = f"{last / middle - 1:+.1%}"
    seen = f"{first:.0f} MB, {middle:.0f} MB, then {last:.0f} MB ({change}; PSS of all processes)"
    yield Promise(text, seen, last <= growth * middle)


def report(system: System, run: Run, found: list[Promise]) -> str:
    """The table for people, in Markdown."""
    lines = ["| promise | seen | |", "| --- | --- | --- |"]
    lines += [f"| {one.text} | {one.seen} | {one.verdict} |" for one in found]
    lines += ["", "| fault | times | longest, s |", "| --- | --- | --- |"]
    lines += [f"| {name} | {done.times} | {done.longest_s:.0f} |" for name, done in run.done.items()]
    counted, clients = system.counted(), [*run.ordinary.values(), run.quiet]
    names = ("malformed", "rejected", "rate_dropped", "rate_slipped", "servfail", "sampled_out", "queue_dropped")
    lines += ["", f"Seed {run.seed}, {run.lasted_s:.0f} s. "]
    lines[-1] += f"Ordinary and quiet clients sent {sum(told.sent for told in clients):,} datagrams for "
    lines[-1] += f"{sum(told.queries for told in clients):,} queries, hostile ones {run.notes.hostile:,} "
    lines[-1] += f"({run.notes.malformed:,} of them noise). "
    lines[-1] += ", ".join(f"{name} {counted[name]:,}" for name in (*names, "replayed", "restarts", "hangs")) + "."
    return "\n".join(lines)


def causes(system: System, run: Run) -> str:
    """What went on when ordinary clients had no answer, memory was highest, and a tunnel was asked through in silence.

    For whoever looks for the cause.
    """
    told = run.ordinary.values()
    kinds = {
        "SERVFAIL": [span for one in told for span in one.failed],
        "in vain": [span for one in told for span in one.in_vain],
        "TCP": run.notes.tcp_failed,
    }
    counts = {kind: Counter(run.notes.during(*span) for span in spans) for kind, spans in kinds.items()}
    most = sorted(system.memory.samples, key=lambda sample: -sample[1])[:WORST]
    at = [(system.memory.begun + after, size) for after, size in most]
    told_of = [
        f"{size:.0f} MB after {when - system.memory.begun:.0f} s: {run.notes.during(when, when)}\n" for when, size in at
    ]
    stored = system.domains()
    for domain in _not_told(system, run):
        found = "an incident is stored" if domain in stored else "no incident is stored"
        told_of.append(f"{domain}, {found}, during: {run.notes.during(*run.tunnels[domain])}\n")
    return "".join(told_of) + "".join(
        f"{kind}, {times} times during: {when}\n"
        for kind, found in counts.items()
        for when, times in found.most_common(WORST)
    )
