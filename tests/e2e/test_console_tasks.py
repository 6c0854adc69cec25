"""A scripted operator: how many clicks and seconds the tasks of an operator's day take, and how the pages look.

The table is printed, and lies with the pictures in the folder of CONSOLE_PICTURES, where that is set. Typing, and going
on to the next field by Tab, is no click; ticking a box is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from agents.core.types import Incident, Severity
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.learning.release.transitions import Author
from agents.scoring.model import Model
from agents.store import Store, open_store
from agents.store.people.people import PeopleStore
from agents.store.people.roles import Role
from tests.bench.console.network import Network
from tests.e2e.browsing import CHROMIUM, PICTURES, faults_of, page_of, picture
from tests.support.carrier import with_factor
from tests.support.patience import patient
from tests.support.running import free_port, product
from tests.support.verdicts import incident, verdicts

TOKEN = "a token of sixteen characters and more"
PASSWORD = "three small boats at noon"
QUERIES, INCIDENTS = 20_000, 200
OLDER, OLD, NEW, NEWER = (with_factor(factor) for factor in (1.1, 0.9, 0.8, 0.7))
"""The model before, the one in production, the candidate that is approved, and one that goes on waiting."""
LOUD, CALM, BUSY = "10.0.0.17", "10.0.0.18", "10.0.0.19"
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
    """A console that runs, the secrets of its users' links, and the incidents that the tasks are about."""

    base: str
    links: dict[str, str]
    incidents: dict[str, Incident]
    new: set[str] = field(default_factory=lambda: {"root", "olga"})  # who has not set a password yet

    def told(self, path: str) -> Any:
        """What the API says."""
        answer = httpx.get(self.base + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=patient(20))
        assert answer.status_code == 200, answer.text
        return answer.json()


def _incident_of(client: str, domain: str, ago: float, **facts: Any) -> Incident:
    now = time.time()
    return incident(
        client=client, domain=domain, first_seen=now - ago - 240, detected_at=now - ago - 200, last_seen=now - ago,
        sample_names=(f"6e616d653d616e6e3b6b65793d3132333435363738393031.{domain}",),
        evidence={"qtypes": {"TXT": 9}, "bytes_in": 1, "queries_per_minute": 3.0, "attack": [], "benign_if": ""},
        **facts,
    )  # fmt: skip


def _filled(store: Store) -> dict[str, Incident]:
    """Weeks of a network, and three incidents of this hour with what their clients did."""
    Network(QUERIES, INCIDENTS, time.time() - 600).fill(store)
    made = {
        "loud": _incident_of(LOUD, "loud.example", 0, severity=Severity.CRITICAL, tool="dnscat2", leaked_bytes=1234.0),
        "calm": _incident_of(CALM, "calm.example", 60, severity=Severity.HIGH, score=0.995),
        "busy": _incident_of(BUSY, "busy.example", 120, severity=Severity.CRITICAL, tool="iodine"),
    }
    for one in made.values():
        names = [*(f"n{number}.{one.domain}" for number in range(20)), "www.example.com", "mail.example.net"]
        times = [one.first_seen + 10 * number for number in range(len(names))]
        store.write(verdicts(names, ts=times, client=one.client, incidents=(one,)), f"filled {one.domain}")
    return made


def _models(folder: Path) -> None:
    """A model in production, one before it, and two candidates that wait, with their gates."""
    registry = ModelRegistry(folder, Model.from_bytes, model_bytes())
    for model in (OLDER, OLD, NEW, NEWER):
        registry.save_candidate(model)
    registry.promote(OLDER.model_id, Author("the retraining", "run 5"))
    registry.promote(OLD.model_id, Author("the retraining", "run 6"))
    gates = [
        {"name": "golden tunnels found", "value": 0.994, "threshold": 0.98, "margin": 0.014, "passed": True},
        {"name": "alerts a day", "value": 1.2, "threshold": 2.0, "margin": 0.8, "passed": True},
    ]
    for model, run in ((NEW, "run 7"), (NEWER, "run 8")):
        registry.mark(model.model_id, "waiting", Author("the retraining", run))
        registry.note(model.model_id, {"parent": OLD.model_id, "gates": gates, "run_id": "20260104_020011"})


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """`dns-tunnel run` over a store of some weeks, with an admin, an operator and somebody who is new."""
    folder = tmp_path_factory.mktemp("tasks") / "data"
    (folder / "data").mkdir(parents=True)
    store = open_store(f"sqlite:///{folder / 'data' / 'dns-tunnel.db'}")
    store.migrate()
    incidents = _filled(store)
    users, roles = PeopleStore(store).users, {"root": Role.ADMIN, "olga": Role.OPERATOR, "nina": Role.ANALYST}
    links = {name: users.add(name, role, "the test") for name, role in roles.items()}
    store.close()
    _models(folder / "models")
    port = free_port()
    settings = {
        "api_port": str(port), "listen_port": str(free_port()), "api_token": TOKEN, "upstreams": "127.0.0.1:9",
        "enforce": "on", "compiled": "off",
    }  # fmt: skip
    with product("run", folder, **settings):
        yield Console(f"http://127.0.0.1:{port}", links, incidents)


class Operator:
    """Somebody at the mouse: counts what they click, and for how long they are at it."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks, self._begun = page, 0, time.monotonic()

    def click(self, target: Locator) -> None:
        """One click."""
        self.clicks += 1
        target.click()

    def press(self, button: str) -> None:
        """One click on the button of this name."""
        self.click(self.page.get_by_role("button", name=button, exact=True))

    def follow(self, link: str) -> None:
        """One click on the first link of this name."""
        self.click(self.page.get_by_role("link", name=link, exact=True).first)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun


def understood(operator: Operator, console: Console) -> None:
    operator.follow("loud.example")
    expect(operator.page.get_by_role("heading", level=1)).to_contain_text(f"{LOUD} sent at least 1.23 kB")
    expect(operator.page.get_by_text("hex: name=ann;key=12345678901")).to_be_visible()


def silenced(operator: Operator, console: Console) -> None:
    operator.follow("Known service…")
    expect(operator.page.get_by_text("calm.example would be silent")).to_be_visible()
    operator.press("Keep")
    expect(operator.page.get_by_role("status")).to_contain_text("1 incident closed, its incident labelled benign.")
    found = console.told(f"/incidents/{console.incidents['calm'].incident_id}")
    assert found["closed_at"] is not None
    assert [one["suffix"] for one in console.told("/services")["services"]] == ["calm.example"]


def looked_around(operator: Operator, console: Console) -> None:
    operator.follow("loud.example")
    expect(operator.page.get_by_text("What else the client did in that hour")).to_be_visible()
    operator.follow(LOUD)
    expect(operator.page.get_by_role("link", name="example.net", exact=True).first).to_be_visible()


def blocked(operator: Operator, console: Console) -> None:
    operator.follow("busy.example")
    operator.press("Tunnel, and block…")
    expect(operator.page.get_by_role("status")).to_contain_text("1 incident: labelled tunnel.")
    operator.press("Block (b)")
    expect(operator.page.get_by_role("status")).to_contain_text("busy.example is blocked.")
    made = console.told("/blocks")["blocks"]
    assert [(one["domain"], one["client"], one["author"], one["dry"]) for one in made] == [
        ("busy.example", BUSY, "olga", False)
    ]


def approved(operator: Operator, console: Console) -> None:
    operator.follow(NEW.model_id)
    expect(operator.page.get_by_role("heading", name="Gates")).to_be_visible()
    operator.page.get_by_label("Reason").fill("its gates are passed")
    operator.click(operator.page.get_by_label("I am sure"))
    operator.press("Approve")
    expect(operator.page.get_by_role("status")).to_contain_text(f"deployed {NEW.model_id}.")
    assert console.told("/models/champion")["model_id"] == NEW.model_id


def rolled_back(operator: Operator, console: Console) -> None:
    operator.follow("Models")
    operator.page.get_by_label("Reason").fill("too loud")
    operator.click(operator.page.get_by_label("I am sure"))
    operator.press("Back to the model before")
    expect(operator.page.get_by_role("status")).to_contain_text(f"back to {OLD.model_id}.")
    assert console.told("/models/champion")["model_id"] == OLD.model_id


TASKS: tuple[tuple[str, str, int, Callable[[Operator, Console], None]], ...] = (
    ("first alarm understood", "Now", 1, understood),
    ("a false alarm silenced", "its incident", 2, silenced),
    ("what else did this client do", "Now", 3, looked_around),
    ("a tunnel confirmed and blocked", "Now", 3, blocked),
    ("a candidate read and approved", "Now", 3, approved),
    ("a model rolled back", "Now", 3, rolled_back),
)
"""Each task with the page where it begins, and the clicks that it may take."""


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
    rows, over = ["| task | from | clicks | at most | seconds |", "| --- | --- | ---: | ---: | ---: |"], []
    with page_of(browser, viewport={"width": 1280, "height": 900}) as page:
        logged_in(page, console, "olga")
        for task, begin, most, carried_out in TASKS:
            calm = console.incidents["calm"].incident_id
            page.goto(console.base + ("/" if begin == "Now" else f"/console/incidents/{calm}"))
            operator = Operator(page)
            carried_out(operator, console)
            rows.append(f"| {task} | {begin} | {operator.clicks} | {most} | {operator.seconds:.1f} |")
            over += [task] if operator.clicks > most else []
    table = "\n".join(rows)
    with capsys.disabled():
        print(f"\n{table}")
    if PICTURES:
        Path(PICTURES, "tasks.md").write_text(table + "\n")
    assert over == []


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
        loud = console.incidents["loud"].incident_id
        for name, path in {**PAGES, "incident": f"/console/incidents/{loud}"}.items():
            look(name, path, name in NEWEST)
    assert {name: said for name, said in found.items() if said} == {}
