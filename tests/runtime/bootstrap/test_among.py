"""Saved state of detectors: of each slot the newest, whatever number of detectors wrote it; and what runs is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agents.cli.doctor import CHECKS
from agents.core.errors import SettingsError
from agents.core.text import NETWORK
from agents.detection.limits import SCATTERED, Scale
from agents.detection.shared.together import PARTED_FILE
from agents.dns.name import ROOT
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.runtime.bootstrap import load_settings, make_folders
from agents.runtime.bootstrap.among import Among, check_several, drop_outdated, saved_by_slot, several_of
from agents.runtime.health import ProcessHealth, metrics_of
from agents.runtime.heartbeat import DetectorHealth, Heartbeat
from agents.runtime.several.exchange import DetectorExchange
from agents.runtime.several.network_process import NETWORK_PROCESS
from agents.scoring.model import Model
from agents.stream.slots import SLOTS, PartedClients
from tests.support.incidents import incident

EVERY = frozenset(range(SLOTS))
NAME = "windows.snapshot"


def write(state_dir: Path, folder: str, at: float) -> Path:
    path = state_dir / folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (at, at))
    return path


def test_of_each_slot_the_newest_file_counts(tmp_path: Path) -> None:
    whole, half = write(tmp_path, ".", 10), write(tmp_path, "detector-2-of-2", 20)
    third = write(tmp_path, "detector-1-of-3", 30)
    found = {one.path: one.slots for one in saved_by_slot(tmp_path, NAME, EVERY)}
    assert found == {
        third: frozenset(slot for slot in EVERY if slot % 3 == 0),
        half: frozenset(slot for slot in EVERY if slot % 3 and slot % 2),
        whole: frozenset(slot for slot in EVERY if slot % 3 and not slot % 2),
    }
    drop_outdated(tmp_path)
    assert whole.exists() and half.exists() and third.exists(), "each has the newest of some slots"
    newer = [write(tmp_path, f"detector-{number}-of-4", 40) for number in range(1, 5)]
    drop_outdated(tmp_path)
    assert [whole.exists(), half.exists(), third.exists()] == [False] * 3
    assert all(path.exists() for path in newer)


@pytest.mark.parametrize("shared", ["", "10.0.0.53"])
def test_sums_of_shared_clients_are_kept_as_long_as_there_are_some(tmp_path: Path, shared: str) -> None:
    """What is erased is taken out of the file only where it is written anew."""
    settings = load_settings(data_dir=tmp_path, detector_processes=2, shared_clients=shared)
    several: list[Among] = []

    def parts(among: Among) -> Any:
        several.append(among)

    made = several_of(settings, parts)
    assert made is not None
    sums = settings.state_dir / PARTED_FILE
    sums.parent.mkdir(parents=True, exist_ok=True)
    sums.write_bytes(b"x")
    made.make(NETWORK_PROCESS)
    model = Model.from_bytes(model_bytes())
    several[0].made(lambda kind: kind(model, 64, 3600.0, Scale())).parts["saved"]()
    assert sums.exists() == bool(shared)
    made.exchange.close()


def test_batches_that_wait_are_looked_for_by_any_number(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, detector_processes=2)
    waiting = settings.spool_folder / "0000000000000001-abc-0.npz"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"x")
    made = several_of(settings, lambda among: None)
    assert made is not None and made.exchange.names == ["detector-1", "detector-2"]
    assert (settings.spool_folder / "detector-1" / waiting.name).exists() and not waiting.exists()
    made.exchange.close()
    assert several_of(load_settings(data_dir=tmp_path), lambda among: None) is None
    assert waiting.exists()


def test_clients_must_be_known_by_their_addresses(tmp_path: Path) -> None:
    check_several(load_settings(data_dir=tmp_path, detector_processes=2))
    check_several(load_settings(data_dir=tmp_path, privacy="truncate"))
    with pytest.raises(SettingsError, match="DETECTOR_PROCESSES: more than 1 needs PRIVACY=off"):
        check_several(load_settings(data_dir=tmp_path, detector_processes=2, privacy="truncate"))


def test_an_open_incident_of_a_shared_client_is_gone_on_with_by_one_process(tmp_path: Path) -> None:
    """Whoever opened it: sums over domains, and names without any domain, are of `network`."""
    exchange = DetectorExchange(3, (1, 2), PartedClients("10.0.0.53"))

    def owners(client: str, domain: str, kind: str = "information") -> list[str]:
        one = incident(client=client, domain=domain, evidence={"kind": kind})
        among = [Among(exchange, name, tmp_path) for name in exchange.names]
        names = [each.name for each in among if each._owns(one)]
        return names + ["network"] * Among(exchange, "network", tmp_path).counts(one)

    over_domains = [(SCATTERED, "scattered"), (ROOT, "encoded"), ("a.example", "spread"), ("b.example", "siblings")]
    assert [owners("10.0.0.53", *one) for one in over_domains] == [["network"]] * len(over_domains)
    below = {name for n in range(20) for name in owners("10.0.0.53", f"site{n}.example")}
    assert below == set(exchange.names)
    assert all(len(owners("10.0.0.53", f"site{n}.example")) == 1 for n in range(20))
    (own,) = {tuple(owners("10.0.0.54", *one)) for one in over_domains}
    assert len(own) == 1 and own != ("network",)
    assert owners(NETWORK, "a.example") == ["network"]
    exchange.close()


def test_each_detector_is_in_health_and_metrics(tmp_path: Path) -> None:
    each: dict[str, Any] = {
        "ok": True,
        "load_level": 0,
        "scored": 7,
        "queue_waiting": 1,
        "queue_dropped": 2,
        "flows": 3,
    }
    each |= {"incidents_open": 1, "unsaid": 0, "last_batch_at": 0.0}
    two = {"detector-1": each, "detector-2": {**each, "unsaid": 4}}
    state = DetectorHealth(judging=True, detectors=two, busy={"10.0.0.53": 0.63})
    beat = Heartbeat(tmp_path / "detector.json", state.to_json)
    beat.start()
    registry = ModelRegistry(tmp_path / "models", Model.from_bytes, model_bytes())
    found = ProcessHealth(tmp_path, registry).components()["detectors"]
    beat.stop()
    assert (found["ok"], found["detector-1"]["ok"], found["detector-2"]["ok"]) == (False, True, False)
    assert found["error"] == "cannot rely on detector-2: see dns-tunnel doctor"
    metrics = {one.name: one.value for one in metrics_of(state)}
    assert (metrics["detector_1_scored_total"], metrics["detector_2_unsaid_total"]) == (7, 4)
    assert metrics["detector_busiest_client_part"] == 0.63
    assert "detector_busiest_client_part" not in {one.name for one in metrics_of(DetectorHealth())}


def test_a_client_that_one_detector_judges_for_many_is_proposed_to_be_shared(tmp_path: Path) -> None:
    (check,) = [check for name, _, check in CHECKS if name == "detectors"]
    settings = load_settings(data_dir=tmp_path)
    each = {"ok": True, "load_level": 0, "scored": 7, "flows": 3, "unsaid": 0}
    state = DetectorHealth(judging=True, detectors={"detector-1": each}, busy={"10.0.0.53": 0.63})
    make_folders(settings)
    beat = Heartbeat(settings.state_dir / "detector.json", state.to_json)
    beat.start()
    said = check(settings)
    beat.stop()
    assert said.endswith(
        "10.0.0.53 asked 63% of the last hour's queries, and one detector judges them: if it stands for many clients, "
        "SHARED_CLIENTS=10.0.0.53 has all judge them"
    )
