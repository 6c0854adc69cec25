"""What clients are called where PRIVACY says so, and which names are kept."""

from __future__ import annotations

import ipaddress
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.archive import unpack
from agents.core.columns import Coded
from agents.core.errors import AgentsError
from agents.core.text import NETWORK
from agents.core.types import DAY_S, Severity, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.detection.privacy import ClientVeil, Privacy, PrivacyKey, without_names
from agents.detection.reasons import STRICT_REASON
from agents.detection.rollout.canary import Canary, CanaryCounts
from agents.dns.name import from_text
from tests.support.detecting import paced, query, shipped_model

ADDRESSES = st.ip_addresses().filter(lambda one: getattr(one, "ipv4_mapped", None) is None).map(str)


class Clock:
    def __init__(self) -> None:
        self.at = 1_767_225_600.0

    def __call__(self) -> float:
        return self.at


def veil(mode: str, folder: Path, rotate_days: int = 30, clock: Clock | None = None) -> ClientVeil:
    return ClientVeil(mode, PrivacyKey(folder / "key.json", rotate_days, clock or Clock()))


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("192.0.2.77", "192.0.2.0"),
        ("::ffff:192.0.2.77", "192.0.2.0"),
        ("2001:db8:1:2::3", "2001:db8:1::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        (NETWORK, NETWORK),
        ("i-0abc", ""),
    ],
)
def test_a_truncated_address_is_its_network(tmp_path: Path, address: str, kept: str) -> None:
    assert veil("truncate", tmp_path).names([address]) == [kept]


@pytest.mark.slow
@given(st.lists(ADDRESSES, min_size=1, max_size=20))
def test_pseudonyms_are_addresses_of_their_own(tmp_path_factory: pytest.TempPathFactory, addresses: list[str]) -> None:
    one = veil("pseudonymise", tmp_path_factory.mktemp("key"))
    names = one.names(addresses)
    assert names == one.names(addresses)
    assert len(set(names)) == len({str(ipaddress.ip_address(address)) for address in addresses})
    assert all(ipaddress.ip_address(name) in ipaddress.ip_network("fd00::/8") for name in names)
    assert not any(address in name for address in addresses for name in names if len(address) > 4)


def test_clients_of_one_64_keep_one_and_others_do_not(tmp_path: Path) -> None:
    names = veil("pseudonymise", tmp_path).names(["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.1"])
    homes = [ipaddress.ip_network(f"{name}/64", strict=False) for name in names]
    assert homes[0] == homes[1]
    assert len(set(homes)) == 3


def test_the_key_holds_over_restarts_until_it_rotates(tmp_path: Path) -> None:
    clock = Clock()
    (before,) = veil("pseudonymise", tmp_path, clock=clock).names(["192.0.2.1"])
    kept = (tmp_path / "key.json").read_bytes()
    assert (tmp_path / "key.json").stat().st_mode & 0o077 == 0
    assert veil("pseudonymise", tmp_path, clock=clock).names(["192.0.2.1"]) == [before]
    running = veil("pseudonymise", tmp_path, clock=clock)
    assert running.names(["192.0.2.1"]) == [before]
    clock.at += 30 * DAY_S
    (after,) = running.names(["192.0.2.1"])
    assert after != before
    assert (tmp_path / "key.json").read_bytes() != kept, "the old key is gone"
    clock.at -= 3600
    assert running.names(["192.0.2.1"]) == [after], "a clock set back makes no new names"


def test_other_days_until_it_rotates_hold_for_the_key_that_is_there(tmp_path: Path) -> None:
    clock = Clock()
    before = veil("pseudonymise", tmp_path, 7, clock).names(["192.0.2.1"])
    clock.at += 10 * DAY_S
    assert veil("pseudonymise", tmp_path, 30, clock).names(["192.0.2.1"]) == before
    clock.at += 21 * DAY_S
    assert veil("pseudonymise", tmp_path, 30, clock).names(["192.0.2.1"]) != before


def test_a_key_of_a_clock_that_was_far_ahead_is_not_used_on(tmp_path: Path) -> None:
    clock = Clock()
    clock.at += 4000 * DAY_S
    before = veil("pseudonymise", tmp_path, 30, clock).names(["192.0.2.1"])
    clock.at -= 4000 * DAY_S
    assert veil("pseudonymise", tmp_path, 30, clock).names(["192.0.2.1"]) != before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into another user's folder")
def test_a_key_that_root_makes_is_its_folders_owners_with_its_lock(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    os.chown(folder, 65534, 65534)

    PrivacyKey(folder / "key.json", 30, Clock()).now()

    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()}
    assert owners == {"key.json": (65534, 65534), "key.json.lock": (65534, 65534)}


def test_two_processes_make_one_key_and_a_command_makes_none(tmp_path: Path) -> None:
    reader = ClientVeil("pseudonymise", PrivacyKey(tmp_path / "key.json", 30, Clock(), reads_only=True))
    with pytest.raises(AgentsError, match=r"there is no .*key\.json yet"):
        reader.names(["192.0.2.1"])
    assert not list(tmp_path.iterdir())
    clock = Clock()
    first, second = (PrivacyKey(tmp_path / "key.json", 30, clock) for _ in range(2))
    assert first.now() == second.now()
    clock.at += 31 * DAY_S
    assert first.now() == second.now()
    assert ClientVeil("pseudonymise", PrivacyKey(tmp_path / "key.json", 1, clock, reads_only=True)).names(["192.0.2.1"])


def test_without_rotation_it_never_changes(tmp_path: Path) -> None:
    clock = Clock()
    one = veil("pseudonymise", tmp_path, 0, clock)
    before = one.names(["192.0.2.1"])
    clock.at += 4000 * DAY_S
    assert one.names(["192.0.2.1"]) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"made_at": 1}', b'{"made_at": 1, "key": "zz"}'])
def test_a_damaged_key_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.json").write_bytes(content)
    with pytest.raises(AgentsError, match="there is no key in it"):
        veil("pseudonymise", tmp_path).names(["192.0.2.1"])


def test_a_column_keeps_its_rows(tmp_path: Path) -> None:
    column = Coded(np.array([1, 0, 1, 2], np.int32), ["192.0.2.1", "192.0.2.2", "198.51.100.1"])
    found = veil("truncate", tmp_path).column(column)
    assert list(found) == ["192.0.2.0", "192.0.2.0", "192.0.2.0", "198.51.100.0"]
    assert list(veil("truncate", tmp_path).column(Coded(np.empty(0, np.int32), []))) == []


def test_a_detector_knows_clients_by_their_names_alone(tmp_path: Path) -> None:
    kept = Privacy(veil("pseudonymise", tmp_path))
    detector = TunnelDetector(shipped_model(), 1000, 3600.0, Scale(), privacy=kept)
    names = [f"{i:030x}{i * 7:030x}.t.example" for i in range(1, 60)]
    verdicts = detector.detect(batch_of(paced(names, 1.0, "192.0.2.9", 16)))
    assert kept.veil is not None
    expected = kept.veil.names(["192.0.2.9"])[0]
    assert set(verdicts.queries.client) == {expected}
    assert {incident.client for incident in verdicts.incidents} == {expected}
    assert list(detector.flows.clients) == [expected]


ROWS = [query(1.0, "a", "secret.shop.example"), query(2.0, "a", "hidden.t.example"), query(3.0, "a", b"")]


def judged() -> TunnelDetector:
    return TunnelDetector(shipped_model(), 1000, 3600.0, Scale())


def test_names_are_withheld_and_domains_stay() -> None:
    verdicts = judged().detect(batch_of(ROWS))
    verdicts.severity[1] = Severity.HIGH
    assert without_names(verdicts, "all") is verdicts
    shop, hidden, told = from_text("shop.example"), from_text("hidden.t.example"), from_text("t.example")
    assert list(without_names(verdicts, "suspicious").queries.qname) == [shop, hidden, b""]
    assert list(without_names(verdicts, "none").queries.qname) == [shop, told, b""]
    assert (without_names(verdicts, "none").features == verdicts.features).all()


def test_reasons_lose_the_name_that_a_strict_list_does_not_have() -> None:
    verdicts = judged().detect(batch_of(ROWS))
    said = f"{STRICT_REASON} and asked for secret.shop.example, which its list does not have"
    verdicts = replace(verdicts, reasons=[(said, "a long label"), (), ()])
    assert without_names(verdicts, "suspicious").reasons[0] == (said, "a long label")
    kept = without_names(verdicts, "none").reasons
    assert kept[0] == (f"{STRICT_REASON} and asked for a name that its list does not have", "a long label")


def test_saved_windows_have_no_names_where_they_are_withheld() -> None:
    for names, there in (("all", True), ("suspicious", False), ("none", False)):
        detector = TunnelDetector(shipped_model(), 1000, 3600.0, Scale(), privacy=Privacy(None, names))
        rows = [f"{i:030x}{i * 7:030x}.t.example" for i in range(1, 20)]
        detector.detect(batch_of(paced(rows, 1.0, "192.0.2.9", 16)))
        saved = detector.save(nullcontext())["windows.snapshot"]
        archive = unpack(saved, 1 << 30)
        assert (f"{7:030x}".encode() in archive.line + bytes(archive.body)) is there
        again = TunnelDetector(shipped_model(), 1000, 3600.0, Scale())
        again.load("windows.snapshot", saved)
        assert len(again.flows) == len(detector.flows)


def test_a_canary_knows_clients_as_the_detector_in_use_does(tmp_path: Path) -> None:
    kept = Privacy(veil("pseudonymise", tmp_path))
    main = TunnelDetector(shipped_model(), 1000, 3600.0, Scale(), privacy=kept)
    candidate = TunnelDetector(shipped_model(), 1000, 3600.0, Scale())
    canary = Canary(candidate, 1.0, False, CanaryCounts("m", 0.0))
    batch = batch_of(paced([f"{i:030x}{i * 7:030x}.t.example" for i in range(1, 60)], 1.0, "192.0.2.9", 16))
    verdicts = canary.judge(batch, main.detect(batch), main)
    assert len(verdicts.incidents) == 1, "told once"
    assert {one.client for one in verdicts.incidents} == set(main.flows.clients)
    assert not any("192.0.2.9" in str(key) for key in (*main.flows.clients, *candidate.flows.clients))


def test_incidents_lose_their_samples_where_no_name_is_kept() -> None:
    detector = judged()
    names = [f"{f'the quick brown fox {i}'.encode().hex()}.t.example" for i in range(60)]
    verdicts = detector.detect(batch_of(paced(names, 1.0, "192.0.2.9", 16)))
    (before,), (after,) = verdicts.incidents, without_names(verdicts, "none").incidents
    assert before.sample_names and before.evidence["preview"]
    assert (after.sample_names, after.evidence["preview"]) == ((), "")
    assert after.leaked_bytes == before.leaked_bytes
    assert without_names(verdicts, "suspicious").incidents == verdicts.incidents


def test_a_detector_forgets_a_client() -> None:
    detector = judged()
    for client in ("192.0.2.9", "192.0.2.10"):
        names = [f"{i:030x}{i * 7:030x}.{client[-1]}.example" for i in range(1, 60)]
        detector.detect(batch_of(paced(names, 1.0, client, 16)))
    detector.detect(batch_of([query(100.0, "192.0.2.9", "example.org", 15)]))
    detector.forget("192.0.2.9")
    detector.forget("192.0.2.200")
    assert list(detector.flows.clients) == ["192.0.2.10"]
    assert {client for client, _ in detector.open_incidents} == {"192.0.2.10"}
    assert not any(b"192.0.2.9" in data for data in (detector.peaks.dump(), detector.incidents.explainer.dump()))
    found = detector.detect(
        batch_of(paced([f"{i:030x}{i * 5:030x}.9.example" for i in range(1, 60)], 1.0, "192.0.2.9", 16))
    )
    assert {one.client for one in found.incidents} == {"192.0.2.9"}, "and begins anew"
