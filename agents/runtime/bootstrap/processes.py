"""From settings to what runs for long: the plan of the supervisor, scheduler, console.

What these alone need is imported where it is made: a listener starts without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import __version__
from agents.alerting.messages import TEST_MESSAGE
from agents.core.cron import cron_trigger
from agents.core.errors import SettingsError
from agents.dns.blocks import BLOCKS_FILE, BlockFile
from agents.enforcement.options import EnforceMode
from agents.enforcement.rpz import options as rpz_options
from agents.learning.fleet.options import must_be_whole
from agents.learning.fleet.site import FleetThread
from agents.learning.images.image_learner import ImageThread
from agents.learning.loop.looking import FlowLook
from agents.learning.loop.online import LearnerThread
from agents.learning.release.canary import RolloutThread
from agents.learning.release.mlflow_server import LearntPublishing
from agents.runtime.bootstrap.alerts import alert_manager_of, broadcaster_of, outputs_of, sender_of
from agents.runtime.bootstrap.among import check_several, several_of
from agents.runtime.bootstrap.bus import (
    bus_options_of,
    canary_sender_of,
    detecting_of,
    file_sender_of,
    model_sender_of,
    publishing_of,
)
from agents.runtime.bootstrap.environment import (
    api_token_of,
    folders_of,
    make_folders,
    noted_settings,
    shown_settings,
    store_of,
)
from agents.runtime.bootstrap.fleet import coordinator_of, fleet_site_of
from agents.runtime.bootstrap.hunting import day_files_of, hunt_desk_of, hunt_options_of
from agents.runtime.bootstrap.intakes import enforce_options_of, listener_config, losses_at_start, parsed_upstreams
from agents.runtime.bootstrap.judging import (
    block_keeper_of,
    cycle_requests_of,
    image_learner_of,
    judge_parts,
    known_desk_of,
    learner_of,
    services_of,
    tripwires_of,
)
from agents.runtime.bootstrap.learning import (
    learnt_desk_of,
    learnt_publisher_of,
    model_desk_of,
    publisher_of,
    retraining_of,
    rollout_of,
    sequence_rollout_of,
    stage_folder_of,
    validator_of,
)
from agents.runtime.bootstrap.logins import oidc_of
from agents.runtime.bootstrap.models import compared_types, fleet_options_of, model_type_of, registry_of
from agents.runtime.drill.drill import DrillTargets
from agents.runtime.heartbeat import PARTS, Heartbeat
from agents.runtime.listener_process import ListenerConfig
from agents.runtime.privileges import first_free_port, user_of
from agents.runtime.signals import Beat
from agents.runtime.supervisor import Plan, Work
from agents.settings import Settings
from agents.sources.collector import Collecting
from agents.sources.listener.traffic import AccessList
from agents.sources.live.receiver import Receiving
from agents.sources.origins import Origins
from agents.store import Store
from agents.store.console import ConsoleStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.retention import ClockWatch
from agents.stream.answer_key import ANSWER_KEY_FILE, HeldKey
from agents.stream.note import SharedNote

if TYPE_CHECKING:
    from agents.runtime.health import ProcessHealth
    from agents.runtime.jobs import JobDesk
    from agents.runtime.schedule import RetrainScheduler
    from agents.runtime.services import Pulse, Upkeep


def check_settings(settings: Settings) -> None:
    """Raise SettingsError for settings that only show when they are used, before any socket opens.

    What is wrong with the database is not among them: DNS is answered without it.
    """
    user_of(settings.run_as)
    check_several(settings)
    bus_options_of(settings)
    parsed_upstreams(settings)
    validator_of(settings)
    model_type_of(settings)
    compared_types(settings)
    services_of(settings)
    tripwires_of(settings)
    alert_manager_of(settings)
    outputs_of(settings)
    hunt_options_of(settings)
    publisher_of(settings)
    enforce_options_of(settings)
    must_be_whole(fleet_options_of(settings))
    _check_zone_ports(settings)
    oidc_of(settings)
    for when in filter(None, (settings.retrain_schedule, settings.summary_schedule)):
        cron_trigger(when, settings.retrain_timezone)
    store_of(settings).close()


def _origins(settings: Settings, collecting: Collecting | None, receiving: Receiving | None) -> Origins | None:
    """What incidents say of intakes; None where there are none beside a listener."""
    known = (collecting.reported_at_start() if collecting else {}) | (
        receiving.reported_at_start() if receiving else {}
    )
    files, live = (one.names if one else [] for one in (collecting, receiving))
    return Origins(files, live, settings.state_dir, known) if files or live else None


def plan_of(
    settings: Settings,
    others: Sequence[tuple[str, Work]] = (),
    note: SharedNote | None = None,
    collecting: Collecting | None = None,
    listens: bool = True,
    receiving: Receiving | None = None,
) -> Plan:
    """What `listen`, `run` and `collect` start.

    others: what runs beside listeners and detector, and reads its `note`. collecting: logs that are followed. listens:
    there are listeners. receiving: live intakes. Raises CaptureError for a file that cannot be followed.
    """
    losses, origins = losses_at_start(collecting, listens, receiving), _origins(settings, collecting, receiving)
    make_folders(settings)
    HeldKey(settings.state_dir / ANSWER_KEY_FILE).begin()
    listener = listener_config(settings) if listens else None
    mismatched = listener.mismatched_by_upstream if listener else dict
    targets = _drill_targets(listener, collecting, receiving)
    make = partial(judge_parts, settings, mismatched, note, losses, targets, origins)
    publishing = publishing_of(settings)
    return Plan(
        listener=listener,
        judge_parts=make,
        several=several_of(settings, make) if publishing is None else None,
        publishing=publishing,
        queue_max=settings.queue_max,
        batch_max=settings.batch_max,
        batch_wait_s=settings.batch_wait_ms / 1000,
        hang_s=settings.hang_s,
        others=others,
        optional=_zone_server(settings),
        run_as=user_of(settings.run_as),
        folders=tuple(folders_of(settings)[1:]),
        collecting=collecting,
        receiving=receiving,
    )


def detect_plan_of(settings: Settings) -> Plan:
    """What `detect` starts: detectors of queries that are heard elsewhere. Raises SettingsError."""
    make_folders(settings)
    make = partial(judge_parts, settings)
    return Plan(
        listener=None,
        judge_parts=make,
        queue_max=1,
        batch_max=settings.batch_max,
        batch_wait_s=settings.batch_wait_ms / 1000,
        hang_s=settings.hang_s,
        run_as=user_of(settings.run_as),
        folders=tuple(folders_of(settings)[1:]),
        detecting=detecting_of(settings, make),
    )


def _drill_targets(
    listener: ListenerConfig | None, collecting: Collecting | None, receiving: Receiving | None
) -> DrillTargets:
    """What a drill goes through: a listener is asked on this machine, where that may ask."""
    collector, receiver = collecting is not None, receiving is not None
    if listener is None:
        return DrillTargets(collector=collector, receiver=receiver)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.hosts[0], listener.hosts[0])  # noqa: S104
    if not AccessList(listener.allowed_clients).allows(host):
        return DrillTargets(None, collector, f"the listener is not asked: {host} is no client of it", receiver)
    return DrillTargets((host, listener.port), collector, receiver=receiver)


def _check_zone_ports(settings: Settings) -> None:
    """Raise SettingsError for a port of the zone's server that needs rights which are given up before it is bound."""
    first, user = first_free_port(), user_of(settings.run_as)
    stays_root = os.geteuid() == 0 and (user is None or user.uid == 0)
    low = [port for _, port in rpz_options.SPEC.factory(settings.of(rpz_options.SPEC)).listen if port < first]
    if low and not stays_root:
        raise SettingsError(
            f"cannot use setting RPZ_LISTEN: port {low[0]} needs root, and root's rights are given up before it is"
            f" bound; name a port from {first}, such as 5300"
        )


def _zone_server(settings: Settings) -> list[tuple[str, Work]]:
    """The process that serves blocks to other resolvers, where one is set up."""
    options = rpz_options.SPEC.factory(settings.of(rpz_options.SPEC))
    if not options.listen:
        return []

    def work(ready: Callable[[], None], beat: Beat) -> int:
        from agents.enforcement.rpz.server import PolicyServer
        from agents.enforcement.rpz.zone import STATE_FILE, PolicyZone
        from agents.runtime.rpz_process import serve_zone

        enforcing = enforce_options_of(settings)
        zone = PolicyZone(options.zone, settings.state_dir / STATE_FILE, enforcing.sinkhole)
        file, enforced = BlockFile(settings.state_dir / BLOCKS_FILE), enforcing.mode == EnforceMode.ON
        return serve_zone(PolicyServer(options, zone, file, enforced), ready, beat)

    return [("rpz", work)]


def upkeep_of(settings: Settings, clock: ClockWatch | None = None) -> Upkeep:
    """What the daily maintenance keeps. clock: that has been watched for a while."""
    from agents.runtime.services import Upkeep

    store = store_of(settings)
    return Upkeep(
        store,
        registry_of(settings),
        settings.reports_dir,
        query_days=settings.query_retention_days,
        replay_days=settings.replay_retention_days,
        incident_days=settings.incident_retention_days,
        backup_days=settings.backup_days,
        state_dir=settings.state_dir,
        clock=clock or ClockWatch(),
        notify=broadcaster_of(settings),
        files=day_files_of(settings, store),
        hunt_days=hunt_options_of(settings).file_days,
    )


def scheduler_of(settings: Settings) -> RetrainScheduler:
    """The calendar. Raises SettingsError for a bad schedule."""
    from agents.runtime.jobs import SUMMARISE
    from agents.runtime.schedule import RetrainScheduler
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
        jobs_of(settings, store_of(settings)).is_paused,
    )


def jobs_of(settings: Settings, store: Store) -> JobDesk:
    """What people decide about scheduled jobs."""
    from agents.runtime.jobs import PAUSED_JOBS, JobDesk

    return JobDesk(store, settings.state_dir / PAUSED_JOBS)


def scheduling_of(settings: Settings) -> AbstractAsyncContextManager[None]:
    """The scheduler as a service."""
    from agents.runtime.services import DaysThread, scheduling

    store, registry = store_of(settings), registry_of(settings)
    sender = sender_of(settings)
    calendar, noted = scheduler_of(settings), noted_settings(settings)
    rollout = RolloutThread(rollout_of(settings, store, calendar.clock))
    trials = RolloutThread(sequence_rollout_of(settings, store, calendar.clock), "sequence-rollout")
    fleet, hunt = FleetThread(fleet_site_of(settings, store)), hunt_options_of(settings)
    days = [DaysThread(day_files_of(settings, store), hunt.file_days)] if hunt.file_days else []
    shared = model_sender_of(settings), file_sender_of(settings), canary_sender_of(settings)
    senders = [one for one in shared if one is not None]
    learner = image_learner_of(settings, store)
    images = [ImageThread(learner)] if learner.kind != "off" else []
    publisher = learnt_publisher_of(settings, store)
    published = [LearntPublishing(publisher)] if publisher.options.url else []
    threads = (
        LearnerThread(learner_of(settings, store)), rollout, trials, fleet, *days, *images, *senders, *published,
    )  # fmt: skip
    return scheduling(calendar, store, registry, settings.data_dir, settings.state_dir, noted, sender, threads)


def serving_of(
    settings: Settings, pulse: Pulse | None = None, note: SharedNote | None = None
) -> AbstractAsyncContextManager[None]:
    """API and console as a service. pulse: that notes that it turns. note: the detector's heartbeat in memory."""
    from agents.runtime.health import ProcessHealth
    from agents.runtime.services import Pulse, RatesThread, Retrainer, SumsThread, WeekThread, serving
    from agents.store.people.people import PeopleStore
    from agents.web.console.last_hour import LAST_HOUR, LastHour
    from agents.web.parts import Parts
    from agents.web.people.first_login import FirstLogin

    registry = registry_of(settings)
    folders = tuple(dict.fromkeys((settings.state_dir, settings.spool_folder)))
    health = ProcessHealth(settings.state_dir, registry, note, folders)
    retrainer, store = Retrainer(retraining_of(settings)), store_of(settings)
    people = PeopleStore(store)
    parts = Parts(
        store=store,
        reviews=ReviewStore(store),
        console=ConsoleStore(store),
        flows=FlowLook(store),
        hunts=hunt_desk_of(settings),
        known=known_desk_of(settings, store),
        in_force=partial(shown_settings, settings),
        learner=learner_of(settings, store),
        blocks=block_keeper_of(settings, store),
        cycles=cycle_requests_of(settings, note),
        fleet=coordinator_of(settings),
        fleet_site=fleet_site_of(settings, store),
        models=registry,
        **_model_parts(settings, store),
        people=people,
        oidc=oidc_of(settings),
        public_url=settings.public_url,
        reports_dir=settings.reports_dir,
        token=api_token_of(settings),
        retrain=retrainer.start,
        jobs=jobs_of(settings, store),
        **_state_parts(settings.state_dir, health, note),
        last_hour=LastHour(settings.state_dir / LAST_HOUR),
        send_test=lambda: broadcaster_of(settings)(TEST_MESSAGE),
        version=__version__,
    )
    heartbeat = Heartbeat(settings.state_dir / PARTS["api"], dict, in_force=noted_settings(settings))
    waiting = FirstLogin(store, people, settings.public_url or console_address(settings))
    threads = (SumsThread(parts.console.hunter), RatesThread(parts), WeekThread(health, settings.state_dir), waiting)
    host, port, turning = settings.api_host, settings.api_port, pulse or Pulse()
    return serving(parts, host, port, heartbeat, retrainer, _proxies(settings), turning, threads)


def _proxies(settings: Settings) -> list[str]:
    return [part.strip() for part in settings.trusted_proxies.split(",") if part.strip()]


def _state_parts(state_dir: Path, health: ProcessHealth, note: SharedNote | None) -> dict[str, Any]:
    """How all processes on one DATA_DIR are, as people and programs are told."""
    from agents.runtime.bus.cluster_models import shown_hosts
    from agents.runtime.inside.components import inside_components
    from agents.runtime.services import week_between

    return {
        "health": health.components,
        "inside": partial(inside_components, state_dir, note),
        "metrics": health.metrics,
        "week": partial(week_between, state_dir),
        "hosts": partial(shown_hosts, state_dir),
    }


def _model_parts(settings: Settings, store: Store) -> dict[str, Any]:
    """What people do with models at the console."""
    desk = model_desk_of(settings, store)
    staging = stage_folder_of(settings, store, desk)
    return {"desk": desk, "staging": staging, "learnt": learnt_desk_of(settings, store)}


def console_address(settings: Settings) -> str:
    """The console's address on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"
