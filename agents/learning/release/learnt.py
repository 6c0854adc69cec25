"""Versions of what cycles learn, flow, sequence and image models: where each comes from, and two side by side.

Their files are those of models/flow, sequences and images; what is known of them are the rows of their histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agents.core.errors import ModelError, StoreError, UsageError
from agents.core.text import printable, utc
from agents.learning.comparison.flow_drift import drift_since
from agents.learning.comparison.learnt_sides import Learnt, model_settings, moved_weights
from agents.learning.comparison.listed_diff import ListedDiff, listed_lines, listed_text
from agents.learning.comparison.sequence_listing import SequenceListing
from agents.learning.images.image_learner import ROWS_READ, ImageLearner
from agents.learning.images.image_listing import golden_share, listed_images
from agents.learning.images.image_model import ImageModel
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.flow_model import FlowModel
from agents.learning.loop.golden import GOLDEN_SCHEMA
from agents.learning.loop.online import OnlineLearner
from agents.learning.release.diff import changed_rows, listed_or_none
from agents.learning.release.learnt_registry import KIND_NAMES, LEARNT_KINDS, LearntRegistry
from agents.learning.release.transitions import Transition
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.learning import SequenceModels
from agents.learning.sequences.on_trial import SequenceCanary
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import LabelStore

QUERIES_LOOKED_AT = 50_000
"""Stored queries that two sequence models are compared on while somebody waits."""
_LINEAGE = ("parent", "data", "data_sha256", "decided_by", "reason")
_DONE = {
    "deploy": "deployed",
    "approve": "deployed",
    "hold": "waiting",
    "turn down": "rejected",
    "reject": "rejected",
    "roll back": "taken back",
}
"""What image models' transitions are in the words of histories."""
_MADE = ("deployed", "canary", "waiting", "waits for a person")
"""What the first row of a version says, which has where it comes from."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of a model. model: None where it cannot be read."""

    path: Path
    aliases: tuple[str, ...]
    model_id: str
    model: Learnt | None


@dataclass(frozen=True)
class LearntVersions:
    """The versions of all kinds. While the database is away, nothing is known of where flow models come from."""

    learner: OnlineLearner
    sequences: SequenceModels
    listing: SequenceListing | None = None
    images: ImageLearner | None = None

    def registry(self, kind: str) -> LearntRegistry[Any]:
        """The folder of a kind. Raises UsageError."""
        if kind == "flow":
            return self.learner.registry
        if kind == "sequences":
            return self.sequences.registry
        if kind == "images" and self.images is not None:
            return self.images.registry
        raise UsageError(f"cannot find models of kind {printable(kind)}: {', '.join(LEARNT_KINDS)}")

    def history(self, kind: str) -> list[dict[str, Any]]:
        """What was in production when, newest first. Raises UsageError, ModelError."""
        return [asdict(one) for one in self.registry(kind).history()]

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What became of models of a kind, oldest first, each with its text. Raises UsageError, ModelError."""
        return [one.to_json() | {"text": one.text} for one in self.registry(kind).transitions()]

    def versions(self, kind: str) -> list[dict[str, Any]]:
        """The versions of a kind that are kept, the one in use first. Raises UsageError."""
        rows = self._rows(kind)
        return [self._told(kind, one, rows) for one in self._files(kind)]

    def version(self, kind: str, name: str) -> dict[str, Any]:
        """One version with its manifest and what happened to it. Raises UsageError.

        name: an id, champion, candidate, previous, anchor, taken-back or canary.
        """
        rows, one = self._rows(kind), self._named(kind, name)
        manifest = dict(one.model.manifest) if one.model is not None else {}
        manifest.pop("steps", None)  # hundreds of numbers for a later comparison
        happened = [row for row in rows if row["model_id"] == one.model_id]
        canary = SequenceCanary(self.sequences.folder).state(self.learner.clock()) if "canary" in one.aliases else None
        found: dict[str, Any] = {
            "manifest": manifest,
            "transitions": happened,
            "canary": canary,
            "drift": self._drift(one),
        }
        registry = self.registry(kind)
        found |= {"approvals": registry.approvals(one.model_id), "pinned": registry.pinned()}
        return {**self._told(kind, one, rows), **found}

    def diff(self, kind: str, old: str, new: str) -> dict[str, Any]:
        """What differs between two versions, as JSON. Raises UsageError, ModelError, StoreError."""
        rows = self._rows(kind)
        sides = [self._named(kind, name) for name in (old, new)]
        models = [_readable(one) for one in sides]
        told = [self._told(kind, one, rows) for one in sides]
        pairs: dict[str, Callable[[int], Mapping[str, Any]]] = {
            "settings": lambda at: {**model_settings(models[at]), **told[at]["settings"]},
            "lineage": lambda at: {name: told[at][name] for name in _LINEAGE},
            "measures": lambda at: told[at]["measures"],
            "gates": lambda at: {gate["name"]: gate["value"] for gate in told[at]["gates"]},
        }
        found: dict[str, Any] = {"kind": kind, "old": told[0], "new": told[1]}
        found |= {part: changed_rows(of(0), of(1)) for part, of in pairs.items()}
        found |= {"weights": moved_weights(*models), "golden": self._golden(*models)}
        return found | {"listed": self._listed(*models).to_json()}

    def _listed(self, old: Learnt, new: Learnt) -> ListedDiff:
        """What both list of this network's own last week; nothing is compared while the database is away."""
        now = self.learner.clock()
        try:
            if isinstance(old, FlowModel) and isinstance(new, FlowModel):
                return self.learner.listing.diff(old, new, now)
            if isinstance(old, SequenceModel) and isinstance(new, SequenceModel) and self.listing is not None:
                most = min(self.listing.bounds.replayed_max, QUERIES_LOOKED_AT)
                return self.listing.diff(old, new, now, most)
            if isinstance(old, ImageModel) and isinstance(new, ImageModel):
                rows = FlowHourStore(self.learner.store).read(SCHEMA, limit=ROWS_READ, newest=True)
                return listed_images(self.learner.store, old, new, rows)
        except StoreError as error:
            _log.warning("models_not_compared", error=str(error))
        return ListedDiff()

    def _drift(self, one: _Found) -> list[dict[str, Any]]:
        """How far flow-hours have moved since a flow model was learnt; [] of others, or where there are too few."""
        if not isinstance(one.model, FlowModel):
            return []
        anchor = self.learner.anchor.model()
        try:
            manifests = one.model.manifest, anchor.manifest if anchor is not None else None
            found = drift_since(self.learner.store, self.learner.clock(), *manifests)
        except StoreError as error:
            _log.warning("drift_not_measured", error=str(error))
            return []
        return [asdict(row) for row in found]

    def kind_of(self, name: str) -> str:
        """The kind that has a version of this id; "" where none has."""
        kinds = (kind for kind in LEARNT_KINDS for one in self._files(kind) if one.model_id == name)
        return next(kinds, "")

    def _files(self, kind: str) -> list[_Found]:
        if kind == "images" and self.images is None:
            return []
        registry = self.registry(kind)
        named: list[tuple[Path, tuple[str, ...]]] = [(registry.path, ("champion",))] if registry.path.exists() else []
        earlier = registry.earlier()[::-1]
        named += [(one, ("previous",) if at == 0 else ()) for at, one in enumerate(earlier)]
        found = [_found(path, aliases, registry.load) for path, aliases in named]
        others = [(registry.anchor.path, "anchor"), (registry.taken_back, "taken-back")]
        others += [(registry.waiting_path, "candidate")] if registry.waiting() else []
        canary = SequenceCanary(self.sequences.folder)
        others += [(canary.path, "canary")] if kind == "sequences" and canary.row() is not None else []
        beside = [(_found(path, (alias,), registry.load), alias) for path, alias in others if path.exists()]
        return _with_aliases(found, beside)

    def _named(self, kind: str, name: str) -> _Found:
        files = self._files(kind)
        for one in files:
            if name in (*one.aliases, one.model_id):
                return one
        raise UsageError(
            f"cannot find {KIND_NAMES[kind]} {printable(name, 60)}: {len(files)} are kept, see models list"
        )

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        """What happened to models of a kind, oldest first, in one form."""
        if kind == "flow":
            try:
                return [_flow_row(one) for one in self.learner.history(self.learner.options.history)[::-1]]
            except StoreError:  # away, or not made yet: the files are listed without what was decided about them
                return []
        if kind == "images" and self.images is not None:
            images = self.images
            return [_image_row(one, images.registry.facts_of(one.model_id)) for one in images.registry.transitions()]
        found = [one.model_dump(mode="json") for one in self.sequences.history.newest(10**6)[::-1]]
        return [_sequence_row(one) for one in found]

    def _told(self, kind: str, one: _Found, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A version in words and numbers; the newest row of it that has data says where it comes from."""
        mine = [row for row in rows if row["model_id"] == one.model_id]
        made = next((row for row in mine if row["decision"] in _MADE), {})
        last = mine[-1] if mine else {}
        manifest = one.model.manifest if one.model is not None else {}
        return {
            "kind": kind,
            "model_id": one.model_id,
            "state": _state_of(one),
            "aliases": list(one.aliases),
            "path": str(one.path),
            "created": made.get("at", manifest.get("trained")),
            "parent": manifest.get("parent") or made.get("parent", ""),
            "data": made.get("data", "–"),
            "data_sha256": made.get("data_sha256") or manifest.get("data_sha256", ""),
            "decided_by": last.get("by", "unknown"),
            "reason": last.get("reason", ""),
            "measures": made.get("measures", {}),
            "gates": made.get("gates", []),
            "listed": made.get("listed", {}),
            "settings": made.get("settings", {}),
            "report": self.registry(kind).facts_of(one.model_id).get("report") if one.model_id else None,
        }

    def _golden(self, old: Learnt, new: Learnt) -> dict[str, Any]:
        """What both say of golden flow-hours, which are stored, or shipped (image models); {} of sequence models."""
        if isinstance(old, ImageModel) and isinstance(new, ImageModel):
            return {"strange": {"old": golden_share(old), "new": golden_share(new)}}
        if not (isinstance(old, FlowModel) and isinstance(new, FlowModel)):
            return {}
        known = LabelStore(self.learner.store).labelled(GOLDEN_SCHEMA)
        if not len(known):
            return {}
        before, after = old.probabilities(known.numbers), new.probabilities(known.numbers)
        rows = {"tunnels": known.tunnel, "benign": ~known.tunnel}
        counts = {
            name: {
                "rows": int(kind.sum()),
                "old": int((before[kind] > 0.5).sum()),
                "new": int((after[kind] > 0.5).sum()),
            }
            for name, kind in rows.items()
        }
        return {"mean_difference": float(np.abs(after - before).mean()), **counts}


def _found(path: Path, aliases: tuple[str, ...], load: Callable[[bytes], Learnt]) -> _Found:
    try:
        model = load(path.read_bytes())
    except (ModelError, OSError):
        return _Found(path, aliases, path.stem.rpartition("_")[2] if "_" in path.stem else "", None)
    return _Found(path, aliases, model.model_id, model)


def _with_aliases(found: list[_Found], beside: Sequence[tuple[_Found, str]]) -> list[_Found]:
    """Files with what else they are called; one that is a version of its own comes last."""
    for other, alias in beside:
        same = next((at for at, one in enumerate(found) if one.model_id == other.model_id), None)
        if same is None:
            found.append(other)
        else:
            found[same] = replace(found[same], aliases=(*found[same].aliases, alias))
    return found


def _state_of(one: _Found) -> str:
    if one.model is None:
        return "unreadable"
    if "candidate" in one.aliases and "champion" not in one.aliases:
        return "waiting"
    return next((state for state in ("champion", "canary") if state in one.aliases), "earlier")


def _readable(one: _Found) -> Learnt:
    if one.model is None:
        raise ModelError(f"cannot compare {one.path}: it is damaged, or of another schema")
    return one.model


def _flow_row(one: Mapping[str, Any]) -> dict[str, Any]:
    since, until = one.get("since", 0.0), one.get("until", 0.0)
    labels = ", ".join(f"{count:,} {origin}" for origin, count in one["origins"].items() if count)
    window = f"labels of {utc(since) if since else 'the beginning'} to {utc(until)}" if until and labels else ""
    return {
        "at": one["started_at"],
        "decision": one["state"],
        "model_id": one["model_id"],
        "parent": one["parent"],
        "data": f"{window}: {labels}" if window else "golden flow-hours",
        "data_sha256": one.get("data_sha256", ""),
        "by": one.get("author", "the program"),
        "reason": one.get("reason") or _passed(one["gates"]),
        "measures": dict(one["metrics"]),
        "gates": list(one["gates"]),
        "listed": dict(one.get("listed", {})),
        "settings": dict(one.get("settings", {})),
    }


def _sequence_row(one: Mapping[str, Any]) -> dict[str, Any]:
    end = one["began_at"] + one["seconds"]
    heard = f"{one['collected']:,} queries, " if one["collected"] else ""
    counts = f"{heard}{one['clients']:,} clients, {one['trained']:,} windows"
    return {
        "at": end,
        "decision": one["decision"],
        "model_id": one["model_id"],
        "parent": one["parent"],
        "data": f"{one['source']} until {utc(end)}: {counts}",
        "data_sha256": one["data_sha256"],
        "by": one["by"],
        "reason": one["reason"] if one["source"] in ("a person", "canary") else _passed(one["gates"]),
        "measures": {"loss": one["loss"]} if one["loss"] is not None else {},
        "gates": list(one["gates"]),
        "listed": dict(one["listed"]),
        "settings": {name: one[name] for name in ("length", "epochs", "minutes") if one[name]},
    }


def _image_row(one: Transition, facts: Mapping[str, Any]) -> dict[str, Any]:
    window = f"{utc(facts['since'])} to {utc(facts['until'])}: " if "since" in facts else ""
    return {
        "at": one.at,
        "decision": _DONE.get(one.action, one.action),
        "model_id": one.model_id,
        "parent": str(facts.get("parent", one.replaced)),
        "data": f"flow-hours of {window}{facts['images']:,} images" if "images" in facts else "–",
        "data_sha256": "",
        "by": one.by or ("somebody" if one.by_person else "the program"),
        "reason": one.reason,
        "measures": {},
        "gates": list(facts.get("gates", [])),
        "listed": dict(facts.get("listed", {})),
        "settings": {"type": facts["type"]} if "type" in facts else {},
    }


def _passed(gates: Sequence[Mapping[str, Any]]) -> str:
    missed = [str(one["name"]) for one in gates if not one["passed"]]
    return f"missed {', '.join(missed)}" if missed else f"passed {len(gates)} gates" if gates else ""


def learnt_difference_text(found: Mapping[str, Any]) -> str:
    """A difference for a terminal."""
    lines = [f"{side}: {found['kind']} model {_title(found[side])}" for side in ("old", "new")]
    for part in ("settings", "lineage", "measures", "gates", "weights"):
        rows = (f"{row['name']}: {_arrow(row)}" for row in found[part])
        lines += [f"{part}:", *listed_or_none(rows)]
    if strange := found["golden"].get("strange"):
        lines.append(f"golden tunnels that are strange: {strange['old']:.1%} → {strange['new']:.1%}")
    elif golden := found["golden"]:
        lines.append(f"golden flow-hours: mean difference of probabilities {golden['mean_difference']:.4f}")
        for name in ("tunnels", "benign"):
            one = golden[name]
            lines.append(f"  {name}: {one['rows']:,}, taken for a tunnel's {one['old']:,} → {one['new']:,}")
    if listed := listed_text(found["listed"]):
        lines += ["listed on the last days:", f"  {listed}", *(f"  {line}" for line in listed_lines(found["listed"]))]
    return "\n".join(printable(line, 400) for line in lines)


def learnt_lines(versions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Versions for a terminal, a line each."""
    return [
        f"{one['model_id'] or '–':<16}  {one['state']:<11}  {utc(one['created']) if one['created'] else '–'}"
        f"  {printable(one['path'])}{''.join(f'  ({alias})' for alias in one['aliases'] if alias != one['state'])}"
        f"  parent {one['parent'] or 'none'}, data {one['data_sha256'][:12] or '–'}, by {printable(one['decided_by'])}"
        for one in versions
    ]


def _title(side: Mapping[str, Any]) -> str:
    return f"{side['model_id']}{''.join(f' ({alias})' for alias in side['aliases'])}"


def _arrow(row: Mapping[str, Any]) -> str:
    return f"{row['old']} → {row['new']}" if row["old"] else str(row["new"])
