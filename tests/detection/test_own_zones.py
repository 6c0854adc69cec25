"""Zones of this network's own: what stays inside is judged, stored and never an incident."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agents.core.errors import SettingsError
from agents.core.types import Severity, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.known_services import services_at
from agents.detection.limits import Scale
from agents.runtime import bootstrap
from tests.detection.test_network import data
from tests.support.detecting import START, query, shipped_model

ZONE = "corp.example.com"


@pytest.mark.parametrize("zone", [ZONE, "lan", "home.arpa", "ad.internal"])
def test_what_stays_inside_is_no_incident(zone: str) -> None:
    rng, services = random.Random(1), services_at([], START, [zone])
    detector = TunnelDetector(shipped_model(), 1000, 3600.0, Scale(), services)
    inside = [query(START + n, "10.0.0.7", f"{data(rng, 30)}.{zone}", 16) for n in range(300)]
    verdicts = detector.detect(batch_of(inside))
    assert verdicts.incidents == ()
    assert max(verdicts.severity) == Severity.NORMAL
    outside = [query(START + 400 + n, "10.0.0.7", f"{data(rng, 30)}.{zone}.evil.example", 16) for n in range(30)]
    (found,) = detector.detect(batch_of(outside)).incidents
    assert found.domain == "evil.example"


@pytest.mark.parametrize(
    ("own", "upstreams", "zones"),
    [
        ("Corp.Example.com. , lan", "", ["corp.example.com", "lan"]),
        ("", "corp.example=10.0.0.53,192.0.2.1", ["corp.example"]),
        ("", "corp.example=10.0.0.53,corp.example=9.9.9.9,192.0.2.1", []),
        ("", "corp.example=127.0.0.1:5300,10.0.0.1", []),
        ("", "corp.example=dns.corp.example", []),
        ("lan", "lan=[fd00::53]:53", ["lan"]),
    ],
)
def test_zones_are_named_or_sent_to_private_addresses(
    own: str, upstreams: str, zones: list[str], tmp_path: Path
) -> None:
    settings = bootstrap.load_settings(data_dir=tmp_path, own_zones=own, upstreams=upstreams)
    assert bootstrap.own_zones_of(settings) == zones


@pytest.mark.parametrize("own", ["com", "co.uk", "github.io", ".", "a..b", "x" * 64 + ".lan"])
def test_what_strangers_have_names_below_is_nobodys_own(own: str, tmp_path: Path) -> None:
    settings = bootstrap.load_settings(data_dir=tmp_path, own_zones=own)
    with pytest.raises(SettingsError, match="cannot use setting OWN_ZONES"):
        bootstrap.check_settings(settings)
