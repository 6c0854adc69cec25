"""The watch: a machine that knocks is reported once there are enough steps, people are not; nothing waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest

from agents.core.types import Row
from agents.detection.detector import Suspect
from agents.detection.reasons import SEQUENCE_REASON
from agents.learning.sequences import watch as module
from agents.learning.sequences.bounds import SequenceBounds
from agents.learning.sequences.steps import joined_step_rows, step_rows_of, step_windows
from agents.learning.sequences.watch import SequenceWatch, even_windows, listed_windows
from tests.support.listening import wait_until
from tests.support.sequences import NOW, browsing, judged, knocking, untrained_model

ALWAYS_ODD = untrained_model(-1e9)
NEVER_ODD = untrained_model(1e9)


def idle() -> SequenceWatch:
    return SequenceWatch(lambda: None, lambda found: None)


def reported(rows: list[Row], step: int, model: object = ALWAYS_ODD) -> list[Suspect]:
    watch, found = idle(), []
    for at in range(0, len(rows), step):
        found += watch.judge(model, judged(rows[at : at + step]))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("step", [1, 4, 30])
def test_a_machine_is_reported_however_its_queries_come(step: int) -> None:
    found = reported(knocking("10.0.0.7", 30), step)
    assert found
    assert {(client, domain) for _, client, domain, _, _ in found} == {("10.0.0.7", "beacon.example")}
    assert all(why.startswith(f"{SEQUENCE_REASON}: regularity 1.00 of 1") for *_, why in found)
    assert min(at for at, *_ in found) >= NOW + 9 * 60, "not before there is a whole window"


@pytest.mark.parametrize("step", [5, 17, 10_000])
def test_a_machine_that_browses_afterwards_is_reported_however_its_queries_come(step: int) -> None:
    rows = [*knocking("10.0.0.7", 23), *browsing("10.0.0.7", 60, 4, NOW + 24 * 60)]
    rows += [row for at in range(2) for row in browsing(f"10.0.1.{at}", 90, at)]
    found = reported(sorted(rows, key=lambda row: row[0]), step)
    assert [(at, client, domain) for at, client, domain, _, _ in found] == [
        (NOW + 9 * 60, "10.0.0.7", "beacon.example")
    ]


def test_people_are_not_even_where_everything_is_odd() -> None:
    assert reported(browsing("10.0.0.8", 200, 3), 7) == []


def test_what_is_neither_odd_nor_slow_is_not_reported() -> None:
    assert reported(knocking("10.0.0.7", 30, 1.0), 3, NEVER_ODD) == []
    assert reported(knocking("10.0.0.7", 30, 1.0), 3)
    assert reported(knocking("10.0.0.7", 30, 30.0), 3, NEVER_ODD)


def test_what_is_even_and_slow_is_a_setting() -> None:
    bounds = SequenceBounds(slow_s=0.5)
    rows, swaying = knocking("10.0.0.7", 30, 1.0), knocking("10.0.0.7", 30)
    swaying = [(row[0] + 15 * (at % 2), *row[1:]) for at, row in enumerate(swaying)]
    windows = step_windows(joined_step_rows([step_rows_of(judged(rows), {}, (0, 0))]), 10)
    uneven = step_windows(joined_step_rows([step_rows_of(judged(swaying), {}, (0, 0))]), 10)
    assert not list(listed_windows(NEVER_ODD, windows)) and list(listed_windows(NEVER_ODD, windows, bounds))
    assert not len(even_windows(uneven)) and len(even_windows(uneven, SequenceBounds(even_from=0.5)))
    assert len(even_windows(windows)) and not len(even_windows(windows, SequenceBounds(fresh_from=1.01)))


def test_a_machine_that_repeats_one_name_is_not() -> None:
    rows = [(row[0], row[1], knocking("m", 1)[0][2], *row[3:]) for row in knocking("m", 40)]
    assert reported(rows, 5) == []


def test_unknown_clients_and_many_of_them_cost_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 3)
    monkeypatch.setattr(module, "DOMAINS_MAX", 3)
    watch = idle()
    for at in range(9):
        watch.judge(ALWAYS_ODD, judged(knocking(f"c{at}", 12) + knocking("", 12)))
    assert len(watch._known) == 3 and len(watch._domains) <= 3


def test_a_machine_is_reported_once_an_hour_and_anew_after_it_was_forgotten() -> None:
    watch, rows = idle(), knocking("10.0.0.7", 200)
    found = [one for at in range(0, 200, 5) for one in watch.judge(ALWAYS_ODD, judged(rows[at : at + 5]))]
    assert len(found) == 4, "200 minutes"
    assert all(b[0] - a[0] >= 3600 for a, b in pairwise(found))
    watch.forget("10.0.0.7")
    watch.judge(ALWAYS_ODD, judged(knocking("10.0.0.8", 1)))
    assert "10.0.0.7" not in watch._known


def test_it_reports_from_its_thread_and_leaves_out_what_it_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Suspect] = []

    def take(found: Iterable[Suspect]) -> None:
        got.extend(found)

    watch = SequenceWatch(lambda: ALWAYS_ODD, take)
    verdicts = judged(knocking("10.0.0.7", 30))
    for _ in range(module.BATCHES_WAITING_MAX + 3):
        watch.see(verdicts)
    assert watch.left_out == 3
    watch.start()
    wait_until(lambda: bool(got))
    assert watch.alive
    watch.close()
    assert not watch.alive
