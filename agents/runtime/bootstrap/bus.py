"""From settings to a bus: what sends queries to it, and detectors that judge slots of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from agents.core.column_kernels import Key
from agents.core.errors import SettingsError
from agents.core.files import PRIVATE_MODE, make_private_folder
from agents.core.npz import FormatError
from agents.core.protocols import library
from agents.core.text import NETWORK
from agents.core.types import Incident, Verdicts
from agents.detection import privacy
from agents.detection.detector import TunnelDetector, empty_verdicts
from agents.detection.known_services import load_entries
from agents.detection.shared.part import TrialPartDetector
from agents.detection.shared.roles import LiveDetector
from agents.detection.shared.slotted import SlottedDetector
from agents.detection.shared.together import TogetherDetector
from agents.detection.tripwires.honeytokens import load_honeytokens
from agents.learning.loop.flow_model import FlowModel
from agents.learning.registry import ModelRegistry
from agents.learning.release.learnt_registry import CURRENT_FILE
from agents.runtime.bootstrap.among import Among, MadeDetector, Maker
from agents.runtime.bootstrap.environment import FLOW_MODELS, noted_settings
from agents.runtime.bootstrap.judging import canary_path, honeytokens_path, known_path
from agents.runtime.bootstrap.models import model_type_of, registry_of
from agents.runtime.bus.canary_sharing import CanarySender, CanaryTaker, key_of_counts
from agents.runtime.bus.file_sharing import FileSender, FileTaker, SharedFile
from agents.runtime.bus.model_sharing import ModelSender, ModelTaker
from agents.runtime.bus.network_mirror import Detecting
from agents.runtime.bus.publisher_process import Publishing
from agents.runtime.bus.slot_canary import SlotCanaries
from agents.runtime.bus.slot_hours import SlotHours
from agents.runtime.bus.worker_process import Tokens, Working
from agents.runtime.drill.relay import DrillRelay
from agents.runtime.judging.judge import Judge, JudgeParts
from agents.runtime.several.exchange import DetectorExchange
from agents.runtime.several.network_process import NETWORK_PROCESS
from agents.scoring.model import Model
from agents.settings import Settings
from agents.store.feedback.flow_hours import FlowHourStore
from agents.stream.answer_key import packed_key
from agents.stream.bus import options as bus_options
from agents.stream.bus.jetstream import ANSWERS_KEY
from agents.stream.bus.link import SAY, BusLink
from agents.stream.bus.options import BusOptions, seed_of
from agents.stream.record import ANSWER_KEY
from agents.stream.slots import slot_of_client

KEY = "key"
"""Key of the bucket with that of all hashes."""
KEYS_FACTOR = 2
"""A slot may watch so many times its equal share of FLOWS_MAX: clients are not spread evenly."""
KEYS_MIN = 4096


def bus_options_of(settings: Settings) -> BusOptions:
    """The settings STREAM_…. Raises SettingsError for those that do not go together, or need what is not installed."""
    found = bus_options.SPEC.factory(settings.of(bus_options.SPEC))
    if not found.servers:
        return found
    library("nats", "nats", "setting STREAM")
    if found.creds:
        _check_credentials(Path(found.creds))
    if settings.of(privacy.SPEC)["privacy"] != "off":
        raise SettingsError("cannot use setting STREAM: it needs PRIVACY=off, since a client's address says its slot")
    if found.keep_hours * 3600 < 2 * found.snapshot_s:
        raise SettingsError("cannot use setting STREAM_KEEP_HOURS: it must be twice STREAM_SNAPSHOT_S at least")
    try:
        found.connecting  # noqa: B018
    except OSError as error:
        raise SettingsError(f"cannot use setting STREAM_CA: {error}") from None
    return found


def _check_credentials(path: Path) -> None:
    """Raise SettingsError for a file that the client would stumble over: it reads a damaged one without an end."""
    nkeys = library("nkeys", "nats", "setting STREAM_CREDS")
    try:
        nkeys.from_seed(bytearray(seed_of(path))).wipe()
    except OSError as error:
        raise SettingsError(f"cannot use setting STREAM_CREDS: {error.strerror}") from None
    except (FormatError, ValueError, nkeys.NkeysError):
        raise SettingsError(
            "cannot use setting STREAM_CREDS: the file is neither .creds of a user nor the seed of one (SU…)"
        ) from None


def publishing_of(settings: Settings) -> Publishing | None:
    """What sends queries to a bus, where one is set."""
    options = bus_options_of(settings)
    if not options.servers:
        return None
    folder = settings.state_dir / "stream_spool"
    return Publishing(options, folder, settings.state_dir, noted_settings(settings))


@dataclass(frozen=True)
class OnBus(Among):
    """One process of a host whose detectors judge slots of a bus. common: key of all hashes on all hosts."""

    link: BusLink
    tokens: Tokens
    common: Key

    @property
    def key(self) -> Key:
        """Of all hashes of all hosts."""
        return self.common

    @property
    def folder(self) -> Path:
        """Where its queues lie: state is on the bus."""
        return self.state_dir / f"bus-{self.name}" if self.judges else self.state_dir

    def slot_of(self, client: str) -> int:
        """The slot of a client."""
        return slot_of_client(client) % self.link.options.slots

    def _part(self, make: Maker) -> MadeDetector:
        """Sequences are collected where one detector has all clients."""

        def of_slots(model: Any, keys_max: int, *args: Any) -> SlottedDetector:
            """keys_max: of all hosts."""
            return SlottedDetector(self.slot_of, self.exchange.views(), model, self._slot_keys(keys_max), *args)

        make_private_folder(self.folder)
        detector = make(of_slots)
        parts = {"restore": lambda: None, "owns": lambda incident: False, "slots": detector}
        return MadeDetector(detector, parts, relay=DrillRelay(self.state_dir))

    def _slot_keys(self, keys_max: int) -> int:
        """Flows that one slot may watch. keys_max: of all hosts."""
        return max(-(-keys_max * KEYS_FACTOR // self.link.options.slots), min(KEYS_MIN, keys_max))

    def trial_of(
        self,
        detector: LiveDetector,
        registry: ModelRegistry[Model],
        made: Callable[[Callable[..., TunnelDetector], Model], TunnelDetector],
    ) -> dict[str, Any]:
        """What runs canaries in its slots."""
        if not isinstance(detector, SlottedDetector):
            return {}
        views = self.exchange.views()

        def beside(slot: int, model: Model) -> TunnelDetector:
            def of_slot(model: Any, keys_max: int, *args: Any) -> TrialPartDetector:
                return TrialPartDetector(model, self._slot_keys(keys_max), *args, view=views(slot))

            return made(of_slot, model)

        def put(slot: int, token: int, data: bytes) -> Future[bool]:
            return self.link.put_newest(key_of_counts(slot), token, data)

        return {"slot_trial": SlotCanaries(registry, detector, beside, put)}

    def hours_of(
        self,
        detector: LiveDetector,
        store: FlowHourStore,
        then: Callable[[Callable[[str, str], bool], int], None],
        model: Callable[[], FlowModel | None],
    ) -> dict[str, Any]:
        """What keeps the flow-hours of its slots."""
        if not isinstance(detector, SlottedDetector):
            return {}

        def holds(client: str, domain: str) -> bool:
            return str(self.slot_of(client)) in self.tokens.of

        return {"slot_hours": SlotHours(detector, store, self.link.options.slots, partial(then, holds), model)}

    def _counter(self, make: Maker) -> MadeDetector:
        detector = make(partial(TogetherDetector, tables=self.exchange.tables))
        parts = {
            "restore": lambda: None,
            "owns": lambda incident: incident.client == NETWORK,
            "writes": lambda: NETWORK_PROCESS in self.tokens.of,
            "counter": detector,
        }
        return MadeDetector(detector, parts)

    def fenced(self, verdicts: Verdicts) -> Iterable[Verdicts]:
        """Verdicts with their slot's token; of slots that are left nothing is written."""
        slots: dict[str, list[Incident]] = {}
        if len(verdicts):
            slots[str(self.slot_of(verdicts.queries.client[0]))] = []
        for one in verdicts.incidents:
            slot = NETWORK_PROCESS if one.client == NETWORK else str(self.slot_of(one.client))
            slots.setdefault(slot, []).append(one)
        for at, (slot, incidents) in enumerate(slots.items()):
            if (token := self.tokens.of.get(slot)) is not None:
                part = verdicts if at == 0 else empty_verdicts(verdicts.model_id, ())
                yield replace(part, incidents=tuple(incidents), fence=(slot, token))


def working_of(settings: Settings, exchange: DetectorExchange, make: Callable[..., JudgeParts]) -> Working:
    """How detectors of a host judge slots of the bus. make: judge_parts without `among`. Raises SettingsError."""
    options = bus_options_of(settings)
    if not options.servers:
        raise SettingsError("cannot detect: setting STREAM names no server")

    def connect(name: str) -> BusLink:
        return BusLink(options, name)

    def parts(name: str, link: BusLink, tokens: Tokens) -> JudgeParts:
        made = json.dumps([secrets.randbits(64), secrets.randbits(64)]).encode()
        first, second = json.loads(link.shared(KEY, made))
        link.shared(ANSWERS_KEY, packed_key(ANSWER_KEY))  # sites cannot make it
        return make(among=OnBus(exchange, name, settings.state_dir, link, tokens, (first, second)))

    def say(link: BusLink, judge: Judge, slot: int, number: int) -> None:
        said = judge.slots.report_of_slot(slot, number)
        if said is not None:
            link.send(str(slot), SAY, said.packed(), f"{slot}-{number}")

    return Working(connect, parts, say)


def detecting_of(settings: Settings, make: Callable[..., JudgeParts]) -> Detecting:
    """The detectors of a host on a bus. Raises SettingsError."""
    exchange = DetectorExchange(settings.detector_processes, (0, 0))
    working = working_of(settings, exchange, make)

    load = model_type_of(settings).load

    def taker(told: Callable[[], Mapping[str, Any]]) -> ModelTaker:
        connect = partial(working.connect, "models")
        name = bus_options_of(settings).name
        return ModelTaker(connect, registry_of(settings), load, name, settings.state_dir, told)

    def file_taker() -> FileTaker:
        return FileTaker(partial(working.connect, "files"), taken_files(settings), settings.state_dir)

    def canary_taker() -> CanaryTaker:
        return CanaryTaker(partial(working.connect, "canary"), registry_of(settings), load, settings.state_dir)

    return Detecting(exchange, working, taker, file_taker, canary_taker)


def shared_files(settings: Settings) -> list[SharedFile]:
    """What people and learning change where `schedule` runs, and hosts that judge read."""

    def usable(path: Path) -> object:
        """Whoever reads it leaves out what it cannot use."""
        return path

    flow, images = settings.models_dir / FLOW_MODELS, settings.models_dir / "images"
    return [
        SharedFile("known-services", known_path(settings), load_entries),
        SharedFile("honeytokens", honeytokens_path(settings), load_honeytokens, PRIVATE_MODE),
        SharedFile("flow-model", flow / CURRENT_FILE, usable),
        SharedFile("image-model", images / CURRENT_FILE, usable),
    ]


def taken_files(settings: Settings) -> list[SharedFile]:
    """A list that a setting names is that host's own."""
    return [one for one in shared_files(settings) if not (settings.allowlist and one.path == settings.allowlist)]


def file_sender_of(settings: Settings) -> FileSender | None:
    """What sends files that are changed here to hosts that judge, where a bus is set. Raises SettingsError."""
    options = bus_options_of(settings)
    if not options.servers:
        return None
    return FileSender(partial(BusLink, options, "files"), shared_files(settings), options.name)


def model_sender_of(settings: Settings) -> ModelSender | None:
    """What sends models that are deployed here to hosts that judge, where a bus is set. Raises SettingsError."""
    options = bus_options_of(settings)
    if not options.servers:
        return None
    connect = partial(BusLink, options, "models")
    return ModelSender(connect, registry_of(settings), options.name, settings.state_dir)


def canary_sender_of(settings: Settings) -> CanarySender | None:
    """What sends canaries that begin here to hosts that judge, where a bus is set. Raises SettingsError."""
    options = bus_options_of(settings)
    if not options.servers:
        return None
    connect = partial(BusLink, options, "canary")
    return CanarySender(connect, registry_of(settings), options.name, canary_path(settings))
