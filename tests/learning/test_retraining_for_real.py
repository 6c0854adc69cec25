"""A retraining with nothing made up: store, model, gates, report, registry; only the webhook is a local one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.alerting.delivery import RetryPolicy
from agents.alerting.manager import AlertManager
from agents.alerting.slack import SlackNotifier
from agents.core.errors import ModelError
from agents.core.types import Sample
from agents.detection.limits import Scale
from agents.learning import baseline
from agents.learning.messages import send_run
from agents.learning.registry import ModelRegistry
from agents.learning.report import write_report
from agents.learning.retraining import RetrainingParts, retrain
from agents.learning.run import RetrainOptions, RunState, TrainingRun, TrainRequest
from agents.learning.validation import Validator
from agents.scoring.features import extract
from agents.scoring.model import Model
from agents.scoring.training import TrainConfig, train
from agents.store import Store, open_store
from tests.support.detecting import fresh_detector
from tests.support.verdicts import DAY_S, START, verdicts
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration

OPTIONS = RetrainOptions(samples=4000, client_share=1.0, domain_share=1.0)
CALIBRATION = 20_000


@pytest.fixture(scope="module")
def calibrate_on() -> Sample:
    return baseline.benign_sample(CALIBRATION, 1)


def filled(folder: Path) -> Store:
    store = open_store(f"sqlite:///{folder / 'queries.db'}")
    store.migrate()
    names = baseline.benign_names()[:3000]
    found = verdicts(
        names,
        ts=(START + np.linspace(0, 6 * DAY_S, len(names))).tolist(),
        client=[f"192.0.2.{i % 40}" for i in range(3000)],
    )
    store.write(replace(found, features=extract(found.queries.qname)), "batch-1")
    return store


def trainer(calibrate_on: Sample, sample: Sample, request: TrainRequest) -> Model:
    facts = {"parent": request.parent, "samples": {"live": request.live, "baseline": request.topped_up}}
    return train(sample, calibrate_on, TrainConfig(n_estimators=50, seed=request.seed), facts)


def parts(folder: Path, store: Store, alerts: AlertManager, calibrate_on: Sample, **changed: Any) -> RetrainingParts:
    def save(run: TrainingRun) -> None:
        store.save_run(run.run_id, started_at=run.started, state=run.state.value, payload=run.to_json())

    usual = RetrainingParts(
        store=store,
        registry=ModelRegistry(folder / "models", Model.from_bytes, baseline.model_bytes()),
        trainer=partial(trainer, calibrate_on),
        validator=Validator(Model.from_bytes(baseline.model_bytes()), partial(fresh_detector, scale=Scale())),
        baseline_sample=baseline.benign_sample,
        reporter=partial(write_report, folder / "reports" / "training_reports"),
        notify=partial(send_run, alerts, "https://c.example"),
        save_run=save,
        clock=lambda: START + 7 * DAY_S,
    )
    return replace(usual, **changed)


@pytest.mark.slow
def test_a_good_candidate_is_deployed_and_a_poisoned_one_rejected(tmp_path: Path, calibrate_on: Sample) -> None:
    store = filled(tmp_path)
    with webhook() as hook:
        alerts = AlertManager([SlackNotifier(hook.url, RetryPolicy(attempts=1))])
        first = parts(tmp_path, store, alerts, calibrate_on)
        reader = ModelRegistry(tmp_path / "models", Model.from_bytes, baseline.model_bytes())
        assert reader.current().model_id == Model.from_bytes(baseline.model_bytes()).model_id
        good = asyncio.run(retrain(first, OPTIONS))
        assert good.state is RunState.DEPLOYED, list(good.missed)
        fresh = reader.poll()
        assert fresh is not None
        assert fresh.model_id == good.candidate_id
        assert good.sample is not None
        assert (good.sample.live, good.sample.topped_up) == (3000, 1000)

        again = asyncio.run(retrain(replace(first, trainer=partial(same_parent, calibrate_on)), OPTIONS))
        assert again.state is RunState.UNCHANGED, "the same queries, seed and settings"
        assert again.sample is not None and again.sample.known
        assert again.sample.data_sha256 == good.sample.data_sha256

        poisoned = parts(tmp_path, store, alerts, calibrate_on, trainer=poisoner, clock=lambda: START + 8 * DAY_S)
        before = reader.champion_path.read_bytes()
        bad = asyncio.run(retrain(poisoned, OPTIONS))
    assert bad.state is RunState.REJECTED
    assert bad.missed
    assert reader.champion_path.read_bytes() == before
    assert [run["state"] for run in store.runs(limit=9)] == ["REJECTED", "UNCHANGED"]
    assert ["DEPLOYED" in json.dumps(hook.got[0]), "REJECTED" in json.dumps(hook.got[2])] == [True, True]
    assert bad.missed[0].name in json.dumps(hook.got[2], ensure_ascii=False)
    assert bad.missed[0].name in Path(bad.paths["report"]).read_text()
    store.close()


def same_parent(calibrate_on: Sample, sample: Sample, request: TrainRequest) -> Model:
    """As `trainer`, of another parent: what was learned is the same, the file is not."""
    return trainer(calibrate_on, sample, replace(request, parent="0" * 16))


def poisoner(sample: Sample, request: TrainRequest) -> Model:
    """A patient attacker's week: what was learned as normal is the attacker's own traffic."""
    names = [f"{i:063x}.{i * 7919:063x}.{i * 104729:063x}.evil.com" for i in range(600)]
    own = baseline.sample_of(names)
    return train(own, own, TrainConfig(n_estimators=20, seed=request.seed), {})


def test_a_real_model_file_tampered_with_is_refused_and_the_old_one_stays(tmp_path: Path, calibrate_on: Sample) -> None:
    models = ModelRegistry(tmp_path, Model.from_bytes, baseline.model_bytes())
    small = train(baseline.benign_sample(300, 2), calibrate_on, TrainConfig(n_estimators=5), {})
    models.save_candidate(small)
    models.promote(small.model_id)
    assert models.current().model_id == small.model_id
    data = bytearray(models.champion_path.read_bytes())
    data[len(data) // 2] ^= 1
    models.champion_path.write_bytes(data)
    assert models.poll() is None
    broken = tmp_path / "broken.npz"
    broken.write_bytes(data)
    with pytest.raises(ModelError):
        models.restore(broken, lambda model: None)
