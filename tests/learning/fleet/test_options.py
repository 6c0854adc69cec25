"""Settings of a fleet that cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.core.errors import SettingsError
from agents.runtime.bootstrap import check_settings, load_settings

WHOLE = {"fleet": "https://console.example", "fleet_site": "north", "fleet_key": "k" * 20}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fleet_site": ""}, "FLEET_SITE and FLEET_KEY are needed"),
        ({"fleet_key": ""}, "FLEET_SITE and FLEET_KEY are needed"),
        ({"fleet": "http://192.0.2.1:8053"}, "https:// is needed"),
        ({"fleet": "https://"}, "it names no host"),
        ({"fleet": "console.example"}, "begins with https://"),
        ({"fleet_site": "North, the first"}, "lower-case letters"),
        ({"fleet_key": "short"}, "it can be guessed"),
        ({"fleet_secret": "short"}, "it can be guessed"),
        ({"fleet_sites_min": 2}, "FLEET_SITES_MIN"),
    ],
)
def test_half_a_fleet_is_refused_before_any_socket_opens(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_settings(load_settings(data_dir=tmp_path, upstreams="127.0.0.1:9", **WHOLE | changed))


def test_a_whole_one_and_one_on_loopback_are_taken(tmp_path: Path) -> None:
    for url in ("https://console.example", "http://127.0.0.1:8053", "http://[::1]:8053", ""):
        check_settings(load_settings(data_dir=tmp_path, upstreams="127.0.0.1:9", **WHOLE | {"fleet": url}))
