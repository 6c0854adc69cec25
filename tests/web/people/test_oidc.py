"""OpenID Connect against a provider on this machine, and against words that are not to be believed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from agents.core.errors import SettingsError
from agents.store.people.roles import Role
from agents.web.app import create_app
from agents.web.people import oidc
from agents.web.people.oidc import BEGUN_EACH_MAX, OidcError, OidcOptions, OidcProvider, must_be_complete
from tests.support.patience import patient
from tests.web.test_console import HTML, World

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CALLBACK = "http://console/login/oidc/callback"


def options(issuer: str, **more: Any) -> OidcOptions:
    roles = {"soc": Role.ANALYST, "noc": Role.OPERATOR}
    made = OidcOptions(issuer, "console", "a client's secret", "openid profile email", "groups", roles, None)
    return replace(made, **more)


@pytest.fixture
def issuer() -> Iterator[str]:
    import oidc_provider_mock
    from oidc_provider_mock import User

    people = [
        User(sub="7", claims={"groups": ["soc", "noc", "x"], "preferred_username": "Ann"}),
        User(sub="8", claims={"email": "bea@example.com"}),
    ]
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def world(tmp_path: Path, issuer: str) -> Iterator[World]:
    made = World(tmp_path)
    made.parts = replace(made.parts, oidc=OidcProvider(options(issuer)))
    made.app = create_app(made.parts)
    yield made
    made.store.close()


def at_provider(address: str, sub: str) -> str:
    """Say at the provider who one is; the path and query of the address to which it leads back."""
    with httpx.Client() as browser:
        answer = browser.post(address, data={"sub": sub})
    back = urlsplit(answer.headers["location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == CALLBACK
    return f"{back.path}?{back.query}"


def begin(world: World, following: str = "/console/models") -> tuple[str, str]:
    """The provider's address, and the cookie of this login."""
    answer = world.call("GET", f"/login/oidc?next={following}", headers=HTML)
    assert answer.status_code == 303, answer.text
    assert "SameSite=lax" in answer.headers["set-cookie"]
    return answer.headers["location"], answer.headers["set-cookie"].split(";")[0]


@pytest.mark.slow
def test_somebody_logs_in_with_the_role_of_their_groups_and_goes_on(world: World) -> None:
    assert 'href="/login/oidc?next=%2Fdocs"' in world.call("GET", "/login?next=/docs").text
    address, cookie = begin(world)
    assert parse_qs(urlsplit(address).query)["code_challenge_method"] == ["S256"]
    back = at_provider(address, "7")
    answer = world.call("GET", back, headers=HTML | {"Cookie": cookie})
    assert answer.status_code == 200, answer.text
    assert 'content="0; url=/console/models"' in answer.text
    session = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("dns_tunnel_session="))
    assert "SameSite=strict" in session
    page = world.call("GET", "/console/account", headers=HTML | {"Cookie": session.split(";")[0]}).text
    assert re.search(r'<h1>ann <span class="count">operator<', page), "the highest role of the groups"
    assert world.call("GET", back, headers=HTML | {"Cookie": cookie}).status_code == 403, "an answer holds once"


@pytest.mark.slow
def test_nobody_else_can_use_the_answer(world: World) -> None:
    address, _ = begin(world)
    back = at_provider(address, "7")
    _, other = begin(world)
    assert world.call("GET", back, headers=HTML | {"Cookie": other}).status_code == 403
    assert world.parts.people.users.all() == []


def test_without_a_role_nobody_gets_in(world: World) -> None:
    address, cookie = begin(world)
    answer = world.call("GET", at_provider(address, "8"), headers=HTML | {"Cookie": cookie})
    assert (answer.status_code, "gives you no role" in answer.text) == (403, True)
    assert world.parts.people.users.all() == []


@pytest.mark.parametrize(
    "query", ["", "state=x&code=y", "state=%00&code=%00", "error=access_denied", "state=" + "x" * 9000]
)
def test_an_answer_that_nobody_asked_for(world: World, query: str) -> None:
    answer = world.call("GET", f"/login/oidc/callback?{query}", headers=HTML)
    assert (answer.status_code, "begin again" in answer.text) == (403, True)


def test_a_provider_that_is_away_leaves_the_password(world: World) -> None:
    world.parts = replace(world.parts, oidc=OidcProvider(options("http://127.0.0.1:1")))
    world.app = create_app(world.parts)
    answer = world.call("GET", "/login/oidc", headers=HTML)
    assert (answer.status_code, "cannot reach the OpenID provider" in answer.text) == (502, True)
    assert 'name="password"' in answer.text


class Words:
    """A provider of which every answer is ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.key, self.claims, self.header = RSAKey.generate_key(2048, {"kid": "1"}), dict[str, Any](), {"alg": "RS256"}
        self.signing: Any = self.key
        self.provider = OidcProvider(options("https://login.example"))
        monkeypatch.setattr(oidc, "_asked", self.asked)

    def asked(self, method: str, address: str, **_: Any) -> Any:
        if address.endswith("openid-configuration"):
            base = "https://login.example"
            return {
                "issuer": base,
                "authorization_endpoint": base + "/a",
                "token_endpoint": base + "/t",
                "jwks_uri": base + "/k",
            }
        if address.endswith("/k"):
            return KeySet([self.key]).as_dict(private=False)
        return {"id_token": jwt.encode(self.header, self.claims, self.signing, algorithms=["RS256", "HS256"])}

    def log_in(self, **changed: Any) -> oidc.OidcPerson:
        address, browser = self.provider.begin(CALLBACK, "/")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        now = int(time.time())
        good = {"iss": "https://login.example", "sub": "7", "aud": "console", "exp": now + 60, "iat": now,
                "nonce": asked["nonce"], "preferred_username": "ann", "groups": ["soc"]}  # fmt: skip
        self.claims = {name: value for name, value in (good | changed).items() if value is not None}
        return self.provider.end(asked["state"], "code", "", browser)


def test_only_the_words_of_this_login_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words(monkeypatch)
    found = words.log_in()
    assert (found.subject, found.name, found.role) == ("https://login.example 7", "ann", Role.ANALYST)
    old = int(time.time()) - 3600
    for changed in (
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["console", "another"], "azp": "another"},
        {"exp": old},
        {"exp": None},
        {"nonce": "of another login"},
        {"nonce": None},
        {"sub": None},
        {"iat": None},
        {"exp": "soon"},
        {"iat": [1]},
        {"nonce": 5},
        {"aud": 7},
        {"aud": {"console": 1}},
    ):
        with pytest.raises(OidcError, match="does not hold"):
            words.log_in(**changed)
    words.signing = RSAKey.generate_key(2048, {"kid": "1"})
    with pytest.raises(OidcError, match="does not hold"):
        words.log_in()


def test_a_key_that_was_changed_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words(monkeypatch)
    words.log_in()
    words.key = words.signing = RSAKey.generate_key(2048, {"kid": "2"})
    assert words.log_in().name == "ann"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"issuer": "http://login.example"}, "https:// is needed"),
        ({"client_id": ""}, "OIDC_CLIENT_ID"),
        ({"roles": {}}, "OIDC_ROLES or OIDC_DEFAULT_ROLE"),
        ({"scopes": "profile"}, "openid is not among them"),
    ],
)
def test_settings_with_which_nobody_could_log_in(changed: dict[str, Any], said: str) -> None:
    must_be_complete(options("https://login.example"))
    must_be_complete(options("", client_id=""))
    with pytest.raises(SettingsError, match=said):
        must_be_complete(replace(options("https://login.example"), **changed))


def test_a_cookie_that_is_no_text_is_another_browsers(world: World) -> None:
    address, _ = begin(world)
    headers = {b"Accept": b"text/html", b"Cookie": b"dns_tunnel_login=\xe9\xff"}
    answer = world.call("GET", at_provider(address, "7"), headers=headers)
    assert (answer.status_code, "begin again" in answer.text) == (403, True)


def test_a_provider_that_hangs_keeps_one_thread_and_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, begun, goes_on = list[str](), threading.Event(), threading.Event()

    def hang(method: str, address: str, **_: Any) -> Any:
        asked.append(address)
        begun.set()
        goes_on.wait(patient(60))
        raise OidcError("cannot reach the OpenID provider: ReadTimeout")

    monkeypatch.setattr(oidc, "_asked", hang)
    monkeypatch.setattr(oidc, "ASKED_S", 0.01)
    provider = OidcProvider(options("https://login.example"))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(provider.begin, CALLBACK, "/")
        assert begun.wait(patient(60))
        with pytest.raises(OidcError, match="has not answered yet"):
            provider.begin(CALLBACK, "/")
        goes_on.set()
        with pytest.raises(OidcError, match="ReadTimeout"):
            first.result()
    with pytest.raises(OidcError, match="ReadTimeout"):
        provider.begin(CALLBACK, "/")
    assert len(asked) == 1
    monkeypatch.setattr(oidc, "AGAIN_S", 0.0)
    with pytest.raises(OidcError, match="ReadTimeout"):
        provider.begin(CALLBACK, "/")
    assert len(asked) == 2, "after a while it is asked again"


def test_a_flood_of_logins_from_one_address_ends_its_own_alone(issuer: str) -> None:
    provider = OidcProvider(options(issuer))
    first, browser = provider.begin(CALLBACK, "/", "192.0.2.1")
    flood = [provider.begin(CALLBACK, "/", "192.0.2.66") for _ in range(BEGUN_EACH_MAX + 1)]
    back = {name: values[0] for name, values in parse_qs(urlsplit(at_provider(first, "7")).query).items()}
    assert provider.end(back["state"], back["code"], "", browser).name == "ann"
    state = parse_qs(urlsplit(flood[0][0]).query)["state"][0]
    with pytest.raises(OidcError, match="begin again"):
        provider.end(state, "x", "", flood[0][1])
