"""The console in a real browser: triage in few clicks, keys, the live strip, both colour schemes, a phone, axe-core.

Pictures of each page lie in the folder of CONSOLE_PICTURES, where that is set.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from agents.core.types import Severity
from agents.store import open_store
from agents.store.feedback.reviews import ReviewItem, ReviewStore
from tests.e2e.browsing import CHROMIUM, faults_of, page_of, picture
from tests.support.running import free_port, product
from tests.support.verdicts import incident, verdicts

TOKEN = "a token of sixteen characters and more"
PAGES = {
    "now": "/",
    "incidents": "/console/incidents",
    "hunt": "/console/hunt?q=example",
    "months": "/console/hunt/months",
    "clients": "/console/clients?range=last+30d",
    "question": "/console/questions/rarest-domains?range=last+30d",
    "client": "/console/clients/10.0.0.7?range=last+30d",
    "domain": "/console/domains/evil.example?range=last+30d",
    "models": "/console/models",
    "reviews": "/console/reviews",
    "learning": "/console/learning",
    "blocks": "/console/blocks",
    "services": "/console/services?suffix=evil.example&reason=ours",
    "health": "/console/health",
    "audit": "/console/audit",
    "week": "/console/weekly",
    "staging": "/console/models/staging",
    "users": "/console/users",
    "account": "/console/account",
    "api": "/docs",
}
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


@contextmanager
def console(folder: Path) -> Iterator[str]:
    """`dns-tunnel run` with two incidents of this minute; its address."""
    port = free_port()
    settings = {
        "api_port": str(port), "listen_port": str(free_port()), "api_token": TOKEN, "upstreams": "127.0.0.1:9",
        "compiled": "off", "hunt_days": "30" if find_spec("duckdb") else "0",
    }  # fmt: skip
    with product("run", folder, **settings):
        now = time.time()
        loud = incident(
            client="10.0.0.7", domain="evil.example", severity=Severity.CRITICAL, tool="dnscat2", leaked_bytes=1234.0,
            first_seen=now - 240, last_seen=now, detected_at=now - 200,
            sample_names=("6e616d653d616e6e3b6b65793d3132333435363738393031.evil.example",),
            evidence={"qtypes": {"TXT": 9}, "bytes_in": 1, "queries_per_minute": 3.0, "attack": [], "benign_if": "If.",
                      "timeline": [{"at": now - 200, "queries": 9, "bytes": 120}]},
        )  # fmt: skip
        calm = incident(client="10.0.0.8", domain="calm.example", first_seen=now - 500, last_seen=now - 400,
                        detected_at=now - 450, evidence={}, sample_names=("x.calm.example",))  # fmt: skip
        names = [f"n{number}.evil.example" for number in range(20)]
        with_times = verdicts(names, ts=[now - 100 + at for at in range(20)], client="10.0.0.7", incidents=(loud, calm))
        store = open_store(f"sqlite:///{folder / 'data' / 'dns-tunnel.db'}")
        store.migrate()
        store.write(with_times, "filled")
        asked = [ReviewItem(f"{name}.example", 0.5, "rare", 2, (f"x.{name}.example",)) for name in ("one", "two")]
        ReviewStore(store).fill(asked, now - 600, 9, 100.0)
        store.close()
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with console(tmp_path_factory.mktemp("console") / "data") as address:
        yield address


@contextmanager
def person(browser: Browser, base: str, **options: object) -> Iterator[Page]:
    """A page of somebody who has logged in."""
    with page_of(browser, **options) as page:
        page.goto(f"{base}/login")
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        yield page


def test_an_alarm_is_understood_in_one_click_silenced_in_two_and_undone_in_one(browser: Browser, base: str) -> None:
    with person(browser, base) as page:
        page.get_by_role("link", name="evil.example", exact=True).first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(
            "10.0.0.7 sent at least 1.23 kB to evil.example through TXT names of dnscat2 within 4 minutes."
        )
        expect(page.get_by_text("hex: name=ann;key=12345678901")).to_be_visible()
        page.get_by_role("link", name="Known service…").click()
        expect(page.get_by_text("1 of 2 incidents would be silent, 0 below it stay.")).to_be_visible()
        page.go_back()
        page.wait_for_load_state()
        page.keyboard.press("t")
        expect(page.get_by_role("status")).to_contain_text("1 incident: labelled tunnel.")
        expect(page.locator(".actions")).to_contain_text("closed, labelled tunnel by ann")
        page.wait_for_load_state()  # keys work once the page's script has run
        page.keyboard.press("u")
        expect(page.get_by_role("status")).to_contain_text("Undone for 1 incident.")
        expect(page.locator(".actions")).to_contain_text("new")


def test_rows_are_walked_and_marked_by_key_and_changed_together(browser: Browser, base: str) -> None:
    with person(browser, base) as page:
        page.goto(f"{base}/console/incidents")
        for key in ("j", "x", "j", "x"):
            page.keyboard.press(key)
        expect(page.locator("input[name=incident]:checked")).to_have_count(2)
        page.get_by_role("button", name="Mine").click()
        expect(page.get_by_role("status")).to_contain_text("2 incidents: in work by ann.")
        page.wait_for_load_state()
        page.keyboard.press("/")
        page.keyboard.type("10.0.0.7")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"\?q=10\.0\.0\.7"))
        expect(page.locator("table.rows tbody tr")).to_have_count(1)
        page.reload()
        expect(page.get_by_label("Search incidents")).to_have_value("10.0.0.7")


def test_reviews_are_walked_marked_and_taken_by_the_same_keys(browser: Browser, base: str) -> None:
    with person(browser, base) as page:
        page.goto(f"{base}/console/reviews")
        page.evaluate("document.activeElement.blur()")
        for key in ("j", "x", "j", "x", "m"):
            page.keyboard.press(key)
        expect(page.get_by_role("status")).to_contain_text("2 domains in work by ann.")


def test_times_are_the_readers_everywhere_also_in_tooltips(browser: Browser, base: str) -> None:
    with person(browser, base, timezone_id="Asia/Kathmandu", locale="en-GB") as page:
        page.get_by_role("link", name="evil.example", exact=True).first.click()
        expect(page.locator("table", has_text="Bytes").locator("time")).to_have_count(1)
        expect(page.locator("main")).not_to_contain_text(" UTC")
        page.goto(f"{base}/console/domains/evil.example")
        told = re.compile(r":45:00 \(\d{4}-\d\d-\d\d \d\d:00 UTC\): \d+ quer")
        expect(page.locator("svg rect title").first).to_have_text(told)


def test_a_link_of_another_site_opens_what_it_says_for_who_is_logged_in(browser: Browser, base: str) -> None:
    wanted = f"{base}/console/incidents?q=10.0.0.7"
    with person(browser, base) as page:
        expect(page.get_by_role("link", name="ann")).to_be_visible()
        link = f'<a href="{wanted}">an alarm</a>'
        page.route("http://chat.example/", lambda route: route.fulfill(content_type="text/html", body=link))
        page.goto("http://chat.example/")
        page.get_by_role("link", name="an alarm").click()
        expect(page.get_by_label("Search incidents")).to_have_value("10.0.0.7")
        assert page.url == wanted


OPEN, CLOSED = 1, 2
STREAM_STATE = "document.querySelector('[sse-connect]')['htmx-internal-data'].sseEventSource.readyState"
LOOKED_AT = """(seen) => {
    Object.defineProperty(document, "hidden", {configurable: true, get: () => !seen});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""What a browser does when a tab comes to the front, or goes."""


def test_the_strip_is_live_pauses_and_says_when_it_lost_its_stream(browser: Browser, tmp_path: Path) -> None:
    with console(tmp_path / "data") as base:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{base}/login")
        page.get_by_label("Password").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        state = page.locator("#strip-state")
        expect(state).to_have_text("Live.")
        page.get_by_role("button", name="Pause").click()
        expect(state).to_have_text("Paused.")
        page.get_by_role("button", name="Go on").click()
        page.evaluate(LOOKED_AT, False)
        assert page.evaluate(STREAM_STATE) == CLOSED
        with page.expect_request(f"{base}/console/events"):
            page.evaluate(LOOKED_AT, True)
        page.wait_for_function(f"({STREAM_STATE}) === {OPEN}")
    expect(state).to_have_text("The stream was lost; asking again.")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 780)], ids=["desktop", "phone"])
def test_every_page_fits_and_axe_finds_nothing_serious(
    browser: Browser, base: str, scheme: str, width: int, height: int
) -> None:
    found: dict[str, list[str]] = {}
    size = {"width": width, "height": height}
    with person(browser, base, color_scheme=scheme, viewport=size, bypass_csp=True) as page:
        incident_page = page.get_by_role("link", name="evil.example", exact=True).first.get_attribute("href")
        for name, path in {**PAGES, "incident": str(incident_page)}.items():
            page.goto(base + path)
            picture(page, f"{name}-{width}-{scheme}")
            found[name] = faults_of(page)
    assert {name: said for name, said in found.items() if said} == {}


def test_without_script_everything_is_readable_and_works(browser: Browser, base: str) -> None:
    with person(browser, base, java_script_enabled=False) as page:
        expect(page.get_by_text("queries judged a second")).to_be_visible()
        page.goto(f"{base}/console/incidents?q=calm")
        page.locator("input[name=incident]").first.check()
        page.get_by_role("button", name="Benign").click()
        expect(page.get_by_role("status")).to_contain_text("1 incident: labelled benign.")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("status")).to_contain_text("Undone for 1 incident.")
