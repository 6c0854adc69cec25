"""A new site starts from what other sites of its fleet know of domains: over HTTP, through its own gates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.detection.explanations.network_profile import domain_hash_of
from agents.learning.fleet.exchange import FleetState
from agents.learning.fleet.habits import HabitPart
from agents.learning.fleet.sketches import REGISTERS
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.release.diff import difference_text
from agents.runtime import bootstrap
from agents.runtime.judging.judge import Judge
from agents.settings import Settings
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from tests.runtime.test_fleet_live import SECRET, SITES, Fleet, own, send
from tests.runtime.test_profile_of_a_retraining import KIND, put_habits

pytestmark = pytest.mark.integration


def put_clients(store: Store, network: str, count: int) -> None:
    """So many clients of a network ask below vendor.example, an hour ago."""
    hours = np.full(count, int(time.time() // 3600) - 1, np.int64)
    clients = [f"{network}.{one}" for one in range(1, count + 1)]
    numbers = np.ones((count, len(NUMBERS)), np.float32)
    FlowHourStore(store).add(FlowHours(SCHEMA, hours, clients, ["vendor.example"] * count, [()] * count, numbers))


class Known:
    """A fleet in which north and south know vendor.example, and west is new."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.fleet = Fleet(folder, stack)
        self.settings = {site: self._settings(folder, site) for site in SITES}
        put_habits(self.settings["north"], 1500.0)
        put_habits(self.settings["south"], 2000.0)
        put_clients(self.fleet.stores["north"], "192.0.2", 9)
        put_clients(self.fleet.stores["south"], "198.51.100", 12)

    def _settings(self, folder: Path, site: str) -> Settings:
        options = self.fleet.sites[site].options
        own = {"fleet": options.url, "fleet_site": site, "fleet_key": options.key, "fleet_secret": SECRET}
        return self.fleet.settings(folder / site, upstreams="127.0.0.1:9", **own)

    def send(self, hostile: list[HabitPart] | None = None) -> FleetState:
        """Every site sends; south what is given, if anything is. The state after it."""
        for site in SITES:
            sent = own(self.fleet.sites[site], self.fleet.sites[site].look())
            if hostile is not None and site == "south":
                sent = sent.model_copy(update={"habits": hostile})
            state = send(self.fleet.sites[site], sent)
        return state


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    with ExitStack() as stack:
        yield Known(tmp_path, stack)


@pytest.mark.slow
def test_a_new_site_joins_and_its_detector_has_the_fleet_s_habits(known: Known) -> None:
    state = known.send()
    (said,) = state.habits
    assert (said.hash, said.kind, said.usual) == (domain_hash_of(SECRET, "vendor.example"), KIND, 1500)
    assert said.clients == pytest.approx(18, abs=1), "twelve there count as nine: no site for more than another"
    lines = known.fleet.sites["west"].step(sends=False)
    settings = known.settings["west"]
    registry = bootstrap.registry_of(settings)
    champion = registry.current()
    assert lines[1] == f"round 1: profile {champion.model_id} deployed: every gate was passed"
    judge = Judge(bootstrap.judge_parts(settings))
    try:
        judge.detector.tick(time.time())
        profile = judge.detector.incidents.explainer.profile  # type: ignore[attr-defined]
        assert (profile.fleet_usual("vendor.example"), profile.fleet_usual("other.example")) == (1500, 0)
    finally:
        judge.close()
    text = "would start from the fleet's habits of 1 domain (0 before): 3 kB a day at most, up to 2 sites, as " + KIND
    desk = bootstrap.model_desk_of(settings)
    assert text in difference_text(desk.diff("shipped", "champion"))
    desk.decide("rollback", "", "ann", "a trial")
    assert registry.profile_of(registry.current()) is None
    desk.store.close()
    again = bootstrap.fleet_site_of(settings, known.fleet.stores["west"]).propose(state)
    assert again[0].startswith("profile ") and "deployed" in again[0]
    assert bootstrap.fleet_site_of(settings, known.fleet.stores["west"]).propose(state) == ["profile unchanged"]


@pytest.mark.slow
def test_where_people_decide_the_profile_waits_for_them_and_one_beyond_the_bound_is_refused(known: Known) -> None:
    state, west = known.send(), known.settings["west"]
    site = bootstrap.fleet_site_of(replace_deploy(west), known.fleet.stores["west"])
    lines = site.step(sends=False)
    assert "profile" in lines[1] and "waiting: every gate was passed" in lines[1]
    assert bootstrap.registry_of(west).profile_of(bootstrap.registry_of(west).current()) is None
    beyond = state.habits[0].model_copy(update={"usual": 1e9})
    path = site.folder / "state.json"
    path.write_text(f'{{"habits": [{beyond.model_dump_json()}]}}')
    (line,) = bootstrap.fleet_site_of(west, known.fleet.stores["west"]).propose(state)
    assert "rejected: missed profile beyond the bound" in line
    path.write_text('{"habits": [{"hash": "evil.example"}]}')
    assert bootstrap.fleet_site_of(west, known.fleet.stores["west"]).propose(state) == []


def replace_deploy(settings: Settings) -> Settings:
    return settings.model_copy(update={"deploy": "manual"})


@pytest.mark.slow
def test_a_hostile_site_s_habits_change_nothing_beyond_its_part(known: Known) -> None:
    """It inflates what is known elsewhere, makes up domains, and its sketches are full."""
    full = "t" * REGISTERS
    vendor = HabitPart(hash=domain_hash_of(SECRET, "vendor.example"), kind=KIND, usual=1_000_000, clients=full)
    made_up = [HabitPart(hash=f"{n:016x}", kind=KIND, usual=1_000_000, clients=full) for n in range(400)]
    (said,) = known.send([vendor, *made_up]).habits
    assert (said.hash, said.usual, said.sites) == (vendor.hash, 1500, 2)
    assert said.clients <= 2 * 10, "twice what the other site has"


@pytest.mark.slow
def test_one_site_s_say_alone_reaches_nobody(known: Known) -> None:
    assert known.send([]).habits == []
    known.fleet.sites["west"] = replace(known.fleet.sites["west"], propose=lambda state: ["looked at"])
    assert known.fleet.sites["west"].step(sends=False)[1] == "round 1: looked at"
