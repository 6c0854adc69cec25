"""From settings to a fleet: this installation as a site, and as the coordinator of others."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from agents.core.types import DAY_S
from agents.learning.baseline import benign_names, sample_of
from agents.learning.fleet import options as fleet_options
from agents.learning.fleet.coordinator import Coordinator
from agents.learning.fleet.exchange import ForestPart
from agents.learning.fleet.forests import joined_candidate
from agents.learning.fleet.options import FleetOptions
from agents.learning.fleet.site import FleetSite, Knowledge
from agents.learning.loop.flow_hours import SCHEMA as FLOW_HOUR_SCHEMA
from agents.learning.loop.online import cold_model
from agents.learning.profile.making import reach_of
from agents.learning.release.transitions import Author
from agents.learning.run import plain
from agents.runtime.bootstrap.judging import learner_of
from agents.runtime.bootstrap.learning import FLEET_SITE, PROFILE_DAYS, doubted_domains, judged_by_gates
from agents.runtime.bootstrap.models import registry_of, train_config
from agents.settings import Settings
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.sql import Store

FIRST_RATE = 0.003
"""Rate of the steps that make the flow model of a fleet's first round: the same on every coordinator."""
COORDINATOR = "fleet"
"""Folder of a coordinator, in that of the detector's state."""


def fleet_options_of(settings: Settings) -> FleetOptions:
    """The settings FLEET…."""
    return fleet_options.SPEC.factory(settings.of(fleet_options.SPEC))


def coordinator_of(settings: Settings) -> Coordinator:
    """What coordinates other sites, where `fleet add` has named some."""
    first = partial(cold_model, FIRST_RATE)
    return Coordinator(settings.state_dir / COORDINATOR, fleet_options_of(settings), first)


def fleet_site_of(settings: Settings, store: Store) -> FleetSite:
    """This installation as a site of a fleet."""
    registry = registry_of(settings)

    def knowledge() -> Knowledge:
        now = time.time()
        hours = FlowHourStore(store)
        month = hours.read(FLOW_HOUR_SCHEMA, since=int((now - PROFILE_DAYS * DAY_S) // 3600))
        week = hours.read(FLOW_HOUR_SCHEMA, since=int((now - 7 * DAY_S) // 3600))
        return Knowledge(week, reach_of(month), doubted_domains(store), registry.current())

    def propose(forest: ForestPart, number: int) -> str:
        return _proposed(settings, store, forest, number)

    folder = settings.state_dir / FLEET_SITE
    return FleetSite(folder, fleet_options_of(settings), learner_of(settings, store), knowledge, propose)


def _proposed(settings: Settings, store: Store, forest: ForestPart, number: int) -> str:
    """Take a joined forest to this site's gates: then it waits for a person, or is turned down. What came of it."""
    registry = registry_of(settings)
    with registry.lock("take the fleet's forest"):
        champion = registry.current()
        benign = sample_of(benign_names())
        config = replace(train_config(settings), seed=settings.retrain_seed)
        candidate = joined_candidate(champion, forest, number, benign, config)
        if candidate is None:
            return "left out: the model in use is no forest"
        registry.save_candidate(candidate)
        gates, _ = judged_by_gates(settings, store)(candidate, champion)
        missed = [gate for gate in gates if not gate.passed]
        rows = [plain(gate) | {"passed": gate.passed, "margin": plain(gate.margin)} for gate in gates]
        facts = {"parent": champion.model_id, "fleet_round": number, "gates": rows, "passed": not missed}
        registry.note(candidate.model_id, facts)
        named = ", ".join(gate.name for gate in missed)
        why = f"missed {named}" if missed else "every gate was passed"
        state = "rejected" if missed else "waiting"
        registry.mark(candidate.model_id, state, Author("the fleet", f"round {number}: {why}"))
        return f"{candidate.model_id} {state}: {why}"
