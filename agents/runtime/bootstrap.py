"""The only file that names concrete classes: from settings to collaborators.

What the console and the scheduler alone need is imported where it is made: a listener starts without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from agents import __version__
from agents import settings as settings_module
from agents.alerting.channel_queue import PACE_S
from agents.alerting.delivery import PLAIN_HTTP, is_loopback
from agents.alerting.grouping import Groups
from agents.alerting.handover import HandOver, Sender
from agents.alerting.manager import CHANNELS, AlertManager, channel_values, notifiers_from
from agents.alerting.outbox import Outbox
from agents.alerting.sink import AlertSink
from agents.core.column_kernels import Key
from agents.core.cron import cron_trigger
from agents.core.errors import AgentsError, ModelError, SettingsError
from agents.core.files import PRIVATE_MODE, make_private_folder, write_atomic
from agents.core.protocols import Receiver, ScoringModel, Spec
from agents.core.text import printable
from agents.core.types import Sample, Severity
from agents.detection.detector import PEAKS_FILE, TunnelDetector
from agents.detection.known_services import Entry, KnownServices, load_entries, own_zone, services_at
from agents.detection.limits import BudgetChoice, Peaks, Scale, choose, load_peaks
from agents.detection.tripwires.tripwires import Tripwires
from agents.dns.strict_groups import StrictGroups, read_groups
from agents.export.outputs import OUTPUTS
from agents.export.record import Record
from agents.export.sink import ExportSink
from agents.learning.baseline import benign_sample, model_bytes
from agents.learning.loop import online, review
from agents.learning.loop.collector import HourCollector
from agents.learning.loop.flow_hours import SCHEMA as FLOW_HOUR_SCHEMA
from agents.learning.loop.labels import Labeller, label_counts
from agents.learning.loop.online import LearnerThread, OnlineLearner, label_by_probability
from agents.learning.loop.review import Reviewer, reviewed_cases
from agents.learning.messages import cases_text, send_run
from agents.learning.registry import ModelRegistry
from agents.learning.retraining import RetrainingParts
from agents.learning.run import RetrainOptions, TrainingRun, TrainRequest, TypeResult
from agents.learning.type_comparison import TypeParams, compare_types, flow_scenes, name_scene, quiet_hours
from agents.learning.validation import Validator, load_cases
from agents.runtime.detector_process import JudgeParts
from agents.runtime.heartbeat import EXPORTS, OUTBOX, PARTS, Heartbeat
from agents.runtime.listener_process import ListenerConfig
from agents.runtime.privileges import give_away, user_of
from agents.runtime.supervisor import Plan, Work
from agents.runtime.trainer import Training, compare_spawned, train_here, train_spawned
from agents.scoring import MODEL_TYPES
from agents.scoring.features import VERSION
from agents.scoring.lexical import features_again
from agents.scoring.model import Model
from agents.scoring.training import DetectorType, TrainConfig
from agents.scoring.types import ensemble
from agents.scoring.types.base import OutlierScorer
from agents.settings import Settings
from agents.sources import SPECS as INTAKES
from agents.sources import losses_of
from agents.sources.collector import Collecting
from agents.sources.listener import cache, special_names, traffic
from agents.sources.listener.upstream import (
    Outgoing,
    UpstreamAddress,
    distinct_of,
    parse_upstreams,
    system_resolvers,
)
from agents.sources.listener.upstream_watch import LoopProbes, shared_counts
from agents.sources.tail import COLLECT, COLLECT_MAX, files_of, is_address
from agents.store.codec import Features
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.opening import open_store
from agents.store.retention import ClockWatch
from agents.store.spool import SpoolingSink
from agents.store.sql import Store
from agents.stream.note import SharedNote

if TYPE_CHECKING:
    from agents.runtime.schedule import RetrainScheduler
    from agents.runtime.services import Pulse, Retrain, Upkeep

BACKUPS_README = """\
A backup of the model in use is made here before each retraining: model_backup_YYYYMMDD_HHMMSS.npz.
They are NumPy archives without pickles: there are no *.pkl files any more. BACKUP_DAYS says how long they are kept.

List:     dns-tunnel models list
Restore:  dns-tunnel models restore models/backups/model_backup_YYYYMMDD_HHMMSS.npz
"""
"""What people find who look for the files of older instructions."""
FLOW_MODELS = "flow"
"""Folder of the flow models, in that of the models."""
HOUR_FILE = "flow_hours.npz"
"""Counters of flows at the beginning of the present hour, in the folder of the detector's state."""
FEATURES_AGAIN = Features(VERSION, features_again)
"""What the spool need not hold."""
SPECS: tuple[Spec[Any], ...] = (
    special_names.SPEC,
    traffic.SPEC,
    cache.SPEC,
    COLLECT,
    *INTAKES,
    *MODEL_TYPES,
    *CHANNELS,
    *OUTPUTS,
    review.SPEC,
    online.SPEC,
)
"""Special names, limits, logs that are followed, every kind of intake, detector type, channel and export, reviews:
settings and documents are made of them."""


def load_settings(**overrides: Any) -> Settings:
    """Read all settings, those of every kind among them. Raises SettingsError."""
    return settings_module.load(SPECS, **overrides)


def noted_settings(settings: Settings) -> dict[str, Any]:
    """All settings for other processes to compare with theirs: a secret as its fingerprint, "" where it is not set."""
    salt = secrets.token_bytes(16)
    return {"salt": salt.hex(), "values": _comparable(settings, salt)}


def differing_settings(settings: Settings, noted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that a running process has otherwise, by name: (there, here). What only one release knows is none."""
    salt, there = noted.get("salt"), noted.get("values")
    if not isinstance(salt, str) or not isinstance(there, dict):
        return {}
    try:
        here = _comparable(settings, bytes.fromhex(salt))
    except ValueError:
        return {}
    return {name: (there[name], here[name]) for name in here if name in there and there[name] != here[name]}


def as_noted(settings: Settings, noted: Mapping[str, Any]) -> Settings:
    """The settings of a running process; secrets, which it does not note, are those of `settings`."""
    there = {name: value[0] for name, value in differing_settings(settings, noted).items()}
    return load_settings(**{name: value for name, value in there.items() if not is_secret(settings, name)})


def is_secret(settings: Settings, name: str) -> bool:
    """Whether a setting's value is not to be seen; an address of a database may have a password in it."""
    return name == "database_url" or isinstance(getattr(settings, name), SecretStr)


def _comparable(settings: Settings, salt: bytes) -> dict[str, Any]:
    plain = settings.model_dump(mode="json", exclude={"data_dir"})
    for name in plain:
        if is_secret(settings, name):
            value = getattr(settings, name)
            secret = value.get_secret_value() if isinstance(value, SecretStr) else value
            plain[name] = secret and hashlib.scrypt(secret.encode(), salt=salt, n=1 << 12, r=8, p=1).hex()
    return plain


def make_folders(settings: Settings) -> None:
    """What people look into before the first run is there: folders, and an empty retraining log.

    Raises AgentsError where the disk does not let us.
    """
    user = user_of(settings.run_as)
    try:
        new = [folder for folder in _folders(settings) if not folder.exists() or not any(folder.iterdir())]
        for folder in _folders(settings):
            folder.mkdir(parents=True, exist_ok=True)
        make_private_folder(settings.state_dir)
        if not retraining_log(settings).exists():
            retraining_log(settings).touch()
            new.append(retraining_log(settings))
        if not (readme := settings.models_dir / "backups" / "README").exists():
            write_atomic(readme, BACKUPS_README.encode(), sync=False)
            new.append(readme)
        if user is not None:
            give_away(user, new)
    except OSError as error:
        raise AgentsError(f"cannot write to {error.filename}: {error.strerror}") from None


def _folders(settings: Settings) -> list[Path]:
    models, reports = settings.models_dir, settings.reports_dir
    results = (models, models / "backups", models / FLOW_MODELS, reports.parent, reports)
    own_spool = [settings.spool_dir] if settings.spool_dir else []
    return [settings.data_dir, *results, settings.logs_dir, settings.state_dir, *own_spool]


def retraining_log(settings: Settings) -> Path:
    """The log that people follow."""
    return settings.logs_dir / "retraining.log"


def scale_of(settings: Settings) -> Scale:
    """Where severities begin."""
    return Scale(
        suspicious=settings.score_suspicious,
        high=settings.score_high,
        critical=settings.score_critical,
        model_weight=settings.model_weight,
        combine=settings.score_combine,
    )


def check_settings(settings: Settings) -> None:
    """Raise SettingsError for settings that only show when they are used, before any socket opens.

    What is wrong with the database is not among them: DNS is answered without it.
    """
    user_of(settings.run_as)
    _parsed_upstreams(settings)
    validator_of(settings)
    model_type_of(settings)
    compared_types(settings)
    services_of(settings)
    tripwires_of(settings)
    alert_manager_of(settings)
    outputs_of(settings)
    for when in filter(None, (settings.retrain_schedule, settings.summary_schedule)):
        cron_trigger(when, settings.retrain_timezone)
    store_of(settings).close()


def upstreams_of(settings: Settings) -> list[tuple[str, list[UpstreamAddress]]]:
    """Zones and their upstreams; what no zone claims goes to the system's resolvers unless UPSTREAMS says where."""
    upstreams = _parsed_upstreams(settings)
    if not any(zone == "" for zone, _ in upstreams):
        upstreams.append(("", system_resolvers()))
    return upstreams


def _parsed_upstreams(settings: Settings) -> list[tuple[str, list[UpstreamAddress]]]:
    try:
        return parse_upstreams(settings.upstreams)
    except ValueError as error:
        raise SettingsError(f"cannot use setting UPSTREAMS={settings.upstreams}: {error}") from None


def listener_config(settings: Settings) -> ListenerConfig:
    """What the listeners are to do."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    upstreams = upstreams_of(settings)
    return ListenerConfig(
        hosts=[host.strip() for host in settings.listen_host.split(",")],
        port=settings.listen_port,
        processes=settings.listener_processes or cores,
        upstreams=upstreams,
        allowed_clients=[part.strip() for part in settings.allowed_clients.split(",") if part.strip()],
        timeout_s=settings.upstream_timeout_s,
        tcp_clients_max=settings.tcp_clients_max,
        tcp_idle_s=settings.tcp_idle_s,
        inflight_max=settings.inflight_max,
        client_wait_s=settings.client_wait_s,
        retry_failed=settings.retry_failed,
        limits=traffic.SPEC.factory(settings.of(traffic.SPEC)),
        cache=cache.SPEC.factory(settings.of(cache.SPEC)),
        outgoing=_outgoing(settings),
        special=special_names.SPEC.factory(settings.of(special_names.SPEC)),
        strict=strict_groups_of(settings),
        probes=LoopProbes() if settings.detect_loops else None,
        mismatched=shared_counts(len(distinct_of(endpoints for _, endpoints in upstreams))),
    )


def _outgoing(settings: Settings) -> Outgoing:
    prefixes = (settings.ecs_prefix_v4, settings.ecs_prefix_v6) if settings.ecs == "on" else (0, 0)
    return Outgoing(settings.forward == "normalised", prefixes)


def judge_parts(
    settings: Settings,
    mismatched: Callable[[], dict[str, int]] = dict,
    note: SharedNote | None = None,
    losses: tuple[str, ...] = (),
) -> JudgeParts:
    """The collaborators of what judges live queries; threads of the sinks run from here on.

    mismatched: see ListenerConfig.mismatched_by_upstream. losses: what the sources of queries do not keep.
    """
    registry, store, manager = registry_of(settings), store_of(settings), judging_manager_of(settings)
    secret = secrets.randbits(64), secrets.randbits(64)
    detector = detector_of(settings, registry.current(), secret, tripwires_of(settings), settings.burn_in_days)
    detector.incidents.losses = losses
    return JudgeParts(
        detector=detector,
        registry=registry,
        store=store,
        spool=SpoolingSink(store, settings.spool_folder, settings.spool_max_mb << 20, features=FEATURES_AGAIN),
        manager=manager,
        alerts=AlertSink(
            manager,
            Outbox(outbox_of(settings)),
            Groups(settings.alert_interval_s, settings.alerts_per_hour_max),
            pace_s=0.0 if _handed_over(settings) else PACE_S,
        ),
        exports=ExportSink(
            outputs_of(settings), exports_of(settings), settings.public_url, Severity[settings.export_severity]
        ),
        known_entries=partial(known_entries, settings),
        own_zones=own_zones_of(settings),
        known_path=known_path(settings),
        state_dir=settings.state_dir,
        mismatched=mismatched,
        note=note,
        in_force=noted_settings(settings),
        hours=HourCollector(
            detector, FlowHourStore(store), settings.state_dir / HOUR_FILE, partial(_after_hour, settings, store)
        ),
    )


def _after_hour(settings: Settings, store: Store, hour: int) -> None:
    """What follows when an hour's flow-hours are written: labels, then the review queue. Raises StoreError."""
    Labeller(store, scale_of(settings))(hour)
    learner, limits = learner_of(settings, store), review.SPEC.factory(settings.of(review.SPEC))
    model, options = learner.usable_model(), learner.options
    if model is None:
        Reviewer(store, limits)(hour)
        return
    label_by_probability(store, model, options, hour, time.time())
    Reviewer(store, limits, (options.benign_to, options.tunnel_from), model.probabilities)(hour)


def learner_of(settings: Settings, store: Store) -> OnlineLearner:
    """The online learner of flow-hours."""
    return OnlineLearner(store, settings.models_dir / FLOW_MODELS, online.SPEC.factory(settings.of(online.SPEC)))


def plan_of(
    settings: Settings,
    others: Sequence[tuple[str, Work]] = (),
    note: SharedNote | None = None,
    collecting: Collecting | None = None,
    listens: bool = True,
) -> Plan:
    """What `listen`, `run` and `collect` start.

    others: what runs beside listeners and detector, and reads its `note`. collecting: logs that are followed. listens:
    there are listeners. Raises CaptureError for a file that cannot be followed.
    """
    losses = losses_at_start(collecting, listens) if collecting else ()
    make_folders(settings)
    listener = listener_config(settings) if listens else None
    mismatched = listener.mismatched_by_upstream if listener else dict
    return Plan(
        listener=listener,
        judge_parts=partial(judge_parts, settings, mismatched, note, losses),
        queue_max=settings.queue_max,
        batch_max=settings.batch_max,
        batch_wait_s=settings.batch_wait_ms / 1000,
        hang_s=settings.hang_s,
        others=others,
        run_as=user_of(settings.run_as),
        folders=tuple(_folders(settings)[1:]),
        collecting=collecting,
    )


def losses_at_start(collecting: Collecting, listens: bool) -> tuple[str, ...]:
    """What the logs do not keep, as far as it is known. A listener answers, whatever state the logs are in."""
    kinds, unknown = collecting.kinds(strict=not listens)
    untold = (f"answers: not known until the kind of {printable(path)} is found" for path in unknown)
    return (*losses_of(kinds, named=listens), *untold)


def collecting_of(
    settings: Settings, files: Sequence[str] = (), format: str = "", from_start: bool = False
) -> Collecting | None:
    """The logs that are followed: `files`, or those of COLLECT_FILES; None if there are none. Raises SettingsError.

    files: paths, and addresses of Pi-holes.
    """
    values = settings.of(COLLECT)
    names = files or files_of(values)
    format = format or values["collect_format"]
    if format not in {"auto", *(kind.name for kind in INTAKES)}:
        raise SettingsError(f"cannot use setting COLLECT_FORMAT={format}: there is no such kind of log")
    if len(names) > COLLECT_MAX:
        raise SettingsError(f"cannot use setting COLLECT_FILES: more than {COLLECT_MAX} files")
    if not names:
        return None
    _refuse_plain_password(settings, names, values["pihole_password"])
    return Collecting(
        paths=list(dict.fromkeys(Path(name).absolute() for name in names if not is_address(name))),
        state_dir=settings.state_dir,
        format=format,
        from_start=from_start,
        options={name: value for kind in INTAKES for name, value in settings.of(kind).items()},
        pi_holes=list(dict.fromkeys(filter(is_address, names))),
        pihole_password=values["pihole_password"],
    )


def _refuse_plain_password(settings: Settings, names: Sequence[str], password: str) -> None:
    """Raise SettingsError where the password would travel in the clear, as for webhooks."""
    plain = [name for name in names if name.startswith("http://") and not is_loopback(urlsplit(name).hostname or "")]
    if password and plain and settings.webhooks_plain_http != "on":
        raise SettingsError(
            f"cannot use setting PIHOLE_PASSWORD: {printable(plain[0])} is http:// to another machine"
            f" ({PLAIN_HTTP.upper()}=on)"
        )


def registry_of(settings: Settings) -> ModelRegistry[Model]:
    """The folder of models, with the shipped one to fall back to."""
    return ModelRegistry(settings.models_dir, model_type_of(settings).load, model_bytes())


def store_of(settings: Settings) -> Store:
    """The database, not yet connected; SQLite's folder is made."""
    if not settings.database_url:
        make_private_folder(settings.state_dir)
    return open_store(settings.store_url)


def services_of(settings: Settings) -> KnownServices:
    """The shipped known services with the operator's own, those that hold today. Raises SettingsError."""
    return services_at(known_entries(settings), time.time(), own_zones_of(settings))


def own_zones_of(settings: Settings) -> list[str]:
    """OWN_ZONES, and zones that UPSTREAMS sends to private addresses alone. Raises SettingsError."""
    try:
        named = [own_zone(one) for one in settings.own_zones.split(",") if one.strip()]
    except ValueError as error:
        raise SettingsError(f"cannot use setting OWN_ZONES={settings.own_zones}: {error}") from None
    inside = [zone for zone, upstreams in _parsed_upstreams(settings) if zone and all(map(_is_private, upstreams))]
    return list(dict.fromkeys([*named, *inside]))


def _is_private(upstream: UpstreamAddress) -> bool:
    """Whether a server lies in this network. One on this machine may lead anywhere."""
    address = ipaddress.ip_address(upstream.host) if upstream.has_address else None
    return address is not None and address.is_private and not address.is_loopback


def detector_of(
    settings: Settings, model: Model, key: Key = (0, 0), tripwires: Tripwires | None = None, burn_in_days: float = 0
) -> TunnelDetector:
    """A detector that has seen nothing yet. key: of its hashes; a secret one where strangers choose the names.

    tripwires: for traffic of this network. burn_in_days: a network that is watched has habits to be learnt; what is
    replayed has none.
    """
    quiet_s, scale, services = settings.incident_quiet_s, scale_of(settings), services_of(settings)
    return TunnelDetector(model, settings.flows_max, quiet_s, scale, services, key, tripwires, burn_in_days)


def tripwires_of(settings: Settings) -> Tripwires:
    """Honeytokens, and strict groups. Raises SettingsError."""
    return Tripwires(honeytokens_path(settings), strict_groups_of(settings))


def honeytokens_path(settings: Settings) -> Path:
    """Where the hashes of honeytokens are kept."""
    return settings.state_dir / "honeytokens.json"


def strict_groups_of(settings: Settings) -> StrictGroups:
    """STRICT_CLIENTS; names that this listener answers itself are no offence. Raises SettingsError."""
    try:
        groups = read_groups(settings.strict_clients, settings.data_dir)
    except SettingsError as error:
        raise SettingsError(f"cannot use setting STRICT_CLIENTS={settings.strict_clients}: {error}") from None
    return StrictGroups(groups, [one.name for one in special_names.SPEC.factory(settings.of(special_names.SPEC))])


def validator_of(settings: Settings) -> Validator:
    """The gates, with the user's own cases. Raises SettingsError where those cannot be read."""
    own = load_cases(settings.validation_cases) if settings.validation_cases else ()
    return Validator(Model.from_bytes(model_bytes()), partial(detector_of, settings), own)


def alert_manager_of(settings: Settings) -> AlertManager:
    """Alerts over every channel that is set up."""
    return AlertManager(notifiers_from(settings), quiet_s=settings.incident_quiet_s, link_base=settings.public_url)


def judging_manager_of(settings: Settings) -> AlertManager:
    """Alerts of what judges: over every channel, or to the process that sends them."""
    if not _handed_over(settings):
        return alert_manager_of(settings)
    notifiers = [HandOver(outbox_of(settings))]
    return AlertManager(notifiers, quiet_s=settings.incident_quiet_s, link_base=settings.public_url)


def sender_of(settings: Settings) -> Sender | None:
    """What sends the alerts that were handed over, where the scheduler is to do that."""
    return Sender(notifiers_from(settings), outbox_of(settings)) if _handed_over(settings) else None


def outbox_of(settings: Settings) -> Path:
    """Where alerts wait."""
    return settings.state_dir / OUTBOX


def exports_of(settings: Settings) -> Path:
    """Where records for other programs wait."""
    return settings.state_dir / EXPORTS


def outputs_of(settings: Settings) -> list[Receiver[Record]]:
    """The ways out that the settings name. Raises SettingsError."""
    values = {spec: channel_values(settings, spec) for spec in OUTPUTS}
    return [spec.factory(own, None) for spec, own in values.items() if own[spec.fields[0].name]]


def _handed_over(settings: Settings) -> bool:
    return settings.alerts_sent_by == "scheduler"


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
    )


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


def upkeep_of(settings: Settings, clock: ClockWatch | None = None) -> Upkeep:
    """What the daily maintenance keeps. clock: that has been watched for a while."""
    from agents.runtime.services import Upkeep

    return Upkeep(
        store_of(settings),
        registry_of(settings),
        settings.reports_dir,
        query_days=settings.query_retention_days,
        replay_days=settings.replay_retention_days,
        incident_days=settings.incident_retention_days,
        backup_days=settings.backup_days,
        state_dir=settings.state_dir,
        clock=clock or ClockWatch(),
        notify=lambda message: asyncio.run(alert_manager_of(settings).broadcast(message)),
    )


def scheduler_of(settings: Settings) -> RetrainScheduler:
    """The calendar. Raises SettingsError for a bad schedule."""
    from agents.runtime.schedule import SUMMARISE, RetrainScheduler
    from agents.runtime.services import Retrainer, maintain, summarise

    clock = ClockWatch()
    return RetrainScheduler(
        store_of(settings),
        Retrainer(retraining_of(settings)).run,
        lambda: maintain(upkeep_of(settings, clock)),
        settings.retrain_schedule,
        settings.retrain_timezone,
        clock,
        {SUMMARISE: (lambda: summarise(upkeep_of(settings), settings.public_url), settings.summary_schedule)}
        if settings.summary_schedule
        else {},
    )


def scheduling_of(settings: Settings) -> AbstractAsyncContextManager[None]:
    """The scheduler as a service."""
    from agents.runtime.services import scheduling

    store, registry = store_of(settings), registry_of(settings)
    sender = sender_of(settings)
    calendar, noted = scheduler_of(settings), noted_settings(settings)
    learner = LearnerThread(learner_of(settings, store))
    return scheduling(calendar, store, registry, settings.data_dir, settings.state_dir, noted, sender, learner)


def serving_of(
    settings: Settings, pulse: Pulse | None = None, note: SharedNote | None = None
) -> AbstractAsyncContextManager[None]:
    """API and console as a service. pulse: that notes that it turns. note: the detector's heartbeat in memory."""
    from agents.runtime.health import ProcessHealth
    from agents.runtime.services import Pulse, Retrainer, serving
    from agents.web.parts import Parts

    registry = registry_of(settings)
    folders = dict.fromkeys((settings.state_dir, settings.spool_folder))
    health = ProcessHealth(settings.state_dir, registry, note, tuple(folders))
    retrainer, store = Retrainer(retraining_of(settings)), store_of(settings)
    parts = Parts(
        store=store,
        reviews=ReviewStore(store),
        learner=learner_of(settings, store),
        models=registry,
        reports_dir=settings.reports_dir,
        token=api_token_of(settings),
        retrain=retrainer.start,
        health=health.components,
        metrics=health.metrics,
        version=__version__,
    )
    proxies = [part.strip() for part in settings.trusted_proxies.split(",") if part.strip()]
    heartbeat = Heartbeat(settings.state_dir / PARTS["api"], dict, in_force=noted_settings(settings))
    return serving(parts, settings.api_host, settings.api_port, heartbeat, retrainer, proxies, pulse or Pulse())


def training_of(settings: Settings) -> Training:
    """How candidates are made now: the limits come from the network's history up to this moment."""
    return Training(model_type_of(settings), budget_choice_of(settings).to_json())


def model_type_of(settings: Settings) -> DetectorType:
    """The detector type that is trained; files of all types are read. Raises SettingsError."""
    spec = _type_named(settings.model_type, "MODEL_TYPE")
    return DetectorType(spec, _train_config(settings), settings.of(spec))


def _train_config(settings: Settings) -> TrainConfig:
    return TrainConfig(
        benign_above_suspicious=settings.target_fpr_suspicious,
        benign_above_high=settings.target_fpr_high,
        score_suspicious=settings.score_suspicious,
        score_high=settings.score_high,
    )


def _type_named(name: str, setting: str) -> Spec[OutlierScorer]:
    for spec in MODEL_TYPES:
        if spec.name == name:
            return spec
    names = ", ".join(spec.name for spec in MODEL_TYPES)
    raise SettingsError(f"cannot use setting {setting}={name}: it is one of {names}")


def compared_types(settings: Settings) -> list[TypeParams]:
    """The detector types that a report compares, each with its params. Raises SettingsError."""
    named = [name for name in map(str.strip, settings.compare_types.split(",")) if name]
    if named == ["none"]:
        return []
    specs = MODEL_TYPES if named == ["all"] else [_type_named(name, "COMPARE_TYPES") for name in named]
    return [(spec, asdict(_train_config(settings)) | settings.of(spec)) for spec in specs]


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


def known_path(settings: Settings) -> Path:
    """The operator's own list of known services."""
    return settings.allowlist or settings.state_dir / "known_services.csv"


def known_entries(settings: Settings) -> list[Entry]:
    """The operator's own known services. Raises SettingsError where they cannot be read, or a file is named in vain."""
    if settings.allowlist and not settings.allowlist.exists():
        raise SettingsError(f"cannot use setting ALLOWLIST={settings.allowlist}: no such file")
    return load_entries(known_path(settings))


def budget_choice_of(settings: Settings) -> BudgetChoice:
    """The limits that the network's own history and ALERT_BUDGET_PER_WEEK ask for."""
    try:
        peaks = load_peaks((settings.state_dir / PEAKS_FILE).read_bytes())
    except (OSError, ValueError):
        peaks = Peaks()
    return choose(peaks, settings.alert_budget_per_week)


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


def api_token_of(settings: Settings) -> str:
    """The token of the API: the setting, or one made once and kept readable by its owner alone.

    Raises AgentsError for a file that holds none.
    """
    given = settings.api_token.get_secret_value()
    if given:
        return given
    path = token_path(settings)
    if not path.exists():
        make_private_folder(path.parent)
        write_atomic(path, secrets.token_urlsafe(24).encode(), mode=PRIVATE_MODE)
    token = path.read_text("ascii", errors="replace").strip()
    if not token or not token.isascii():
        raise AgentsError(f"cannot use {path}: there is no token in it; remove it, and another is made")
    return token


def token_path(settings: Settings) -> Path:
    """Where a made token is kept."""
    return settings.state_dir / "api_token"
