"""From settings to a fleet: this installation as a site, and as the coordinator of others."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from agents.core.types import DAY_S
from agents.detection.explanations.network_profile import NetworkProfile
from agents.learning.baseline import benign_names, sample_of
from agents.learning.fleet.coordinator import Coordinator
from agents.learning.fleet.exchange import FleetState
from agents.learning.fleet.forests import joined_candidate
from agents.learning.fleet.site import FleetSite, Knowledge
from agents.learning.loop.flow_hours import SCHEMA as FLOW_HOUR_SCHEMA
from agents.learning.loop.material import cold_model
from agents.learning.profile.difference import profile_gates
from agents.learning.profile.making import reach_of
from agents.learning.registry import ModelRegistry
from agents.learning.release.transitions import Author
from agents.learning.run import plain
from agents.runtime.bootstrap.judging import learner_of
from agents.runtime.bootstrap.learning import (
    FLEET_SITE,
    PROFILE_DAYS,
    doubted_domains,
    judged_by_gates,
    profile_now,
)
from agents.runtime.bootstrap.models import fleet_options_of, registry_of, train_config
from agents.scoring.model import Model
from agents.settings import Settings
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.sql import Store

FIRST_RATE = 0.003
"""Rate of the steps that make the flow model of a fleet's first round: the same on every coordinator."""
COORDINATOR = "fleet"
"""Folder of a coordinator, in that of the detector's state."""
FLEET_AUTHOR = "the fleet"
"""Who is said to have decided about what came of a round."""


def coordinator_of(settings: Settings) -> Coordinator:
    """What coordinates other sites, where `fleet add` has named some."""
    first = partial(cold_model, FIRST_RATE)
    return Coordinator(settings.state_dir / COORDINATOR, fleet_options_of(settings), first)


def fleet_site_of(settings: Settings, store: Store) -> FleetSite:
    """This installation as a site of a fleet."""
    registry = registry_of(settings)

    def last_week() -> FlowHours:
        return FlowHourStore(store).read(FLOW_HOUR_SCHEMA, since=int((time.time() - 7 * DAY_S) // 3600))

    def knowledge() -> Knowledge:
        now = time.time()
        hours = FlowHourStore(store)
        month = hours.read(FLOW_HOUR_SCHEMA, since=int((now - PROFILE_DAYS * DAY_S) // 3600))
        own = profile_now(settings, store, None, alone=True)
        return Knowledge(last_week(), reach_of(month), doubted_domains(store), registry.current(), own)

    folder, learner = settings.state_dir / FLEET_SITE, learner_of(settings, store)
    propose = partial(_proposed, settings, store)
    return FleetSite(folder, fleet_options_of(settings), learner, knowledge, propose, last_week)


def _proposed(settings: Settings, store: Store, state: FleetState) -> list[str]:
    """Take what came of a round to this site's gates: a profile to start from, and a forest. What came of it."""
    registry, number = registry_of(settings), state.round - 1
    with registry.lock("take what came of the fleet's round"):
        champion = registry.current()
        lines, base = _started(settings, store, registry, champion, number)
        if state.forest is None:
            return lines
        config = replace(train_config(settings), seed=settings.retrain_seed)
        candidate = joined_candidate(base, state.forest, number, sample_of(benign_names()), config)
        if candidate is None:
            return [*lines, "forest left out: the model in use is no forest"]
        missed = _judged(settings, store, registry, candidate, number)
        outcome = _noted(registry, candidate, number, missed, "waiting")
        return [*lines, f"forest {candidate.model_id} {outcome}"]


def _started(
    settings: Settings, store: Store, registry: ModelRegistry[Model], champion: Model, number: int
) -> tuple[list[str], Model]:
    """Let a new site start from the fleet's profile; what came of it, and the model that its forest is joined with.

    The profile's own gate is that of any: it ends at the caps of docs/bound.md. So DEPLOY=auto takes it at once. What
    this network has learnt of itself stays as it was deployed: that changes by the week, with a retraining.
    """
    before = registry.profile_of(champion)
    profile = profile_now(settings, store, before)
    if before is not None and profile is not None:
        secret = fleet_options_of(settings).secret
        profile = NetworkProfile(**(dict(before) | {"fleet": profile.fleet})).keyed(secret)
    had = before.fleet if before is not None else ()
    if profile is None or profile.fleet == had:
        return ["profile unchanged"] if had else [], champion
    facts = {"parent": champion.model_id, "fleet_round": number, "profile": profile.summary()}
    made = replace(champion, manifest={**champion.manifest, **facts})
    candidate = Model.from_bytes(made.to_bytes())
    registry.save_profile(profile)
    missed = _judged(settings, store, registry, candidate, number, profile)
    free = settings.deploy == "auto" and not registry.pinned() and registry.canary() is None
    outcome = _noted(registry, candidate, number, missed, "deployed" if free else "waiting")
    if free and not missed:
        registry.promote(candidate.model_id, Author(FLEET_AUTHOR, f"round {number}: every gate was passed"))
    return [f"profile {candidate.model_id} {outcome}"], champion if missed else candidate


def _judged(
    settings: Settings,
    store: Store,
    registry: ModelRegistry[Model],
    candidate: Model,
    number: int,
    profile: NetworkProfile | None = None,
) -> list[str]:
    """Keep a candidate with its gates; which of them it misses."""
    champion = registry.current()
    registry.save_candidate(candidate)
    gates = (*judged_by_gates(settings, store)(candidate, champion)[0], *profile_gates(profile))
    missed = [gate.name for gate in gates if not gate.passed]
    rows = [plain(gate) | {"passed": gate.passed, "margin": plain(gate.margin)} for gate in gates]
    facts = {"parent": champion.model_id, "fleet_round": number, "gates": rows, "passed": not missed}
    registry.note(candidate.model_id, facts)
    return missed


def _noted(registry: ModelRegistry[Model], candidate: Model, number: int, missed: list[str], passed: str) -> str:
    """Mark a candidate; its state and why. passed: its state where it misses no gate."""
    state, why = ("rejected", f"missed {', '.join(missed)}") if missed else (passed, "every gate was passed")
    if state != "deployed":  # the transition says so
        registry.mark(candidate.model_id, state, Author(FLEET_AUTHOR, f"round {number}: {why}"))
    return f"{state}: {why}"
