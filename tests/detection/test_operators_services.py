"""The operator's own list: checked, bounded, ended by its date, and applied to what is known already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.core.errors import SettingsError
from agents.core.types import Incident, Severity
from agents.detection.detector import TunnelDetector
from agents.detection.known_services import (
    Entry,
    closed_by,
    entry_of,
    load_entries,
    save_entries,
    services_at,
    with_entry,
)
from agents.detection.limits import CRITICAL_RATIO, Scale
from agents.learning.baseline import asked_batch
from agents.scoring.model import Model
from tests.support.detecting import domain_key, fresh_detector

NOW = 1_795_000_000.0  # 2026-11-18
ENTRY = Entry("keys.vendor.test", 10.0, "licence keys", "ann", "2026-11-01", "2026-12-01")
SCALE = Scale()


def incident(ratio: float, names: tuple[str, ...] = ("a1.keys.vendor.test", "b2.keys.vendor.test")) -> Incident:
    score = SCALE.behaviour(ratio)
    return Incident("192.0.2.1", "vendor.test", Severity.HIGH, score, ("why",), None, 1, 2, 1, 9, 9, 99, 9, 99, names)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 1.7, CRITICAL_RATIO, 4.0, 40.0])
def test_a_score_tells_how_many_times_over_the_limit_it_was(ratio: float) -> None:
    assert SCALE.ratio(SCALE.behaviour(ratio)) == pytest.approx(ratio)


def test_an_entry_silences_what_its_budget_covers_and_no_more() -> None:
    assert ENTRY.silences(incident(9.0), SCALE)
    assert not ENTRY.silences(incident(11.0), SCALE), "far more than its budget stays an incident"
    assert not ENTRY.covers(incident(2.0, ("a1.keys.vendor.test", "x.vendor.test"))), "one name beside it is enough"
    assert not ENTRY.covers(incident(2.0, ("a1.evilkeys.vendor.test",))), "label boundaries"
    assert replace(ENTRY, suffix="vendor.test").covers(incident(2.0, ())), "without samples the domain decides"


def test_an_entry_ends_with_its_day() -> None:
    assert ENTRY.holds(NOW)
    assert not ENTRY.holds(NOW + 30 * 86_400)
    wire = b"\x02a1\x04keys\x06vendor\x04test"
    assert services_at([ENTRY], NOW).factor(wire) == 10.0
    assert services_at([ENTRY], NOW + 30 * 86_400).factor(wire) == 1.0


def test_the_list_is_kept_and_one_suffix_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    assert load_entries(path) == []
    other = replace(ENTRY, suffix="a.test", reason='"quoted", and a comma')
    save_entries(path, with_entry(with_entry([], ENTRY), other))
    again = replace(ENTRY, factor=20.0)
    save_entries(path, with_entry(load_entries(path), again))
    assert load_entries(path) == [other, again]


GOOD = {
    "suffix": "x.test",
    "factor": "10",
    "reason": "r",
    "author": "a",
    "added": "2026-01-01",
    "expires": "2026-02-01",
}


@pytest.mark.parametrize(
    "change",
    [
        {"factor": "1"},
        {"factor": "nan"},
        {"factor": "many"},
        {"factor": "1e9"},
        {"reason": " "},
        {"author": ""},
        {"expires": "soon"},
        {"added": "2026-13-01"},
        {"suffix": ""},
        {"suffix": "a..b"},
        {"suffix": "x" * 64},
    ],
)
def test_a_bad_entry_is_refused_with_its_line(tmp_path: Path, change: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        entry_of(GOOD | change)
    path = tmp_path / "known.csv"
    row = GOOD | change
    path.write_text(",".join(GOOD) + "\n" + ",".join(GOOD.values()) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(SettingsError, match="line 3"):
        load_entries(path)


def test_a_closed_incident_says_by_what() -> None:
    closed = closed_by(incident(2.0), ENTRY, NOW)
    assert closed.closed_at == NOW
    assert "licence keys (ann, until 2026-12-01)" in closed.reasons[-1]


def test_an_entry_applies_to_what_a_detector_already_watches(model: Model) -> None:
    names = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}.keys.vendor.test" for number in range(40)]
    detector = fresh_detector(model, SCALE)
    first = detector.detect(asked_batch([NOW + i for i in range(20)], ["192.0.2.1"] * 20, names[:20], [1] * 20))
    assert [one.closed_at for one in first.incidents] == [None]
    detector.reload_services(services_at([ENTRY], NOW))
    later = detector.detect(asked_batch([NOW + 20 + i for i in range(20)], ["192.0.2.1"] * 20, names[20:], [1] * 20))
    assert [one.closed_at is not None for one in later.incidents] == [True]
    assert not detector.incidents.open


def test_a_list_that_was_there_at_start_forgets_nothing(model: Model) -> None:
    services = services_at([ENTRY], NOW)
    detector = TunnelDetector(model, 100, 3600.0, SCALE, services)
    detector.detect(asked_batch([NOW], ["192.0.2.1"], ["0123456789abcdef0123456789abcdef.keys.vendor.test"], [1]))
    detector.reload_services(services)
    detector.tick(NOW + 1)
    row = detector.flows.find("192.0.2.1", domain_key(detector, "vendor.test"))
    assert row is not None and detector.flows.view(row).names == 1


def test_an_incident_that_would_stay_stays(model: Model) -> None:
    names = [f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}.keys.vendor.test" for number in range(200)]
    detector = fresh_detector(model, SCALE)
    first = detector.detect(asked_batch([NOW + i / 10 for i in range(200)], ["192.0.2.1"] * 200, names, [1] * 200))
    assert not replace(ENTRY, factor=2.0).silences(first.incidents[0], SCALE)
    detector.reload_services(services_at([replace(ENTRY, factor=2.0)], NOW))
    later = detector.detect(asked_batch([NOW + 30], ["192.0.2.1"], [names[0]], [1]))
    assert [one.closed_at for one in later.incidents] == [None]


def test_it_is_no_free_pass(model: Model) -> None:
    names = [f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}.keys.vendor.test" for number in range(200)]
    detector = fresh_detector(model, SCALE)
    detector.reload_services(services_at([ENTRY], NOW))
    found = detector.detect(asked_batch([NOW + i / 10 for i in range(200)], ["192.0.2.1"] * 200, names, [1] * 200))
    assert found.incidents


@pytest.mark.parametrize("suffix", [".", "keys.vendor.test"])
def test_an_entry_for_a_client_silences_that_one_and_applies_to_what_is_watched(model: Model, suffix: str) -> None:
    gateway, other = "192.0.2.25", "192.0.2.1"
    detector = fresh_detector(model, SCALE)

    def asked(client: str, at: int) -> list[tuple[str, bool]]:
        numbers = [(at + i) * 0x9E3779B97F4A7C15 % 2**64 for i in range(1, 21)]
        names = [f"{number:016x}.keys.vendor.test" for number in numbers]
        batch = asked_batch([NOW + at + i for i in range(20)], [client] * 20, names, [1] * 20)
        return [(one.client, one.closed_at is not None) for one in detector.detect(batch).incidents]

    assert asked(gateway, 0) == [(gateway, False)] and asked(other, 40) == [(other, False)]
    only = replace(ENTRY, suffix=suffix, client="192.0.2.24/29")
    detector.reload_services(services_at([only], NOW))
    found = asked(gateway, 20) + asked(other, 60)
    assert (gateway, True) in found and (other, True) not in found
    assert [client for client, _ in detector.incidents.open] == [other]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:db8::/128", "2001:db8::"),
        ("192.0.2.0/32", "192.0.2.0"),
        (" 192.0.2.9/24 ", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("", ""),
    ],
)
def test_an_entry_is_for_the_clients_that_were_named_and_no_fewer(written: str, kept: str) -> None:
    row = {"suffix": "cdn.example", "factor": "10", "reason": "ours", "author": "ann"}
    entry = entry_of(row | {"added": "2026-01-01", "expires": "2026-04-01", "client": written})
    assert entry.client == kept


def test_a_large_network_of_ipv6_covers_its_addresses_and_none_of_others() -> None:
    entry = entry_of(
        {"suffix": "keys.vendor.test", "factor": "10", "reason": "ours", "author": "ann", "added": "2026-01-01"}
        | {"expires": "2026-04-01", "client": "2001:db8::/32"}
    )
    assert entry.covers(replace(incident(1.0), client="2001:db8:9::7"))
    assert not entry.covers(replace(incident(1.0), client="2001:db9::7"))
