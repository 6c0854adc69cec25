"""Three sites and a coordinator on loopback: five rounds over HTTP, each site with a database of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from agents.cli.parser import main
from agents.core.errors import AgentsError, SettingsError
from agents.learning.fleet.exchange import BINS, WEIGHTS, Contribution, FleetState
from agents.learning.fleet.joining import quantile_bin
from agents.learning.fleet.site import FleetSite, flow_model_of
from agents.learning.loop.flow_hours import NUMBERS
from agents.learning.loop.golden import golden_flow_hours
from agents.learning.loop.material import Examples, measures
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store import Store
from agents.store.feedback.labels import Label
from agents.web.app import create_app
from tests.learning.loop.test_online import keys, kind, put, say
from tests.support.flow_hours import HOUR
from tests.support.listening import wait_until
from tests.web.test_console import World

pytestmark = pytest.mark.integration

SITES = ("north", "south", "west")
SECRET = "what only the sites know"


@contextmanager
def served(folder: Path, coordinator: Any) -> Iterator[str]:
    """The console of a coordinating installation on a port of loopback; its address."""
    folder.mkdir()
    world = World(folder)
    app = create_app(replace(world.parts, fleet=coordinator))
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            world.store.close()


class Fleet:
    """A coordinator that is served, and sites with what their people said."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.coordinator = bootstrap.coordinator_of(self.settings(folder / "coordinator"))
        keys_of = {site: self.coordinator.add(site) for site in SITES}
        self.url = stack.enter_context(served(folder / "console", self.coordinator))
        self.stores: dict[str, Store] = {}
        self.sites: dict[str, FleetSite] = {}
        for site in SITES:
            own = {"fleet": self.url, "fleet_site": site, "fleet_key": keys_of[site], "fleet_secret": SECRET}
            settings = self.settings(folder / site, **own)
            settings.state_dir.mkdir(parents=True)
            store = bootstrap.store_of(settings)
            stack.callback(store.close)
            store.migrate()
            self.stores[site] = store
            self.sites[site] = bootstrap.fleet_site_of(settings, store)

    @staticmethod
    def settings(folder: Path, **more: Any) -> Settings:
        return bootstrap.load_settings(data_dir=folder, replay_queries_max=0, learning_rate=0.01, **more)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def labelled(store: Store, seed: int) -> None:
    """A service that looks like a tunnel, as people of a site call it, beside tunnels."""
    numbers = keys() * np.random.default_rng(seed).uniform(0.9, 1.1, (120, len(NUMBERS))).astype(np.float32)
    first = put(store, np.concatenate([numbers, kind(True, 60, seed)]), HOUR)
    say(store, first[:120], Label.BENIGN, HOUR)
    say(store, first[120:], Label.TUNNEL, HOUR)


def accuracy(site: FleetSite) -> float:
    """Of the service that two sites know, by the flow model of a site."""
    model = site.learner.model()
    assert model is not None
    return measures(model, Examples(keys(), np.zeros(120, np.bool_)))["accuracy"]


@pytest.mark.slow
def test_three_sites_train_five_rounds_and_the_one_without_labels_learns_from_the_others(fleet: Fleet) -> None:
    for seed, site in enumerate(("north", "south")):
        labelled(fleet.stores[site], seed + 5)
        fleet.sites[site] = replace(fleet.sites[site], propose=lambda state: ["forest is looked at later"])
    whole = fleet.sites["west"]
    west, found = replace(whole, propose=lambda state: ["forest is looked at later"]), []
    for number in range(1, 6):
        west = whole if number == 5 else west
        assert [fleet.sites[site].step()[-1] for site in ("north", "south")] == [f"round {number}: sent"] * 2
        lines = west.step()
        assert lines[0] == f"round {number}: sent"
        assert lines[1] == f"round {number}: flow model deployed"
        assert "forest" in lines[2] and "left out" not in lines[2]
        found.append(accuracy(west))
    print("accuracy in the west after each round:", [round(one, 2) for one in found])
    assert found[-1] > 0.7 > found[0], found
    assert west.taken() == 5
    waiting = bootstrap.registry_of(Fleet.settings(west.folder.parent.parent)).list()
    assert {row["state"] for row in waiting} <= {"waiting", "rejected"} and waiting, "no forest came into use"


@pytest.mark.slow
def test_a_malicious_site_changes_nothing_beyond_its_part(fleet: Fleet, tmp_path: Path) -> None:
    for seed, site in enumerate(("north", "south")):
        labelled(fleet.stores[site], seed + 5)
    honest = [fleet.sites[site].contribution(fleet.sites[site].look()) for site in ("north", "south")]
    evil = fleet.sites["west"]
    state = evil.look()
    hostile = honest[0].model_copy(
        update={
            "forest": None,
            "delta": [1e6] * WEIGHTS,
            "counts": [0] * (BINS - 1) + [10_000_000],
            "domains": [f"{number:016x}" for number in range(20_000)],
        }
    )
    counts = [100 if at == 9 else 0 for at in range(BINS)]
    honest = [one.model_copy(update={"counts": counts, "forest": None}) for one in honest]
    for site, contribution in zip(("north", "south"), honest, strict=True):
        send(fleet.sites[site], contribution)
    after = send(evil, hostile)
    deltas = np.array([one.delta for one in honest])
    moved = np.array(after.weights) - np.array(state.weights)
    assert (moved <= deltas.max(axis=0) + 1e-9).all() and (moved >= deltas.min(axis=0) - 1e-9).all()
    assert [after.shares[9], after.shares[-1]] == pytest.approx([2 / 3, 1 / 3])
    assert quantile_bin(after.shares, 0.5) == 9
    assert after.domains == sorted(set(honest[0].domains) & set(honest[1].domains))
    assert fleet.sites["north"].step()[0] == "round 1: flow model deployed"


@pytest.mark.slow
def test_a_bad_model_of_two_sites_is_refused_by_the_third_one_s_own_gates(fleet: Fleet) -> None:
    """More than half of a fleet may move its model anywhere: then a site's own gates are what is left."""
    north = fleet.sites["north"]
    base = flow_model_of(north.look())
    fleet.sites["north"].learner.adopt(base, "the beginning")
    before = north.learner.path.read_bytes()
    for _ in range(30):
        state = north.look()
        away = -np.array(state.weights) / np.linalg.norm(state.weights)
        for site in ("south", "west"):
            send(fleet.sites[site], own(fleet.sites[site], state).model_copy(update={"delta": away.tolist()}))
        send(north, own(north, state))
        if measures(flow_model_of(north.look()), golden())["balanced_accuracy"] < 0.8:
            break
    else:
        pytest.fail("the model never became bad")
    number, lines = north.look().round - 1, north.step(sends=False)
    assert lines[0].startswith(f"round {number}: flow model rolled back, missed: ")
    assert north.learner.path.read_bytes() == before


def golden() -> Examples:
    return Examples(*golden_flow_hours())


def own(site: FleetSite, state: FleetState) -> Contribution:
    """What a site without labels sends, without its trees."""
    return site.contribution(state).model_copy(update={"forest": None})


def send(site: FleetSite, contribution: Contribution) -> FleetState:
    return site._asked("POST", contribution.model_dump_json().encode())


@pytest.mark.slow
def test_what_is_shown_is_what_leaves_and_it_names_nobody(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = put(fleet.stores["north"], kind(False, 30), HOUR)
    say(fleet.stores["north"], domains[:9], Label.BENIGN, HOUR)
    site = fleet.sites["north"].options
    arguments = ["--data-dir", str(tmp_path / "north"), "fleet", "show"]
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (("", site.url), ("_SITE", site.site), ("_KEY", site.key), ("_SECRET", site.secret)):
            environment.setenv(f"FLEET{name}", value)
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert main([*arguments[:2], "fleet", "status"]) == 0
    assert json.loads(capsys.readouterr().out)["round"] == 1
    assert '"delta"' in shown and '"counts"' in shown
    assert not any(text in shown for text in (*domains, "192.0.2", "example", site.key, SECRET, "ann"))


@pytest.mark.slow
def test_the_route_bounds_what_it_reads_and_knows_no_token(fleet: Fleet) -> None:
    assert httpx.get(f"{fleet.url}/fleet/round").status_code == 401
    assert httpx.post(f"{fleet.url}/fleet/round", content=b"x" * (3 << 20)).status_code == 413
    assert httpx.get(f"{fleet.url}/fleet/other").status_code == 404
    assert httpx.get(f"{fleet.url}/incidents").status_code == 401


@pytest.mark.slow
def test_a_coordinator_that_is_away_or_another_is_said_in_one_line(fleet: Fleet) -> None:
    site = fleet.sites["north"]
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"url": away}, "cannot reach the fleet's coordinator"),
        ({"key": "k" * 20}, "answered 401: cannot answer: the signature is not"),
        ({"url": "http://192.0.2.1"}, "https:// is needed"),
        ({"url": ""}, "FLEET, FLEET_SITE and FLEET_KEY are needed"),
    )
    for changed, said in cases:
        with pytest.raises(AgentsError, match=said):
            replace(site, options=replace(site.options, **changed)).look()
    with pytest.raises(SettingsError, match="FLEET_SITE and FLEET_KEY are needed"):
        replace(site, options=replace(site.options, site="")).look()


@pytest.mark.slow
def test_an_answer_that_somebody_changed_is_not_trusted(fleet: Fleet, tmp_path: Path) -> None:
    site = fleet.sites["north"]

    class Between:
        """Passes requests on, and changes a weight in the answer."""

        body_max = 1 << 20

        def answer(self, method: str, path: str, headers: Any, body: bytes) -> Any:
            found = fleet.coordinator.answer(method, path, headers, body)
            return replace(found, body=found.body.replace(b'"joined":0', b'"joined":9'))

    with served(tmp_path / "between", Between()) as url, pytest.raises(AgentsError, match="its signature is wrong"):
        replace(site, options=replace(site.options, url=url)).look()
