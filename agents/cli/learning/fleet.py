"""`dns-tunnel fleet`: this installation as a site of a fleet, and as the coordinator of others."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from typing import Any

from agents.core.text import counted, printable, utc
from agents.learning.fleet.flower import FlowerRounds, FlowerSite, must_have_flower
from agents.learning.fleet.habits import kinds_seen
from agents.learning.fleet.joining import compared_quantiles
from agents.learning.fleet.site import FleetSite
from agents.runtime import bootstrap, warmup
from agents.settings import Settings

LOOK_S = 2.0
"""How often a round is asked for that is waited for."""


def fleet(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel fleet …`."""
    if options.action in ("sites", "add", "remove", "serve"):
        return _coordinate(settings, options)
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        site = bootstrap.fleet_site_of(settings, store)
        if options.action == "status":
            print(json.dumps(_status(site), indent=1))
            return 0
        if options.action == "run" and options.engine == "flower":
            must_have_flower(options.address)
        warmup.up(print)
        if options.action == "show":
            print(site.contribution(site.look()).model_dump_json(indent=1))
        elif options.action == "join":
            _say(site.step(sends=False) or ["nothing to take yet: no round has ended, or its result was taken"])
        elif options.engine == "flower":
            _say(FlowerSite(site).take_part(options.address))
        else:
            _run(site, options.rounds)
    return 0


def _run(site: FleetSite, rounds: int) -> None:
    """Take part until so many further results were taken."""
    first = site.look().round
    while True:
        _say(site.step())
        if site.taken() >= first + rounds - 1:
            return
        time.sleep(LOOK_S)


def _say(lines: list[str]) -> None:
    for line in lines:
        print(printable(line, 400), flush=True)


def _status(site: FleetSite) -> dict[str, Any]:
    state = site.look()
    found: dict[str, Any] = {
        "round": state.round,
        "ends_at": utc(state.ends_at),
        "sent": state.sent,
        "sites_in_the_last_round": state.joined,
        "taken": site.taken(),
        "domains_known_at_several_sites": len(state.domains),
        "kinds_of_service": kinds_seen(state.habits),
    }
    for row in compared_quantiles(site.own_counts(), state.shares):
        of_all = {name: f"below {row[name]:,} bytes" for name in ("here", "fleet") if row[name]}
        found[f"busiest day of {row['share']:.0%} of clients"] = of_all
    return found


def _coordinate(settings: Settings, options: argparse.Namespace) -> int:
    coordinator = bootstrap.coordinator_of(settings)
    if options.action == "serve":
        must_have_flower(options.address)
        _say(FlowerRounds(coordinator).serve(options.address, options.rounds, options.sites))
    elif options.action == "sites":
        sites = coordinator.sites()
        for site, sent in sites.items():
            print(f"{site}  {'has sent' if sent else 'has not sent yet'}")
        print(counted(len(sites), "site"))
    elif options.action == "add":
        key = coordinator.add(options.site)
        address = settings.public_url or f"http://{settings.api_host}:{settings.api_port}"
        if not settings.public_url:
            print("this address is this machine's own: set PUBLIC_URL to how sites reach it", file=sys.stderr)
        print(f"FLEET={address}\nFLEET_SITE={options.site}\nFLEET_KEY={key}")
        print("FLEET_SECRET is the sites' own: make one, and give it to all sites, not to the coordinator")
    else:
        coordinator.remove(options.site)
        print(f"{options.site} takes part no more")
    return 0
