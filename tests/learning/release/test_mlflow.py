"""Publishing to a real MLflow server, where the extra and a server are installed; and what is said without them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import SettingsError
from agents.learning.baseline import model_bytes
from agents.learning.loop.online import OnlineLearner
from agents.learning.loop.options import SPEC
from agents.learning.registry import ModelRegistry
from agents.learning.release import mlflow_server
from agents.learning.release.learnt import LearntVersions
from agents.learning.release.mlflow_server import (
    LearntPublishing,
    MlflowOptions,
    MlflowPublisher,
    learnt_models,
    must_be_installed,
    query_models,
)
from agents.learning.release.transitions import Author
from agents.learning.sequences.gru import load_sequence_model
from agents.learning.sequences.learning import SequenceModels
from agents.scoring.model import Model
from agents.store import open_store
from tests.support.carrier import with_factor
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import free_port
from tests.support.sequences import untrained_model

SERVER = os.environ.get("MLFLOW_PROGRAM") or shutil.which("mlflow")
has_server = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None or SERVER is None,
    reason="the extra mlflow or its server is not installed",
)
OLD, NEW = with_factor(0.9), with_factor(0.8)


def registry_in(folder: Path) -> ModelRegistry[Model]:
    registry = ModelRegistry(folder / "models", Model.from_bytes, model_bytes())
    for model in (OLD, NEW):
        registry.save_candidate(model)
    gates = [{"name": "bytes, worst (é)", "value": 3.5, "passed": True}]
    registry.note(OLD.model_id, {"gates": gates, "code": {"release": "0.2.0"}, "reference": {"columns": []}})
    registry.promote(OLD.model_id)
    return registry


def publisher(options: MlflowOptions, registry: ModelRegistry[Model]) -> MlflowPublisher:
    return MlflowPublisher(options, (query_models(options, registry),))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    assert SERVER is not None
    data = tmp_path / "mlflow"
    data.mkdir()
    command = [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{data / 'mlflow.db'}",
        "--artifacts-destination",
        str(data / "files"),
    ]
    log = (data / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=data, env=os.environ | {"DO_NOT_TRACK": "true"})
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _answers(url), patient(90))
    yield url
    process.terminate()
    process.wait(patient(20))
    log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=patient(1)) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@has_server
@pytest.mark.slow
def test_versions_and_aliases_are_on_the_server_and_publishing_again_adds_nothing(server: str, tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    publish = publisher(MlflowOptions(server, "our detector"), registry)
    assert publish() == ()
    client: Any = importlib.import_module("mlflow").MlflowClient(server)
    champion = client.get_model_version_by_alias("our detector", "champion")
    assert champion.tags["model_id"] == OLD.model_id
    assert client.get_model_version_by_alias("our detector", "anchor").version == champion.version
    run = client.get_run(champion.run_id)
    assert run.data.metrics["bytes_ worst (é)".replace("(", "_").replace(")", "_")] == 3.5
    assert run.data.params["limits_factor"] == "0.9"
    kept = client.download_artifacts(champion.run_id, "model", str(tmp_path))
    assert Model.from_bytes(Path(kept, "model.npz").read_bytes()).model_id == OLD.model_id
    assert "reference" not in Path(kept, "lineage.json").read_text()

    registry.mark(NEW.model_id, "waiting")
    assert publish() == publish() == ()
    assert len(client.search_model_versions("name = 'our detector'")) == 2
    registry.approve(NEW.model_id, Author("ann"))
    assert publish() == ()
    found = dict(client.get_registered_model("our detector").aliases)
    assert set(found) == {"champion", "anchor"}, "what waits no more has no alias"
    assert (
        client.get_model_version(name="our detector", version=str(found["champion"])).tags["model_id"] == NEW.model_id
    )


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra mlflow is not installed")
@pytest.mark.slow
def test_a_server_that_is_away_is_one_line_without_its_password(tmp_path: Path) -> None:
    url = f"http://ann:secret-word@127.0.0.1:{free_port()}"
    (problem,) = publisher(MlflowOptions(url, "m"), registry_in(tmp_path))()
    assert problem.startswith("cannot publish to MLflow at 127.0.0.1: ")
    assert "\n" not in problem and "secret-word" not in problem


def test_without_the_extra_the_setting_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    must_be_installed(MlflowOptions("", "m"))
    options = MlflowOptions("http://127.0.0.1:9", "m")
    with pytest.raises(SettingsError, match=r"cannot use setting MLFLOW_URL: the extra mlflow is missing"):
        must_be_installed(options)
    (problem,) = publisher(options, registry_in(tmp_path))()
    assert "the extra mlflow is missing" in problem
    assert publisher(MlflowOptions("", "m"), registry_in(tmp_path))() == ()


def test_nothing_is_sent_to_its_makers() -> None:
    assert mlflow_server.CLIENT_SETTINGS["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert mlflow_server.CLIENT_SETTINGS["DO_NOT_TRACK"] == "true"


def learnt_in(folder: Path) -> tuple[LearntVersions, list[str]]:
    """Sequence models, of which the second is in use, and one that waits; their ids. Nothing else is learnt."""
    store = open_store(f"sqlite:///{folder / 'q.db'}")
    store.migrate()
    options = SPEC.factory(SPEC.values({}))
    versions = LearntVersions(OnlineLearner(store, folder / "flow", options), SequenceModels(folder / "sequences"))
    models = [untrained_model(loss).noted(loss=loss) for loss in (3.0, 2.0, 1.0)]
    for at, model in enumerate(models[:2]):
        versions.sequences.deploy(model, 100.0 + at)
    versions.sequences.registry.hold(models[2].to_bytes(), Author("", "passed"))
    return versions, [one.model_id for one in models]


def test_versions_of_what_cycles_learn_are_published_as_models_of_their_own(tmp_path: Path) -> None:
    versions, (first, second, third) = learnt_in(tmp_path)
    found = learnt_models(MlflowOptions("http://127.0.0.1:9", "ours"), versions, "sequences")
    assert found.name == "ours-sequences"
    assert found.aliases() == {"champion": second, "candidate": third, "anchor": first}
    made = found.version(second)
    assert load_sequence_model(made.data).model_id == second
    assert (made.tags["model_id"], made.tags["kind"]) == (second, "sequences")
    assert made.parameters["loss"] == "2.0" and set(made.known) >= {"parent", "data", "gates"}
    assert learnt_models(MlflowOptions("", "ours"), versions, "flow").aliases() == {}


def test_what_cycles_learnt_is_published_when_it_changed_and_a_problem_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    versions, _ = learnt_in(tmp_path)
    options = MlflowOptions("http://127.0.0.1:9", "ours")
    thread = LearntPublishing(MlflowPublisher(options, (learnt_models(options, versions, "sequences"),)))
    thread.step()
    thread.step()
    assert capsys.readouterr().out.count("models_not_published") == 1


@has_server
@pytest.mark.slow
def test_what_cycles_learn_is_on_the_server_and_follows_its_aliases(server: str, tmp_path: Path) -> None:
    versions, (first, second, _) = learnt_in(tmp_path)
    options = MlflowOptions(server, "ours")
    publish = MlflowPublisher(options, [learnt_models(options, versions, kind) for kind in ("flow", "sequences")])
    assert publish() == publish() == ()
    client: Any = importlib.import_module("mlflow").MlflowClient(server)
    assert len(client.search_model_versions("name = 'ours-sequences'")) == 3
    assert client.get_model_version_by_alias("ours-sequences", "champion").tags["model_id"] == second
    assert client.search_registered_models("name = 'ours-flow'") == [], "nothing was learnt of that kind"
    versions.sequences.take_back("odd", "ann")
    assert publish() == ()
    assert client.get_model_version_by_alias("ours-sequences", "champion").tags["model_id"] == first
