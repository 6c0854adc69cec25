"""A wrong clock deletes nothing and begins nothing; maintenance drops a share at most."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agents.core.errors import StoreError
from agents.core.types import DAY_S, marked
from agents.runtime import bootstrap, services
from agents.runtime.bootstrap import load_settings
from agents.settings import Settings
from agents.store.retention import BELIEVED_S, ClockWatch, doubt_of, doubt_of_imports, drop_before
from tests.support.commands import Inside
from tests.support.filled import fill_days
from tests.support.verdicts import START, incident, verdicts
from tests.support.webhook import webhook

TODAY = int(time.time() // DAY_S)


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noon when a test begins: none of them sees midnight."""
    passed, began = time.monotonic, time.monotonic()
    monkeypatch.setattr(time, "time", lambda: (TODAY + 0.5) * DAY_S + passed() - began)


class Clocks:
    def __init__(self) -> None:
        self.wall, self.even = 1e9, 5e3
        self.watch = ClockWatch(lambda: self.wall, lambda: self.even)

    def passes(self, seconds: float, jump: float = 0.0) -> str:
        self.wall, self.even = self.wall + seconds + jump, self.even + seconds
        return self.watch.doubt()


def test_a_clock_that_was_set_is_doubted_until_it_is_set_back() -> None:
    clocks = Clocks()
    assert clocks.passes(30 * DAY_S) == ""
    assert clocks.passes(60, 2.0) == "", "NTP corrects seconds"
    assert "was set 9,600 hours ahead" in clocks.passes(1, 400 * DAY_S)
    assert clocks.passes(30) != ""
    assert clocks.passes(0, -400 * DAY_S) == ""
    assert "back" in clocks.passes(1, -7200)


def test_a_clock_that_goes_on_evenly_for_a_day_is_believed() -> None:
    clocks = Clocks()
    assert clocks.passes(1, 400 * DAY_S) != ""
    assert clocks.passes(BELIEVED_S - 60) != ""
    assert clocks.passes(0, -30 * DAY_S) != "", "it was set again"
    assert clocks.passes(BELIEVED_S - 60) != ""
    assert clocks.passes(120) == ""
    assert clocks.passes(DAY_S) == ""


@pytest.mark.parametrize(
    ("days", "keep", "doubt"),
    [
        ([], 30, ""),
        (range(TODAY - 35, TODAY + 1), 30, ""),
        (range(TODAY - 435, TODAY - 400), 30, "only 0 days"),
        ([*range(TODAY - 435, TODAY - 400), TODAY], 30, "only 1 day "),
        ([TODAY - 400], 1, "only 0 days"),
        ([TODAY - 2, TODAY - 1, TODAY], 1, ""),
        ([*range(TODAY + 400, TODAY + 430)], 30, "in the future"),
        ([TODAY - 1, TODAY, TODAY + 400], 30, ""),
    ],
)
def test_stored_days_contradict_a_clock(days: list[int], keep: int, doubt: str) -> None:
    found = doubt_of(days, TODAY, keep)
    assert (doubt in found) if doubt else not found


def test_one_maintenance_drops_a_share_at_most() -> None:
    days = list(range(100, 180))
    assert drop_before(days, 110) == 110
    assert drop_before(days, 150) == 120
    assert drop_before([5], 150) == 150
    assert drop_before([], 150) == 150


def settings_of(folder: Path, **changed: object) -> Settings:
    made = load_settings(data_dir=folder, **changed)
    bootstrap.make_folders(made)
    return made


def stored(settings: Settings) -> list[int]:
    store = bootstrap.store_of(settings)
    try:
        return [day - TODAY for day in store.stored_days()]
    finally:
        store.close()


def test_maintenance_with_a_clock_far_ahead_deletes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook() as hook:
        settings = settings_of(tmp_path, slack_webhook_url=hook.url)
        fill_days(bootstrap.store_of(settings), range(TODAY - 20, TODAY + 1))
        upkeep = bootstrap.upkeep_of(settings)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 400 * DAY_S)
        with capture_logs() as lines:
            services.maintain(upkeep)
        assert stored(settings) == list(range(-20, 1))
        (line,) = [one for one in lines if one["event"] == "maintenance_refused"]
        assert "the clock was set 9,600 hours ahead" in line["error"]
        assert "tidy --anyway" in line["error"]
        assert len(hook.got) == 1
    with capture_logs() as lines:  # a process that was begun with the wrong clock
        services.maintain(bootstrap.upkeep_of(settings))
    assert "only 0 days with queries would stay" in lines[0]["error"]
    assert stored(settings) == list(range(-20, 1))


def test_a_long_pause_is_caught_up_in_shares_unless_a_person_lowered_the_setting(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, query_retention_days=5)
    fill_days(bootstrap.store_of(settings), range(TODAY - 39, TODAY + 1))
    services.maintain(bootstrap.upkeep_of(settings))
    assert stored(settings) == list(range(-29, 1)), "a quarter of 40 days"
    services.maintain(bootstrap.upkeep_of(settings_of(tmp_path, query_retention_days=3)))
    assert stored(settings) == list(range(-3, 1))


def test_a_person_may_tidy_anyway(tmp_path: Path, inside: Inside) -> None:
    settings = settings_of(tmp_path / "data")
    fill_days(bootstrap.store_of(settings), range(TODAY - 450, TODAY - 400))
    refused = inside("tidy")
    assert (refused.code, "cannot delete what is old: only 0 days" in refused.err) == (1, True)
    assert len(stored(settings)) == 50
    assert inside("tidy", "--anyway").code == 0
    assert stored(settings) == []


@pytest.mark.parametrize(
    ("imports", "days", "doubt"),
    [
        ([], [], ""),
        ([TODAY - 400], [TODAY], ""),
        ([TODAY - 400, TODAY - 29], [], ""),
        ([TODAY - 31], [TODAY - 31, TODAY - 32], "nothing was stored in 30 days"),
        ([TODAY - 400], [], "the newest replay is 400 days old"),
        ([TODAY - 29], [], ""),
        ([TODAY + 400], [], ""),
    ],
)
def test_imports_contradict_a_clock_where_nothing_else_speaks_for_it(
    imports: list[int], days: list[int], doubt: str
) -> None:
    found = doubt_of_imports(imports, days, TODAY, 30)
    assert (doubt in found) if doubt else not found


def replay_of_long_ago(settings: Settings, imported: int, mark: str = "old.pcap") -> None:
    """One query and one incident of years ago, replayed on that day since 1970-01-01."""
    store = bootstrap.store_of(settings)
    store.migrate()
    old = verdicts(["www.example.com"], ts=[1e9], incidents=(incident(closed_at=START),))
    store.write(marked(old, mark, imported * DAY_S + 60.0), f"{mark} {imported}")
    store.close()


def replays(settings: Settings) -> tuple[list[int], int]:
    """Days from today on which replays were stored, and how many incidents there are."""
    store = bootstrap.store_of(settings)
    try:
        return [day - TODAY for day in store.import_days()], len(store.incidents(limit=1000))
    finally:
        store.close()


def test_a_replay_of_an_old_capture_is_kept_from_its_import_on(tmp_path: Path, inside: Inside) -> None:
    """Measured before: the next maintenance deleted it whole."""
    settings = settings_of(tmp_path / "data")
    fill_days(bootstrap.store_of(settings), range(TODAY - 40, TODAY + 1))
    replay_of_long_ago(settings, TODAY)
    done = inside("tidy")
    assert done.out == "dropped: 10 queries, 0 incidents seen live; 0 queries, 0 incidents of replays; 0 retrainings\n"
    assert replays(settings) == ([0], 1)
    replay_of_long_ago(settings, TODAY - 31, "older.pcap")
    done = inside("tidy", LOG_LEVEL="error")
    assert done.out == "dropped: 0 queries, 0 incidents seen live; 1 query, 1 incident of replays; 0 retrainings\n"
    assert replays(settings) == ([0], 1)
    assert stored(settings) == list(range(-30, 1))


def test_replays_have_days_of_their_own(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, query_retention_days=3, replay_retention_days=90)
    fill_days(bootstrap.store_of(settings), range(TODAY - 3, TODAY + 1))
    for ago in (95, 80, 5):
        replay_of_long_ago(settings, TODAY - ago, f"{ago}.pcap")
    services.maintain(bootstrap.upkeep_of(settings))
    assert replays(settings) == ([-80, -5], 2)
    lowered = settings_of(tmp_path, query_retention_days=3, replay_retention_days=1)
    services.maintain(bootstrap.upkeep_of(lowered))
    assert replays(settings) == ([], 0), "a person asked for it: all at once"


def test_one_maintenance_drops_a_share_of_the_replays(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    fill_days(bootstrap.store_of(settings), range(TODAY - 3, TODAY + 1))
    for ago in range(40, 48):
        replay_of_long_ago(settings, TODAY - ago, f"{ago}.pcap")
    services.maintain(bootstrap.upkeep_of(settings))
    assert replays(settings) == ([-45, -44, -43, -42, -41, -40], 6)


def test_a_clock_far_ahead_deletes_no_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    replay_of_long_ago(settings, TODAY)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400 * DAY_S)
    with capture_logs() as lines:  # a process that was begun with the wrong clock, where nothing was ever seen live
        services.maintain(bootstrap.upkeep_of(settings))
    (line,) = [one for one in lines if one["event"] == "maintenance_refused"]
    assert "nothing was stored in 30 days, and the newest replay is 400 days old" in line["error"]
    assert replays(settings) == ([0], 1)


def test_nothing_is_dropped_where_the_stored_days_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database comes back a moment later: by then nothing has spoken for the clock."""
    settings = settings_of(tmp_path)
    fill_days(bootstrap.store_of(settings), range(TODAY - 20, TODAY + 1))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400 * DAY_S)
    upkeep = bootstrap.upkeep_of(settings)  # of a process that was begun with the wrong clock

    def away() -> list[int]:
        raise StoreError("cannot read the stored days: connection refused")

    monkeypatch.setattr(upkeep.store, "stored_days", away)
    services.maintain(upkeep)
    assert stored(settings) == list(range(-20, 1))
