"""What a browser sees that comes from another site, whose session has ended, or that asks for what there is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.verdicts import incident, verdicts
from tests.web.test_console import AUTH, HTML, TOKEN, World

pytestmark = pytest.mark.integration
WANTED = "/console/incidents?q=10.0.0.0%2F8+last+2h&severity=HIGH"
ELSEWHERE = HTML | {"Sec-Fetch-Site": "cross-site"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def refreshed_to(page: str) -> str:
    """Where a page sends the browser by itself."""
    (found,) = re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', page)
    return unescape(found)


def hidden(page: str, name: str) -> str:
    (found,) = re.findall(rf'type="hidden" name="{name}" value="([^"]*)"', page)
    return unescape(found)


def test_filters_are_kept_over_the_login(world: World) -> None:
    answer = world.call("GET", WANTED, headers=HTML | {"Sec-Fetch-Site": "none"})
    at = answer.headers["location"]
    assert parse_qs(urlsplit(at).query) == {"next": [WANTED]}
    form = world.call("GET", at, headers=HTML | {"Sec-Fetch-Site": "none"}).text
    assert hidden(form, "next") == WANTED and 'name="password"' in form
    assert world.login(next=WANTED).headers["location"] == WANTED
    long = "/console/incidents?q=" + "x" * 3000
    assert world.call("GET", long, headers=HTML).headers["location"] == "/login?next=/console/incidents"


@pytest.mark.parametrize("headers", [ELSEWHERE, HTML], ids=["https", "http"])
def test_a_link_of_another_site_asks_no_one_for_the_password_who_is_in(world: World, headers: dict[str, str]) -> None:
    at = world.call("GET", WANTED, headers=headers).headers["location"]  # a strict cookie does not come along
    again = refreshed_to(world.call("GET", at, headers=headers).text)
    of_here = {"Cookie": world.cookie(), "Sec-Fetch-Site": "same-origin"}
    assert world.call("GET", again, headers=HTML | of_here).headers["location"] == WANTED
    form = world.call("GET", again, headers=HTML | {"Sec-Fetch-Site": "same-origin"}).text
    assert hidden(form, "next") == WANTED and 'name="password"' in form


def late_form(world: World, path: str = "/console/incidents", **headers: str) -> tuple[httpx.Response, dict[str, Any]]:
    """What a comment is answered with that is sent after the session has ended."""
    cookie = world.cookie(name="ann")
    shown = world.call("GET", "/console/services", headers=HTML | {"Cookie": cookie}).text
    one = incident()
    world.store.write(verdicts([], incidents=(one,)), "b1")
    form = {"key": hidden_key(shown), "do": "comment", "comment": "<b>a long\nthought", "incident": one.incident_id}
    world.call("POST", "/logout", headers={"Cookie": cookie})
    return world.call("POST", path, headers=HTML | {"Cookie": cookie} | headers, data=form), form


def hidden_key(page: str) -> str:
    found = re.search(r'name="key" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


def test_a_comment_is_not_lost_with_the_session(world: World) -> None:
    refused, form = late_form(world)
    assert refused.status_code == 401 and "Log in, and you can send what you wrote." in refused.text
    kept = hidden(refused.text, "kept")
    wrong = world.call("POST", "/login", headers=HTML, data={"password": "wrong", "kept": kept, "next": "/"})
    assert hidden(wrong.text, "kept") == kept, "a wrong password loses nothing either"
    let_in = world.call("POST", "/login", headers=HTML, data={"password": TOKEN, "name": "ann", "kept": kept})
    cookie = let_in.headers["set-cookie"].split(";")[0]
    assert let_in.status_code == 200 and 'action="/console/incidents"' in let_in.text
    assert "<b>a long" not in let_in.text and hidden(let_in.text, "comment") == form["comment"]
    assert hidden(let_in.text, "key") != form["key"]
    sent = {name: hidden(let_in.text, name) for name in ("key", "do", "comment", "incident")}
    assert world.parts.console.triage.history(form["incident"]) == []
    shown = world.submit("/console/incidents", cookie, sent)
    assert "comment kept" in shown.text
    (said,) = world.parts.console.triage.history(form["incident"])
    assert (said.author, said.comment) == ("ann", "<b>a long thought")


@pytest.mark.parametrize("path", ["/console/incidents", "/console/account"])
def test_neither_a_form_of_another_site_nor_a_password_is_kept(world: World, path: str) -> None:
    if path == "/console/incidents":
        form = {"key": "0" * 64, "do": "comment", "comment": "of another site"}
        refused = world.call("POST", path, headers=ELSEWHERE, data=form)
    else:
        refused, _ = late_form(world, path)
    assert refused.status_code == 401 and 'name="password"' in refused.text
    assert 'name="kept"' not in refused.text and "of another site" not in refused.text


def test_a_form_of_a_page_that_is_older_than_the_login_is_offered_again(world: World) -> None:
    cookie = world.cookie(name="ann")
    form = {"key": "0" * 64, "do": "comment", "comment": "of before"}
    for site, offered in (("same-origin", True), ("cross-site", False)):
        headers = HTML | {"Cookie": cookie, "Sec-Fetch-Site": site}
        answer = world.call("POST", "/console/incidents", headers=headers, data=form)
        assert answer.status_code == 401 and ("Send it" in answer.text) == offered
        assert 'aria-label="Pages"' in answer.text


@pytest.mark.parametrize(
    "kept", ["", "{", "[]", '{"path": "//evil.example", "fields": {}}', '{"path": "/console/x", "fields": {"a": 1}}']
)
def test_what_is_no_kept_form_is_none(world: World, kept: str) -> None:
    answer = world.call("POST", "/login", data={"password": TOKEN, "kept": kept, "next": "/docs"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs")


def test_an_error_is_a_page_for_a_browser_and_json_for_a_program(world: World) -> None:
    cookie = world.cookie()
    for path in ("/console/incidents/0123456789abcdef", "/console/none", "/none", "/reports/training_report_1.html"):
        answer = world.call("GET", path, headers=HTML | {"Cookie": cookie})
        assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html"), path
        assert 'aria-label="Pages"' in answer.text and 'role="alert">cannot find' in answer.text, path
        assert world.call("GET", path, headers={"Cookie": cookie}).json()["error"].startswith("cannot find"), path
    of_api = world.call("GET", "/incidents/0123456789abcdef", headers=HTML | AUTH)
    assert (of_api.status_code, "error" in of_api.json()) == (404, True), "a route of the API answers as it says"
    asked = world.call("GET", "/console/audit?before=x", headers=HTML | {"Cookie": cookie})
    assert asked.status_code == 422 and "cannot use parameter before" in asked.text
