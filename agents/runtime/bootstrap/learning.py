"""From settings to a retraining: options, gates, comparison, collaborators."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from agents.core.errors import ModelError
from agents.core.npz import FormatError
from agents.core.protocols import ScoringModel
from agents.core.types import DAY_S, Gate, Sample
from agents.detection.detector import HABITS_FILE, TunnelDetector
from agents.detection.explanations.explainer import habits_in
from agents.detection.explanations.network_profile import NetworkProfile
from agents.detection.privacy import Privacy
from agents.learning.baseline import benign_sample, model_bytes
from agents.learning.comparison.alert_diff import AlertComparison, alert_gates
from agents.learning.fleet.site import fleet_habits, known_elsewhere
from agents.learning.loop.flow_hours import SCHEMA as FLOW_HOUR_SCHEMA
from agents.learning.loop.labels import label_counts
from agents.learning.loop.review import reviewed_cases
from agents.learning.messages import cases_text, send_run
from agents.learning.profile.making import Known, make_profile, reach_of
from agents.learning.release import mlflow_server, staging
from agents.learning.release.canary import Rollout
from agents.learning.release.desk import ModelDesk
from agents.learning.release.learnt_desk import LearntDesk
from agents.learning.release.learnt_registry import LEARNT_KINDS
from agents.learning.release.mlflow_server import MlflowPublisher
from agents.learning.release.stage_folder import StageFolder
from agents.learning.release.staging import Staging
from agents.learning.retraining import RetrainingParts
from agents.learning.run import AlertDiff, RetrainOptions, RunState, TrainingRun, TrainRequest, TypeResult
from agents.learning.sequences.rollout import SequenceRollout
from agents.learning.type_comparison import TypeParams, compare_types, flow_scenes, name_scene, quiet_hours
from agents.learning.validation import Validator, load_cases
from agents.runtime.bootstrap.alerts import alert_manager_of, broadcaster_of
from agents.runtime.bootstrap.environment import retraining_log, scale_of, store_of
from agents.runtime.bootstrap.judging import (
    bounds_of,
    canary_path,
    canary_terms_of,
    detector_of,
    image_learner_of,
    learner_of,
    own_zones_of,
    privacy_of,
    sequence_listing_of,
    sequence_models_of,
)
from agents.runtime.bootstrap.models import (
    budget_choice_of,
    compared_types,
    fleet_options_of,
    registry_of,
    training_of,
)
from agents.runtime.bus.canary_sharing import doubt_of_sum
from agents.runtime.bus.cluster_models import candidate_hosts
from agents.runtime.trainer import Training, compare_spawned, train_here, train_spawned
from agents.scoring.model import Model
from agents.scoring.types import ensemble
from agents.settings import Settings
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from agents.store.retention import ClockWatch
from agents.store.sql import Store
from agents.stream.bus import options as bus_options

LABELS_READ_MAX = 10_000
"""Decisions of people that are looked through for benign domains, the newest."""
FLEET_SITE = "fleet_site"
"""Folder of what a site of a fleet keeps, in that of the detector's state."""
PROFILE_DAYS = 28
"""Days of flow-hours that a network profile is made of."""

if TYPE_CHECKING:
    from agents.runtime.services import Retrain


def validator_of(settings: Settings) -> Validator:
    """The gates, with the user's own cases. Raises SettingsError where those cannot be read."""
    own = load_cases(settings.validation_cases) if settings.validation_cases else ()
    return Validator(
        Model.from_bytes(model_bytes()),
        partial(detector_of, settings),
        own,
        bounds=bounds_of(settings),
        fixed=partial(_anchor_of, settings),
    )


def _anchor_of(settings: Settings) -> Model | None:
    """The version that candidates are compared with beside the model in use; None while there is none."""
    registry = registry_of(settings)
    return registry.find("anchor") if "anchor" in registry.aliases() else None


def retrain_options_of(settings: Settings, **changes: Any) -> RetrainOptions:
    """What a retraining is asked to do; `changes` that are None leave the setting."""
    options = {
        "days": settings.retrain_days,
        "samples": settings.retrain_samples,
        "max_score": settings.retrain_max_score,
        "client_share": settings.retrain_client_share,
        "domain_share": settings.retrain_domain_share,
        "seed": settings.retrain_seed,
        "deploy": settings.deploy,
        "backup_days": settings.backup_days,
        "scores": (settings.score_suspicious, settings.score_high, settings.score_critical),
        "new_min": settings.retrain_new_min,
        "supplement": _supplement_of(settings),
    }
    return RetrainOptions(**options | {name: value for name, value in changes.items() if value is not None})


def _supplement_of(settings: Settings) -> tuple[int, int] | None:
    """RetrainOptions.supplement: the ensemble alone learns without shipped names."""
    if settings.model_type != ensemble.SPEC.name:
        return None
    values = settings.of(ensemble.SPEC)
    return values["ensemble_supplement_below"], values["ensemble_mixed_below"]


def _comparison_of(settings: Settings, store: Store) -> Callable[[Any, Any, float, float], AlertDiff]:
    """What compares the alerts of two models on stored traffic; nothing is compared where names are not stored."""
    if not privacy_of(settings).keeps_names:
        return lambda candidate, champion, since, until: AlertDiff()
    return AlertComparison(store, partial(_replaying, settings), scale_of(settings), bounds_of(settings))


RUNS_LOOKED_AT = 100
"""Retrainings in which those that were rejected in a row are looked for."""


def _rejected_before(store: Store) -> list[tuple[str, int]]:
    """How many retrainings in a row were rejected. Raises StoreError."""
    ended = [RunState(one["state"]) for one in store.runs(limit=RUNS_LOOKED_AT)]
    told = [state for state in ended if state not in (RunState.RUNNING, RunState.UNCHANGED, RunState.FAILED)]
    return [("rejected", len(list(takewhile(lambda state: state is RunState.REJECTED, told))))]


def retraining_parts(
    settings: Settings,
    store: Store,
    progress: Callable[[int, int, str], None] = lambda step, total, text: None,
    train: Callable[[Training, Sample, TrainRequest], ScoringModel] = train_here,
) -> RetrainingParts:
    """The collaborators of a retraining. train: here, or in another process."""
    from agents.learning.report import write_report  # here: its templates cost a listener's start a tenth

    def save(run: TrainingRun) -> None:
        store.save_run(run.run_id, started_at=run.started, state=run.state.value, payload=run.to_json())

    return RetrainingParts(
        store=store,
        registry=registry_of(settings),
        trainer=lambda sample, request: train(training_of(settings), sample, request),
        validator=replace(validator_of(settings), reviewed=partial(reviewed_cases, store)),
        baseline_sample=benign_sample,
        reporter=lambda run: write_report(settings.reports_dir, run),
        notify=partial(send_run, alert_manager_of(settings), settings.public_url.rstrip("/")),
        save_run=save,
        clock=time.time,
        compare=partial(_compared, settings, store, compared_types(settings), train is train_spawned),
        progress=progress,
        labels=partial(label_counts, store),
        alerts=_comparison_of(settings, store),
        bounds=bounds_of(settings),
        canary=asdict(canary_terms_of(settings)),
        profile=partial(profile_now, settings, store),
        publish=publisher_of(settings),
        rejected_before=partial(_rejected_before, store),
    )


def profile_now(
    settings: Settings, store: Store, before: NetworkProfile | None, alone: bool = False
) -> NetworkProfile | None:
    """The network profile by all that is known now; before: of the model in use. Raises AgentsError.

    alone: without what other sites of a fleet said.

    None where names of domains are not to be kept, or nothing of this network is known.
    """
    now = time.time()
    try:
        habits = list(habits_in((settings.state_dir / HABITS_FILE).read_bytes()).all_usual(now))
    except (OSError, FormatError):
        habits = []
    reach = reach_of(FlowHourStore(store).read(FLOW_HOUR_SCHEMA, since=int((now - PROFILE_DAYS * DAY_S) // 3600)))
    choice = budget_choice_of(settings)
    options, folder = fleet_options_of(settings), settings.state_dir / FLEET_SITE
    fleet = fleet_habits(folder) if options.secret and not alone else ()
    if not habits and not reach and not choice.days and not fleet:
        return None
    elsewhere, own = known_elsewhere(folder, options), own_zones_of(settings)
    known = Known(habits, reach, choice, doubted_domains(store), own, before, now, elsewhere, fleet)
    return make_profile(known).keyed(options.secret)


def doubted_domains(store: Store) -> set[str]:
    """Domains that people look at, or decided to be a tunnel's or to be ignored. Raises StoreError."""
    reviews = ReviewStore(store)
    decided = reviews.decisions(standing=True, limit=LABELS_READ_MAX)
    doubted = {one.domain for one in decided if one.label is not Label.BENIGN}
    return doubted | {one.domain for one in reviews.items(limit=LABELS_READ_MAX)}


def publisher_of(settings: Settings) -> MlflowPublisher:
    """What publishes versions to the user's MLflow server, if there is one. Raises SettingsError."""
    options = mlflow_server.SPEC.factory(settings.of(mlflow_server.SPEC))
    mlflow_server.must_be_installed(options)
    return MlflowPublisher(options, (mlflow_server.query_models(options, registry_of(settings)),))


def learnt_publisher_of(settings: Settings, store: Store) -> MlflowPublisher:
    """What publishes versions of what cycles learn, with the same settings. Raises SettingsError."""
    options, learnt = mlflow_server.SPEC.factory(settings.of(mlflow_server.SPEC)), learnt_desk_of(settings, store)
    mlflow_server.must_be_installed(options)
    return MlflowPublisher(options, [mlflow_server.learnt_models(options, learnt, kind) for kind in LEARNT_KINDS])


def _replaying(settings: Settings, model: Model) -> TunnelDetector:
    """A detector for what is stored, where clients have the names that they are to have."""
    detector = detector_of(settings, model)
    detector.reload_profile(registry_of(settings).profile_of(model))
    detector.privacy = Privacy()
    return detector


def rollout_of(settings: Settings, store: Store, clock: ClockWatch | None = None) -> Rollout:
    """What ends canaries by their rules. clock: that has been watched for a while."""
    desk, watch = model_desk_of(settings, store), clock or ClockWatch()
    benign, path = partial(_called_benign, store), canary_path(settings)
    is_bus = bool(bus_options.SPEC.factory(settings.of(bus_options.SPEC)).servers)

    def doubt() -> str:
        return watch.doubt() or (doubt_of_sum(path) if is_bus else "")

    return Rollout(desk.registry, path, desk.follow, benign=benign, doubt=doubt)


def sequence_rollout_of(settings: Settings, store: Store, clock: ClockWatch) -> SequenceRollout:
    """What ends the trials of sequence models by their rules."""
    models, tell = sequence_models_of(settings), broadcaster_of(settings)
    return SequenceRollout(models, tell, benign=partial(_called_benign, store), doubt=clock.doubt)


def _called_benign(store: Store, since: float) -> dict[str, str]:
    """Domains that people called benign since a time, with who did. Raises StoreError."""
    decisions = ReviewStore(store).decisions(standing=True, limit=LABELS_READ_MAX)
    return {one.domain: one.author for one in decisions if one.label is Label.BENIGN and one.at >= since}


def retraining_of(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda step, total, text: None,
    spawned: bool = True,
    **changes: Any,
) -> Retrain:
    """What retrains once when it is called (services.retrain_once), with collaborators of its own.

    spawned: train in another process, for one that lives on. changes: options that differ from the settings.
    """

    def retrain(**when: Any) -> TrainingRun:
        from agents.runtime.services import retrain_once

        store = store_of(settings)
        parts = retraining_parts(settings, store, progress, train_spawned if spawned else train_here)
        return retrain_once(parts, store, retraining_log(settings), retrain_options_of(settings, **changes), **when)

    return retrain


def _compared(
    settings: Settings, store: Store, types: Sequence[TypeParams], spawned: bool, sample: Sample, seed: int
) -> tuple[TypeResult, ...]:
    """Detector types on a run's sample and on this network's flow-hours. Raises AgentsError."""
    if not types:
        return ()
    own = quiet_hours(FlowHourStore(store).read(FLOW_HOUR_SCHEMA))
    shipped = Model.from_bytes(model_bytes())
    scenes = [name_scene(sample, seed), *flow_scenes(own, partial(detector_of, settings, shipped), seed)]
    return (compare_spawned if spawned else compare_types)(scenes, types, settings.target_fpr_suspicious, seed)


def judged_by_gates(settings: Settings, store: Store) -> Callable[[Model, Model], tuple[Sequence[Gate], AlertDiff]]:
    """What judges a candidate of others beside the model in use, on this network's own traffic."""

    def judge(candidate: Model, champion: Model) -> tuple[Sequence[Gate], AlertDiff]:
        store.migrate()
        validator = replace(validator_of(settings), reviewed=partial(reviewed_cases, store))
        bounds, now = bounds_of(settings), time.time()
        comparison = _comparison_of(settings, store)
        alerts = comparison(candidate, champion, now - settings.retrain_days * DAY_S, now)
        validation = validator(candidate, champion)
        wrong = Gate("wrong cases", len(validation.failed), 0, False, "; ".join(cases_text(validation)))
        return (*validation.gates, *((wrong,) if validation.failed else ()), *alert_gates(alerts, bounds)), alerts

    return judge


def staging_of(settings: Settings, store: Store) -> Staging:
    """What exports candidates to a second installation, and takes those of another. store: this one's traffic."""
    key, judge = staging.SPEC.factory(settings.of(staging.SPEC)), judged_by_gates(settings, store)
    return Staging(registry_of(settings), judge, key, socket.gethostname(), settings.reports_dir)


def stage_folder_of(settings: Settings, store: Store, desk: ModelDesk) -> StageFolder:
    """Through which the console exports and imports candidates."""
    return StageFolder(settings.data_dir / "staging", partial(staging_of, settings, store), desk)


def model_desk_of(settings: Settings, store: Store | None = None) -> ModelDesk:
    """What people look up and decide about models. store: one of its own if none is given, which is to be closed."""

    def check(model: Model) -> None:  # its gates are made when they are asked
        check_by_gates(settings)(model)

    return ModelDesk(
        registry=registry_of(settings),
        store=store or store_of(settings),
        scale=scale_of(settings),
        check=check,
        tell=broadcaster_of(settings),
        publish=publisher_of(settings),
        terms=asdict(canary_terms_of(settings)),
        canary_path=canary_path(settings),
        hosts=partial(candidate_hosts, settings.state_dir),
    )


def learnt_desk_of(settings: Settings, store: Store) -> LearntDesk:
    """What people look up and decide about flow, sequence and image models."""
    return LearntDesk(
        learner_of(settings, store),
        sequence_models_of(settings),
        sequence_listing_of(settings, store),
        image_learner_of(settings, store),
        broadcaster_of(settings),
    )


def check_by_gates(settings: Settings) -> Callable[[Model], None]:
    """What a model must pass before it is restored by hand. The returned function raises ModelError."""
    validator = validator_of(settings)

    def check(model: Model) -> None:
        validation = validator(model, model)
        missed = [
            f"{gate.name} is {gate.value:.4g}, threshold {gate.threshold:.4g}"
            for gate in validation.gates
            if not gate.passed
        ]
        if missed:
            why = "; ".join((*missed, *cases_text(validation)))
            raise ModelError(f"cannot restore {model.model_id}: {why}")

    return check
