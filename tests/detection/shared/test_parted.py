"""A client that stands for many, whose queries several detectors judge: what it carries over domains is one sum."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.core.columns import Coded
from agents.core.types import Incident, Row, batch_of
from agents.detection.limits import SCATTERED, Scale
from agents.detection.shared.busy_clients import ALL, BusyClients, busy_clients
from agents.detection.shared.detector_report import detector_report_of
from agents.detection.shared.together import PARTED_FILE
from agents.detection.shared.view import Facts, facts_of
from agents.runtime.bootstrap import load_settings
from agents.runtime.bootstrap.among import Among, MadeDetector, restored_of, several_of
from tests.detection.test_network import data
from tests.support.detecting import KEYS_MAX, QUIET_S, START, fresh_detector, query, shipped_model
from tests.support.several import incidents_of_several, incidents_of_slices, told

RESOLVER = "10.0.0.53"
MANY = (1, 2, 5)
LAG_S = 300.0
"""Seconds of event time after which detectors hear of each other."""
WORDS = "harbour meeting orange window quiet paper silver garden forest market railway copper lantern".split()


def throw_away(count: int = 400, every_s: float = 30, seed: int = 8) -> list[Row]:
    """One encoded name below each of many domains."""
    rng = random.Random(seed)
    return [query(START + every_s * n, RESOLVER, f"{data(rng, 12)}.away{seed}-{n}.example") for n in range(count)]


def words() -> list[Row]:
    """Text in names below many young domains."""
    rng = random.Random(9)
    names = [f"{'-'.join(rng.sample(WORDS, 5))}.shop{n % 150}.com" for n in range(2600)]
    return [query(START + 25 * n, RESOLVER, name) for n, name in enumerate(names)]


def spread() -> list[Row]:
    """A little below each of a dozen domains."""
    rng = random.Random(10)
    return [query(START + 60 * n, RESOLVER, f"{data(rng, 12)}.cdn{n % 12}.example", (1, 16)[n % 2]) for n in range(600)]


def ordered() -> list[Row]:
    """The order of known names whose answers no cache keeps."""
    rng, rows = random.Random(11), []
    for n in range(4000):
        row = query(START + n, RESOLVER, f"{rng.choice('abcdefgh')}.list{rng.randrange(40)}.example")
        rows.append((*row[:8], 0, *row[9:]))
    return rows


def crowded() -> list[Row]:
    """Throw-away domains beside fifteen hundred others, by which the client stands for several."""
    rng, rows = random.Random(12), []
    for n in range(3000):
        rows.append(query(START + 10 * n, RESOLVER, f"www.site{n % 1500}.org"))
        if n % 2:
            rows.append(query(START + 10 * n + 3, RESOLVER, f"{data(rng, 12)}.away{n}.example"))
    return rows


def without_domains() -> list[Row]:
    """Names whose last label can be no top level: all of them are one flow, below the root."""
    rng = random.Random(13)
    names = [f"{data(rng, 12)}.{data(rng, 5)}.9{data(rng, 5)}" for _ in range(60)]
    return [query(START + 20 * n, RESOLVER, name) for n, name in enumerate(names)]


CAPTURES: dict[str, Callable[[], list[Row]]] = {
    "throw-away domains": throw_away,
    "words": words,
    "a dozen carriers": spread,
    "order of names": ordered,
    "throw-away domains in a crowd": crowded,
    "names without any domain": without_domains,
}


def before(incidents: list[Incident]) -> list[tuple[str, int]]:
    """Domain, and bytes that left before the incident was opened."""
    return sorted((one.domain, round(one.bytes_before_detection)) for one in incidents)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("detectors", MANY)
@pytest.mark.parametrize("capture", CAPTURES)
def test_any_number_finds_what_one_finds_and_as_soon(capture: str, detectors: int) -> None:
    rows = CAPTURES[capture]()
    alone = incidents_of_slices(rows, shipped_model(), lag_s=LAG_S)
    found = incidents_of_several(rows, shipped_model(), detectors, lag_s=LAG_S, parted=RESOLVER)
    assert told(found) == told(alone) != []
    assert before(found) == before(alone)


@pytest.mark.slow
def test_an_attacker_behind_a_resolver_gets_a_minute_more_at_most() -> None:
    """Five detectors whose messages are a minute late: what left before the incident is a minute's bytes more."""
    rows = throw_away()
    (alone,) = incidents_of_slices(rows, shipped_model(), lag_s=1.0)
    (late,) = incidents_of_several(rows, shipped_model(), 5, lag_s=60, parted=RESOLVER)
    assert (late.domain, late.severity) == (alone.domain, alone.severity) == (SCATTERED, alone.severity)
    a_minute = 60 / 30 * (12 + 1)
    assert late.bytes_before_detection <= alone.bytes_before_detection + a_minute


class Running:
    """Detectors as one start of a host makes them, without processes."""

    def __init__(self, folder: Path, detectors: int) -> None:
        settings = load_settings(data_dir=folder, detector_processes=detectors, shared_clients=RESOLVER)
        self.folder, self._number = settings.state_dir, 0
        self.several: Any = several_of(settings, self._made)
        if self.several is None:
            self.whole = fresh_detector(shipped_model(), Scale())
            restored_of(settings, self.whole).get("restore", lambda: self._load_whole())()
            return
        self.parts: dict[str, Any] = {
            name: self.several.make(name) for name in (*self.several.exchange.names, "network")
        }
        for one in self.parts.values():
            one.parts["restore"]()

    def _load_whole(self) -> None:
        for path in (self.folder / "windows.snapshot", self.folder / "network.snapshot"):
            if path.exists():
                self.whole.load(path.name, path.read_bytes())

    @staticmethod
    def _made(among: Among) -> MadeDetector:
        return among.made(lambda kind: kind(shipped_model(), KEYS_MAX, QUIET_S, Scale(), None, among.key))

    def judge(self, rows: list[Row]) -> list[tuple[str, str]]:
        """Client and domain of the incidents that are open then."""
        for row in rows:
            if self.several is None:
                self.whole.detect(batch_of([row]))
            else:
                self._judge(row)
        detectors: list[Any] = [self.whole] if self.several is None else [one.detector for one in self.parts.values()]
        return sorted(key for one in detectors for key in one.open_incidents)

    def _judge(self, row: Row) -> None:
        exchange = self.several.exchange
        slot = exchange.parted.slot_of(str(row[1]), row[2])
        part: Any = self.parts[exchange.names[slot % len(exchange.names)]].detector
        part.detect(batch_of([row]))
        self._number += 1
        together: Any = self.parts["network"].detector
        if (said := part.take_report(self._number)) is not None:
            together.count_reports([detector_report_of(said.packed())])
            exchange.facts.write(together.facts().packed())

    def save(self) -> None:
        """Write down what the next start goes on from."""
        for folder, detector in self._saved():
            folder.mkdir(parents=True, exist_ok=True)
            for name, contents in detector.save(nullcontext()).items():
                (folder / name).write_bytes(contents)
        if self.several is not None:
            self.several.exchange.close()

    def _saved(self) -> Iterator[tuple[Path, Any]]:
        if self.several is None:
            yield self.folder, self.whole
            return
        for name, one in self.parts.items():
            of = f"{name}-of-{len(self.several.exchange.names)}"
            yield self.folder if name == "network" else self.folder / of, one.detector


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("numbers", [(2, 2, 2), (1, 2, 5), (5, 2, 1), (2, 1, 2)])
def test_saved_sums_are_gone_on_from_by_any_number(tmp_path: Path, numbers: tuple[int, int, int]) -> None:
    """Ten throw-away domains, ten more by others, and then six are too many; and so it is below other domains."""
    rng, away = random.Random(9), throw_away(26)
    own = [query(START + 3 * n, RESOLVER, f"{data(rng, 18)}.own{n % 4}.example") for n in range(36)]
    parts = [sorted([*away[a:b], *own[c:d]]) for a, b, c, d in ((0, 10, 0, 16), (10, 20, 16, 24), (20, 26, 24, 36))]
    for number, rows in zip(numbers, parts, strict=True):
        running = Running(tmp_path, number)
        found = running.judge([(row[0] + 0.0, *row[1:]) for row in rows])
        running.save()
    whole = fresh_detector(shipped_model(), Scale())
    for rows in parts:
        for row in rows:
            whole.detect(batch_of([row]))
    assert set(found) >= set(whole.open_incidents), "what is known of names by all clients is not saved: dearer"
    assert (RESOLVER, SCATTERED) in found and len(found) <= len(whole.open_incidents) + 1
    assert Running(tmp_path / "fresh", numbers[-1]).judge(parts[-1]) == []


@pytest.mark.slow
def test_a_damaged_file_harms_its_own_slots_alone(tmp_path: Path) -> None:
    before = Running(tmp_path, 2)
    before.judge(throw_away(20))
    before.save()
    damaged = next(before.folder.glob("detector-1-of-2/windows.snapshot"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    again = Running(tmp_path, 2)
    flows = [again.parts[name].detector.gauges()["flows"] for name in ("detector-1", "detector-2")]
    assert flows[0] == 0 < flows[1]
    again.save()
    (before.folder / PARTED_FILE).write_bytes(b"nothing")
    alone = Running(tmp_path, 1)
    assert alone.whole.gauges()["flows"] >= flows[1]


def test_facts_that_are_too_long_keep_what_is_highest() -> None:
    many = {f"{number:05d}{'x' * 300}": float(number) for number in range(2_000)}
    facts = Facts(7, 3, dict.fromkeys(many, True), many, many, {"detector-1": 5}, "mark", many)
    assert facts_of(facts.packed()) == facts
    kept = facts_of(facts.packed(100_000))
    assert (kept.at_home, kept.days, kept.acked, kept.roll) == (7, 3, {"detector-1": 5}, "mark")
    assert 0 < len(kept.parted) < 100 and min(kept.parted.values()) == 2_000 - len(kept.parted)


def test_a_client_that_asks_much_is_told_of() -> None:
    one, other = BusyClients(), BusyClients()
    clients = Coded(np.array([0] * 60 + [1] * 2 + [2] * 38, np.int32), ["10.0.0.53", "10.0.0.7", "10.0.0.54"])
    one.note(START, clients)
    other.note(START, Coded(np.zeros(300, np.int32), ["10.0.0.55"]))
    assert busy_clients([one.counts(), other.counts()]) == {"10.0.0.55": 0.75, "10.0.0.53": 0.15}
    one.note(START + 1800, clients)
    assert one.counts()[ALL] == 200, "of two half hours"
    one.note(START + 7200, clients)
    assert one.counts() == {ALL: 100, "10.0.0.53": 60, "10.0.0.54": 38}
    assert busy_clients([]) == {}
