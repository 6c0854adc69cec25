"""`dns-tunnel tidy`: the daily maintenance, once, now."""

from __future__ import annotations

import argparse

from agents.core.errors import AgentsError
from agents.runtime import bootstrap
from agents.runtime.services import maintain
from agents.settings import Settings


def tidy(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel tidy`; exit code 1 where it is refused."""
    upkeep = bootstrap.upkeep_of(settings)
    upkeep.store.migrate()
    maintain(upkeep, anyway=options.anyway)
    if upkeep.clock.refused:
        raise AgentsError(upkeep.clock.refused)
    return 0
