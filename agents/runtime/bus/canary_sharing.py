"""Canaries over the bus: who deploys sends candidate and terms, hosts that judge run it, and its counts are summed.

On the bus: a key `canary`, which says which candidate runs on which terms, objects with the model and its network
profile, and a key `canary.<slot>` for each slot, with what its detector has counted (`slot_canary`). Who deploys sums
these into the file that one detector alone would write, so the rules that end a canary read it as ever.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from pydantic import TypeAdapter, ValidationError

from agents.core.errors import AgentsError, BusyError, StoreError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.core.protocols import ModelInUse
from agents.detection.explanations.network_profile import load_profile
from agents.detection.rollout.canary import CanaryCounts, counts_of
from agents.learning.release.transitions import Author, Transition
from agents.runtime.bus.cluster_models import SILENT_S
from agents.runtime.bus.model_sharing import (
    CHAMPION,
    CHAMPION_TAKEN_FILE,
    ModelInForce,
    OnBusThread,
    TakingRegistry,
    model_in_force_of,
    model_on_bus,
    put_model,
    taken_mark,
)
from agents.scoring.model import Model
from agents.stream.bus.jetstream import BusError, ConflictError, Versioned
from agents.stream.bus.link import BusLink, newest_of

CANARY = "canary"
"""Key of the bucket."""
SUM_S = 5.0
"""How often what slots have counted is summed."""
TAKEN_FILE = "canary_of_bus"
_BEGUN = Author("the bus", "another host has begun it")
_ENDED = Author("the bus", "it has ended where models are deployed")
_log = structlog.get_logger()


@dataclass(frozen=True)
class CanaryInForce:
    """What the key `canary` says. candidate: None = none runs; its `since` is when it began. champion: the model in
    use beside it. terms: as the folder of models has them."""

    candidate: ModelInForce | None
    champion: str
    terms: dict[str, Any]
    host: str

    def packed(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    def is_of(self, row: Mapping[str, Any] | None) -> bool:
        """Whether this is the canary of a row of a folder of models, whenever it began."""
        if self.candidate is None or row is None:
            return self.candidate is None and row is None
        return self.candidate.model_id == str(row["model_id"]) and self.terms == dict(row.get("terms", {}))


_IN_FORCE = TypeAdapter(CanaryInForce)


def canary_in_force_of(data: bytes) -> CanaryInForce:
    """What `CanaryInForce.packed` wrote. Raises FormatError."""
    try:
        return _IN_FORCE.validate_json(data)
    except ValidationError:
        raise FormatError("cannot read which canary runs on the bus: it is damaged") from None


def _known_canary(found: Versioned) -> tuple[CanaryInForce | None, bool]:
    """What the key has, None where that is nothing or damaged; and whether it is damaged."""
    try:
        return (canary_in_force_of(found.data) if found.revision else None), False
    except FormatError:
        return None, True


def names_of_canary(link: BusLink) -> list[str]:
    """Objects of the candidate on trial. Raises BusError, FormatError."""
    found = link.value(CANARY)
    candidate = canary_in_force_of(found.data).candidate if found.revision else None
    return [candidate.model, *filter(None, [candidate.profile])] if candidate is not None else []


def key_of_counts(slot: int) -> str:
    """The key under which the counts of a slot are."""
    return f"{CANARY}.{slot}"


def counts_on_bus(link: BusLink, model_id: str, begun_at: float) -> CanaryCounts:
    """What all slots have counted of a canary. Raises BusError."""
    counts = CanaryCounts(model_id, begun_at)
    for one in link.values([key_of_counts(slot) for slot in range(link.options.slots)]):
        try:
            found = json.loads(newest_of(one.data)[1] or b"{}")
        except ValueError:
            continue
        counts = counts.plus(counts_of(found, model_id, begun_at))
    return counts


def doubt_of_sum(path: Path) -> str:
    """Why the sum in the file at `path` may lack what slots have counted; "" where it was made just now."""
    try:
        is_new = abs(time.time() - path.stat().st_mtime) < SILENT_S
    except OSError:
        is_new = False
    return "" if is_new else "what slots have counted was not read from the bus for a while"


class CanaryRow(Protocol):
    """The folder of models, as what shares canaries needs it."""

    def canary(self) -> Mapping[str, Any] | None:
        """The canary that runs: model_id, champion, begun_at (Unix seconds), terms; None if none does."""
        ...

    def transitions(self) -> Sequence[Transition]:
        """What became of versions, the oldest first."""
        ...


def _is_of_bus(registry: CanaryRow, row: Mapping[str, Any]) -> bool:
    """Whether a CanaryTaker began the canary of a folder of models, which two hosts may share."""
    begun = [one for one in registry.transitions() if one.action == "begin canary"]
    return bool(begun) and begun[-1].model_id == row["model_id"] and begun[-1].by == _BEGUN.by


class SendingModels(CanaryRow, ModelInUse[Model], Protocol):
    """… where canaries are begun."""

    def get(self, model_id: str) -> Model:
        """A kept model."""
        ...


class TakingModels(CanaryRow, TakingRegistry, Protocol):
    """… of a host that takes what another one begins."""

    def restart_canary(self, now: float) -> None:
        """Let the time of the canary begin anew."""
        ...

    def end_canary(self, promote: bool, author: Author, now: float) -> Transition:
        """End it."""
        ...


class CanarySender(OnBusThread):
    """Sends the canary of this host's folder of models, and its end; sums what slots have counted of it."""

    EVENT = "canary_not_shared"

    def __init__(self, connect: Callable[[], BusLink], registry: SendingModels, host: str, counts_path: Path) -> None:
        """counts_path: the file that the rules read."""
        super().__init__("canary-sender", connect)
        self._registry, self._host, self._path = registry, host, counts_path
        self._sent: CanaryInForce | None = None
        self._summed_at = 0.0

    def look(self, link: BusLink) -> None:
        """Send what is new, and sum."""
        row, found = self._registry.canary(), link.value(CANARY)
        known, is_damaged = _known_canary(found)
        if row is None:
            # What this host has sent: a bus that was made anew has forgotten it, the hosts that judge have not.
            last = known if found.revision else self._sent
            mine = last is not None and last.candidate is not None and last.host == self._host
            if (mine or is_damaged) and self._is_followed(link, last):
                self._put(link, CanaryInForce(None, "", {}, self._host), found.revision)
            return
        is_known = _is_of_bus(self._registry, row) or (self._is_sent(row) and known is not None)
        if not is_known and not self._send(link, row, known, found.revision):
            return
        if time.monotonic() - self._summed_at >= SUM_S:
            counts = counts_on_bus(link, str(row["model_id"]), float(row["begun_at"]))
            write_atomic(self._path, json.dumps(counts.to_json()).encode(), mode=PRIVATE_MODE, sync=False)
            self._summed_at = time.monotonic()

    def _is_sent(self, row: Mapping[str, Any]) -> bool:
        sent = self._sent
        return (
            sent is not None
            and sent.candidate is not None
            and sent.is_of(row)
            and sent.candidate.since == row["begun_at"]
        )

    def _send(self, link: BusLink, row: Mapping[str, Any], known: CanaryInForce | None, revision: int) -> bool:
        """Send the canary of a row; whether that is done. Objects are put once more by each process: they may be lost.

        What the key has already stays: a new revision would be one more beginning where people have ended it.
        """
        candidate = put_model(
            link, self._registry, self._registry.get(str(row["model_id"])), float(row["begun_at"]), self._host
        )
        wanted = CanaryInForce(candidate, str(row.get("champion", "")), dict(row.get("terms", {})), self._host)
        if known == wanted:
            self._sent = wanted
            return True
        return self._put(link, wanted, revision)

    def _is_followed(self, link: BusLink, last: CanaryInForce | None) -> bool:
        """Whether hosts see a canary's promotion before they see its end: else what it alone had found would close.

        last: what ends, None = not known.
        """
        model_id = self._registry.current().model_id
        is_other = last is not None and last.candidate is not None and last.candidate.model_id != model_id
        if is_other or self._registry.origin != "champion":
            return True
        found = link.value(CHAMPION)
        return bool(found.revision) and model_in_force_of(found.data).model_id == model_id

    def _put(self, link: BusLink, wanted: CanaryInForce, revision: int) -> bool:
        """Put it under the key, if that has this revision still; whether that is done."""
        try:
            link.put_value(CANARY, wanted.packed(), revision)
        except ConflictError:  # the next look tries again
            return False
        self._sent = wanted
        model_id = wanted.candidate.model_id if wanted.candidate is not None else ""
        _log.info("canary_sent", model_id=model_id)
        return True


class CanaryTaker(OnBusThread):
    """Begins and ends canaries here as the bus says; the rules that end them are asked where they were begun."""

    EVENT = "canary_not_shared"

    def __init__(
        self, connect: Callable[[], BusLink], registry: TakingModels, load: Callable[[bytes], Model], state_dir: Path
    ) -> None:
        """load: as the registry's."""
        super().__init__("canary-taker", connect)
        self._registry, self._load, self._path = registry, load, state_dir / TAKEN_FILE
        self._models_path = state_dir / CHAMPION_TAKEN_FILE
        self._refused = 0

    def look(self, link: BusLink) -> None:
        """Take what is new, once, whatever clocks say."""
        found = link.value(CANARY)
        mark = link.bus.token_base + found.revision
        if not found.revision or mark in (taken_mark(self._path), self._refused):
            return
        try:
            is_done = self._follow(link, canary_in_force_of(found.data))
        except (BusError, BusyError, StoreError):
            raise  # the next look tries again
        except (AgentsError, FormatError):
            self._refused = mark
            raise
        if is_done:
            write_atomic(self._path, str(mark).encode(), mode=PRIVATE_MODE)

    def _follow(self, link: BusLink, wanted: CanaryInForce) -> bool:
        """Have the canary here that is wanted; whether that is done."""
        row, candidate = self._registry.canary(), wanted.candidate
        if candidate is not None and wanted.is_of(row):  # of the same folder, or it begins anew
            if row is not None and row["begun_at"] != candidate.since:
                self._registry.restart_canary(candidate.since)
            return True
        if row is not None:
            if not _is_of_bus(self._registry, row):
                if candidate is None:  # begun in this folder since
                    return True
                raise StoreError(
                    f"cannot begin canary {candidate.model_id}: model {row['model_id']} is one that was begun here"
                )
            if self._is_promoted_soon(link, row):
                return False
            self._registry.end_canary(False, _ENDED, time.time())
            _log.info("canary_left", model_id=row["model_id"])
        if candidate is not None:
            self._begin(link, candidate, wanted)
        return True

    def _is_promoted_soon(self, link: BusLink, row: Mapping[str, Any]) -> bool:
        """Whether the bus has the canary as the model in use, which this host is about to take: that ends it.

        One that was taken, and is not in use, was passed over: people have decided something here since.
        """
        found = link.value(CHAMPION)
        is_wanted = bool(found.revision) and model_in_force_of(found.data).model_id == row["model_id"]
        is_taken = taken_mark(self._models_path) == link.bus.token_base + found.revision
        return is_wanted and not is_taken and not self._registry.pinned()

    def _begin(self, link: BusLink, candidate: ModelInForce, wanted: CanaryInForce) -> None:
        if pinned := self._registry.pinned():
            raise StoreError(f"cannot begin canary {candidate.model_id}: {pinned}")
        in_use = self._registry.current().model_id
        if in_use != wanted.champion:  # it is on the way, or a person wants another one here
            raise StoreError(
                f"cannot begin canary {candidate.model_id}: model {in_use} is in use here, not {wanted.champion}"
            )
        model = model_on_bus(link, candidate, self._load)
        if candidate.profile:
            self._registry.save_profile(load_profile(link.object(candidate.profile)))
        with self._registry.lock("take a canary from the bus"):
            self._registry.save_candidate(model)
            self._registry.begin_canary(model.model_id, wanted.terms, candidate.since, _BEGUN, by_person=False)
        _log.info("canary_taken", model_id=model.model_id, host=candidate.host)
