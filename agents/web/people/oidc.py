"""OpenID Connect 1.0, authorization code flow with PKCE (RFC 7636): people log in where their organisation knows them.

What an answer has to hold is checked as OpenID Connect Core 1.0, section 3.1.3.7, has it: signature by the provider's
keys, issuer, audience, times, and the nonce of this very login.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from agents.alerting.delivery import is_loopback
from agents.core.errors import AgentsError, SettingsError
from agents.core.text import printable
from agents.store.people.roles import Role
from agents.store.people.users import NAME

LOGIN_S = 600.0
"""How long somebody may take at the provider."""
BEGUN_MAX, BEGUN_EACH_MAX = 1000, 20
"""Logins under way at once, and those begun by one address; of who has too many, the oldest is dropped first."""
TIMEOUT_S, KEPT_S = 5.0, 3600.0
"""Seconds to wait for the provider; and for which its description and keys are kept."""
AGAIN_S, ASKED_S = 5.0, 1.0
"""A provider that gave no description is asked again after so many seconds; how long others wait for who asks."""
LEEWAY_S = 60
"""By how much its clock may differ from ours, seconds."""
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that are taken: all with a public key, so that nobody signs with what this client knows."""


class OidcError(AgentsError):
    """The provider cannot be used, or its answer is not to be believed."""


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """The settings OIDC_…; issuer: "" = nobody logs in through a provider."""

    issuer: str
    client_id: str
    client_secret: str
    scopes: str
    claim: str
    roles: Mapping[str, Role]
    default: Role | None


@dataclass(frozen=True, slots=True)
class OidcPerson:
    """Somebody whom the provider knows. subject: issuer and subject, which never change. role: None = none here."""

    subject: str
    name: str
    role: Role | None
    following: str


@dataclass(frozen=True, slots=True)
class _Begun:
    browser: str
    nonce: str
    verifier: str
    back: str
    following: str
    until: float
    address: str


class OidcProvider:
    """One provider, and the logins that are under way there. Safe to share between threads. Raises OidcError."""

    def __init__(self, options: OidcOptions) -> None:
        self._options = options
        self._guard, self._asking = threading.Lock(), threading.Lock()
        self._failed: tuple[float, str] = (-AGAIN_S, "")
        self._begun: OrderedDict[str, _Begun] = OrderedDict()
        self._described: tuple[float, Mapping[str, Any]] = (-KEPT_S, {})
        self._keys: tuple[float, Mapping[str, Any]] = (-KEPT_S, {})

    def begin(self, back: str, following: str, address: str = "") -> tuple[str, str]:
        """The provider's address for a login, and what the browser keeps until it is back at `back`.

        address: who asks, as attempts are counted.
        """
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        state, begun = secrets.token_urlsafe(32), _Begun(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), back, following,
            time.monotonic() + LOGIN_S, address,
        )  # fmt: skip
        described = self._description()
        with self._guard:
            mine = [one for one, other in self._begun.items() if other.address == address]
            if len(mine) >= BEGUN_EACH_MAX:
                del self._begun[mine[0]]
            self._begun[state] = begun
            while len(self._begun) > BEGUN_MAX:
                self._begun.popitem(last=False)
        asked = {
            "response_type": "code",
            "client_id": self._options.client_id,
            "redirect_uri": back,
            "scope": self._options.scopes,
            "state": state,
            "nonce": begun.nonce,
            "code_challenge": create_s256_code_challenge(begun.verifier),
            "code_challenge_method": "S256",
        }
        provider = described["authorization_endpoint"]
        return f"{provider}{'&' if '?' in provider else '?'}{urlencode(asked)}", begun.browser

    def end(self, state: str, code: str, error: str, browser: str) -> OidcPerson:
        """Who came back with `code`."""
        with self._guard:
            begun = self._begun.pop(state, None)
        if begun is None or begun.until < time.monotonic() or not _same(begun.browser, browser):
            raise OidcError("cannot log in: that login was not begun here, or took too long; begin again")
        if error or not code:
            raise OidcError(f"cannot log in: the provider says {printable(error, 60) or 'nothing'}")
        claims = self._claims(self._id_token(code, begun), begun.nonce)
        return OidcPerson(f"{self._options.issuer} {claims['sub']}", _name(claims), self._role(claims), begun.following)

    def _id_token(self, code: str, begun: _Begun) -> str:
        """The provider's word, in exchange for a code (RFC 6749, section 4.1.3)."""
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": begun.back,
            "code_verifier": begun.verifier,
        }
        described = self._description()
        methods = described.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth: httpx.BasicAuth | None = None
        if self._options.client_secret and "client_secret_basic" in methods:
            auth = httpx.BasicAuth(self._options.client_id, self._options.client_secret)
        else:
            sent["client_id"] = self._options.client_id
            if self._options.client_secret:
                sent["client_secret"] = self._options.client_secret
        found = _asked("POST", described["token_endpoint"], data=sent, auth=auth)
        token = found.get("id_token")
        if not isinstance(token, str):
            raise OidcError("cannot log in: the provider gives no ID token; OIDC_SCOPES has to name openid")
        return token

    def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        for fresh in (False, True):  # a provider may have changed its keys since
            keys, params = self._key_set(fresh), {"nonce": nonce, "client_id": self._options.client_id}
            options = {
                "iss": {"essential": True, "value": self._description()["issuer"]},
                "aud": {"essential": True, "value": self._options.client_id},
            }
            try:
                decoded = jwt.decode(token, KeySet.import_key_set(keys), algorithms=ALGORITHMS)
                CodeIDToken(decoded.claims, decoded.header, options, params).validate(int(time.time()), LEEWAY_S)
            except (JoseError, ValueError) as error:
                if fresh:
                    raise OidcError(
                        f"cannot log in: the provider's word does not hold ({printable(error, 80)})"
                    ) from None
                continue
            return dict(decoded.claims)
        raise AssertionError("not reached")

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest role of what the claim has."""
        found: Any = claims
        for part in self._options.claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        values = found if isinstance(found, list) else [found]
        roles = [
            self._options.roles[value] for value in values if isinstance(value, str) and value in self._options.roles
        ]
        return max(roles, key=list(Role).index, default=self._options.default)

    def _description(self) -> Mapping[str, Any]:
        """OpenID Connect Discovery 1.0, section 4.

        One thread asks at a time: nobody needs a password to make one wait here for a provider that hangs.
        """
        if found := self._described_lately():
            return found
        if not self._asking.acquire(timeout=ASKED_S):
            raise OidcError("cannot reach the OpenID provider: it has not answered yet; try again")
        try:
            return self._described_lately() or self._described_now()
        finally:
            self._asking.release()

    def _described_lately(self) -> Mapping[str, Any]:
        """Its description as it was read last; {} = it has to be asked. Raises OidcError where it just was, in vain."""
        at, why = self._failed
        if time.monotonic() - at < AGAIN_S:
            raise OidcError(why)
        at, found = self._described
        return found if time.monotonic() - at < KEPT_S else {}

    def _described_now(self) -> Mapping[str, Any]:
        try:
            self._described = time.monotonic(), self._asked_for_description()
        except OidcError as error:
            self._failed = time.monotonic(), str(error)
            raise
        return self._described[1]

    def _asked_for_description(self) -> Mapping[str, Any]:
        found = _asked("GET", self._options.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if str(found.get("issuer", "")).rstrip("/") != self._options.issuer.rstrip("/"):
            raise OidcError("cannot use OIDC_ISSUER: its description names another issuer")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _must_be_safe(str(found.get(name, "")), OidcError)
        return found

    def _key_set(self, fresh: bool) -> Any:
        at, found = self._keys
        if fresh or time.monotonic() - at >= KEPT_S:
            found = _asked("GET", self._description()["jwks_uri"])
            self._keys = time.monotonic(), found
        return found


def _same(one: str, other: str) -> bool:
    """Whether two texts are the same, in a time that does not say where they differ; a cookie may be no ASCII."""
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))


def _asked(method: str, address: str, **sent: Any) -> Mapping[str, Any]:
    """A JSON object that the provider answers. Raises OidcError."""
    try:
        answer = httpx.request(method, address, timeout=TIMEOUT_S, **sent)
        found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise OidcError(f"cannot reach the OpenID provider: {type(error).__name__}") from None
    if answer.status_code != 200 or not isinstance(found, dict):
        why = found.get("error", "") if isinstance(found, dict) else ""
        raise OidcError(
            f"cannot use the OpenID provider: it answers {answer.status_code} {printable(why, 60)}".rstrip()
        )
    return found


def _name(claims: Mapping[str, Any]) -> str:
    """What the user is called here: the first claim that can be a name."""
    for one in ("preferred_username", "email", "sub"):
        text = str(claims.get(one, "")).strip().lower().replace(" ", ".")
        if NAME.fullmatch(text):
            return text
    raise OidcError("cannot log in: the provider gives no name that can be used here")


def _must_be_safe(address: str, error: type[AgentsError]) -> None:
    parts = urlsplit(address)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise error(f"cannot use OIDC_ISSUER: {printable(address, 80)!r} is no web address")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise error("cannot use OIDC_ISSUER: it is http:// to another machine, https:// is needed")


def must_be_complete(options: OidcOptions) -> None:
    """Raise SettingsError for settings with which nobody could log in, or in the clear."""
    if not options.issuer:
        return
    _must_be_safe(options.issuer, SettingsError)
    if not options.client_id:
        raise SettingsError("cannot use setting OIDC_ISSUER: OIDC_CLIENT_ID is needed, too")
    if not options.roles and options.default is None:
        raise SettingsError("cannot use setting OIDC_ISSUER: OIDC_ROLES or OIDC_DEFAULT_ROLE is needed, too")
    if "openid" not in options.scopes.split():
        raise SettingsError("cannot use setting OIDC_SCOPES: openid is not among them")
