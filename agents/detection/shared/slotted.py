"""Detectors of slots as one: the clients of each slot have a detector of their own, which may move by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from agents.core.npz import FormatError, object_of
from agents.core.types import Incident, QueryBatch, Verdicts
from agents.detection.detector import Suspect, empty_verdicts
from agents.detection.privacy import Privacy
from agents.detection.shared.detector_report import DetectorReport
from agents.detection.shared.part import PartDetector
from agents.detection.shared.view import NetworkView


class Provenance:
    """What incidents say of where their queries were heard (Incidents.losses, origins)."""

    def __init__(self) -> None:
        self.losses: Any = ()
        self.origins: Any = None


def slot_state_of(files: Mapping[str, bytes]) -> bytes:
    """Files of a detector as one object."""
    line = json.dumps({name: len(data) for name, data in files.items()}).encode()
    return b"".join([line, b"\n", *files.values()])


def slot_files_of(data: bytes) -> dict[str, bytes]:
    """The files again. Raises FormatError."""
    line, _, body = data.partition(b"\n")
    found, at = {}, 0
    for name, size in object_of(line, "what is saved of a slot").items():
        if not isinstance(size, int) or size < 0:
            raise FormatError("cannot read saved state: a size is none")
        found[str(name)] = body[at : at + size]
        at += size
    if at != len(body):
        raise FormatError("cannot read saved state: it is cut off")
    return found


class SlottedDetector:
    """A core.protocols.Detector of the slots that are open. All calls but reload… need one lock (Judge.lock).

    slot_of: of a client. view_of: what a slot's detector sees of all clients. model … privacy: see TunnelDetector.
    """

    def __init__(
        self,
        slot_of: Callable[[str], int],
        view_of: Callable[[int], NetworkView],
        model: Any,
        keys_max: int,
        quiet_s: float,
        scale: Any,
        services: Any = None,
        *args: Any,
    ) -> None:
        self._slot_of, self._view_of = slot_of, view_of
        self._model, self._profile, self._services = model, None, services
        self._fixed, self._args = (keys_max, quiet_s, scale), args
        self.privacy: Privacy = args[3] if len(args) > 3 and args[3] is not None else Privacy()
        self.incidents = Provenance()
        self.open: dict[int, PartDetector] = {}

    def slot_of(self, client: str) -> int:
        """The slot of a client."""
        return self._slot_of(client)

    def open_slot(self, slot: int, state: bytes) -> None:
        """Begin to judge a slot, from saved state; b"" = from nothing. Raises FormatError for state that is damaged."""
        made = PartDetector(self._model, *self._fixed, self._services, *self._args, view=self._view_of(slot))
        made.reload_profile(self._profile)
        made.incidents.losses, made.incidents.origins = self.incidents.losses, self.incidents.origins
        if state:
            made.load_files([(name, data, lambda client: True) for name, data in slot_files_of(state).items()])
        self.open[slot] = made

    def close_slot(self, slot: int) -> None:
        """Judge a slot no more; what it knew is somewhere else."""
        self.open.pop(slot, None)

    def saved_slot(
        self, slot: int, lock: AbstractContextManager[Any], beside: Mapping[str, bytes] | None = None
    ) -> bytes:
        """The state of a slot, with other files beside it."""
        return slot_state_of(self.open[slot].save(lock) | dict(beside or {}))

    def report_of_slot(self, slot: int, number: int, drilled: Sequence[Sequence[Any]] = ()) -> DetectorReport | None:
        """What a slot's detector says of its last batch."""
        return self.open[slot].take_report(number, drilled)

    @property
    def model_id(self) -> str:
        """Id of the model in use."""
        return str(self._model.model_id)

    @property
    def open_incidents(self) -> Mapping[tuple[str, str], Incident]:
        """Open incidents by client and domain."""
        return {key: one for each in self.open.values() for key, one in each.open_incidents.items()}

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """Judge a batch of clients of one slot."""
        if not len(batch):
            return empty_verdicts(self.model_id, ())
        return self.open[self.slot_of(batch.client[0])].detect(batch, explain)

    def tick(self, now: float) -> Verdicts | None:
        """Do the work that depends on time alone."""
        found = [verdicts for each in self.open.values() if (verdicts := each.tick(now)) is not None]
        changed = tuple(incident for verdicts in found for incident in verdicts.incidents)
        return empty_verdicts(self.model_id, changed) if changed else None

    def flush(self) -> Verdicts | None:
        """It has no end of input: others go on with its slots."""
        return None

    def restore(self, incidents: Sequence[Incident]) -> None:
        """Go on with open incidents of clients of open slots."""
        for slot, each in self.open.items():
            if mine := [one for one in incidents if self.slot_of(one.client) == slot]:
                each.restore(mine)

    def reload(self, model: Any) -> None:
        """Use another model from the next batch or tick on."""
        self._model = model
        for each in list(self.open.values()):
            each.reload(model)

    def reload_services(self, services: Any) -> None:
        """Use another list of known services from the next batch or tick on."""
        self._services = services
        for each in list(self.open.values()):
            each.reload_services(services)

    def reload_profile(self, profile: Any) -> None:
        """Use another network profile, or none, from the next batch or tick on."""
        self._profile = profile
        for each in list(self.open.values()):
            each.reload_profile(profile)

    def appraise(
        self,
        chances: Mapping[tuple[str, str], float],
        suspects: Sequence[Suspect] = (),
        images: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        """What a model has learnt of flows; see TunnelDetector."""
        for slot, each in list(self.open.items()):
            each.appraise(
                {key: chance for key, chance in chances.items() if self.slot_of(key[0]) == slot},
                [one for one in suspects if self.slot_of(one[1]) == slot],
                {key: rarity for key, rarity in (images or {}).items() if self.slot_of(key[0]) == slot},
            )

    def forget(self, client: str) -> None:
        """Drop all that is known of a client."""
        for each in self.open.values():
            each.forget(client)

    def save(self, lock: AbstractContextManager[Any]) -> dict[str, bytes]:
        """Nothing: slots are saved one by one, on the bus."""
        return {}

    def load(self, name: str, data: bytes) -> None:
        """Nothing: see `open_slot`."""

    def gauges(self) -> dict[str, Any]:
        """Sums over the slots, for health and metrics."""
        each = [one.gauges() for one in list(self.open.values())]
        summed = ("flows", "flows_refused", "flows_forgotten", "incidents_open")
        factor = self._model.limit_factor
        limits = each[0]["limits"] if each else {"factor": factor}
        return {
            "model_id": self.model_id,
            "limits": limits,
            **{name: sum(one[name] for one in each) for name in summed},
        }
