"""Every page of the console in a real browser, and every button of its forms once: both are found by themselves.

Pages are the application's own routes, buttons are those that pages show: a new page without an address here fails the
test, and a new button is clicked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.routing import APIRoute
from playwright.sync_api import Browser, Page, expect

from agents.core.types import Severity
from agents.store import open_store
from agents.store.feedback.reviews import ReviewItem, ReviewStore
from agents.store.people.people import PeopleStore
from agents.store.people.roles import Role
from agents.web.people.login import page_router as login_pages
from tests.bench.console.tasks import StagedModels
from tests.e2e.browsing import CHROMIUM, picture
from tests.support.carrier import with_factor
from tests.support.patience import patient
from tests.support.running import free_port, product
from tests.support.verdicts import incident, verdicts
from tests.web.test_console import World

TOKEN, PASSWORD = "a token of sixteen characters and more", "three small boats at noon"
CANDIDATE = with_factor(0.8)
LOUD = incident(
    client="10.0.0.7", domain="evil.example", severity=Severity.CRITICAL, first_seen=time.time() - 300,
    detected_at=time.time() - 200, last_seen=time.time() - 100,
)  # fmt: skip
ADDRESSES = {
    "/console/incidents/{incident_id}": f"/console/incidents/{LOUD.incident_id}",
    "/console/clients/{client:path}": "/console/clients/10.0.0.7?range=last+7d",
    "/console/domains/{domain:path}": "/console/domains/evil.example?range=last+7d",
    "/console/questions/{question}": "/console/questions/new-domains?range=last+7d",
    "/console/models/diff": "/console/models/diff?old=champion&new=shipped",
    "/console/models/{name}": f"/console/models/{CANDIDATE.model_id}",
    "/console/models/{kind}/diff": "/console/models/flow/diff?old=champion&new=champion",
    "/console/models/{kind}/{name}": "/console/models/flow/champion",
    "/console/services": "/console/services?suffix=evil.example&reason=ours",
    "/console/blocks": "/console/blocks?domain=evil.example&reason=a+test",
    "/console/hunt": "/console/hunt?q=example",
    "/console/incidents": "/console/incidents",
}
"""Of pages whose route needs more than its own path."""
NOT_PAGES = {"/console/events", "/console/models/staging/{name}"}
"""Routes that answer a browser with something else: a stream, files."""
EMPTY = {"/console/models/{kind}/diff": 422, "/console/models/{kind}/{name}": 404}
"""Pages of what a fresh installation has not learnt yet: they say so with this status."""
FIRST, LAST = ("/console/models/staging", "/console/models/{name}"), ("/console/account",)
"""Pages whose buttons need what others take away, and those that end what others need."""
FILLED = {
    "reason": "a test", "comment": "seen", "assignee": "olga", "view": "mine", "suffix": "ours.example", "name": "zoe",
    "domain": "evil.example", "what_for": "a test", "old": PASSWORD, "new": f"{PASSWORD}, again",
    "again": f"{PASSWORD}, again",
}  # fmt: skip
"""What a person types into fields that are empty."""
REFUSED = {
    ("/console/health", "test"): "No channel is set up",
    ("/console/learning", "back"): "cannot ",
    ("/console/models", "canary"): "cannot ",
    ("/console/models", "reject"): "cannot ",
    ("/console/blocks", "undo-all"): "",
}
"""Buttons that say why they cannot, on this store; what they say begins so."""
SLOW = {("/console/models/staging", "import"), ("/console/learning", "learn")}
"""Buttons that begin minutes of work; tests of their pages have them."""
BUTTONS = """() => {
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
    return [...document.querySelectorAll("form[method=post] button")].map((one, at) => {
        one.dataset.at = at;
        const whose = one.form.elements["name"];
        const user = whose && whose.type === "hidden" ? whose.value : "";
        return [String(at), (one.getAttribute("formaction") ?? one.form.getAttribute("action")).split("?")[0],
            one.value, user];
    });
}"""
FILL = """([at, filled]) => {
    const button = document.querySelector(`button[data-at="${at}"]`);
    const marked = new Set();
    for (const one of button.form.elements) {
        if (one.type === "checkbox" && !one.dataset.all) {
            one.checked = one.checked || one.name === "confirm" || !marked.has(one.name);
            marked.add(one.name);
        } else if (one.type === "radio") {
            one.checked = true;
        } else if (one.type !== "hidden" && one.value === "" && filled[one.name]) {
            one.value = filled[one.name];
        }
    }
}"""
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def routes_in(routes: Iterable[Any]) -> Iterator[APIRoute]:
    """All routes of an application or router, those of the routers that it includes, too."""
    for one in routes:
        if isinstance(one, APIRoute):
            yield one
        elif (router := getattr(one, "original_router", None)) is not None:
            yield from routes_in(router.routes)


def pages_of(folder: Path) -> dict[str, str]:
    """Every page of the application by its route, with an address that shows something."""
    folder.mkdir()
    world = World(folder)
    world.store.close()
    described = set(world.app.openapi()["paths"])
    logins = {route.path for route in routes_in(login_pages.routes)}
    routes = [route for route in routes_in(world.app.routes) if "GET" in (route.methods or ())]
    paths = [route.path for route in routes if not route.include_in_schema and route.path not in described | logins]
    shown = [path for path in paths if path.startswith("/console") or path in ("/", "/docs")]
    found = {path: ADDRESSES.get(path, path) for path in shown if path not in NOT_PAGES}
    assert [path for path, address in found.items() if "{" in address] == [], "a page without an address in ADDRESSES"
    assert set(ADDRESSES) <= set(found), "an address of a page that is gone"
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`dns-tunnel run` over a store with something of everything: its address, and the admin's one-time link."""
    folder = tmp_path_factory.mktemp("forms") / "data"
    (folder / "data").mkdir(parents=True)
    store = open_store(f"sqlite:///{folder / 'data' / 'dns-tunnel.db'}")
    store.migrate()
    now, names = time.time(), [f"n{number}.evil.example" for number in range(20)]
    others = [
        incident(client=f"10.1.{at // 100}.{at % 100}", domain=f"d{at}.example", last_seen=now) for at in range(60)
    ]
    times = [now - 250 + at for at in range(20)]
    store.write(verdicts(names, ts=times, client="10.0.0.7", incidents=(LOUD, *others)), "filled")
    asked = [ReviewItem(f"r{at}.example", 0.5, "rare", 2, (f"x.r{at}.example",)) for at in range(8)]
    ReviewStore(store).fill(asked, now - 600, 9, 100.0)
    users = PeopleStore(store).users
    link = users.add("root", Role.ADMIN, "the test")
    users.add("nina", Role.ANALYST, "the test")
    store.close()
    models = StagedModels(folder / "models")
    models.add_candidate(CANDIDATE, "run 7")
    port = free_port()
    settings = {
        "api_port": str(port), "listen_port": str(free_port()), "api_token": TOKEN, "upstreams": "127.0.0.1:9",
        "enforce": "on", "compiled": "off",
    }  # fmt: skip
    with product("run", folder, **settings):
        yield f"http://127.0.0.1:{port}", link


def buttons_on(page: Page) -> list[tuple[str, tuple[str, str]]]:
    """The buttons of a page's forms: where each is, the path that it sends to, and what it asks for. Not one's own
    user, whom the others need."""
    found = page.evaluate(BUTTONS)
    return [(at, (path, do)) for at, path, do, whose in found if do and whose != "root"]


def clicked(page: Page, at: str) -> str:
    """Fill in the form of a button and click it; what the page that follows says."""
    page.evaluate(FILL, [at, FILLED])
    with page.expect_navigation(timeout=patient(60) * 1000):
        page.locator(f'button[data-at="{at}"]').click()
    page.wait_for_load_state()
    said = page.locator('main [role="status"]:not(#strip-state), main [role="alert"], main pre, main h3')
    return " | ".join(one for one in said.all_inner_texts() if one)


def is_well(key: tuple[str, str], said: str, page: Page) -> bool:
    """Whether a click came to something: a sentence of what was done, or of why not where that is known here."""
    problems = [one for one in page.locator('main [role="alert"]').all_inner_texts() if one.startswith("cannot")]
    if key in REFUSED:
        return bool(said) or not REFUSED[key]
    return bool(said) and not problems and page.locator("h1").count() > 0


def test_every_page_opens_and_every_button_of_its_forms_does_something(
    browser: Browser, base: tuple[str, str], tmp_path: Path
) -> None:
    address, link = base
    pages = pages_of(tmp_path / "routes")
    first = [path for path in FIRST if path in pages]
    order = [*first, *(path for path in pages if path not in (*FIRST, *LAST)), *LAST]
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(patient(30) * 1000)
    page, complaints = context.new_page(), list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda got: complaints.append(f"{got.status} {got.url}") if got.status >= 500 else None)
    page.goto(f"{address}/login/link/{link}")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Once more").fill(PASSWORD)
    page.get_by_role("button", name="Set it and log in").click()
    expect(page.get_by_role("link", name="root", exact=True)).to_be_visible()
    tried: dict[tuple[str, str], str] = {}
    failed: dict[str, str] = {}
    for path in order:
        answer = page.goto(address + pages[path])
        assert answer is not None and answer.status == EMPTY.get(path, 200), path
        assert page.locator("main").inner_text(), path
        picture(page, f"form-{re.sub(r'[^a-z]+', '-', path).strip('-') or 'now'}")
        while new := [(at, key) for at, key in buttons_on(page) if key not in tried and key not in SLOW]:
            at, key = new[0]
            tried[key] = clicked(page, at)
            if not is_well(key, tried[key], page):
                failed[f"{key[1]} of {key[0]}"] = tried[key] or urlsplit(page.url).path
            if not any(one[1] == "undo" and one not in tried for _, one in buttons_on(page)):
                page.goto(address + pages[path])
    assert failed == {}
    assert complaints == []
    forms = {path for path, _ in tried}
    assert {f"/console/{name}" for name in ("incidents", "incidents/found", "services", "blocks", "jobs")} <= forms
    assert {("/console/incidents", "undo"), ("/console/services", "undo"), ("/console/jobs", "pause")} <= set(tried)
    context.close()
