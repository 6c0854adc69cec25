"""From settings to what judges: detector, known services, tripwires, sinks, what follows an hour."""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from agents.alerting.channel_queue import PACE_S
from agents.alerting.grouping import Groups
from agents.alerting.manager import AlertManager
from agents.alerting.outbox import Outbox
from agents.alerting.sink import AlertSink
from agents.core.column_kernels import Key
from agents.core.errors import SettingsError, StoreError
from agents.core.files import PRIVATE_MODE, Reread, make_private_folder, write_atomic
from agents.core.types import DAY_S, Message, Severity
from agents.detection import privacy
from agents.detection.detector import FILES, Suspect, TunnelDetector
from agents.detection.explanations.known_desk import KnownDesk
from agents.detection.known_services import Entry, KnownServices, load_entries, own_zone, services, services_at
from agents.detection.privacy import ClientVeil, Privacy, PrivacyKey
from agents.detection.runner import verdicts_of
from agents.detection.shared.roles import LiveDetector
from agents.detection.tripwires.tripwires import Tripwires
from agents.dns.drill import DRILL_ZONE
from agents.enforcement.brakes import Labels, NeverBlock
from agents.enforcement.enforcer import Enforcer
from agents.enforcement.keeper import BlockKeeper
from agents.export.sink import ExportSink
from agents.learning.comparison import bounds as comparison_bounds
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.sequence_listing import SequenceListing
from agents.learning.images import image_model
from agents.learning.images.image_judge import images_of_hour
from agents.learning.images.image_learner import ImageLearner
from agents.learning.loop import options as learner_options
from agents.learning.loop import review
from agents.learning.loop.collector import HourCollector
from agents.learning.loop.flow_hours import HOUR_ROWS_MAX
from agents.learning.loop.labels import Labeller
from agents.learning.loop.learnable import flows_in_doubt
from agents.learning.loop.online import OnlineLearner, label_by_probability
from agents.learning.loop.review import Reviewer
from agents.learning.loop.suspects import suspects_of, within_budget
from agents.learning.registry import ModelRegistry
from agents.learning.release import canary as release_canary
from agents.learning.release.canary import CANARY_FILE, CanaryTerms, CanaryTrial
from agents.learning.release.learnt_registry import ReleaseTerms
from agents.learning.run import LearntCycle, Report
from agents.learning.sequences import beside
from agents.learning.sequences import bounds as sequence_bounds
from agents.learning.sequences.beside import Sequences
from agents.learning.sequences.bounds import SequenceBounds
from agents.learning.sequences.cycle import HEARD_MAX, CycleParts, CycleRequests, SequenceCycle
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.learnable_windows import HeardSteps, learnable_windows
from agents.learning.sequences.learning import LearntSequences, SequenceComparison, SequenceModels, learn_sequences
from agents.learning.sequences.steps import Windows, heard_part
from agents.learning.sequences.trial import SequenceTrial
from agents.learning.sequences.watch import SequenceWatch
from agents.runtime.bootstrap.alerts import (
    broadcaster_of,
    exports_of,
    handed_over,
    judging_manager_of,
    outbox_of,
    outputs_of,
)
from agents.runtime.bootstrap.among import Among, D, MadeDetector, Maker, restored_of
from agents.runtime.bootstrap.environment import FLOW_MODELS, load_settings, noted_settings, scale_of, store_of
from agents.runtime.bootstrap.hunting import hunt_sink_of
from agents.runtime.bootstrap.intakes import enforce_options_of, parsed_upstreams, strict_groups_of
from agents.runtime.bootstrap.models import registry_of
from agents.runtime.drill import options as drill_options
from agents.runtime.drill.drill import DRILL_MARK, Drill, DrillTargets
from agents.runtime.heartbeat import detector_health
from agents.runtime.judging.judge import JudgeParts
from agents.runtime.trainer import fit_images_spawned, learn_sequences_spawned
from agents.scoring.features import VERSION
from agents.scoring.lexical import features_again
from agents.scoring.model import Model
from agents.scoring.types import efficient_ad
from agents.scoring.types.network import DEEP_FIELDS
from agents.settings import Settings
from agents.sources.listener.upstream import (
    UpstreamAddress,
)
from agents.sources.origins import Origins
from agents.store.codec import Features
from agents.store.feedback.blocks import BlockStore
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.marked import forget_marked
from agents.store.feedback.reviews import ReviewStore
from agents.store.spool import SpoolingSink
from agents.store.sql import Store
from agents.store.stored_traffic import stored_traffic
from agents.stream.bus import options as bus_options
from agents.stream.note import SharedNote

_log = structlog.get_logger()
HOUR_FILE = "flow_hours.npz"
"""Counters of flows at the beginning of the present hour, in the folder of the detector's state."""

FEATURES_AGAIN = Features(VERSION, features_again)
"""What the spool need not hold."""


def judge_parts(
    settings: Settings,
    mismatched: Callable[[], dict[str, int]] = dict,
    note: SharedNote | None = None,
    losses: tuple[str, ...] = (),
    targets: DrillTargets | None = None,
    origins: Origins | None = None,
    among: Among | None = None,
) -> JudgeParts:
    """The collaborators of what judges live queries; threads of the sinks run from here on.

    mismatched: see ListenerConfig.mismatched_by_upstream. losses: what the sources of queries do not keep.
    targets: what a drill goes through. origins: which intake keeps what. among: which of several processes this is.
    """
    registry, store, manager = registry_of(settings), store_of(settings), judging_manager_of(settings)
    renamed = _drop_other_names(settings)
    secret = (secrets.randbits(64), secrets.randbits(64)) if among is None else among.key
    folder, cycles = settings.state_dir if among is None else among.folder, _cycles_in(settings, among)
    tripwires, kept, model = tripwires_of(settings), privacy_of(settings), registry.current()

    def make(kind: Callable[..., D]) -> D:
        return _made(settings, kind, model, secret, tripwires, settings.burn_in_days, kept)

    detector, more, watched, relay = _alone(settings, make) if among is None else among.made(make)
    detector.reload_profile(registry.profile_of(model))
    detector.incidents.losses, detector.incidents.origins = losses, origins
    more |= _slot_parts_of(settings, store, registry, detector, among)
    spool, alerts = _spool_of(settings, store, among), _alerts_of(settings, manager, among)  # it says who holds it
    more |= _drilling(_drill_of(settings, targets, registry, store, alerts.send)) if relay is None else {"drill": relay}
    return JudgeParts(
        detector=detector,
        registry=registry,
        store=store,
        spool=spool,
        manager=manager,
        alerts=alerts,
        exports=_exports_of(settings, among),
        hunt=hunt_sink_of(settings, among),
        enforcer=enforcer_of(settings, store, alerts.send),
        state_dir=folder,
        privacy=detector.privacy,
        renamed=renamed,
        trial=_trial_of(settings, registry, watched, secret, among) if watched is not None else None,
        sequences=sequences_of(settings, store, watched, cycles, alerts.send) if watched is not None else None,
        mismatched=mismatched,
        note=note if among is None or not among.judges else among.exchange.notes[among.name],
        in_force=noted_settings(settings),
        hours=_hours_of(settings, store, watched, folder, among) if watched is not None else None,
        **_known_parts(settings) | more,
    )


def _known_parts(settings: Settings) -> dict[str, Any]:
    """What a Judge has of the operator's known services."""
    entries, path = partial(known_entries, settings), known_path(settings)
    return {"known_entries": entries, "known_path": path, "own_zones": own_zones_of(settings)}


def _drilling(drill: Drill) -> dict[str, Any]:
    return {"drill": drill, "drilled": drill.give}


def _alone(settings: Settings, make: Maker) -> MadeDetector:
    """The one detector of all clients."""
    detector = make(TunnelDetector)
    return MadeDetector(detector, restored_of(settings, detector), detector)


def _cycles_in(settings: Settings, among: Among | None) -> Path:
    """Where sequence cycles are asked for; of several detectors the first one collects, of its own clients."""
    return settings.state_dir if among is None or among.name == among.exchange.names[0] else among.folder


def _trial_of(
    settings: Settings, registry: ModelRegistry[Model], detector: TunnelDetector, key: Key, among: Among | None
) -> CanaryTrial:
    path = canary_path(settings) if among is None else among.folder / CANARY_FILE
    second = partial(_second_of, settings, key, TunnelDetector if among is None else among.candidate)
    return CanaryTrial(registry, detector, second, path)


def _spool_of(settings: Settings, store: Store, among: Among | None) -> SpoolingSink:
    folder, most = settings.spool_folder, settings.spool_max_mb << 20
    if among is not None:
        folder, most = folder / among.name, most // among.processes
    parts = None if among is None else among.fenced
    return SpoolingSink(store, folder, most, features=features_again_of(settings), parts=parts)


def _exports_of(settings: Settings, among: Among | None) -> ExportSink:
    folder = _beside(settings, among, exports_of)
    return ExportSink(outputs_of(settings), folder, settings.public_url, Severity[settings.export_severity])


def _beside(settings: Settings, among: Among | None, usual: Callable[[Settings], Path]) -> Path:
    """A folder that each process has for itself. usual: that of one process alone."""
    return usual(settings) if among is None else among.folder / usual(settings).name


def _alerts_of(settings: Settings, manager: AlertManager, among: Among | None) -> AlertSink:
    most = settings.alerts_per_hour_max // (1 if among is None else among.processes)
    pace_s = 0.0 if handed_over(settings) else PACE_S
    return AlertSink(
        manager,
        Outbox(_beside(settings, among, outbox_of)),
        Groups(settings.alert_interval_s, max(most, 1)),
        pace_s=pace_s,
    )


def _hours_of(
    settings: Settings, store: Store, detector: TunnelDetector, folder: Path, among: Among | None
) -> HourCollector:
    mine = (lambda client, domain: True) if among is None else among.owns_flow
    return HourCollector(
        detector,
        FlowHourStore(store),
        folder / HOUR_FILE,
        partial(_after_hour, settings, store, detector, mine),
        learner_of(settings, store).usable_model,
        HOUR_ROWS_MAX // (1 if among is None else among.detectors),
    )


def _slot_parts_of(
    settings: Settings, store: Store, registry: ModelRegistry[Model], detector: LiveDetector, among: Among | None
) -> dict[str, Any]:
    """What a Judge has beside its collaborators where clients come and go."""
    if among is None:
        return {}
    then, second = partial(_after_hour, settings, store, detector), partial(_second_of, settings, among.key)
    model = learner_of(settings, store).usable_model
    return among.hours_of(detector, FlowHourStore(store), then, model) | among.trial_of(detector, registry, second)


def canary_path(settings: Settings) -> Path:
    """Where what was seen of a canary is written; of several detectors, each has a file of this name."""
    return settings.state_dir / CANARY_FILE


def _second_of(settings: Settings, key: Key, kind: Callable[..., TunnelDetector], model: Model) -> TunnelDetector:
    """A detector beside the one in use, for a canary."""
    detector = _made(settings, kind, model, key, tripwires_of(settings), settings.burn_in_days, None)
    detector.reload_profile(registry_of(settings).profile_of(model))
    return detector


DRILL_FLOWS = 64
"""Flows of a drill's detector."""


def _drill_of(
    settings: Settings,
    targets: DrillTargets | None,
    registry: ModelRegistry[Model],
    store: Store,
    tell: Callable[[Message], None],
) -> Drill:
    """Drills, each with a detector of the model in use, and of nothing else of this network."""

    def make() -> TunnelDetector:
        model, quiet_s = registry.current(), settings.incident_quiet_s
        return TunnelDetector(model, DRILL_FLOWS, quiet_s, scale_of(settings), KnownServices(), (0, 0))

    options = drill_options.SPEC.factory(settings.of(drill_options.SPEC))
    forget = partial(forget_marked, store, DRILL_MARK)
    return Drill(options, targets or DrillTargets(), settings.state_dir, make, forget, tell)


TUNNELS_MAX = 10_000
"""Decisions of people that are looked through for tunnels, the newest."""


def block_keeper_of(settings: Settings, store: Store) -> BlockKeeper:
    """What makes and ends blocks. store: knows what is popular here."""
    own = [DRILL_ZONE, *own_zones_of(settings), *(zone for zone, _ in parsed_upstreams(settings) if zone)]
    options = enforce_options_of(settings)
    never = NeverBlock(
        own=own,
        never=options.never,
        known=partial(_known_suffixes, settings),
        clients_since=BlockStore(store).clients_since,
        popular=options.popular,
    )
    return BlockKeeper(settings.state_dir, options, never)


def enforcer_of(settings: Settings, store: Store, tell: Callable[[Message], None]) -> Enforcer:
    """What blocks tunnels without a person, where ENFORCE says so."""

    def confirmed() -> frozenset[str]:
        decisions = ReviewStore(store).decisions(standing=True, limit=TUNNELS_MAX)
        return frozenset(one.domain for one in decisions if one.label is Label.TUNNEL)

    return Enforcer(block_keeper_of(settings, store), tell, confirmed, BlockStore(store).write)


def _known_suffixes(settings: Settings) -> list[Labels]:
    """Of all clients: an entry that is for some of them keeps nobody else from being blocked."""
    now = time.time()
    entries = [entry for entry in known_entries(settings) if entry.holds(now) and not entry.client]
    return [*services(), *(entry.labels for entry in entries)]


def sequences_of(
    settings: Settings, store: Store, detector: TunnelDetector, folder: Path, tell: Callable[[Message], None]
) -> Sequences:
    """The sequence model beside a detector: learnt in cycles, and watching where the settings say so.

    folder: where cycles are asked for. tell: sends what came of one.
    """
    models, tries = sequence_models_of(settings), folder == settings.state_dir  # of several detectors the first one
    bounds, compare = _sequence_bounds(settings), _ComparedElsewhere(settings.model_dump())
    learn = partial(learn_sequences_spawned, _deep(settings), bounds, compare)
    parts = CycleParts(models, learn, tell=tell, doubts=partial(flows_in_doubt, store), needed=bounds.windows_min)
    cycle = SequenceCycle(folder, parts)
    if not beside.SPEC.factory(settings.of(beside.SPEC)):
        return Sequences(cycle, trial=SequenceTrial(models, None, bounds) if tries else None)
    budget, in_use = settings.alert_budget_per_week, Reread(models.path, lambda path: models.current())

    def report(found: Iterable[Suspect]) -> None:
        try:
            detector.appraise({}, within_budget(store, found, budget, time.time()))
        except StoreError as error:
            _log.warning("sequences_not_listed", error=str(error))

    trial = SequenceTrial(models, report, bounds) if tries else None
    return Sequences(cycle, SequenceWatch(in_use.value, report, bounds), trial)


def cycle_requests_of(settings: Settings, note: SharedNote | None = None) -> CycleRequests:
    """Where people ask what judges here for cycles. note: the detector's heartbeat in memory."""

    def unable() -> str:
        if bus_options.SPEC.factory(settings.of(bus_options.SPEC)).servers:
            return "queries go to a bus here (STREAM), where no cycle collects; learn cycle --from-store needs none"
        if not detector_health(settings.state_dir, note)[0]:
            return "nothing that judges runs here; learn cycle --from-store needs none"
        return ""

    return CycleRequests(settings.state_dir, sequence_models_of(settings), unable)


def sequence_models_of(settings: Settings) -> SequenceModels:
    """The folder of sequence models."""
    terms = asdict(canary_terms_of(settings)) if settings.deploy == "canary" else None
    folder, release = settings.models_dir / "sequences", release_terms_of(settings)
    return SequenceModels(folder, settings.backup_days, terms, release, cycle_reports_of(settings))


def cycle_reports_of(settings: Settings) -> Report:
    """What writes reports of cycles, beside those of retrainings."""

    def write(cycle: LearntCycle, kept: Collection[str]) -> None:
        from agents.learning.cycle_report import CycleReports  # here: its templates cost a listener's start a tenth

        CycleReports(settings.reports_dir)(cycle, kept)

    return write


def release_terms_of(settings: Settings) -> ReleaseTerms:
    """What follows when a model that cycles learn has passed its gates; one change log has all kinds."""
    return ReleaseTerms(settings.deploy, settings.approvals, settings.models_dir / "CHANGELOG.md")


def canary_terms_of(settings: Settings) -> CanaryTerms:
    """The terms of canaries that begin from now on."""
    return release_canary.SPEC.factory(settings.of(release_canary.SPEC))


def compared_sequences(settings: Settings, candidate: SequenceModel, windows: Windows) -> SequenceComparison:
    """A candidate beside the sequence model in use and the anchor, with a store of its own. Raises StoreError."""
    models = sequence_models_of(settings)
    with closing(store_of(settings)) as store:
        listing = sequence_listing_of(settings, store)
        return listing(candidate, windows, models.current(), models.anchor.model(), time.time())


@dataclass(frozen=True, slots=True)
class _ComparedElsewhere:
    """`compared_sequences` in another process: each makes the class of its settings itself, so values travel alone."""

    values: Mapping[str, Any]

    def __call__(self, candidate: SequenceModel, windows: Windows) -> SequenceComparison:
        return compared_sequences(load_settings(**self.values), candidate, windows)


def sequence_listing_of(settings: Settings, store: Store) -> SequenceListing:
    """What compares sequence models on the network's own last week; on nothing, where names are not stored."""
    bounds, listed = bounds_of(settings), _sequence_bounds(settings)
    bounds = bounds if privacy_of(settings).keeps_names else replace(bounds, replayed_max=0)
    return SequenceListing(store, lambda: detector_of(settings, registry_of(settings).current()), bounds, listed)


def bounds_of(settings: Settings) -> GateBounds:
    """How much worse than the model in use a candidate may be."""
    return comparison_bounds.SPEC.factory(settings.of(comparison_bounds.SPEC), settings.alert_budget_per_week)


def learn_stored_sequences(settings: Settings, store: Store, length: int, epochs: int, days: float) -> LearntSequences:
    """A sequence model of the last days' stored queries, trained in this process. Raises AgentsError."""
    now, numbers = time.time(), dict[str, int]()
    traffic = stored_traffic(store, now - days * DAY_S, now, HEARD_MAX)
    detector = detector_of(settings, registry_of(settings).current())
    judged = verdicts_of(detector, traffic.batches(), explain=False, flush=False)
    heard = [heard_part(verdicts, numbers, (0, 0)) for verdicts in judged]
    bounds, compare = _sequence_bounds(settings), partial(compared_sequences, settings)
    doubts, in_use = partial(flows_in_doubt, store), sequence_models_of(settings).current()
    windows = learnable_windows(HeardSteps(heard, numbers, (0, 0)), length, doubts, bounds.windows_min)
    return learn_sequences(windows, epochs, _deep(settings), in_use, bounds=bounds, compare=compare)


def _sequence_bounds(settings: Settings) -> SequenceBounds:
    return sequence_bounds.SPEC.factory(settings.of(sequence_bounds.SPEC))


def _deep(settings: Settings) -> dict[str, Any]:
    """How networks are trained."""
    fields = {one.name for one in DEEP_FIELDS}
    return {name: value for name, value in settings.of(efficient_ad.SPEC).items() if name in fields}


def _after_hour(
    settings: Settings, store: Store, detector: LiveDetector, mine: Callable[[str, str], bool], hour: int
) -> None:
    """What follows when an hour's flow-hours are written: labels, what looks like a tunnel, then the review queue.

    Raises StoreError.
    """
    Labeller(store, scale_of(settings))(hour)
    images, now = images_of_hour(store, image_learner_of(settings, store).model(), hour), time.time()
    learner, limits = learner_of(settings, store), review.SPEC.factory(settings.of(review.SPEC))
    model, options = learner.usable_model(), learner.options
    budget = settings.alert_budget_per_week
    if model is None:
        Reviewer(store, limits, rarity=images.of_rows)(hour)
        found = images.suspects(hour, now)
    else:
        # What people are to be asked about comes first: nobody learns from it meanwhile.
        unsure = (options.benign_to, options.tunnel_from)
        Reviewer(store, limits, unsure, model.probabilities, images.of_rows)(hour)
        label_by_probability(store, model, options, hour, now)
        likely = suspects_of(store, model, options.tunnel_from, budget, hour, now)
        found = [*likely, *images.suspects(hour, now)]
    # One budget for all that is learnt, as if this process were alone: what others list is not listed twice.
    listed = within_budget(store, found, budget, now)
    detector.appraise({}, [one for one in listed if mine(*one[1:3])], images.by_key())


def image_learner_of(settings: Settings, store: Store) -> ImageLearner:
    """What learns images of flows, and its model; nothing where FLOW_IMAGES is off."""
    kind = image_model.SPEC.factory(settings.of(image_model.SPEC))
    spec = image_model.IMAGE_TYPES.get(kind)
    train = partial(fit_images_spawned, settings.of(spec) if spec is not None else {})
    folder, days, bounds = settings.models_dir / "images", settings.backup_days, bounds_of(settings)
    terms = release_terms_of(settings)
    tell, report = broadcaster_of(settings), cycle_reports_of(settings)
    return ImageLearner(store, folder, kind, train, bounds, days=days, tell=tell, terms=terms, report=report)


def learner_of(settings: Settings, store: Store) -> OnlineLearner:
    """The online learner of flow-hours."""
    options = learner_options.SPEC.factory(settings.of(learner_options.SPEC))
    folder, days, bounds = settings.models_dir / FLOW_MODELS, settings.backup_days, bounds_of(settings)
    terms, tell, report = release_terms_of(settings), broadcaster_of(settings), cycle_reports_of(settings)
    return OnlineLearner(store, folder, options, tell=tell, days=days, bounds=bounds, terms=terms, report=report)


def services_of(settings: Settings) -> KnownServices:
    """The shipped known services with the operator's own, those that hold today. Raises SettingsError."""
    return services_at(known_entries(settings), time.time(), own_zones_of(settings))


def own_zones_of(settings: Settings) -> list[str]:
    """OWN_ZONES, and zones that UPSTREAMS sends to private addresses alone. Raises SettingsError."""
    try:
        named = [own_zone(one) for one in settings.own_zones.split(",") if one.strip()]
    except ValueError as error:
        raise SettingsError(f"cannot use setting OWN_ZONES={settings.own_zones}: {error}") from None
    inside = [zone for zone, upstreams in parsed_upstreams(settings) if zone and all(map(_is_private, upstreams))]
    return list(dict.fromkeys([*named, *inside]))


def _is_private(upstream: UpstreamAddress) -> bool:
    """Whether a server lies in this network. One on this machine may lead anywhere."""
    address = ipaddress.ip_address(upstream.host) if upstream.has_address else None
    return address is not None and address.is_private and not address.is_loopback


def detector_of(
    settings: Settings,
    model: Model,
    key: Key = (0, 0),
    tripwires: Tripwires | None = None,
    burn_in_days: float = 0,
    kept: Privacy | None = None,
) -> TunnelDetector:
    """A detector that has seen nothing yet. key: of its hashes; a secret one where strangers choose the names.

    tripwires: for traffic of this network. burn_in_days: a network that is watched has habits to be learnt; what is
    replayed has none. kept: of clients and names, where neither has been withheld before.
    """
    return _made(settings, TunnelDetector, model, key, tripwires, burn_in_days, kept)


def _made(settings: Settings, kind: Callable[..., D], model: Model, key: Key, *args: Any) -> D:
    """A detector of a kind. args: tripwires, burn_in_days and kept, as of detector_of."""
    quiet_s, scale, services = settings.incident_quiet_s, scale_of(settings), services_of(settings)
    return kind(model, settings.flows_max, quiet_s, scale, services, key, *args)


def privacy_of(settings: Settings, reads_only: bool = False) -> Privacy:
    """What clients are called, and which names are kept. reads_only: see PrivacyKey."""
    options = privacy.SPEC.factory(settings.of(privacy.SPEC))
    if options.mode == "off":
        return Privacy(None, options.names)
    key = PrivacyKey(settings.state_dir / "privacy_key.json", options.rotate_days, reads_only=reads_only)
    return Privacy(ClientVeil(options.mode, key), options.names)


def _drop_other_names(settings: Settings) -> bool:
    """Saved state that knows clients by other names than those of PRIVACY is of no use, and may hold addresses.

    Returns whether there may be any. Raises AgentsError where a key of pseudonyms cannot be read.
    """
    if (veil := privacy_of(settings).veil) is not None:
        veil.names([""])
    mode, note = settings.of(privacy.SPEC)["privacy"], settings.state_dir / "privacy"
    if (note.read_text("utf-8") if note.exists() else "off") == mode:
        return False
    for name in (*FILES, HOUR_FILE):
        (settings.state_dir / name).unlink(missing_ok=True)
    make_private_folder(settings.state_dir)
    write_atomic(note, mode.encode(), mode=PRIVATE_MODE)
    _log.warning("saved_state_dropped", why=f"clients have other names: PRIVACY is {mode}")
    return True


def features_again_of(settings: Settings) -> Features | None:
    """How the spool computes features again; None where it does not keep the names that they are made of."""
    return FEATURES_AGAIN if privacy_of(settings).keeps_names else None


def tripwires_of(settings: Settings) -> Tripwires:
    """Honeytokens, and strict groups. Raises SettingsError."""
    return Tripwires(honeytokens_path(settings), strict_groups_of(settings))


def honeytokens_path(settings: Settings) -> Path:
    """Where the hashes of honeytokens are kept."""
    return settings.state_dir / "honeytokens.json"


def known_path(settings: Settings) -> Path:
    """The operator's own list of known services."""
    return settings.allowlist or settings.state_dir / "known_services.csv"


def known_desk_of(settings: Settings, store: Store) -> KnownDesk:
    """Where people keep known services."""
    return KnownDesk(known_path(settings), partial(scale_of, settings), store)


def known_entries(settings: Settings) -> list[Entry]:
    """The operator's own known services. Raises SettingsError where they cannot be read, or a file is named in vain."""
    if settings.allowlist and not settings.allowlist.exists():
        raise SettingsError(f"cannot use setting ALLOWLIST={settings.allowlist}: no such file")
    return load_entries(known_path(settings))
