"""`dns-tunnel tidy`: the daily maintenance, once, now."""

from __future__ import annotations

import argparse

from agents.core.errors import AgentsError
from agents.core.text import counted
from agents.runtime import bootstrap
from agents.runtime.services import maintain
from agents.settings import Settings


def tidy(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel tidy`; exit code 1 where it is refused."""
    upkeep = bootstrap.upkeep_of(settings)
    upkeep.store.migrate()
    done = maintain(upkeep, anyway=options.anyway)
    if upkeep.clock.refused:
        raise AgentsError(upkeep.clock.refused)
    incidents, runs = done.get("incidents_and_runs_deleted", (0, 0))
    live = f"{counted(done.get('queries_dropped', 0), 'query')}, {counted(incidents, 'incident')}"
    replayed = f"{counted(done.get('replayed_queries_dropped', 0), 'query')}"
    replayed += f", {counted(done.get('replayed_incidents_deleted', 0), 'incident')}"
    print(f"dropped: {live} seen live; {replayed} of replays; {counted(runs, 'retraining')}")
    return 0
