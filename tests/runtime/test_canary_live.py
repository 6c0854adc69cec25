"""A canary in the process that judges: begun by the registry, kept over a kill with its clock, ended by its rules."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agents.core.types import QueryBatch, Severity, batch_of
from agents.detection.rollout.canary import in_share
from agents.learning.release.canary import CanaryTerms
from agents.runtime import bootstrap
from agents.runtime.bootstrap import judge_parts, load_settings
from agents.runtime.judging.judge import Judge
from agents.settings import Settings
from agents.store import open_store
from tests.support.carrier import LOOSE, TIGHT, carried, with_factor
from tests.support.detecting import query
from tests.support.listening import wait_until
from tests.support.patience import patient

pytestmark = pytest.mark.integration
MINE = next(f"192.0.2.{number}" for number in range(1, 250) if in_share(f"192.0.2.{number}", 0.1))
TERMS = asdict(CanaryTerms(hours=2.0, queries_min=10))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A champion with wide limits, and a candidate with narrow ones that is the canary."""
    settings = load_settings(data_dir=tmp_path)
    bootstrap.make_folders(settings)
    registry = bootstrap.registry_of(settings)
    for factor in (LOOSE, TIGHT):
        registry.save_candidate(with_factor(factor))
    registry.promote(with_factor(LOOSE).model_id)
    registry.begin_canary(with_factor(TIGHT).model_id, TERMS, time.time() - 3600)
    return settings


def started(settings: Settings) -> Judge:
    judge = Judge(judge_parts(settings))
    judge.start()
    return judge


def seen(settings: Settings) -> dict[str, Any]:
    state = bootstrap.model_desk_of(settings).canary()
    assert state is not None
    found: dict[str, Any] = state["seen"]
    return found


def channel(part: slice = slice(None), begun: float = time.time()) -> QueryBatch:
    names = carried("slow.example", 3)
    return batch_of([query(begun - 2100 + 100 * at, MINE, name) for at, name in enumerate(names)][part])


def running(judge: Judge) -> bool:
    trial: Any = judge._trial
    return trial._canary is not None


@pytest.mark.slow
def test_it_begins_adds_its_alert_goes_on_after_a_kill_and_is_promoted(settings: Settings) -> None:
    judge = started(settings)
    wait_until(lambda: running(judge), patient(20))
    judge.consume(channel(slice(0, 10)), "one")
    wait_until(lambda: seen(settings)["queries"] == 10, patient(30))
    begun = bootstrap.model_desk_of(settings).canary()
    killed(judge)

    judge = started(settings)
    wait_until(lambda: running(judge), patient(20))
    assert seen(settings)["queries"] == 10, "what was seen is kept"
    judge.consume(channel(slice(10, None)), "two")
    judge.close()
    after = bootstrap.model_desk_of(settings).canary()
    assert begun is not None and after is not None
    assert (after["begun_at"], after["ends_at"]) == (begun["begun_at"], begun["ends_at"]), "with its clock"
    assert after["seen"]["queries"] == 20

    store = open_store(settings.store_url)
    told = [one for one in store.incidents(limit=10) if one.domain == "slow.example"]
    assert [one.evidence.get("canary") for one in told if one.severity >= Severity.HIGH] == [
        with_factor(TIGHT).model_id
    ]

    rollout = bootstrap.rollout_of(settings, store)
    assert rollout.look() is None
    made = type(rollout)(**{**vars(rollout), "clock": lambda: time.time() + 48 * 3600}).look()
    assert made is not None and made.action == "promote canary", made
    store.close()
    judge = started(settings)
    wait_until(lambda: not running(judge), patient(20))
    assert judge.detector.model_id == with_factor(TIGHT).model_id
    judge.close()


def killed(judge: Judge) -> None:
    """As kill -9 leaves it, but for the threads and files of this process: nothing more is written down."""
    wait_until(lambda: bool(judge.state_dir.joinpath("canary.json").exists()), patient(20))
    trial: Any = judge._trial
    trial.close = lambda: None
    judge._save = lambda: None  # type: ignore[method-assign]
    judge.close()


def test_a_canary_that_is_stopped_closes_what_it_alone_had_told(settings: Settings) -> None:
    judge = started(settings)
    wait_until(lambda: running(judge), patient(20))
    judge.consume(channel(), "one")
    bootstrap.registry_of(settings).reject(with_factor(TIGHT).model_id)
    wait_until(lambda: not running(judge), patient(20))
    store = open_store(settings.store_url)
    wait_until(
        lambda: all(one.closed_at is not None for one in store.incidents(limit=9) if one.evidence.get("canary")),
        patient(20),
    )
    assert [one.domain for one in store.incidents(limit=9) if one.evidence.get("canary")] == ["slow.example"]
    assert judge.detector.model_id == with_factor(LOOSE).model_id
    store.close()
    judge.close()


def test_a_canary_whose_file_is_damaged_or_gone_leaves_judging_alone(settings: Settings) -> None:
    path = settings.models_dir / "candidates" / f"{with_factor(TIGHT).model_id}.npz"
    path.write_bytes(b"broken")
    judge = started(settings)
    assert judge.consume(channel(), "one").rows == 20
    assert not running(judge)
    judge.close()
