"""Learns ordinary images of flows week by week, in the scheduler's process; without its gates the old model stays."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.errors import AgentsError, BusyError, ModelError, TrainingError, UsageError
from agents.core.files import json_state, write_atomic
from agents.core.text import counted, said_text, utc
from agents.core.types import DAY_S, HOUR_S, ChannelResult, Gate, Message
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.drift import largest_drift_gate
from agents.learning.comparison.flow_drift import drift_since
from agents.learning.comparison.frozen import FrozenAnchor
from agents.learning.comparison.learnt_sides import model_sides
from agents.learning.comparison.listed_diff import ListedDiff, counts_alone, listed_gates
from agents.learning.earlier import BACKUP_DAYS, NEWEST_KEPT
from agents.learning.images.image_judge import with_history
from agents.learning.images.image_listing import golden_gates, golden_share, listed_images
from agents.learning.images.image_model import ImageModel, load_image_model
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.flow_images import image_rows
from agents.learning.loop.learnable import within_caps
from agents.learning.messages import image_message
from agents.learning.release.learnt_registry import USUAL_TERMS, LearntRegistry, ReleaseTerms
from agents.learning.release.transitions import Author
from agents.learning.repeating import RepeatingThread
from agents.learning.run import FeatureDrift, LearntCycle, Report, RunState, cycle_run_id, report_name
from agents.learning.type_comparison import NAMES_MAX, quiet_hours
from agents.scoring.types.base import Rows
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label, LabelStore
from agents.store.feedback.reviews import TEXT_MAX_REASON, ReviewStore
from agents.store.sql import IncidentDatabase

IMAGES_MIN = 400
"""Fewer images teach nothing."""
ROWS_READ = 50_000
"""Flow-hours that a training reads, the newest."""
EVERY_S, AGE_S = 3600.0, 7 * DAY_S
"""How often it is looked whether the model is old, and when it is; a training of the week's images takes seconds."""
AGAIN_S = DAY_S
"""After a model that was refused the next one is not tried before: the week that it would learn is almost the same."""
LAST_FILE = "last.json"
REVIEWS_READ = 10_000
Train = Callable[[str, Rows, Rows, int], ImageModel]
_log = structlog.get_logger("agents.learning.images")


@dataclass(frozen=True)
class ImageLearner:
    """kind: a name of IMAGE_TYPES, or off. folder: of the model in use and the anchor. train: fits, in a process of its
    own where this one lives on; raises TrainingError. days: for which models before are kept. tell: sends a message
    over every channel, where a training ends otherwise than the one before it. terms: whether what passed its gates
    waits for a person; as long as one waits, no other is made. report: writes that of a training."""

    store: IncidentDatabase
    folder: Path
    kind: str
    train: Train
    bounds: GateBounds
    clock: Callable[[], float] = time.time
    days: int = BACKUP_DAYS
    tell: Callable[[Message], Sequence[ChannelResult]] = lambda message: ()
    terms: ReleaseTerms = USUAL_TERMS
    report: Report | None = None

    @property
    def registry(self) -> LearntRegistry[ImageModel]:
        """The folder of image models; each type has its own anchor."""
        return LearntRegistry(
            "images", self.folder, load_image_model, self.terms, NEWEST_KEPT, self.days, self.folder / self.kind
        )

    @property
    def path(self) -> Path:
        """The model in use."""
        return self.registry.path

    @property
    def anchor(self) -> FrozenAnchor[ImageModel]:
        """The first model of this type that passed its gates."""
        return self.registry.anchor

    def model(self) -> ImageModel | None:
        """The model in use; None where there is none of the type that is chosen, or none that can be read."""
        if self.kind == "off":
            return None
        try:
            found = load_image_model(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (ModelError, OSError) as error:
            _log.warning("image_model_not_used", path=str(self.path), error=str(error))
            return None
        return found if found.manifest.get("type") == self.kind else None

    def learn(self) -> dict[str, Any]:
        """Learn from what is stored, and use it if it passes its gates: what came of it, as JSON.

        Raises TrainingError where too little is stored, or an extra is missing, BusyError, also while a model waits for
        a person, StoreError, OSError.
        """
        if self.kind == "off":
            raise TrainingError("cannot learn images of flows: FLOW_IMAGES is off")
        with self.registry.lock("learn images of flows"):
            if waiting := self.registry.waiting():
                who = "who approves or rejects it first"
                raise BusyError(f"cannot learn images of flows: image model {waiting} waits for a person, {who}")
            return self._learnt(self.clock())

    def _learnt(self, now: float) -> dict[str, Any]:
        rows = FlowHourStore(self.store).read(SCHEMA, limit=ROWS_READ, newest=True)
        chosen = self._ordinary(rows)
        if len(chosen) < IMAGES_MIN:
            raise TrainingError(
                f"cannot learn images of flows: {len(chosen)} ordinary ones with a history, {IMAGES_MIN} are needed"
            )
        order = np.random.default_rng(len(chosen)).permutation(chosen)[: 2 * NAMES_MAX]
        images, in_use, anchor = image_rows(rows, chosen=order), self.model(), self.anchor.model()
        made = self.train(self.kind, images[::2], images[1::2], 0)
        parent = in_use.model_id if in_use is not None else ""
        facts = {"trained": now, "parent": parent, "data_sha256": hashlib.sha256(images.tobytes()).hexdigest()}
        made = replace(made, manifest={**made.manifest, **facts})
        gates, listed = golden_gates(made, in_use, anchor, self.bounds), ListedDiff()
        if in_use is not None:
            listed = listed_images(self.store, in_use, made, rows)
            gates += listed_gates(listed, self.bounds)
        manifests = (one.manifest if one is not None else None for one in (in_use, anchor))
        drift = drift_since(self.store, now, *manifests)
        gates += largest_drift_gate(drift, self.bounds)
        found = {
            "model_id": made.model_id,
            "parent": parent,
            "type": self.kind,
            "images": len(order),
            "since": float(rows.hour[order].min()) * HOUR_S,
            "until": (float(rows.hour[order].max()) + 1) * HOUR_S,
            "gates": [
                {"name": one.name, "value": one.value, "threshold": one.threshold, "passed": one.passed}
                for one in gates
            ],
            "at": now,
            "report": report_name("images", now) if self.report is not None else "",
        }
        before = self.last()
        found |= self._decided(made, gates, found | {"listed": counts_alone(listed.to_json())})
        if self.report is not None:
            self.report(self._cycle(found, (in_use, made), gates, listed, drift), self.registry.reports())
        write_atomic(self.folder / LAST_FILE, json.dumps(found).encode())
        told = {name: found[name] for name in ("state", "model_id", "type", "images", "parent", "kept_as")}
        _log.info("images_learnt", **told)
        if before.get("state", "deployed") != found["state"] or found["state"] == "waiting":
            for one in self.tell(image_message(found | {"listed": listed.to_json()})):
                if not one.ok:
                    _log.warning("images_not_told", channel=one.channel, error=one.error)
        return found

    def _cycle(
        self,
        found: Mapping[str, Any],
        sides: tuple[ImageModel | None, ImageModel],
        gates: Sequence[Gate],
        listed: ListedDiff,
        drift: tuple[FeatureDrift, ...],
    ) -> LearntCycle:
        """What the report of a training says. sides: the model in use, and the candidate."""
        shares = [golden_share(one) if one is not None else None for one in sides]
        measured = {"golden tunnels that are strange": (shares[0], shares[1] or 0.0)}
        missed = ", ".join(gate.name for gate in gates if not gate.passed)
        return LearntCycle(
            cycle_run_id("images", found["at"]),
            RunState(found["state"].upper()),
            "images",
            found["at"],
            self.clock(),
            model_id=found["model_id"],
            parent=found["parent"],
            reason=f"missed {missed}" if missed else f"passed {counted(len(gates), 'gate')}",
            gates=tuple(gates),
            data=(
                ("Images", f"{found['images']:,}"),
                ("Flow-hours of", f"{utc(found['since'])} to {utc(found['until'])}"),
                ("Detector type", self.kind),
                ("Hash of the data", str(sides[1].manifest["data_sha256"])),
            ),
            sides=model_sides(*sides, measured),
            listed=listed.to_json(),
            drift=drift,
        )

    def _decided(self, made: ImageModel, gates: Sequence[Gate], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Put a model that passed its gates into use, or let it wait for a person: state, and where the one before,
        of whatever type, is kept: "" where there was none."""
        registry, model_id = self.registry, made.model_id
        if missed := [gate.name for gate in gates if not gate.passed]:
            registry.note("turn down", model_id, Author("", f"missed {', '.join(missed)}"))
            return {"state": "rejected", "kept_as": ""}
        registry.note_facts(model_id, facts)
        author = Author("", f"passed {counted(len(gates), 'gate')}")
        if registry.holds():
            registry.hold(made.to_bytes(), author)
            return {"state": "waiting", "kept_as": ""}
        kept = registry.deploy(made.to_bytes(), facts["at"], author)
        return {"state": "deployed", "kept_as": str(kept or "")}

    def take_back(self, reason: str, author: str, path: Path | None = None) -> str:
        """Use the image model before this one, or the one at a path, again; its id. The one in use is kept as
        `taken_back`.

        Raises UsageError where there is none before it of the type that is chosen, BusyError, ModelError, OSError.
        """
        reason = said_text(reason, "a reason", TEXT_MAX_REASON)
        with self.registry.lock("take the image model back"):
            model = self.registry.take_back(Author(author, reason), self.must_be_of_type, path)
        _log.info("image_model_taken_back", model_id=model.model_id)
        return model.model_id

    def must_be_of_type(self, model: ImageModel) -> None:
        """Raise UsageError where a model is of another type than the one that is chosen."""
        if (of := model.manifest.get("type")) != self.kind:
            raise UsageError(f"cannot use image model {model.model_id}: it is of type {of}, FLOW_IMAGES is {self.kind}")

    def last(self) -> dict[str, Any]:
        """What came of the last training of this type; {} where there was none, or it cannot be read."""
        found = json_state(self.folder / LAST_FILE)
        return found if found.get("type") == self.kind and isinstance(found.get("at"), int | float) else {}

    def is_due(self) -> bool:
        """Whether it is time to learn: a week after the last model, and a day after one that was refused."""
        last, now, found = self.last(), self.clock(), self.model()
        if self.registry.waiting():
            return False
        if last.get("state") == "rejected" and 0 <= now - last["at"] < AGAIN_S:
            return False
        trained = [] if found is None else [float(found.manifest.get("trained", 0.0))]
        trained += [last["at"]] if found is not None and last.get("state") == "deployed" else []
        return not any(0 <= now - at < AGE_S for at in trained)

    def earlier(self) -> list[Path]:
        """Models of before, oldest first."""
        return self.registry.earlier()

    def _ordinary(self, rows: FlowHours) -> NDArray[np.int64]:
        """Rows that may be learnt: quiet, with a history, of no domain that is in doubt, within the shares of clients
        and domains."""
        if not len(rows):
            return np.empty(0, np.int64)
        quiet = {(int(one), *key) for one, *key in _keys(quiet_hours(rows))}
        reviews = ReviewStore(self.store)
        benign = {
            one.domain for one in reviews.decisions(standing=True, limit=REVIEWS_READ) if one.label is Label.BENIGN
        }
        doubt = {one.domain for one in reviews.items(limit=REVIEWS_READ)}
        doubt |= {one.domain for one in reviews.decisions(standing=True, limit=REVIEWS_READ)} - benign
        hours = {"since": int(rows.hour.min()), "until": int(rows.hour.max()) + 1}
        certain = LabelStore(self.store).certain_ids(SCHEMA, **hours)
        doubt |= {rows.domain[row] for row, one in enumerate(rows.id.tolist()) if one in certain}
        kept = [
            row
            for row in with_history(rows, np.unique(rows.hour)).tolist()
            if rows.domain[row] not in doubt and (int(rows.hour[row]), rows.client[row], rows.domain[row]) in quiet
        ]
        return within_caps(rows.client, rows.domain, np.array(kept, np.int64), IMAGES_MIN)


def _keys(rows: FlowHours) -> list[tuple[int, str, str]]:
    return list(zip(rows.hour.tolist(), rows.client, rows.domain, strict=True))


class ImageThread(RepeatingThread):
    """Learns when there is no model, or an old one; what goes wrong is logged, once."""

    def __init__(self, learner: ImageLearner, every_s: float = EVERY_S) -> None:
        super().__init__("image-learner", every_s)
        self._learner, self._said = learner, ""

    def step(self) -> None:
        """Learn, if it is time."""
        if not self._learner.is_due():
            return
        try:
            self._learner.learn()
            self._said = ""
        except (AgentsError, OSError) as error:
            if str(error) != self._said:
                self._said = str(error)
                _log.warning("images_not_learnt", error=str(error))
