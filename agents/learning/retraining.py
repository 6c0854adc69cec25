"""A retraining: backup, collect, train, validate, report, notify, deploy or reject; under one lock.

Each step is a method from TrainingRun to TrainingRun. A step that fails ends the run as FAILED: the champion
stays what it was, and the outcome is reported, sent and recorded all the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agents.core.errors import AgentsError, ModelError
from agents.core.protocols import Registry, SampleStore, ScoringModel
from agents.core.types import ChannelResult, Gate, Sample, Severity
from agents.detection.explanations.network_profile import NetworkProfile
from agents.learning.comparison.alert_diff import alert_gates
from agents.learning.comparison.bounds import USUAL_BOUNDS, GateBounds
from agents.learning.comparison.drift import creep_gates, drift, drift_gates, reference_of, with_anchor
from agents.learning.comparison.strangest import TOLD_FROM, strangest_text
from agents.learning.profile.difference import profile_changes, profile_gates
from agents.learning.release.lineage import code_version, sample_digest
from agents.learning.release.transitions import Author
from agents.learning.run import (
    AlertDiff,
    FeatureDrift,
    ProfileChange,
    RetrainOptions,
    RunState,
    SampleFacts,
    TrainingRun,
    TrainRequest,
    TypeResult,
    Validation,
    plain,
)
from agents.scoring.features import VERSION

STEPS = ("backup", "collect", "train", "validate", "report", "notify", "decide")
SAMPLE_MIN = 256
"""Fewer queries are no sample: one tree of an Isolation Forest takes 256 (Liu, Ting, Zhou 2008)."""
LIVE_MIN = 2
"""Fewer stored queries are nothing of this network to learn: a model of shipped names alone is in the package."""
_OF_A_CANDIDATE = ("train", "validate", "decide")
"""Steps that a run without a candidate leaves out."""

_PASSING = {"auto": RunState.DEPLOYED, "manual": RunState.WAITING, "canary": RunState.CANARY}
"""How a run ends whose candidate passes every gate, by DEPLOY."""
_NOT_LEARNT = {"deploy", "backup_days", "new_min"}
"""Options that change nothing of a model."""

_TEXTS = {
    "backup": "backing up the current model",
    "collect": "collecting NORMAL queries",
    "train": "training a candidate",
    "validate": "validating the candidate",
    "report": "writing the report",
    "notify": "sending notifications",
    "decide": "carrying out the decision",
}
OUTSIDE = (AgentsError, OSError, MemoryError)
"""What may go wrong around a run: it ends as FAILED. Anything else is a fault of this program, and is raised."""

_log = structlog.get_logger("agents.learning.retraining")


@dataclass(frozen=True, slots=True)
class RetrainingParts:
    """The collaborators of a run. Callables may block: they run in a worker thread, `notify` does not."""

    store: SampleStore
    registry: Registry
    trainer: Callable[[Sample, TrainRequest], ScoringModel]
    validator: Callable[[Any, Any], Validation]  # (candidate, champion)
    baseline_sample: Callable[[int, int], Sample]  # (n, seed): at most n queries of the shipped sample
    reporter: Callable[[TrainingRun], tuple[Path, Path]]  # writes HTML and JSON, returns their paths
    notify: Callable[[TrainingRun], Awaitable[Sequence[ChannelResult]]]
    save_run: Callable[[TrainingRun], None]
    clock: Callable[[], float]  # Unix seconds
    compare: Callable[[Sample, int], tuple[TypeResult, ...]] = lambda sample, seed: ()  # see TrainingRun.types
    progress: Callable[[int, int, str], None] = lambda step, total, text: None
    labels: Callable[[float, float], tuple[tuple[str, int], ...]] = lambda since, until: ()  # see TrainingRun.labels
    alerts: Callable[[Any, Any, float, float], AlertDiff] = lambda candidate, champion, since, until: AlertDiff()
    """(candidate, champion, since, until): what both would have told of stored traffic."""
    bounds: GateBounds = USUAL_BOUNDS
    canary: Mapping[str, Any] = field(default_factory=dict)  # terms of a canary, as JSON
    rejected_before: Callable[[], Sequence[tuple[str, int]]] = tuple  # ("rejected", runs in a row before this one)
    profile: Callable[[NetworkProfile | None], NetworkProfile | None] = lambda before: None
    """(before): a network profile of what is known now; before: that of the model in use."""
    publish: Callable[[], Sequence[str]] = tuple  # tells other programs of versions; a line for each problem


async def retrain(
    parts: RetrainingParts,
    options: RetrainOptions,
    now: float | None = None,
    locked: Callable[[], None] = lambda: None,
) -> TrainingRun:
    """Run the whole flow once, as of `now` (Unix seconds; by default the clock's).

    `locked` is called as soon as the lock is held. Raises BusyError if another holds it; other failures are
    FAILED runs.
    """
    with parts.registry.lock():
        locked()
        return await _Flow(parts, options, parts.clock() if now is None else now).run()


def passed_exit_code(run: TrainingRun) -> int:
    """Exit code of a run: 0 deployed or waiting, 1 failed, 3 rejected or nothing new to learn."""
    return {RunState.FAILED: 1, RunState.REJECTED: 3, RunState.UNCHANGED: 3}.get(run.state, 0)


class _Flow:
    def __init__(self, parts: RetrainingParts, options: RetrainOptions, now: float) -> None:
        self._parts = parts
        self._sample: Sample | None = None
        self._live: Sample | None = None  # the part of it that came from the store
        self._champion: ScoringModel | None = None
        self._candidate: ScoringModel | None = None
        self._profiles: tuple[NetworkProfile | None, NetworkProfile | None] = (None, None)  # before, and now
        self._run = TrainingRun(
            run_id=f"{datetime.fromtimestamp(now, UTC):%Y%m%d_%H%M%S}",
            state=RunState.FAILED,
            started=now,
            options=options,
            since=now - options.days * 86400,
            until=now,
        )

    async def run(self) -> TrainingRun:
        _log.info("retraining_started", run=self._run.run_id, days=self._run.options.days)
        ended = False
        await asyncio.to_thread(self._note_begun)
        try:
            for number, name in enumerate(STEPS, start=1):
                if self._run.state is not RunState.UNCHANGED or name not in _OF_A_CANDIDATE:
                    await self._step(number, name)
            ended = True
        except OUTSIDE as error:
            await self._fail(error)
            ended = True
        finally:
            if not ended:
                self._record_fault()
        return await self._finish()

    def _note_begun(self) -> None:
        """Whatever ends this process, the record shows that the run was begun."""
        try:
            self._parts.save_run(replace(self._run, state=RunState.RUNNING))
        except (AgentsError, OSError) as error:  # the end is recorded, too, and what fails then is told
            _log.warning("retraining_not_noted", run=self._run.run_id, error=str(error))

    def _record_fault(self) -> None:
        """A fault of this program, or a signal, ends the run: what is raised goes on, but the run is recorded."""
        error = f"cannot {self._run.step}: the run was broken off by a fault of this program or a signal; see the log"
        self._run = replace(self._run, state=RunState.FAILED, error=error, finished=self._parts.clock())
        _log.error("retraining_broken_off", run=self._run.run_id, step=self._run.step)
        with suppress(AgentsError, OSError):
            self._parts.save_run(self._run)

    async def _step(self, number: int, name: str) -> None:
        self._run = replace(self._run, step=name)
        self._parts.progress(number, len(STEPS), _TEXTS[name])
        begun = self._parts.clock()
        if name == "notify":
            await self._try("notification", self._notify)
        else:
            await asyncio.to_thread(getattr(self, f"_{name}"))
        spent = round(self._parts.clock() - begun, 3)
        self._run = replace(self._run, seconds={**self._run.seconds, name: spent})
        _log.info("retraining_step_finished", run=self._run.run_id, step=name, seconds=spent)

    def _backup(self) -> None:
        registry, now = self._parts.registry, self._run.started
        self._champion = registry.current()
        origin = registry.origin
        path = registry.backup(now)
        removed = registry.prune(now, self._run.options.backup_days)
        self._run = replace(
            self._run,
            champion_id=self._champion.model_id,
            champion_origin=origin,
            champion=self._champion.manifest,
            paths={"backup": str(path), "model": str(registry.champion_path)},
        )
        _log.info("model_backed_up", path=str(path), model_id=self._champion.model_id, backups_removed=removed)

    def _collect(self) -> None:
        options, run = self._run.options, self._run
        live = self._parts.store.sample_normal(
            since=run.since,
            until=run.until,
            limit=options.samples,
            max_score=options.max_score,
            client_share=options.client_share,
            domain_share=options.domain_share,
            features_version=VERSION,
            seed=options.seed,
            replayed=options.replayed,
        )
        self._live = live
        stored = self._stored()
        labels = self._counted(lambda: self._parts.labels(self._run.since, self._run.until))
        self._run = replace(self._run, labels=tuple(labels))
        _log.info("labels_counted", labels=dict(labels))
        fresh = self._fresh()
        if len(live) < LIVE_MIN or (fresh is not None and fresh < options.new_min):
            facts = replace(_facts(live, 0, stored), fresh=fresh)
            self._run = replace(self._run, state=RunState.UNCHANGED, sample=facts)
            _log.warning("nothing_new_to_learn", live=len(live), fresh=fresh)
            return
        extra = self._top_up(_missing(options, len(live)))
        self._sample = live if extra is None else _joined(live, extra)
        facts = replace(_facts(live, 0 if extra is None else len(extra), stored), fresh=fresh)
        self._run = replace(self._run, sample=replace(facts, data_sha256=sample_digest(self._sample)))
        _log.info(
            "sample_collected",
            live=facts.live,
            topped_up=facts.topped_up,
            clients=facts.clients,
            domains=facts.domains,
        )
        least = SAMPLE_MIN if options.supplement is None else min(SAMPLE_MIN, max(options.supplement))
        if len(self._sample) < least:
            raise AgentsError(f"cannot train: {len(self._sample)} queries are too few, at least {least} are needed")

    def _fresh(self) -> int | None:
        """NORMAL queries stored since the champion was trained; None where nobody asks, or it learned from none."""
        data = self._run.champion.get("data")
        until = data.get("until") if isinstance(data, Mapping) else None
        if not self._run.options.new_min or not isinstance(until, int | float):
            return None
        counts = self._parts.store.severity_counts(
            since=float(until), until=self._run.until, replayed=self._run.options.replayed
        )
        return dict(counts).get(Severity.NORMAL.name, 0)

    def _stored(self) -> tuple[tuple[str, int], ...]:
        """Stored queries by severity: for the report alone, so without them the run goes on."""
        counts = self._counted(
            lambda: self._parts.store.severity_counts(
                since=self._run.since, until=self._run.until, replayed=self._run.options.replayed
            )
        )
        return tuple((str(name), int(n)) for name, n in counts)

    def _counted(self, count: Callable[[], Sequence[tuple[str, int]]]) -> Sequence[tuple[str, int]]:
        try:
            return count()
        except AgentsError as error:
            self._run = replace(self._run, warnings=(*self._run.warnings, f"counts: {error}"))
            _log.error("queries_not_counted", error=str(error))
            return ()

    def _top_up(self, missing: int) -> Sample | None:
        return self._parts.baseline_sample(missing, self._run.options.seed) if missing > 0 else None

    def _train(self) -> None:
        assert self._sample is not None and self._run.sample is not None
        before = self._parts.registry.profile_of(self._champion)
        profile = self._parts.profile(before)
        self._profiles = before, profile
        request = TrainRequest(
            seed=self._run.options.seed,
            since=self._run.since,
            until=self._run.until,
            parent=self._run.champion_id,
            live=self._run.sample.live,
            topped_up=self._run.sample.topped_up,
            data_sha256=self._run.sample.data_sha256,
            profile=profile.summary() if profile is not None else {},
        )
        self._candidate = self._parts.trainer(self._sample, request)
        if _learned(self._candidate) == _learned(self._champion):
            self._run = replace(self._run, state=RunState.UNCHANGED, sample=replace(self._run.sample, known=True))
            _log.warning("nothing_new_to_learn", data_sha256=request.data_sha256)
            return
        if profile is not None:
            self._parts.registry.save_profile(profile)
        path = self._parts.registry.save_candidate(self._candidate)
        self._parts.registry.note(self._candidate.model_id, self._lineage(request))
        self._run = replace(
            self._run,
            candidate_id=self._candidate.model_id,
            candidate=self._candidate.manifest,
            paths={**self._run.paths, "candidate": str(path)},
        )
        _log.info("candidate_trained", model_id=self._candidate.model_id)

    def _lineage(self, request: TrainRequest) -> dict[str, Any]:
        """Where the candidate comes from, as JSON; see docs/learning.md."""
        assert self._candidate is not None
        settings, sample = plain(self._run.options), self._run.sample
        manifest = self._candidate.manifest
        return {
            "parent": request.parent,
            "run_id": self._run.run_id,
            "trained_at": self._parts.clock(),
            "data": {"since": request.since, "until": request.until, "sha256": request.data_sha256},
            "sample": plain(replace(sample, stored=(), by_day=(), top_client="")) if sample else None,
            "code": dict(code_version()),
            "seed": request.seed,
            "settings": {name: settings[name] for name in sorted(settings.keys() - _NOT_LEARNT)},
            "reference": reference_of(self._live.features) if self._live is not None else {},
            "profile": dict(request.profile),
            "algorithm": str(manifest.get("algorithm", "")),
            "arrays_sha256": str(manifest.get("arrays_sha256", "")),
        }

    def _validate(self) -> None:
        validation = self._parts.validator(self._candidate, self._champion)
        drifts, alerts = self._drift(), self._alerts()
        bounds = self._parts.bounds
        own = profile_gates(self._profiles[1])
        more = (*alert_gates(alerts, bounds), *drift_gates(drifts, bounds), *self._creep(), *own)
        compared = more if validation.gates else ()
        validation = replace(validation, gates=(*validation.gates, *compared))
        self._run = replace(self._run, validation=validation, types=self._types(), alerts=alerts, drift=drifts)
        self._run = replace(self._run, profile=self._profile_changes())
        passing = _PASSING[self._run.options.deploy]
        self._run = replace(self._run, state=passing if validation.passed else RunState.REJECTED)
        self._heed_pin()
        self._heed_rejections()
        gates = [plain(gate) | {"passed": gate.passed, "margin": plain(gate.margin)} for gate in validation.gates]
        moved = [plain(one) for one in sorted(drifts, key=lambda one: -one.psi)]
        told = {"gates": gates, "passed": validation.passed, "drift": moved}
        self._parts.registry.note(self._run.candidate_id, told)
        _log.info("candidate_validated", passed=validation.passed, missed=[gate.name for gate in self._run.missed])

    def _drift(self) -> tuple[FeatureDrift, ...]:
        """Of the stored part of the sample, since the last training; () where that left nothing to compare with."""
        registry, live = self._parts.registry, self._live
        assert live is not None
        found = drift(registry.lineage(self._run.champion_id).get("reference", {}), live.features)
        anchor = registry.aliases().get("anchor", "")
        if not anchor or anchor == self._run.champion_id:
            return found
        return with_anchor(found, drift(registry.lineage(anchor).get("reference", {}), live.features))

    def _creep(self) -> tuple[Gate, ...]:
        registry, live = self._parts.registry, self._live
        assert live is not None
        anchor = registry.aliases().get("anchor", "")
        reference = registry.lineage(anchor).get("reference", {}) if anchor else {}
        return creep_gates(reference, live.features, self._parts.bounds)

    def _profile_changes(self) -> tuple[ProfileChange, ...]:
        before, now = self._profiles
        return profile_changes(before, now) if now is not None else ()

    def _heed_rejections(self) -> None:
        """Where candidates are rejected again and again, say so, and whose names are the strangest of the sample."""
        before = self._counted(self._parts.rejected_before) if self._run.state is RunState.REJECTED else ()
        count = 1 + sum(number for _, number in before)
        if count >= TOLD_FROM:
            assert self._live is not None and self._champion is not None
            missed = [gate.name for gate in self._run.missed]
            said = f"rejected {count} times in a row; {strangest_text(self._live, self._champion, missed)}"
            self._run = replace(self._run, warnings=(*self._run.warnings, said))
            _log.warning("candidates_rejected_again", count=count)

    def _alerts(self) -> AlertDiff:
        """What candidate and model in use would have told of the last days; without the store there is no answer."""
        return self._parts.alerts(self._candidate, self._champion, self._run.since, self._run.until)

    def _types(self) -> tuple[TypeResult, ...]:
        """For the report alone, so without them the run goes on."""
        assert self._sample is not None
        try:
            return self._parts.compare(self._sample, self._run.options.seed)
        except (AgentsError, OSError) as error:
            self._run = replace(self._run, warnings=(*self._run.warnings, f"detector types: {error}"))
            _log.error("types_not_compared", error=str(error))
            return ()

    def _report(self) -> None:
        html, data = self._parts.reporter(replace(self._run, finished=self._parts.clock()))
        self._run = replace(self._run, paths={**self._run.paths, "report": str(html), "report_json": str(data)})

    async def _notify(self) -> None:
        results = tuple(await self._parts.notify(replace(self._run, finished=self._parts.clock())))
        self._run = replace(self._run, channels=(*self._run.channels, *results))
        for one in results:
            _log.info("notification_sent" if one.ok else "notification_failed", channel=one.channel, error=one.error)

    def _heed_pin(self) -> None:
        """Where a person has pinned a model, or a canary runs, a candidate that would be deployed waits."""
        registry, state = self._parts.registry, self._run.state
        why = registry.pinned() if state in (RunState.DEPLOYED, RunState.CANARY) else ""
        canary = registry.canary() if state is RunState.CANARY and not why else None
        if canary is not None:
            why = f"model {canary['model_id']} is a canary at present, so this candidate waits"
        if why:
            self._run = replace(self._run, state=RunState.WAITING, warnings=(*self._run.warnings, why))

    def _decide(self) -> None:
        self._heed_pin()  # it may have been pinned since
        registry, run = self._parts.registry, self._run
        if run.state in (RunState.DEPLOYED, RunState.CANARY):
            now_in_use = registry.current().model_id
            if now_in_use != run.champion_id:
                change = f"from {run.champion_id} to {now_in_use}"
                raise ModelError(f"cannot deploy: the model in use changed during the run {change}")
            author = Author("the retraining", f"run {run.run_id}: every gate was passed")
            if run.state is RunState.DEPLOYED:
                registry.promote(run.candidate_id, author)
            else:
                registry.begin_canary(run.candidate_id, self._parts.canary, self._parts.clock(), author, False)
        else:
            missed = ", ".join(f"{gate.name} (by {abs(gate.margin):.4g})" for gate in run.missed)
            reason = f"run {run.run_id}: {f'missed {missed}' if missed else 'every gate was passed'}"
            registry.mark(run.candidate_id, run.state.value.lower(), Author("the retraining", reason))

    async def _fail(self, error: BaseException) -> None:
        text = str(error) or type(error).__name__
        if isinstance(error, OSError):
            text = f"cannot {self._run.step}: {error.strerror or error}" + (
                f" ({error.filename})" if error.filename else ""
            )
        elif isinstance(error, MemoryError):
            text = f"cannot {self._run.step}: out of memory"
        _log.error("retraining_step_failed", run=self._run.run_id, step=self._run.step, error=text)
        self._run = replace(self._run, state=RunState.FAILED, error=text)
        await self._try("report", lambda: asyncio.to_thread(self._report))
        await self._try("notification", self._notify)

    async def _finish(self) -> TrainingRun:
        """Record the outcome, and write the report once more: now it knows the channels and the end."""
        self._run = replace(self._run, finished=self._parts.clock())
        if self._run.candidate_id:
            await self._try("publishing", self._publish)
        await self._try("record", lambda: asyncio.to_thread(self._parts.save_run, self._run))
        await self._try("report", lambda: asyncio.to_thread(self._report))
        log = _log.error if self._run.state is RunState.FAILED else _log.info
        log("retraining_finished", run=self._run.run_id, state=self._run.state.value, error=self._run.error)
        return self._run

    async def _publish(self) -> None:
        problems = await asyncio.to_thread(self._parts.publish)
        self._run = replace(self._run, warnings=(*self._run.warnings, *problems))

    async def _try(self, what: str, action: Callable[[], Awaitable[None]]) -> None:
        """Telling and recording must not change an outcome: a failure becomes a warning of the run."""
        try:
            await action()
        except OUTSIDE as error:
            self._run = replace(self._run, warnings=(*self._run.warnings, f"{what}: {error}"))
            _log.error("retraining_aftermath_failed", what=what, error=str(error))


def _learned(model: ScoringModel | None) -> object:
    """What a model has learned: hash of its arrays, factor on its limits, network profile. One without a hash is like
    no other."""
    if model is None or "arrays_sha256" not in model.manifest:
        return object()
    limits = model.manifest.get("limits")
    factor = limits.get("factor", 1.0) if isinstance(limits, Mapping) else 1.0
    profile = model.manifest.get("profile")
    return model.manifest["arrays_sha256"], factor, profile.get("learnt") if isinstance(profile, Mapping) else None


def _missing(options: RetrainOptions, live: int) -> int:
    """How many shipped names the sample takes beside so many stored queries."""
    if options.supplement is None or live < options.supplement[0]:
        return options.samples - live
    return max(live, SAMPLE_MIN - live) if live < options.supplement[1] else 0


def _joined(live: Sample, extra: Sample) -> Sample:
    """Both samples as one, oldest first; the order is the same for the same input (stable sort)."""
    ts = np.concatenate([live.ts, extra.ts])
    order = np.argsort(ts, kind="stable")
    return Sample(
        ts=ts[order],
        client=_pick([*live.client, *extra.client], order),
        qname=_pick([*live.qname, *extra.qname], order),
        domain=_pick([*live.domain, *extra.domain], order),
        features=np.concatenate([live.features, extra.features])[order] if len(live) else extra.features[order],
    )


def _pick(column: list[str], order: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
    return [column[at] for at in order]


def _facts(live: Sample, topped_up: int, stored: tuple[tuple[str, int], ...]) -> SampleFacts:
    days = Counter(f"{datetime.fromtimestamp(float(ts), UTC):%Y-%m-%d}" for ts in live.ts)
    clients = Counter(live.client)
    ((top, most),) = clients.most_common(1) or [("", 0)]
    return SampleFacts(
        live=len(live),
        topped_up=topped_up,
        clients=len(clients),
        domains=len(set(live.domain)),
        by_day=tuple(sorted(days.items())),
        stored=stored,
        top_client=top,
        top_client_share=most / max(len(live), 1),
    )
