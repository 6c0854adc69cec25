"""A retraining with a network profile: gated, told, deployed with its model, and rolled back with it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.core.types import DAY_S
from agents.detection.detector import HABITS_FILE
from agents.learning.release.diff import difference_text
from agents.learning.retraining import retrain
from agents.learning.run import RunState, TrainingRun
from agents.runtime.bootstrap import (
    judge_parts,
    load_settings,
    model_desk_of,
    registry_of,
    retrain_options_of,
    store_of,
)
from agents.runtime.bootstrap.learning import retraining_parts
from agents.runtime.judging.judge import Judge
from agents.scoring.features import extract
from agents.settings import Settings
from tests.support.verdicts import verdicts

KIND = "reputation by hash"


def settings_in(folder: Path, **more: Any) -> Settings:
    values = {"data_dir": folder, "compare_types": "none", "upstreams": "127.0.0.1:9"}
    return load_settings(**values | {"retrain_samples": 600, "replay_queries_max": 0} | more)


def put_habits(settings: Settings, usual: float) -> None:
    today = int(time.time() // DAY_S)
    days = [[today - back, usual] for back in range(1, 9)]
    books = [[today, {}, {}]] * 3
    kept = {"books": books, "habits": [["vendor.example", days]], "kinds": {"vendor.example": KIND}, "mail": []}
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    (settings.state_dir / HABITS_FILE).write_text(json.dumps(kept))
    peaks = {"days": [today - back for back in range(6)], "peaks": []}
    (settings.state_dir / "peaks.json").write_text(json.dumps(peaks))


def trained(settings: Settings) -> TrainingRun:
    store = store_of(settings)
    store.migrate()
    names = [b"\x03www\x06site%02d\x03org" % (n % 90) for n in range(400)]
    now = time.time()
    ts = [now - 3600 - n for n in range(400)]
    found = verdicts(names, ts=ts, client=[f"192.0.2.{n % 40}" for n in range(400)])
    store.write(replace(found, features=extract(found.queries.qname)), f"batch-{now}")
    try:
        return asyncio.run(retrain(retraining_parts(settings, store), retrain_options_of(settings)))
    finally:
        store.close()


@pytest.mark.slow
def test_a_profile_comes_and_goes_with_its_model_and_one_beyond_the_bound_never_comes(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    put_habits(settings, 1500.0)
    run = trained(settings)
    assert run.state is RunState.DEPLOYED, list(run.missed)
    said = "would now allow 3 kB a day to vendor.example: 1 client, since"
    assert run.profile[0].text.startswith(said)
    assert said in Path(run.paths["report"]).read_text()
    assert json.loads(Path(run.paths["report_json"]).read_text())["profile"][0]["what"] == "looser"
    registry = registry_of(settings)
    champion = registry.current()
    assert registry.lineage(champion.model_id)["profile"]["sha256"] == champion.manifest["profile"]["sha256"]

    (settings.state_dir / HABITS_FILE).unlink()  # a restart with an empty state
    judge = Judge(judge_parts(settings))
    try:
        judge.detector.tick(time.time())
        profile = judge.detector.incidents.explainer.profile  # type: ignore[attr-defined]
        assert profile is not None and profile.usual("vendor.example") == 1500
    finally:
        judge.close()

    put_habits(settings, 50_000.0)
    poisoned = trained(settings)
    assert poisoned.state is RunState.REJECTED
    (missed,) = poisoned.missed
    assert missed.name == "profile beyond the bound"
    assert missed.detail == f"vendor.example: 50,000 bytes a day as {KIND}, at most 24,000"
    assert registry_of(settings).current().model_id == champion.model_id

    desk = model_desk_of(settings)
    assert said in difference_text(desk.diff("shipped", "champion"))
    desk.decide("rollback", "", "ann", "a trial")
    assert registry_of(settings).profile_of(registry_of(settings).current()) is None
    desk.store.close()
