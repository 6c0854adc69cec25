"""A judge in its process keeps flow-hours: they are in the database once an hour is over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agents.core.types import HOUR_S, batch_of
from agents.learning.loop import collector
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.runtime.bootstrap import judge_parts, learner_of, load_settings, make_folders, store_of
from agents.runtime.judging.judge import Judge
from agents.store.feedback.flow_hours import FlowHourStore
from tests.support.detecting import query
from tests.support.listening import wait_until

pytestmark = pytest.mark.integration


class Clock:
    """What the collector is told of the time."""

    def __init__(self, at: float) -> None:
        self.at = at


def test_an_hour_that_is_over_is_in_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "AGAIN_S", 0.05)
    settings = load_settings(data_dir=tmp_path)
    make_folders(settings)
    parts = judge_parts(settings)
    assert parts.hours is not None
    turn, ahead = parts.hours.turn, Clock(0.0)
    monkeypatch.setattr(parts.hours, "turn", lambda ts, lock=None: turn(ts + ahead.at, lock))
    judge = Judge(parts)
    judge.start()
    try:
        wait_until(lambda: (tmp_path / "data" / "flow_hours.npz").exists())  # the ticker has begun with this hour
        now = time.time()
        judge.consume(batch_of([query(now, "192.0.2.7", f"host{i}.shop.example") for i in range(5)]))
        assert judge.alive
        ahead.at = HOUR_S
        hours = FlowHourStore(store_of(settings))
        wait_until(lambda: sum(hours.weeks(SCHEMA).values()) > 0)
        rows = hours.read(SCHEMA)
        assert (list(rows.client), list(rows.domain)) == (["192.0.2.7"], ["shop.example"])
        assert rows.numbers[0, NUMBERS.index("queries")] == 5
    finally:
        judge.close()


@pytest.mark.slow
def test_an_hour_without_a_query_ends_nothing(tmp_path: Path) -> None:
    """A model has learnt, and nobody asked: the thread lives on, and so does the judge."""
    settings = load_settings(data_dir=tmp_path)
    make_folders(settings)
    parts = judge_parts(settings)
    assert parts.hours is not None
    store = store_of(settings)
    store.migrate()
    assert learner_of(settings, store).cycle()["state"] == "deployed"
    with capture_logs() as logs:
        parts.hours.start()
        for ahead in range(3):
            parts.hours.turn(time.time() + ahead * HOUR_S)
        parts.hours.close(60)
    assert [(one["event"], one["rows"]) for one in logs if one["event"] == "flow_hours_written"] == [
        ("flow_hours_written", 0), ("flow_hours_written", 0),
    ]  # fmt: skip
    store.close()
