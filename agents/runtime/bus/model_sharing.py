"""Models over the bus: the host that deploys sends what is in force, hosts that judge take it and say what they run.

On the bus: a key `champion`, which says what is in force, objects with the model and its network profile, and a key
`hosts`, the table of who runs what. A host notes which revision of the key it has taken, so that it takes each once,
whatever the clocks say.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from pydantic import TypeAdapter, ValidationError

from agents.core.errors import AgentsError, BusyError, StoreError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.core.protocols import ModelInUse, Registry
from agents.detection.explanations.network_profile import load_profile
from agents.learning.release.transitions import Author, Transition
from agents.learning.repeating import RepeatingThread
from agents.runtime.bus.cluster_models import CLUSTER_FILE, noted_hosts
from agents.scoring.model import Model
from agents.stream.bus.jetstream import BusError, ConflictError
from agents.stream.bus.link import BusLink

CHAMPION, HOSTS = "champion", "hosts"
"""Keys of the bucket."""
LOOK_EVERY_S = 2.0
"""How often the key is looked at: a watch ends without a word where its connection breaks, a look says so."""
TELL_S = 10.0
"""How often a host says what it runs."""
FORGOTTEN_S = 86_400.0
"""A host that has said nothing for so long is not listed any more."""
CHAMPION_TAKEN_FILE = "model_of_bus"
STOP_S = 10.0
_AUTHOR = Author("the bus", "another host has deployed it")
_log = structlog.get_logger()


@dataclass(frozen=True)
class ModelInForce:
    """What the key `champion` says. model, profile: names of objects, "" = no profile. since: Unix seconds."""

    model_id: str
    model: str
    sha256: str
    profile: str
    since: float
    host: str

    def packed(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()


_IN_FORCE = TypeAdapter(ModelInForce)


def model_in_force_of(data: bytes) -> ModelInForce:
    """What `ModelInForce.packed` wrote. Raises FormatError."""
    try:
        return _IN_FORCE.validate_json(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise FormatError(f"cannot read which model is in force on the bus: {where or 'it'} is damaged") from None


def names_of_models(link: BusLink) -> list[str]:
    """Objects of the model in force. Raises BusError, FormatError."""
    found = link.value(CHAMPION)
    if not found.revision:
        return []
    model = model_in_force_of(found.data)
    return [model.model, *filter(None, [model.profile])]


def put_model(link: BusLink, registry: ModelInUse[Model], model: Model, since: float, host: str) -> ModelInForce:
    """Keep a model and its network profile on the bus; what a key is to say of it. Raises BusError."""
    data, profile = model.to_bytes(), registry.profile_of(model)
    name, profile_name = f"model-{model.model_id}", f"profile-{model.model_id}" if profile is not None else ""
    link.put_object(name, data)
    if profile is not None:
        link.put_object(profile_name, profile.to_bytes())
    return ModelInForce(model.model_id, name, hashlib.sha256(data).hexdigest(), profile_name, since, host)


def model_on_bus(link: BusLink, found: ModelInForce, load: Callable[[bytes], Model]) -> Model:
    """A model that a key names. Raises StoreError for another content, ModelError, BusError."""
    data = link.object(found.model)
    if hashlib.sha256(data).hexdigest() != found.sha256:
        raise StoreError(f"cannot take model {found.model_id} from the bus: its content is another")
    model = load(data)
    if model.model_id != found.model_id:
        raise StoreError(f"cannot take model {found.model_id} from the bus: it is {model.model_id}")
    return model


def taken_mark(path: Path) -> int:
    """The revision that a host has taken last, also by an earlier process, as a file has it; 0 = none."""
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):
        return 0


class OnBusThread(RepeatingThread):
    """Steps with a connection, which is opened in the first one that can; what goes wrong is logged once, as EVENT."""

    EVENT = "models_not_shared"

    def __init__(self, name: str, connect: Callable[[], BusLink]) -> None:
        super().__init__(name, LOOK_EVERY_S, STOP_S)
        self._connect, self._said = connect, ""
        self._link: BusLink | None = None

    def step(self) -> None:
        """Look, and do what is due."""
        try:
            if self._link is None:
                self._link = self._connect()
            self.look(self._link)
        except (AgentsError, FormatError, OSError) as error:
            if str(error) != self._said:
                _log.warning(self.EVENT, error=str(error))
            self._said = str(error)
        else:
            self._said = ""

    def look(self, link: BusLink) -> None:
        """One look. Raises AgentsError, FormatError, OSError."""
        raise NotImplementedError

    def stop(self) -> None:
        """End, and the connection with it."""
        super().stop()
        if self._link is not None:
            self._link.close()


class ModelSender(OnBusThread):
    """Sends the champion of this host's folder of models, whenever it is another than that on the bus."""

    def __init__(self, connect: Callable[[], BusLink], registry: ModelInUse[Model], host: str, state_dir: Path) -> None:
        super().__init__("model-sender", connect)
        self._registry, self._host, self._path = registry, host, state_dir / CLUSTER_FILE
        self._stamp: tuple[int, ...] | None = None
        self._model: Model | None = None
        self._is_sent = False

    def look(self, link: BusLink) -> None:
        """Send what is new, and note which hosts run what."""
        if (stamp := self._registry.stamp()) != self._stamp:
            model = self._registry.current()
            self._model = model if self._registry.origin == "champion" else None
            self._stamp = stamp
            self._is_sent = False
        found = link.value(CHAMPION)
        known = model_in_force_of(found.data).model_id if found.revision else ""
        if self._model is not None and not (self._is_sent and known):
            self._is_sent = known == self._model.model_id or self._send(link, self._model, found.revision)
            known = self._model.model_id if self._is_sent else known
        noted = {"model_id": known, "hosts": noted_hosts(link.value(HOSTS).data), "at": time.time()}
        write_atomic(self._path, json.dumps(noted).encode())

    def _send(self, link: BusLink, model: Model, revision: int) -> bool:
        """Put a model in force on the bus, in the place of what the key has at a revision; whether that is done."""
        found = put_model(link, self._registry, model, time.time(), self._host)
        try:
            link.put_value(CHAMPION, found.packed(), revision)
        except ConflictError:  # another host that deploys was faster
            return False
        _log.info("model_sent", model_id=model.model_id)
        return True


class TakingRegistry(Registry, Protocol):
    """The folder of models of a host that takes what another one deploys."""

    def lock(self, to: str = ...) -> AbstractContextManager[None]:
        """See Registry. to: what for, after "cannot …" in a BusyError."""
        ...

    def transitions(self) -> Sequence[Transition]:
        """What became of versions, the oldest first."""
        ...


class ModelTaker(OnBusThread):
    """Puts in force here what is in force on the bus; says what this host runs."""

    def __init__(
        self,
        connect: Callable[[], BusLink],
        registry: TakingRegistry,
        load: Callable[[bytes], Model],
        host: str,
        state_dir: Path,
        told: Callable[[], Mapping[str, Any]],
    ) -> None:
        """load: as the registry's. told: what the table of hosts is to say of this one beside its model."""
        super().__init__("model-taker", connect)
        self._registry, self._load, self._host, self._told = registry, load, host, told
        self._path = state_dir / CHAMPION_TAKEN_FILE
        self._refused, self._told_at = 0, 0.0

    def look(self, link: BusLink) -> None:
        """Take what is new, and tell."""
        champion = link.value(CHAMPION)
        mark = link.bus.token_base + champion.revision
        if champion.revision and mark not in (taken_mark(self._path), self._refused):
            self._take(link, model_in_force_of(champion.data), mark)
        if time.monotonic() - self._told_at >= TELL_S:
            self._tell(link)
            self._told_at = time.monotonic()

    def _take(self, link: BusLink, found: ModelInForce, mark: int) -> None:
        if self._registry.current().model_id != found.model_id and not self._is_newer_here(found):
            if pinned := self._registry.pinned():
                raise StoreError(f"cannot take model {found.model_id} from the bus: {pinned}")
            try:
                self._put_in_force(link, found)
            except (BusError, BusyError, OSError):
                raise  # the next look tries again
            except (AgentsError, FormatError):
                self._refused = mark
                raise
            _log.info("model_taken", model_id=found.model_id, host=found.host)
        write_atomic(self._path, str(mark).encode(), mode=PRIVATE_MODE)
        self._told_at = 0.0

    def _is_newer_here(self, found: ModelInForce) -> bool:
        """Whether something was deployed in this folder since, and not by the bus: two hosts may share a folder."""
        last = next(iter(self._registry.transitions()[-1:]), None)
        return last is not None and last.by != _AUTHOR.by and last.at > found.since

    def _put_in_force(self, link: BusLink, found: ModelInForce) -> None:
        model = model_on_bus(link, found, self._load)
        if found.profile:
            self._registry.save_profile(load_profile(link.object(found.profile)))
        with self._registry.lock("take a model from the bus"):
            self._registry.save_candidate(model)
            self._registry.promote(model.model_id, _AUTHOR)

    def _tell(self, link: BusLink) -> None:
        """Write this host's line of the table; where another wrote at the same time, the next look does."""
        before, now = link.value(HOSTS), time.time()
        table = noted_hosts(before.data)
        model_id = self._registry.current().model_id
        known = table.get(self._host, {})
        since = known["since"] if known.get("model_id") == model_id else now
        line = {"model_id": model_id, "since": since, "at": now, **self._told()}
        if candidate := line.get("candidate", ""):
            line["candidate_since"] = known["candidate_since"] if known.get("candidate") == candidate else now
        table[self._host] = line
        kept = {host: one for host, one in table.items() if now - one["at"] < FORGOTTEN_S}
        with suppress(ConflictError):
            link.put_value(HOSTS, json.dumps(kept).encode(), before.revision)
