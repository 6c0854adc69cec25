"""Settings of logging in through OpenID Connect, and the provider that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.core.errors import AgentsError
from agents.core.protocols import Field, Spec
from agents.core.text import printable, web_address
from agents.settings import Settings
from agents.store.people.roles import Role, role_of

if TYPE_CHECKING:  # the web server's modules take half a second, and most commands need none of them
    from agents.web.people.oidc import OidcOptions, OidcProvider


def _roles(text: str) -> dict[str, Role]:
    found = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        value, _, role = part.rpartition("=")
        if not value:
            raise ValueError(f"{printable(part, 40)!r} is not VALUE=role")
        found[value] = _role(role)
    return found


def _role(text: str) -> Role:
    try:
        return role_of(text)
    except AgentsError as error:
        raise ValueError(str(error)) from None


def _role_or_none(text: str) -> Role | None:
    return _role(text) if text else None


def _options(**values: Any) -> OidcOptions:
    from agents.web.people.oidc import OidcOptions

    return OidcOptions(**values)


SPEC: Spec[OidcOptions] = Spec(
    "oidc",
    "logging in through OpenID Connect",
    (
        Field("oidc_issuer", str, "", "the provider's address, https://…; empty = none", web_address),
        Field(
            "oidc_client_id",
            str,
            "",
            "what the provider calls this console; its redirect address is PUBLIC_URL/login/oidc/callback",
        ),
        Field("oidc_client_secret", str, "", "the client's secret there; empty = a public client", None, True),
        Field("oidc_scopes", str, "openid profile email", "what the provider is asked for"),
        Field("oidc_role_claim", str, "groups", "claim that holds groups; a dot goes deeper (realm_access.roles)"),
        Field("oidc_roles", str, "", "values of that claim, each with its role here: soc=analyst,noc=operator", _roles),
        Field(
            "oidc_default_role",
            str,
            "",
            "role of those who have none of these values; empty = they may not log in",
            _role_or_none,
        ),
    ),
    lambda values: _options(
        issuer=values["oidc_issuer"],
        client_id=values["oidc_client_id"],
        client_secret=values["oidc_client_secret"],
        scopes=values["oidc_scopes"],
        claim=values["oidc_role_claim"],
        roles=_roles(values["oidc_roles"]),
        default=_role_or_none(values["oidc_default_role"]),
    ),
)


def oidc_of(settings: Settings) -> OidcProvider | None:
    """The provider through which people log in; None = there is none. Raises SettingsError."""
    if not settings.of(SPEC)["oidc_issuer"]:
        return None
    from agents.web.people.oidc import OidcProvider, must_be_complete

    options = SPEC.factory(settings.of(SPEC))
    must_be_complete(options)
    return OidcProvider(options)
