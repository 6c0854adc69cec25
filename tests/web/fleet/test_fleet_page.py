"""The page and the routes of a fleet: on a coordinator, on a site, and where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.learning.fleet.exchange import BINS, WEIGHTS
from agents.learning.loop.flow_hours import NUMBERS
from agents.web.app import create_app
from tests.learning.fleet.test_coordinator import Fleet as Coordinated
from tests.learning.fleet.test_coordinator import contribution
from tests.runtime.test_fleet_live import SECRET
from tests.runtime.test_fleet_live import Fleet as Served
from tests.runtime.test_fleet_profile_live import put_clients
from tests.web.test_console import AUTH, HTML, World, world

__all__ = ["world"]
LINK = '<a href="/console/fleet"'


def shown(world: World, url: str = "/console/fleet", **parts: Any) -> str:
    """A page of a console with these parts, as a browser with a session sees it."""
    app = create_app(replace(world.parts, **parts))
    answer = world.call("GET", url, app, headers=HTML | {"Cookie": world.cookie(app)})
    assert answer.status_code == 200, answer.text
    return answer.text


def status(world: World, path: str = "status", **parts: Any) -> Any:
    """What the API says of the fleet."""
    return world.call("GET", f"/fleet/{path}", create_app(replace(world.parts, **parts)), headers=AUTH).json()


@pytest.mark.slow
def test_where_no_fleet_is_set_up_no_page_links_to_it(world: World, tmp_path: Path) -> None:
    assert "No fleet is set up" in shown(world)
    assert LINK not in shown(world, "/console/learning")
    assert status(world) == {"coordinator": None, "site": None}
    assert "takes part in no fleet" in status(world, "contribution")["error"]
    fleet = Coordinated(tmp_path)
    assert LINK in shown(world, "/console/learning", fleet=fleet.desk)
    for site in ("one", "two", "three"):
        fleet.desk.remove(site)
    assert LINK not in shown(world, "/console/learning", fleet=fleet.desk)


@pytest.mark.parametrize("path", ["/fleet/status", "/fleet/contribution"])
def test_routes_need_the_token_and_the_page_a_session(world: World, path: str) -> None:
    assert world.call("GET", path).status_code == 401
    assert world.get("/console/fleet", headers=HTML).status_code == 303
    assert world.get(f"{path}?site=one").status_code == 422


@pytest.mark.slow
def test_a_coordinator_shows_who_has_sent_and_what_a_round_took_of_each(world: World, tmp_path: Path) -> None:
    fleet = Coordinated(tmp_path)
    fleet.send("one")
    page = shown(world, fleet=fleet.desk)
    sent_at = '<time datetime="2026-11-18T11:06:40Z">2026-11-18 11:06:40 UTC</time>'
    assert f'<td>one</td><td>has sent</td><td class="time">{sent_at}</td>' in page
    assert '<td>two</td><td>not yet</td><td class="time">–</td>' in page
    assert "No round has ended yet." in page
    fleet.send("two", delta=[10.0] * WEIGHTS, counts=[900] * BINS)
    fleet.send("three", domains=["0123456789abcdef", "f" * 16])
    found = status(world, fleet=fleet.desk)["coordinator"]
    assert (found["round"], found["domains"], found["last"]["round"]) == (2, 1, 1)
    assert [(one["site"], one["sent"], one["sent_at"]) for one in found["sites"]] == [
        (site, False, fleet.now) for site in ("one", "three", "two")
    ]
    taken = {one["site"]: one for one in found["last"]["sites"]}
    assert {site: one["clipped"] for site, one in taken.items()} == {"one": False, "two": True, "three": False}
    assert sum(one["weights_joined"] for one in taken.values()) == WEIGHTS, "of three sites the middle one"
    assert taken["two"]["weights_joined"] == 0
    assert (taken["three"]["domains"], taken["three"]["domains_joined"]) == (2, 1)
    page = shown(world, fleet=fleet.desk)
    assert "What round 1 took" in page and f"{10 * WEIGHTS**0.5:.3g}, clipped to 1" in page and "1 of 2" in page


@pytest.mark.slow
def test_what_people_are_shown_may_be_damaged(world: World, tmp_path: Path) -> None:
    fleet = Coordinated(tmp_path)
    fleet.send("one", **contribution())
    for name in ("seen.json", "last.json"):
        (tmp_path / "fleet" / name).write_text("{")
    assert "<td>has sent</td>" in shown(world, fleet=fleet.desk)
    (tmp_path / "fleet" / "sites.json").write_text("{")
    page = shown(world, fleet=fleet.desk)
    assert "it is damaged</p>" in page and LINK in page


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "served"
    folder.mkdir()
    with ExitStack() as stack:
        yield Served(folder, stack)


@pytest.mark.slow
@pytest.mark.integration
def test_a_site_shows_what_it_would_send_and_its_quantiles_beside_the_fleet_s(world: World, served: Served) -> None:
    north = served.sites["north"]
    put_clients(served.stores["north"], "192.0.2", 9)
    found = status(world, fleet_site=north)["site"]
    assert (found["site"], found["taken"], found["sent_at"]) == ("north", 0, None)
    assert found["quantiles"][0] == {"share": 0.5, "here": 4, "fleet": None}
    page = shown(world, fleet_site=north)
    assert '<td>50%</td><td class="number">4</td><td class="number">&#8211;</td>' in page
    assert "Show it</a>" in page and LINK in page
    made = shown(world, "/console/fleet?preview=1", fleet_site=north)
    assert "Change of the flow model" in made and "Show it</a>" not in made
    sent = status(world, "contribution", fleet_site=north)
    assert (sent["round"], len(sent["delta"])) == (1, len(NUMBERS) + 1)
    assert sent["domains"][0] in made
    assert not any(text in made + str(sent) for text in ("vendor.example", "192.0.2", SECRET, north.options.key))
    away = replace(north, options=replace(north.options, url="http://127.0.0.1:9"))
    assert "cannot reach the fleet" in shown(world, "/console/fleet?preview=1", fleet_site=away)
