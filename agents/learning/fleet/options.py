"""Settings of a fleet: of its sites, and of the installation that coordinates them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from agents.alerting.delivery import is_loopback
from agents.core.errors import SettingsError
from agents.core.protocols import Field, Spec, Within
from agents.core.text import web_address

SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""What a site may be called."""
KEY_CHARS_MIN = 16
"""A shorter key can be guessed."""
SITES_MIN = 3
"""Below three sites, what is joined is one other site's."""


def _site(name: str) -> None:
    if name and not SITE.fullmatch(name):
        raise ValueError("a site's name has at most 40 lower-case letters, digits and hyphens")


def _key(key: str) -> None:
    if 0 < len(key) < KEY_CHARS_MIN:
        raise ValueError(f"shorter than {KEY_CHARS_MIN} characters, it can be guessed")


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The settings FLEET…; url: "" = this installation takes part in no fleet."""

    url: str
    site: str
    key: str
    secret: str
    interval_s: float
    epsilon: float
    sites_min: int
    round_s: float


def must_be_whole(options: FleetOptions) -> None:
    """Raise SettingsError where a site is named by half, or what it sends would travel in the clear."""
    if not options.url:
        return
    if not (options.site and options.key):
        raise SettingsError("cannot use setting FLEET: FLEET_SITE and FLEET_KEY are needed, too")
    parts = urlsplit(options.url)
    if not parts.hostname:
        raise SettingsError("cannot use setting FLEET: it names no host")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise SettingsError("cannot use setting FLEET: it is http:// to another machine, https:// is needed")


SPEC: Spec[FleetOptions] = Spec(
    "fleet",
    "sites that learn together",
    (
        Field(
            "fleet",
            str,
            "",
            "address of the fleet's coordinator, any installation's console; empty = none",
            web_address,
        ),
        Field("fleet_site", str, "", "what the coordinator calls this site (`dns-tunnel fleet add` there)", _site),
        Field(
            "fleet_key",
            str,
            "",
            "secret of this site and the coordinator: all that is sent is signed with it",
            _key,
            True,
        ),
        Field(
            "fleet_secret",
            str,
            "",
            "secret that the sites share and the coordinator need not know: domains are sent as keyed hashes with it;"
            " empty = none are sent",
            _key,
            True,
        ),
        Field("fleet_interval", float, 3600.0, "seconds between two looks at the coordinator's round", Within(10, 1e7)),
        Field("fleet_epsilon", float, 1.0, "differential privacy of the counts that a week sends", Within(0.01, 10)),
        Field(
            "fleet_sites_min", int, SITES_MIN, "sites that a round needs, on the coordinator", Within(SITES_MIN, 1000)
        ),
        Field(
            "fleet_round_hours",
            float,
            168.0,
            "hours after which a round ends without the sites that have not sent, on the coordinator",
            Within(0.001, 10_000),
        ),
    ),
    lambda values: FleetOptions(
        url=values["fleet"].rstrip("/"),
        site=values["fleet_site"],
        key=values["fleet_key"],
        secret=values["fleet_secret"],
        interval_s=values["fleet_interval"],
        epsilon=values["fleet_epsilon"],
        sites_min=values["fleet_sites_min"],
        round_s=values["fleet_round_hours"] * 3600,
    ),
)
