"""From settings to several detectors: which of their processes this one is, and what state it goes on from."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog

from agents.core.column_kernels import Key
from agents.core.errors import SettingsError
from agents.core.files import locked, make_private_folder
from agents.core.npz import FormatError
from agents.core.text import NETWORK
from agents.core.types import Incident, Verdicts
from agents.detection import privacy, snapshot
from agents.detection.detector import HABITS_FILE, NETWORK_FILE, PEAKS_FILE, WINDOWS_FILE, TunnelDetector
from agents.detection.limits import SCATTERED
from agents.detection.shared.part import PartDetector, TrialPartDetector
from agents.detection.shared.parted import is_over_domains
from agents.detection.shared.roles import LiveDetector
from agents.detection.shared.together import PARTED_FILE, TogetherDetector
from agents.dns.name import from_text
from agents.learning.loop.flow_model import FlowModel
from agents.learning.registry import ModelRegistry
from agents.runtime.drill.relay import DrillRelay
from agents.runtime.several.exchange import DetectorExchange, Several
from agents.runtime.several.network_process import NETWORK_PROCESS
from agents.scoring.model import Model
from agents.settings import Settings
from agents.store.feedback.flow_hours import FlowHourStore
from agents.stream.bus import options as bus_options
from agents.stream.slots import SLOTS, PartedClients, detector_for, slot_of_client

_FOLDER = re.compile(r"detector-([1-9][0-9]?)-of-([1-9][0-9]?)", re.ASCII)
_log = structlog.get_logger()


class Saved(NamedTuple):
    """One file that a detector saved, and the slots whose newest state it has."""

    name: str
    path: Path
    slots: frozenset[int]


def _folders(state_dir: Path) -> Iterator[tuple[Path, int, int]]:
    """Folders with state of detectors: its number from 0 on, of how many. One detector for all has `state_dir`."""
    yield state_dir, 0, 1
    for folder in state_dir.glob("detector-*-of-*"):
        if found := _FOLDER.fullmatch(folder.name):
            yield folder, int(found[1]) - 1, int(found[2])


def saved_by_slot(state_dir: Path, name: str, slots: frozenset[int]) -> list[Saved]:
    """Where the newest state of these slots lies, whatever number of detectors wrote it."""
    newest: dict[int, tuple[float, Path]] = {}
    for folder, number, detectors in _folders(state_dir):
        try:
            at = (folder / name).stat().st_mtime
        except OSError:
            continue
        for slot in slots:
            if slot % detectors == number and at > newest.get(slot, (0.0, folder))[0]:
                newest[slot] = at, folder / name
    files = {path for _, path in newest.values()}
    return [Saved(name, path, frozenset(s for s in newest if newest[s][1] == path)) for path in sorted(files)]


D = TypeVar("D")


class Maker(Protocol):
    """Makes a detector of a kind with what settings say. kind: its constructor."""

    def __call__(self, kind: Callable[..., D]) -> D: ...


class MadeDetector(NamedTuple):
    """A detector, and what its Judge has beside the collaborators of any.

    watched: the same, where hours and sequences are collected of it. relay: in the place of a Drill.
    """

    detector: LiveDetector
    parts: dict[str, Any]
    watched: TunnelDetector | None = None
    relay: DrillRelay | None = None


@dataclass(frozen=True)
class Among:
    """One process of several. number: of a detector from 0 on; the process `network` has none."""

    exchange: DetectorExchange
    name: str
    state_dir: Path

    @property
    def judges(self) -> bool:
        """Whether it is a detector."""
        return self.name != NETWORK_PROCESS

    def fenced(self, verdicts: Verdicts) -> Iterable[Verdicts]:
        """Verdicts as they are stored."""
        return (verdicts,)

    @property
    def detectors(self) -> int:
        """How many there are."""
        return len(self.exchange.names)

    @property
    def processes(self) -> int:
        """Detectors, and the process beside them."""
        return self.detectors + 1

    @property
    def key(self) -> Key:
        """Of all hashes."""
        return self.exchange.key

    @property
    def folder(self) -> Path:
        """Where its state lies."""
        return self.state_dir / f"{self.name}-of-{self.detectors}" if self.judges else self.state_dir

    @property
    def number(self) -> int:
        """Of a detector, from 0 on."""
        return self.exchange.names.index(self.name)

    def made(self, make: Maker) -> MadeDetector:
        """What judges in this process, and what its Judge has beside the collaborators of any."""
        return self._part(make) if self.judges else self._counter(make)

    def hours_of(
        self,
        detector: LiveDetector,
        store: FlowHourStore,
        then: Callable[[Callable[[str, str], bool], int], None],
        model: Callable[[], FlowModel | None],
    ) -> dict[str, Any]:
        """What its Judge keeps flow-hours by, where clients come and go. then: gets whose flows this process has."""
        return {}

    def trial_of(
        self,
        detector: LiveDetector,
        registry: ModelRegistry[Model],
        made: Callable[[Callable[..., TunnelDetector], Model], TunnelDetector],
    ) -> dict[str, Any]:
        """What its Judge runs canaries by, where clients come and go. made: a detector of a kind, with a candidate."""
        return {}

    def candidate(self, model: Any, keys_max: int, *args: Any) -> TrialPartDetector:
        """A detector beside this one, for a canary. keys_max: of all detectors."""
        mine = -(-keys_max // self.detectors)
        return TrialPartDetector(model, mine, *args, view=self.exchange.view(self.name))

    def _part(self, make: Maker) -> MadeDetector:
        def of_some(model: Any, keys_max: int, *args: Any) -> PartDetector:
            """keys_max: of all detectors."""
            return PartDetector(model, -(-keys_max // self.detectors), *args, view=self.exchange.view(self.name))

        make_private_folder(self.folder)
        detector, relay = make(of_some), DrillRelay(self.state_dir)
        parts = {
            "restore": partial(self._restore, detector),
            "owns": self._owns,
            "send_report": partial(self.exchange.send_report, detector, relay, self.name),
            "saved": partial(drop_outdated, self.state_dir),
        }
        return MadeDetector(detector, parts, detector, relay)

    def _counter(self, make: Maker) -> MadeDetector:
        parted = self.exchange.parted
        is_parted = parted.has if parted else None
        detector = make(partial(TogetherDetector, tables=self.exchange.tables, is_parted=is_parted))
        others = [self.state_dir / f"{name}-of-{self.detectors}" for name in self.exchange.names]
        parts = {
            "restore": partial(self._restore_network, detector),
            "owns": self.counts,
            "erase_to": others,
            "saved": self._drop_outdated,
            "counter": detector,
        }
        return MadeDetector(detector, parts)

    def _drop_outdated(self) -> None:
        drop_outdated(self.state_dir)
        if not self.exchange.parted:  # nobody counts by these sums, nor has what people erase taken out of them
            (self.state_dir / PARTED_FILE).unlink(missing_ok=True)

    def _owns(self, incident: Incident) -> bool:
        return not self.counts(incident) and self.owns_flow(incident.client, incident.domain)

    def counts(self, incident: Incident) -> bool:
        """Whether the process `network` goes on with an open incident."""
        return incident.client == NETWORK or (self.exchange.parted.has(incident.client) and is_over_domains(incident))

    def owns_flow(self, client: str, domain: str) -> bool:
        """Whether this detector judges a client's queries below a domain."""
        if not self.exchange.parted.has(client):
            return self.owns_client(client)
        return domain != SCATTERED and _slot_below(self.exchange.parted, client, domain) in self._slots

    def owns_client(self, client: str) -> bool:
        """Whether this detector judges a client, or some of its queries where several detectors do."""
        return self.exchange.parted.has(client) or detector_for(client, self.detectors) == self.number

    @property
    def _slots(self) -> frozenset[int]:
        return frozenset(slot for slot in range(SLOTS) if slot % self.detectors == self.number)

    def _wants(self, client: str, domain: str) -> bool | None:
        """See snapshot.ByDomain: where the domain is not known, each detector takes the flow."""
        if not self.exchange.parted.has(client):
            return None
        return not domain or self.owns_flow(client, domain)

    def _restore(self, detector: PartDetector) -> None:
        parted, mine = bool(self.exchange.parted), self._slots
        files = (WINDOWS_FILE, HABITS_FILE)
        slots = frozenset(range(SLOTS)) if parted else mine
        saved = [one for name in files for one in saved_by_slot(self.state_dir, name, slots)]
        try:
            found = [(one.name, data, _in_slots(one.slots & mine)) for one, data in _sound(saved)]
            detector.load_files(found, self._wants if parted else None)
        except (OSError, FormatError) as error:
            _log.warning("state_not_restored", path=str(self.folder), error=str(error))
        if flows := detector.gauges()["flows"]:
            _log.info("windows_restored", flows=flows)

    def _restore_parted(self, detector: PartDetector) -> None:
        """What parted clients carried over domains: from its own file, and from flows that one detector saved."""
        saved = saved_by_slot(self.state_dir, WINDOWS_FILE, frozenset(range(SLOTS)))
        try:
            found = [*(data for _, data in _sound(saved)), *_parted_dump(self.state_dir)]
            files = [(WINDOWS_FILE, data, _no_client) for data in found]
            detector.load_files(files, partial(_all_of, self.exchange.parted))
        except (OSError, FormatError) as error:
            _log.warning("state_not_restored", path=str(self.state_dir / PARTED_FILE), error=str(error))

    def _restore_network(self, detector: TogetherDetector) -> None:
        if detector.parted is not None:
            self._restore_parted(detector.parted)
        for name in (NETWORK_FILE, PEAKS_FILE, HABITS_FILE):
            path = self.state_dir / name
            try:
                detector.load(name, path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, FormatError) as error:
                _log.warning("state_not_restored", path=str(path), error=str(error))


def restored_of(settings: Settings, detector: TunnelDetector) -> dict[str, Any]:
    """What a Judge of all clients has beside its collaborators, where several detectors saved state before it."""
    if len(list(_folders(settings.state_dir))) == 1:
        return {}

    def restore() -> None:
        every, state_dir = frozenset(range(SLOTS)), settings.state_dir
        saved = saved_by_slot(state_dir, WINDOWS_FILE, every)
        try:
            detector.flows.key = detector.flows.network.key = _key(state_dir)
            parted = PartedClients(settings.shared_clients)
            files: list[tuple[bytes, Callable[[str], bool]]] = []
            files += [(data, _no_client) for data in _parted_dump(state_dir) if parted]
            files += [(data, _in_slots(one.slots)) for one, data in _sound(saved)]
            snapshot.load_some_flows(files, detector.flows, partial(_all_of, parted) if parted else None)
            for name in (NETWORK_FILE, PEAKS_FILE, HABITS_FILE):
                if (path := state_dir / name).exists():
                    detector.load(name, path.read_bytes())
            for one in saved_by_slot(state_dir, HABITS_FILE, every):
                if one.path.parent != state_dir:
                    detector.incidents.explainer.absorb(one.path.read_bytes(), _in_slots(one.slots))
        except (OSError, FormatError) as error:
            _log.warning("state_not_restored", path=str(state_dir), error=str(error))

    return {"restore": restore, "saved": partial(drop_outdated, settings.state_dir)}


def drop_outdated(state_dir: Path) -> None:
    """Delete saved windows of which each slot has newer ones: they hold what people may have had erased since."""
    newest = {one.path.parent for one in saved_by_slot(state_dir, WINDOWS_FILE, frozenset(range(SLOTS)))}
    whole, parted = state_dir / WINDOWS_FILE, state_dir / PARTED_FILE
    if newest == {state_dir} and parted.exists() and parted.stat().st_mtime < whole.stat().st_mtime:
        parted.unlink()  # one detector judges all again, and has these sums
    for folder, _, detectors in _folders(state_dir):
        if folder not in newest:
            for name in (WINDOWS_FILE, HABITS_FILE) if detectors > 1 else (WINDOWS_FILE,):
                (folder / name).unlink(missing_ok=True)


def _no_client(client: str) -> bool:
    return False


def _all_of(parted: PartedClients, client: str, domain: str) -> bool | None:
    """See snapshot.ByDomain."""
    return parted.has(client) or None


def _parted_dump(state_dir: Path) -> list[bytes]:
    """The file of parted clients' sums, where there is one with the key of the newest windows."""
    path = state_dir / PARTED_FILE
    found = _sound([Saved(WINDOWS_FILE, path, frozenset())] if path.exists() else [])
    return [data for _, data in found if snapshot.key_of_dump(data) == _key(state_dir)]


def _sound(saved: Iterable[Saved]) -> Iterator[tuple[Saved, bytes]]:
    """Files that can be read; one that cannot is left out, and the log says so: it harms nothing but its own slots."""
    for one in saved:
        try:
            data = one.path.read_bytes()
            if one.name == WINDOWS_FILE:
                snapshot.key_of_dump(data)
        except (OSError, FormatError) as error:
            _log.warning("state_not_restored", path=str(one.path), error=str(error))
        else:
            yield one, data


def _slot_below(parted: PartedClients, client: str, domain: str) -> int:
    return parted.slot_of(client, b"" if domain == "." else from_text(domain))


def _in_slots(slots: frozenset[int]) -> Callable[[str], bool]:
    return lambda client: slot_of_client(client) in slots


def several_of(settings: Settings, make: Callable[..., Any]) -> Several | None:
    """The detectors of a plan, where there are several. make: judge_parts without `among`."""
    _adopt_spools(settings)
    if settings.detector_processes == 1:
        return None
    parted = PartedClients(settings.shared_clients)
    exchange = DetectorExchange(settings.detector_processes, _key(settings.state_dir), parted)
    return Several(exchange, lambda name: make(among=Among(exchange, name, settings.state_dir)))


def _adopt_spools(settings: Settings) -> None:
    """Move batches that wait in the spools of another number of detectors to where they are looked for now."""
    root, count = settings.spool_folder, settings.detector_processes
    names = [f"detector-{number + 1}" for number in range(count)] if count > 1 else []
    target = root / names[0] if names else root
    used = {target, *(root / name for name in (*names, NETWORK_PROCESS) if names)}
    for folder in {root, *root.glob("detector-*"), root / NETWORK_PROCESS} - used:
        waiting = list(folder.glob("*.npz"))
        if not waiting:
            continue
        try:
            with locked(folder / "lock"):
                make_private_folder(target)
                for path in waiting:
                    path.rename(target / path.name)
        except BlockingIOError:  # another process has it, and will say so
            continue
        _log.info("spool_adopted", folder=str(folder), batches=len(waiting))


def check_several(settings: Settings) -> None:
    """Raise SettingsError for settings that several detectors cannot have."""
    if settings.detector_processes > 1 and settings.of(privacy.SPEC)["privacy"] != "off":
        raise SettingsError("cannot use setting DETECTOR_PROCESSES: more than 1 needs PRIVACY=off")
    if settings.shared_clients and bus_options.SPEC.factory(settings.of(bus_options.SPEC)).servers:
        raise SettingsError("cannot use setting SHARED_CLIENTS with STREAM: on a bus each client has one slot")


def _key(state_dir: Path) -> Key:
    """The key of the newest saved windows, so that all of them can be gone on from; a new one where there are none."""
    found = [folder / WINDOWS_FILE for folder, _, _ in _folders(state_dir)]
    for path in sorted((one for one in found if one.exists()), key=lambda one: -one.stat().st_mtime):
        try:
            return snapshot.key_of_dump(path.read_bytes())
        except (OSError, FormatError):
            continue
    return secrets.randbits(64), secrets.randbits(64)
