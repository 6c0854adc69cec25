"""Users, roles, sessions and tokens through the application, as browsers and programs meet them."""

from __future__ import annotations

import asyncio
import html
import re
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from agents.core.errors import StoreError
from agents.core.types import ChannelResult
from agents.store import Store
from agents.store.people.roles import Role
from agents.store.people.waits import FAILED_FREE, NAME_FREE
from agents.web.app import create_app
from agents.web.auth import ATTEMPTS_MAX, CHECKS_MAX, Turns
from agents.web.people import known_browser
from agents.web.people.first_login import FirstLogin
from tests.support.patience import patient
from tests.support.running import wait_for
from tests.support.verdicts import incident, verdicts
from tests.web.test_console import AUTH, HTML, TOKEN, World

PASSWORD = "tall grass at noon"
PAGES = ("/", "/console/incidents", "/console/reviews", "/console/models", "/console/learning", "/console/blocks")


@pytest.fixture
def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    yield made
    made.store.close()


class Visitor:
    """A browser of one user."""

    def __init__(self, world: World, name: str, role: Role) -> None:
        users = world.parts.people.users
        users.set_password_by_link(users.add(name, role, "test"), PASSWORD)
        self.world, self.name = world, name
        self.cookie = self.log_in().headers["set-cookie"].split(";")[0]

    def log_in(self, password: str = PASSWORD) -> httpx.Response:
        return self.world.call("POST", "/login", data={"name": self.name, "password": password})

    def page(self, url: str) -> httpx.Response:
        return self.world.call("GET", url, headers=HTML | {"Cookie": self.cookie})

    def send(self, url: str, **form: Any) -> httpx.Response:
        key = re.findall(r'name="key" value="([0-9a-f]+)"', self.page("/console/account").text)
        return self.world.submit(url, self.cookie, {"key": key[0], **form})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token_in(page: str) -> str:
    found: list[str] = re.findall(r"<pre>(dnst_[^<]+)</pre>", page)
    return found[0]


def test_a_new_user_sets_a_password_by_the_link_of_an_admin_and_is_in(world: World) -> None:
    answer = world.call("POST", "/users", headers=AUTH, json={"name": "Ann", "role": "analyst"})
    assert answer.status_code == 200, answer.text
    link = answer.json()["link"].removeprefix("http://console")
    form = world.call("GET", link, headers=HTML)
    assert "You are <strong>ann</strong>, analyst." in form.text
    assert world.call("POST", link, data={"password": PASSWORD, "again": "x"}).status_code == 422
    welcome = world.call("POST", link, data={"password": PASSWORD, "again": PASSWORD})
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    page = world.call("GET", "/", headers=HTML | {"Cookie": cookie.split(";")[0]}).text
    assert 'href="/console/account" class="account">ann<' in page
    assert world.call("GET", link, headers=HTML).status_code == 404
    assert world.call("POST", link, data={"password": PASSWORD, "again": PASSWORD}).status_code == 404
    audit = world.get("/audit").json()["entries"]
    assert [(one["action"], one["author"]) for one in audit] == [("login", "ann"), ("user added", "API")]


@pytest.mark.slow
@pytest.mark.parametrize(("role", "may"), [(Role.VIEWER, 0), (Role.ANALYST, 1), (Role.OPERATOR, 2), (Role.ADMIN, 3)])
def test_each_role_may_what_it_may_in_pages_forms_and_with_tokens(world: World, role: Role, may: int) -> None:
    one = incident()
    world.store.write(verdicts([], incidents=(one,)), "b1")
    visitor = Visitor(world, "ann", role)
    for page in PAGES:
        assert visitor.page(page).status_code == 200, page
    shown = visitor.page(f"/console/incidents/{one.incident_id}").text
    assert ('value="tunnel"' in shown) == (may >= 1)
    assert ("Tunnel, and block&#8230;" in shown) == (may >= 2)
    assert ("/console/users" in visitor.page("/").text) == (may >= 3)
    forms = [
        ("/console/incidents", {"incident": one.incident_id, "do": "comment", "comment": "hm"}, 1),
        ("/console/services", {"do": "preview", "suffix": "evil.example"}, 1),
        ("/console/learning", {"do": "disable"}, 2),
        ("/console/blocks", {"do": "undo-all"}, 2),
        ("/console/users", {"do": "add", "name": "bea", "role": "viewer"}, 3),
    ]
    for url, form, needed in forms:
        assert (visitor.send(url, **form).status_code == 403) == (may < needed), url
    assert (visitor.page("/console/users").status_code == 403) == (may < 3)
    scopes = ["read", "triage", "operate", "admin"][: may + 1]
    made = visitor.send("/console/account", do="token", what_for="a test", days="1", scope=scopes)
    auth = bearer(token_in(made.text))
    calls: list[tuple[str, str, Any, int]] = [
        ("GET", "/incidents", None, 0),
        ("GET", "/metrics", None, 0),
        ("POST", "/incidents/change", {"incidents": [one.incident_id], "comment": "x"}, 1),
        ("POST", "/reviews/decide", {"domains": ["evil.example"], "label": "tunnel", "reason": "x"}, 1),
        ("POST", "/retrain", None, 2),
        ("POST", "/learning/stop", None, 2),
        ("POST", "/blocks/undo-all", {}, 2),
        ("GET", "/users", None, 3),
        ("POST", "/users/link", {"name": "ann"}, 3),
    ]
    for method, url, sent, needed in calls:
        status = world.call(method, url, headers=auth, **({"json": sent} if sent is not None else {})).status_code
        assert (status == 403) == (may < needed) and status in (200, 202, 403), (url, status)
    if may >= 1:
        history = world.get(f"/incidents/{one.incident_id}/history").json()["history"]
        assert {said["author"] for said in history} == {"ann"}, "a user is who they are, whatever a program says"


@pytest.mark.slow
def test_a_test_message_goes_over_every_channel_and_says_what_came_of_it(world: World) -> None:
    results = (ChannelResult("slack", True), ChannelResult("email", False, "cannot send: <refused>"))
    world.parts = replace(world.parts, send_test=lambda: results)
    world.app = create_app(world.parts)
    ann = Visitor(world, "ann", Role.OPERATOR)
    assert "Send a test over every channel" in ann.page("/console/health").text
    answer = ann.send("/console/health", do="test")
    assert "slack: sent; email: cannot send: &lt;refused&gt;" in answer.text
    assert ann.send("/console/health", do="other").status_code == 422
    told = world.call("POST", "/channels/test", headers=AUTH).json()["channels"]
    assert [(one["channel"], one["ok"]) for one in told] == [("slack", True), ("email", False)]
    assert len(world.parts.console.audit.entries(action="channels tested")) == 2
    assert Visitor(world, "vic", Role.VIEWER).send("/console/health", do="test").status_code == 403


def test_a_token_for_metrics_reads_metrics_alone(world: World) -> None:
    visitor = Visitor(world, "prom", Role.VIEWER)
    auth = bearer(token_in(visitor.send("/console/account", do="token", what_for="x", scope="metrics").text))
    assert world.get("/metrics", headers=auth).status_code == 200
    assert world.get("/incidents", headers=auth).status_code == 403
    assert world.get("/whoami", headers=auth).status_code == 403


@pytest.mark.slow
def test_a_token_is_shown_once_and_ends_at_once(world: World) -> None:
    visitor = Visitor(world, "ann", Role.ANALYST)
    token = token_in(visitor.send("/console/account", do="token", what_for="<b>x", scope="read").text)
    assert world.get("/whoami", headers=bearer(token)).json() == {"name": "ann", "scopes": ["metrics", "read"]}
    page = visitor.page("/console/account").text
    assert token not in page and "&lt;b&gt;x" in page
    (listed,) = world.get("/tokens", headers=bearer(token)).json()["tokens"]
    assert listed["used_at"] is not None and "secret" not in listed
    Visitor(world, "bea", Role.ANALYST).send("/console/account", do="revoke", token_id=listed["token_id"])
    assert world.get("/whoami", headers=bearer(token)).status_code == 200, "it is not theirs"
    visitor.send("/console/account", do="revoke", token_id=listed["token_id"])
    assert world.get("/whoami", headers=bearer(token)).status_code == 401


@pytest.mark.slow
def test_another_role_or_none_holds_for_open_sessions_at_once(world: World) -> None:
    ann, bea = Visitor(world, "ann", Role.OPERATOR), Visitor(world, "bea", Role.ADMIN)
    assert ann.send("/console/learning", do="disable").status_code == 200
    bea.send("/console/users", do="role", name="ann", role="viewer")
    assert ann.send("/console/learning", do="enable").status_code == 403
    bea.send("/console/users", do="disable", name="ann")
    assert ann.page("/").status_code == 303
    assert ann.log_in().status_code == 401
    assert "cannot take bea away: there would be no admin" in html.unescape(
        bea.send("/console/users", do="disable", name="bea").text
    )
    assert bea.send("/console/users", do="remove", name="ann").status_code == 422, "it is confirmed first"
    assert "ann is no user any more." in bea.send("/console/users", do="remove", name="ann", confirm="yes").text


def test_logging_out_ends_the_session_on_the_server(world: World) -> None:
    ann = Visitor(world, "ann", Role.VIEWER)
    world.call("POST", "/logout", headers={"Cookie": ann.cookie})
    assert ann.page("/").status_code == 303
    cookie = world.cookie()
    world.call("POST", "/logout", headers={"Cookie": cookie})
    assert world.call("GET", "/", headers=HTML | {"Cookie": cookie}).status_code == 303


@pytest.mark.slow
def test_wrong_passwords_make_an_address_wait_and_the_name_too(world: World) -> None:
    ann = Visitor(world, "ann", Role.VIEWER)
    answers = [ann.log_in("wrong") for _ in range(ATTEMPTS_MAX)]
    assert [one.status_code for one in answers] == [401] * (ATTEMPTS_MAX - 1) + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert ann.log_in().status_code == 429
    assert [one.author for one in world.parts.console.audit.entries(action="login refused")] == ["ann"]


def test_the_api_token_opens_the_console_under_no_users_name(world: World) -> None:
    Visitor(world, "ann", Role.VIEWER)
    answer = world.call("POST", "/login", data={"name": "Ann", "password": TOKEN})
    assert (answer.status_code, "user&#39;s name" in answer.text) == (422, True)
    assert world.call("POST", "/login", data={"name": "eve", "password": TOKEN}).status_code == 303


@pytest.mark.slow
def test_a_form_of_one_session_is_none_of_another(world: World) -> None:
    ann, bea = Visitor(world, "ann", Role.ADMIN), Visitor(world, "bea", Role.ADMIN)
    key = re.findall(r'name="key" value="([0-9a-f]+)"', ann.page("/console/users").text)[0]
    answer = world.call(
        "POST", "/console/users", headers={"Cookie": bea.cookie}, data={"key": key, "do": "disable", "name": "ann"}
    )
    assert answer.status_code == 401
    assert ann.page("/").status_code == 200


@pytest.mark.slow
def test_a_password_is_changed_by_who_knows_it_and_ends_other_sessions(world: World) -> None:
    ann = Visitor(world, "ann", Role.VIEWER)
    other = ann.log_in().headers["set-cookie"].split(";")[0]
    sent = {"do": "password", "new": "another long one", "again": "another long one"}
    assert ann.send("/console/account", old="wrong", **sent).status_code == 422
    assert ann.send("/console/account", old=PASSWORD, **sent | {"again": "x"}).status_code == 422
    assert ann.send("/console/account", old=PASSWORD, **sent).status_code == 200
    assert ann.page("/").status_code == 200
    assert world.call("GET", "/", headers=HTML | {"Cookie": other}).status_code == 303
    assert ann.log_in().status_code == 401
    assert ann.log_in("another long one").status_code == 303


def test_without_a_database_open_sessions_hold_and_the_api_token_opens_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Visitor(world, "ann", Role.ANALYST)
    assert ann.page("/console/account").status_code == 200

    def away(*_: object, **__: object) -> None:
        raise StoreError("cannot reach the database")

    monkeypatch.setattr("agents.web.auth.FRESH_S", 0.0)
    for name in ("reading", "writing"):
        monkeypatch.setattr(Store, name, away)
    assert ann.page("/console/account").status_code == 200
    answer = ann.log_in()
    assert (answer.status_code, "the API token opens the console" in answer.text) == (503, True)
    assert world.call("POST", "/login", data={"name": "", "password": TOKEN}).status_code == 303


def test_models_blocks_reviews_and_learning_are_in_the_audit_log(world: World) -> None:
    ann = Visitor(world, "ann", Role.OPERATOR)
    ann.send("/console/blocks", do="block", domain="evil.net", reason="seen")
    ann.send("/console/reviews", do="benign", domain="good.example", reason="ours")
    ann.send("/console/learning", do="disable")
    world.call("POST", "/retrain", headers=AUTH)
    noted = [(one["author"], one["way"], one["action"], one["object"]) for one in world.get("/audit").json()["entries"]]
    assert noted[:4] == [
        ("API", "API", "retraining", "run-1"),
        ("ann", "console", "learning", "console"),
        ("ann", "console", "labelled benign", "good.example"),
        ("ann", "console", "blocked", "evil.net"),
    ]


@pytest.mark.slow
def test_the_first_start_prints_a_link_for_the_admin_until_it_is_used(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []

    def start() -> str:
        FirstLogin(world.store, world.parts.people, "http://console").start()
        wait_for(lambda: not [one for one in threading.enumerate() if one.name == "first login"], "the first admin")
        printed.append(capsys.readouterr().out)
        return printed[-1]

    links = [re.findall(r"http://console(/login/link/\S+)", start())[0] for _ in range(2)]
    assert links[0] != links[1]
    assert world.call("GET", links[0]).status_code == 404, "a later start makes another"
    sent = {"password": PASSWORD, "again": PASSWORD}
    assert world.call("POST", links[1], data=sent).status_code == 303
    assert start() == ""


@pytest.mark.slow
def test_wrong_passwords_do_not_say_whether_somebody_has_the_name(world: World) -> None:
    def answers(name: str) -> list[tuple[int, str, str]]:
        world.app = create_app(world.parts)  # the address begins anew, the names' waits stay
        sent = [world.call("POST", "/login", data={"name": name, "password": "wrong"}) for _ in range(ATTEMPTS_MAX)]
        return [(one.status_code, one.headers.get("retry-after", ""), one.text.replace(name, "")) for one in sent]

    Visitor(world, "ann", Role.VIEWER)
    gone = Visitor(world, "bea", Role.VIEWER)
    world.parts.people.users.change(gone.name, disabled=True)
    assert answers("ann") == answers("bea") == answers("eve")
    assert [one.author for one in world.parts.console.audit.entries(action="login refused")] == ["ann"]


def from_address(world: World, address: str, name: str, password: str, cookies: str = "") -> httpx.Response:
    """A login from somewhere, with what a browser keeps."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(world.app, client=(address, 40_000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            return await client.post("/login", data={"name": name, "password": password}, headers={"Cookie": cookies})

    return asyncio.run(send())


@pytest.mark.slow
def test_who_keeps_guessing_keeps_nobody_waiting_in_a_browser_that_was_in_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, _ = Visitor(world, "ann", Role.VIEWER), Visitor(world, "bea", Role.VIEWER)
    kept = [one.split(";")[0] for one in ann.log_in().headers.get_list("set-cookie") if "dns_tunnel_known" in one]
    assert len(kept) == 1
    monkeypatch.setattr("agents.store.people.users.matches", lambda stored, password: password == PASSWORD)
    for number in range(NAME_FREE):
        assert from_address(world, f"192.0.2.{number // 4}", "ann", "wrong").status_code in (401, 429)
    assert from_address(world, "198.51.100.1", "ann", PASSWORD).status_code == 429, "the flood is slowed down"
    here, forged = "192.0.2.1", kept[0][:-1] + ("0" if kept[0][-1] != "0" else "1")
    assert from_address(world, here, "Ann", PASSWORD, kept[0]).status_code == 303, "also from the guesser's address"
    assert from_address(world, "198.51.100.1", "ann", PASSWORD, forged).status_code == 429
    of_bea = kept[0].replace(kept[0].partition("=")[0], known_browser._cookie_of("bea"))
    answers = [from_address(world, "198.51.100.2", "bea", "wrong", of_bea).status_code for _ in range(FAILED_FREE + 1)]
    assert answers[-1] == 429
    assert from_address(world, "198.51.100.3", "bea", PASSWORD, of_bea).status_code == 303, "hers was not counted by it"
    guesses = [from_address(world, "198.51.100.4", "ann", "wrong", kept[0]).status_code for _ in range(FAILED_FREE)]
    assert guesses == [401] * (FAILED_FREE - 1) + [429], "a stolen one guesses as slowly"
    world.app = create_app(world.parts)
    assert from_address(world, "198.51.100.5", "ann", PASSWORD, kept[0]).status_code == 429


@pytest.mark.slow
def test_a_known_browser_is_known_for_half_a_year_and_by_no_api_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "dns_tunnel_known" not in str(world.call("POST", "/login", data={"name": "eve", "password": TOKEN}).headers)
    link = world.parts.people.users.add("ann", Role.VIEWER, "test")
    answer = world.call("POST", f"/login/link/{link}", data={"password": PASSWORD, "again": PASSWORD})
    kept = next(one for one in answer.headers.get_list("set-cookie") if "dns_tunnel_known" in one)
    assert "HttpOnly" in kept and "Path=/login" in kept and "SameSite=strict" in kept
    for number in range(NAME_FREE):
        world.parts.people.users.log_in("ann", "", address=f"192.0.2.{number}")
    later = time.time() + known_browser.KNOWN_S + 1
    monkeypatch.setattr("time.time", lambda: later)
    for number in range(NAME_FREE):
        world.parts.people.users.log_in("ann", "", address=f"192.0.2.{number}")
    assert from_address(world, "198.51.100.1", "ann", PASSWORD, kept.split(";")[0]).status_code == 429


@pytest.mark.slow
def test_a_known_browser_ends_with_password_sessions_and_user(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Visitor(world, "root", Role.ADMIN)
    users = world.parts.people.users
    other = "another long one"

    def known_of(answer: httpx.Response) -> str:
        cookies = answer.headers.get_list("set-cookie")
        return next(one.split(";")[0] for one in cookies if one.startswith("dns_tunnel_known"))

    def is_known(cookie: str, password: str) -> bool:
        """Whether this browser does not wait while the name does, from everywhere."""
        with monkeypatch.context() as patched:
            patched.setattr("agents.store.people.users.matches", lambda *_: False)
            for number in range(NAME_FREE):
                users.log_in("ann", "wrong", address=f"192.0.2.{number}")
        status = from_address(world, "198.51.100.1", "ann", password, cookie).status_code
        world.app = create_app(world.parts)  # the address begins anew
        assert status in (303, 429)
        return status == 303

    ann = Visitor(world, "ann", Role.VIEWER)
    first = known_of(ann.log_in())
    assert is_known(first, PASSWORD)
    users.change_password("ann", PASSWORD, other, "session")
    assert not is_known(first, other)
    link = world.call("POST", f"/login/link/{users.open_link('ann')}", data={"password": other, "again": other})
    second = known_of(link)
    assert is_known(second, other)
    users.change("ann", disabled=True)
    assert not is_known(second, other)
    users.change("ann", disabled=False)
    third = known_of(ann.log_in(other))
    assert is_known(third, other)
    assert not is_known(second, other), "who is enabled again begins with no known browser"
    world.parts.people.sessions.end_all("ann")
    assert not is_known(third, other), "nor has who ended all sessions"
    users.remove("ann")
    users.set_password_by_link(users.add("ann", Role.VIEWER, "test"), other)
    assert not is_known(second, other)


def test_whoever_sends_many_for_one_name_keeps_known_browsers_of_others_waiting_for_one() -> None:
    turns, order = Turns(), list[str]()

    async def check(name: str) -> None:
        async with turns.turn(name):
            await asyncio.sleep(0)
            order.append(name)

    async def all_at_once() -> None:
        await asyncio.gather(*(check("ann") for _ in range(20)), check("bea"), check("cyd"))

    asyncio.run(all_at_once())
    assert len(order) == 22 and {"bea", "cyd"} <= set(order[:4])


@pytest.mark.slow
def test_tries_during_a_wait_are_not_each_in_the_audit_log(world: World) -> None:
    ann = Visitor(world, "ann", Role.VIEWER)
    for _ in range(ATTEMPTS_MAX + 3):
        world.app = create_app(world.parts)  # as from another address
        ann.log_in("wrong")
    assert len(world.parts.console.audit.entries(action="login refused")) == 1


@pytest.mark.slow
def test_many_logins_at_once_from_one_address_each_count(world: World) -> None:
    async def guess() -> list[int]:
        transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            sent = [client.post("/login", data={"name": f"n{n}", "password": "wrong"}) for n in range(12)]
            return [one.status_code for one in await asyncio.gather(*sent)]

    answers = asyncio.run(guess())
    assert (answers.count(401), answers.count(429)) == (ATTEMPTS_MAX, 12 - ATTEMPTS_MAX)


def test_logins_leave_threads_to_forms(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(CHECKS_MAX + 1)
    seen = list[int]()

    def slowly(*_: object) -> bool:
        with suppress(threading.BrokenBarrierError):  # where no more come than may, nobody waits on
            seen.append(together.wait(patient(1)))
        return False

    async def guess() -> None:
        transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            sent = [client.post("/login", data={"name": f"n{n}", "password": "wrong"}) for n in range(ATTEMPTS_MAX)]
            assert [one.status_code for one in await asyncio.gather(*sent)] == [401] * ATTEMPTS_MAX

    monkeypatch.setattr("agents.store.people.users.matches", slowly)
    asyncio.run(guess())
    assert seen == [], f"more than {CHECKS_MAX} were looked at at once"


@pytest.mark.slow
def test_right_passwords_use_up_no_attempt(world: World) -> None:
    ann = Visitor(world, "ann", Role.VIEWER)
    assert [ann.log_in().status_code for _ in range(2 * ATTEMPTS_MAX)] == [303] * 2 * ATTEMPTS_MAX


@pytest.mark.slow
def test_no_other_site_logs_somebody_in_or_out(world: World) -> None:
    ann = Visitor(world, "ann", Role.VIEWER)
    link = "/login/link/" + world.parts.people.users.open_link("ann")
    right = {"name": "ann", "password": PASSWORD, "again": PASSWORD}
    for site in ("cross-site", "same-site"):
        for url in ("/login", "/logout", link):
            answer = world.call("POST", url, headers={"Cookie": ann.cookie, "Sec-Fetch-Site": site}, data=right)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), url
    assert ann.page("/").status_code == 200
    for url in ("/login", link, "/logout"):
        here = {"Cookie": ann.cookie, "Sec-Fetch-Site": "same-origin"}
        assert world.call("POST", url, headers=here, data=right).status_code == 303, url


def test_a_token_makes_none_that_outlives_it(world: World) -> None:
    ann = Visitor(world, "ann", Role.ANALYST)
    made = ann.send("/console/account", do="token", what_for="a day", days="1", scope="read")
    auth = bearer(token_in(made.text))
    answer = world.call("POST", "/tokens", headers=auth, json={"what_for": "x", "scopes": ["read"], "days": 366})
    assert answer.status_code == 200, answer.text
    ends = {one["what_for"]: one["until"] for one in world.get("/tokens", headers=auth).json()["tokens"]}
    assert ends["x"] <= ends["a day"] + 1


def test_a_one_time_link_is_in_no_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreError("cannot reach the database")

    link = "/login/link/" + world.parts.people.users.add("ann", Role.ADMIN, "test")
    monkeypatch.setattr(Store, "reading", away)
    with structlog.testing.capture_logs() as logged:
        assert world.call("GET", link, headers=HTML).status_code == 503
        assert world.call("POST", link, data={"password": PASSWORD, "again": PASSWORD}).status_code == 503
    assert any(one["event"] == "request_failed" for one in logged)
    assert link.rpartition("/")[2] not in str(logged)


def test_a_path_to_go_on_to_is_short(world: World) -> None:
    assert 'name="next" value="/docs"' in world.call("GET", "/login?next=/docs").text
    assert 'name="next" value="/"' in world.call("GET", "/login?next=/" + "x" * 3000).text


@pytest.mark.slow
def test_who_is_disabled_finds_no_token_of_before_when_enabled(world: World) -> None:
    ann, bea = Visitor(world, "ann", Role.ANALYST), Visitor(world, "bea", Role.ADMIN)
    auth = bearer(token_in(ann.send("/console/account", do="token", what_for="x", scope="read").text))
    for action in ("disable", "enable"):
        bea.send("/console/users", do=action, name="ann")
        assert world.get("/whoami", headers=auth).status_code == 401, action
    (token,) = world.parts.people.tokens.all("ann")
    assert token.revoked_by == "bea"


def test_a_token_revokes_none_that_may_do_more(world: World) -> None:
    ann = Visitor(world, "ann", Role.ANALYST)
    reads, labels = (
        bearer(token_in(ann.send("/console/account", do="token", what_for=scope, scope=scope).text))
        for scope in ("read", "triage")
    )
    ids = {one["what_for"]: one["token_id"] for one in world.get("/tokens", headers=reads).json()["tokens"]}
    refused = world.call("POST", "/tokens/revoke", headers=reads, json={"token_id": ids["triage"]})
    assert refused.status_code == 422 and "it may do more than the token that asks" in refused.text
    assert world.get("/whoami", headers=labels).status_code == 200
    assert world.call("POST", "/tokens/revoke", headers=reads, json={"token_id": ids["read"]}).status_code == 200
    assert world.get("/whoami", headers=reads).status_code == 401, "its own it may end"


@pytest.mark.slow
@pytest.mark.parametrize(("address", "secure"), [("https://console.example", True), ("http://console.example", False)])
def test_cookies_are_secure_where_people_reach_the_console_over_tls(world: World, address: str, secure: bool) -> None:
    world.parts = replace(world.parts, public_url=address)
    world.app = create_app(world.parts)
    answer = Visitor(world, "ann", Role.VIEWER).log_in()
    assert ("Secure" in answer.headers["set-cookie"]) is secure
