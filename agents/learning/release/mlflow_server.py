"""Versions and aliases on a user's MLflow server, through MLflow's own client (extra `mlflow`).

A registered model has a version for each of ours that an alias leads to, with our model id as its tag; aliases are
moved as ours are. Publishing again changes nothing that is there: it may be done after every transition.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from agents.core.errors import AgentsError, ModelError, SettingsError
from agents.core.protocols import Field, Spec
from agents.core.text import printable, web_address
from agents.learning.registry import ALIASES, ModelRegistry
from agents.learning.release.learnt import LearntVersions
from agents.learning.repeating import RepeatingThread
from agents.scoring.model import Model

CLIENT_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""What the client reads from the environment where the user has not set it: nothing is sent to its makers, and a
server that is away is given up soon."""
VALUE_MAX = 500
"""Characters of a parameter; MLflow refuses longer ones."""
MODEL_TAG = "model_id"
PUBLISH_EVERY_S = 300.0
"""How often it is looked whether cycles have changed what is in use; a publishing takes seconds."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MlflowOptions:
    """The settings MLFLOW_URL and MLFLOW_MODEL; url: "" = nothing is published."""

    url: str
    model: str


SPEC: Spec[MlflowOptions] = Spec(
    "mlflow",
    "an MLflow server that versions of models are published to (extra mlflow)",
    (
        Field(
            "mlflow_url",
            str,
            "",
            "address of your MLflow server; empty = nothing is published",
            web_address,
            secret=True,
        ),
        Field("mlflow_model", str, "dns-tunnel-detector", "name of the registered model and of the experiment there"),
    ),
    lambda values: MlflowOptions(values["mlflow_url"], values["mlflow_model"]),
)


def must_be_installed(options: MlflowOptions) -> None:
    """Raise SettingsError where something is to be published and the client is missing."""
    if options.url and importlib.util.find_spec("mlflow") is None:
        raise SettingsError(
            "cannot use setting MLFLOW_URL: the extra mlflow is missing (pip install 'dns-tunnel-detector[mlflow]')"
        )


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A version as MLflow gets it. known: its lineage, with `gates`; tags, parameters: text by name."""

    data: bytes
    known: Mapping[str, Any]
    tags: Mapping[str, str]
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PublishedModels:
    """Versions of one kind. name: of the registered model; aliases: model ids by alias; version: that of an id."""

    name: str
    aliases: Callable[[], Mapping[str, str]]
    version: Callable[[str], PublishedVersion]


def query_models(options: MlflowOptions, registry: ModelRegistry[Model]) -> PublishedModels:
    """The query model's versions."""

    def version(model_id: str) -> PublishedVersion:
        model = registry.find(model_id)
        known = {key: value for key, value in registry.lineage(model_id).items() if key != "reference"}
        tags = {MODEL_TAG: model_id, "parent": str(model.manifest.get("parent", ""))}
        tags |= {"data_sha256": str(dict(model.manifest.get("data", {})).get("sha256", ""))}
        tags |= {"release": str(dict(known.get("code", {})).get("release", ""))}
        return PublishedVersion(model.to_bytes(), known, tags, _parameters(model, known))

    return PublishedModels(options.model, registry.aliases, version)


def learnt_models(options: MlflowOptions, learnt: LearntVersions, kind: str) -> PublishedModels:
    """The versions of a kind that cycles learn, as a registered model of their own: MLFLOW_MODEL and the kind."""

    def aliases() -> dict[str, str]:
        found = {alias: one["model_id"] for one in learnt.versions(kind) for alias in one["aliases"]}
        return {alias: found[alias] for alias in ALIASES if found.get(alias)}

    def version(model_id: str) -> PublishedVersion:
        one = learnt.version(kind, model_id)
        known = {name: one[name] for name in ("parent", "data", "data_sha256", "decided_by", "measures", "gates")}
        tags = {MODEL_TAG: model_id, "kind": kind, "parent": one["parent"], "data_sha256": one["data_sha256"]}
        parameters = {name: str(value) for name, value in (one["settings"] | one["manifest"]).items()}
        return PublishedVersion(Path(one["path"]).read_bytes(), known, tags, parameters)

    return PublishedModels(f"{options.model}-{kind}", aliases, version)


@dataclass(frozen=True)
class MlflowPublisher:
    """Publishes what the aliases lead to, of each of these models."""

    options: MlflowOptions
    models: Sequence[PublishedModels]

    def __call__(self) -> Sequence[str]:
        """Bring the server up to date; a line for each problem, since models go on without it."""
        if not self.options.url:
            return ()
        try:
            must_be_installed(self.options)
            self._publish()
        except AgentsError as error:
            return (str(error),)
        return ()

    def _publish(self) -> None:
        for name, value in CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)
        mlflow = importlib.import_module("mlflow")
        failures = importlib.import_module("mlflow.exceptions").MlflowException
        try:
            client = mlflow.MlflowClient(self.options.url, self.options.url)
            for one in self.models:
                self._bring_up_to_date(client, one)
        except (failures, OSError) as error:
            where = urlsplit(self.options.url).hostname
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"cannot publish to MLflow at {where}: {printable(self._plain(first), 300)}") from None

    def _plain(self, text: str) -> str:
        """Without what the address may hold of a password."""
        password = urlsplit(self.options.url).password
        return text.replace(self.options.url, "…").replace(password, "***") if password else text

    def _bring_up_to_date(self, client: Any, models: PublishedModels) -> None:
        name, ours = models.name, models.aliases()
        if not client.search_registered_models(f"name = '{_quoted(name)}'"):
            if not ours:
                return
            client.create_registered_model(name)
        known = {
            one.tags[MODEL_TAG]: str(one.version)
            for one in client.search_model_versions(f"name = '{_quoted(name)}'")
            if MODEL_TAG in one.tags
        }
        for model_id in dict.fromkeys(ours.values()):
            if model_id not in known:
                known[model_id] = self._upload(client, name, models.version(model_id))
        there = dict(client.get_registered_model(name).aliases)
        for alias in ALIASES:
            version = known.get(ours.get(alias, ""), "")
            if version and str(there.get(alias)) != version:
                client.set_registered_model_alias(name, alias, version)
            elif not version and alias in there:
                client.delete_registered_model_alias(name, alias)
        _log.info("models_published", where=urlsplit(self.options.url).hostname, model=name, versions=len(known))

    @staticmethod
    def _upload(client: Any, name: str, made: PublishedVersion) -> str:
        """A run with the model's file, lineage, parameters and gates, and a version made of it; its number."""
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else client.create_experiment(name)
        run = client.create_run(experiment, tags=dict(made.tags), run_name=made.tags[MODEL_TAG])
        run_id = run.info.run_id
        for key, value in made.parameters.items():
            client.log_param(run_id, _metric(key), value[:VALUE_MAX])
        for gate in made.known.get("gates", []):
            if isinstance(gate.get("value"), int | float):
                client.log_metric(run_id, _metric(str(gate["name"])), float(gate["value"]))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "model.npz").write_bytes(made.data)
            Path(folder, "lineage.json").write_text(json.dumps(made.known, indent=1))
            client.log_artifacts(run_id, folder, "model")
        client.set_terminated(run_id)
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        return str(client.create_model_version(name, source, run_id, tags=dict(made.tags)).version)


class LearntPublishing(RepeatingThread):
    """Publishes what cycles learnt when an alias leads to another version; what goes wrong is logged, once."""

    def __init__(self, publisher: MlflowPublisher, every_s: float = PUBLISH_EVERY_S) -> None:
        super().__init__("mlflow-publishing", every_s)
        self._publisher, self._published = publisher, dict[str, Mapping[str, str]]()
        self._said: Sequence[str] = ()

    def step(self) -> None:
        """Publish, if something changed, or failed before."""
        try:
            ours = {one.name: one.aliases() for one in self._publisher.models}
        except (AgentsError, OSError) as error:
            _log.warning("models_not_published", error=str(error))
            return
        if ours == self._published:
            return
        problems = self._publisher()
        if problems and problems != self._said:
            _log.warning("models_not_published", error="; ".join(problems))
        self._said = problems
        if not problems:
            self._published = ours


def _parameters(model: Model, known: Mapping[str, Any]) -> dict[str, str]:
    manifest = model.manifest
    values = {"algorithm": manifest.get("algorithm", ""), "seed": manifest.get("seed", "")}
    values |= dict(manifest.get("params", {})) | {"limits_factor": model.limit_factor}
    settings = known.get("settings", {})
    values |= {f"retraining_{key}": value for key, value in settings.items()} if isinstance(settings, Mapping) else {}
    return {str(key): str(value) for key, value in values.items()}


def _metric(name: str) -> str:
    """A gate's name as MLflow takes it: letters, digits, spaces and a few signs."""
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in name)[:200]


def _quoted(name: str) -> str:
    return name.replace("'", "")
