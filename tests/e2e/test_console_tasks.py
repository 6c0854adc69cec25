"""A scripted operator: how many clicks and seconds the tasks of an operator's day take, and how the pages look.

The table is printed, and lies with the pictures in the folder of CONSOLE_PICTURES, where that is set.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from agents.store import open_store
from agents.store.people.people import PeopleStore
from agents.store.people.roles import Role
from tests.bench.console.measuring import TOKEN
from tests.bench.console.network import Network
from tests.bench.console.tasks import LOUD, Stage, StagedModels, add_incidents, carried_out, table_of_tasks
from tests.bench.processes import family
from tests.e2e.browsing import CHROMIUM, PICTURES, faults_of, page_of, picture
from tests.support.carrier import with_factor
from tests.support.running import free_port, product

PASSWORD = "three small boats at noon"
QUERIES, INCIDENTS = 20_000, 200
NEW, NEWER = with_factor(0.8), with_factor(0.7)
"""The candidate that is approved, and one that goes on waiting."""
PAGES = {
    "now": "/",
    "incidents": "/console/incidents",
    "hunt": "/console/hunt?q=video",
    "clients": "/console/clients?range=last+7d",
    "client": f"/console/clients/{LOUD}?range=last+24h",
    "domain": "/console/domains/loud.example?range=last+24h",
    "question": "/console/questions/rarest-domains?range=last+7d",
    "models": "/console/models",
    "model": f"/console/models/{NEWER.model_id}",
    "model-diff": "/console/models/diff?old=champion&new=shipped",
    "reviews": "/console/reviews",
    "learning": "/console/learning",
    "blocks": "/console/blocks",
    "services": "/console/services",
    "health": "/console/health",
    "audit": "/console/audit",
    "api": "/docs",
    "fleet": "/console/fleet",
    "users": "/console/users",
    "account": "/console/account",
}
NEWEST = ("fleet", "users", "account")
"""Pages that the test of all others does not show to axe-core."""
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@dataclass(frozen=True)
class Console:
    """A console that runs, its processes, the secrets of its users' links, and what the tasks are about."""

    stage: Stage
    pids: list[int]
    links: dict[str, str]
    new: set[str] = field(default_factory=lambda: {"root", "olga"})  # who has not set a password yet

    @property
    def base(self) -> str:
        return self.stage.base


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """`dns-tunnel run` over a store of some weeks, with an admin, an operator and somebody who is new."""
    folder = tmp_path_factory.mktemp("tasks") / "data"
    (folder / "data").mkdir(parents=True)
    store = open_store(f"sqlite:///{folder / 'data' / 'dns-tunnel.db'}")
    Network(QUERIES, INCIDENTS, time.time() - 600).fill(store)
    incidents = add_incidents(store)
    users, roles = PeopleStore(store).users, {"root": Role.ADMIN, "olga": Role.OPERATOR, "nina": Role.ANALYST}
    links = {name: users.add(name, role, "the test") for name, role in roles.items()}
    store.close()
    models = StagedModels(folder / "models")
    for model, run in ((NEW, "run 7"), (NEWER, "run 8")):
        models.add_candidate(model, run)
    port = free_port()
    settings = {
        "api_port": str(port), "listen_port": str(free_port()), "api_token": TOKEN, "upstreams": "127.0.0.1:9",
        "enforce": "on", "compiled": "off",
    }  # fmt: skip
    with product("run", folder, **settings) as process:
        stage = Stage(f"http://127.0.0.1:{port}", incidents, NEW.model_id)
        yield Console(stage, family(process.pid), links)


def logged_in(page: Page, console: Console, name: str) -> None:
    """Set the password by the one-time link the first time, later log in with it."""
    if name in console.new:
        console.new.remove(name)
        page.goto(f"{console.base}/login/link/{console.links[name]}")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_label("Once more").fill(PASSWORD)
        page.get_by_role("button", name="Set it and log in").click()
    else:
        page.goto(f"{console.base}/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()


def test_each_task_takes_an_operator_few_clicks(
    browser: Browser, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    with page_of(browser, viewport={"width": 1280, "height": 900}) as page:
        logged_in(page, console, "olga")
        found = carried_out(page, console.stage, console.pids)
    table = table_of_tasks(found)
    with capsys.disabled():
        print(f"\n{table}")
    if PICTURES:
        Path(PICTURES, "tasks.md").write_text(table + "\n")
    assert [one.task.name for one in found if one.clicks > one.task.most] == []
    assert [one["author"] for one in console.stage.told("/blocks")["blocks"]] == ["olga"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 780)], ids=["desktop", "phone"])
def test_pages_of_people_fit_and_axe_finds_nothing_serious(
    browser: Browser, console: Console, scheme: str, width: int, height: int
) -> None:
    found: dict[str, list[str]] = {}
    size = {"width": width, "height": height}
    with page_of(browser, color_scheme=scheme, viewport=size, bypass_csp=True) as page:

        def look(name: str, path: str, with_axe: bool = True) -> None:
            page.goto(console.base + path)
            picture(page, f"{name}-{width}-{scheme}")
            found[name] = faults_of(page, with_axe)

        look("login", "/login")
        look("link", f"/login/link/{console.links['nina']}")
        logged_in(page, console, "root")
        loud = console.stage.incidents["loud"].incident_id
        for name, path in {**PAGES, "incident": f"/console/incidents/{loud}"}.items():
            look(name, path, name in NEWEST)
    assert {name: said for name, said in found.items() if said} == {}
