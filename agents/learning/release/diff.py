"""Two versions side by side: settings, lineage, gates, limits, and what they say of the shipped names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.core.text import printable, utc
from agents.detection.explanations.network_profile import NetworkProfile
from agents.detection.limits import Scale, bounds
from agents.dns.name import from_text_folded, to_text, wires_of
from agents.learning.baseline import golden_names, golden_sessions, lookalike_names
from agents.learning.profile.difference import change_lines, profile_changes
from agents.learning.run import plain
from agents.learning.validation import CASES
from agents.scoring.features import extract
from agents.scoring.model import Model

CHANGES_MAX = 200
"""Names whose severity differs that a comparison shows, those with the largest difference of scores first."""
_SAID_ELSEWHERE = {"features", "limits", "versions", "arrays_sha256", "feature_schema", "format", "profile"}
"""Keys of a manifest that are no setting, or have a part of their own."""
_TIMES = ("since", "until", "trained_at", "at")


@dataclass(frozen=True)
class Version:
    """A model with what is known of it. name: as a person called it."""

    name: str
    model: Model
    lineage: Mapping[str, Any]
    aliases: Sequence[str] = ()
    profile: NetworkProfile | None = None


def shipped_groups() -> dict[str, Sequence[bytes]]:
    """The shipped names that two models are compared on, by group: lower-case wire names."""
    tunnels = dict.fromkeys(qname.lower() for session in golden_sessions().values() for qname in session.qname)
    return {
        "validation case": [from_text_folded(case.qname) for case in CASES],
        "benign": wires_of(golden_names()),
        "benign look-alike": wires_of(lookalike_names()),
        "tunnel": list(tunnels),
    }


def difference(old: Version, new: Version, scale: Scale) -> dict[str, Any]:
    """What differs between two versions, as JSON. Only the query models are asked, not limits on what flows carry."""
    sides = {"old": old, "new": new}
    return {
        name: {"model_id": one.model.model_id, "name": one.name, "aliases": list(one.aliases)}
        for name, one in sides.items()
    } | {
        "settings": changed_rows(*(_settings(one) for one in sides.values())),
        "lineage": changed_rows(*(_origin(one) for one in sides.values())),
        "gates": _changed(*(_gates(one) for one in sides.values())),
        "limits": {
            name: {"factor": one.model.limit_factor, **bounds(one.model.limit_factor)} for name, one in sides.items()
        },
        "profile": plain(profile_changes(old.profile, new.profile)),
        "scores": _scores(old.model, new.model, scale),
    }


def difference_text(found: Mapping[str, Any]) -> str:
    """A difference for a terminal."""
    lines = [f"{side}: {_title(found[side])}" for side in ("old", "new")]
    for part in ("settings", "lineage", "gates"):
        lines += [f"{part}:", *(listed_or_none(f"{row['name']}: {row['old']} → {row['new']}" for row in found[part]))]
    limits = (f"{name}: {old:g} → {new:g}" for name, old, new in _changed_limits(found))
    lines += ["limits:", *listed_or_none(limits), "network profile:", *listed_or_none(change_lines(found["profile"]))]
    scores = found["scores"]
    lines.append(f"shipped names ({scores['names']:,}): {scores['changed']:,} change severity")
    for row in scores["groups"]:
        lines.append(
            f"  {row['group']}: {row['names']:,} names, above NORMAL {row['old']:,} → {row['new']:,},"
            f" mean difference of scores {row['mean_difference']:.4f}"
        )
    for row in scores["changes"]:
        name = printable(row["qname"], 90)
        lines.append(f"  {row['old']} → {row['new']}  {row['old_score']:.3f} → {row['new_score']:.3f}  {name}")
    left = scores["changed"] - len(scores["changes"])
    return "\n".join(lines + ([f"  and {left:,} others"] if left else []))


def _changed_limits(found: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Name, old and new value of the limits that differ, of a difference."""
    old, new = found["limits"]["old"], found["limits"]["new"]
    return [(name, old[name], new[name]) for name in old if old[name] != new[name]]


def changed_rows(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of what is not the same in two nested mappings, as text; what one side lacks is "–"."""
    return _changed(*(dict(_flat(one)) for one in (old, new)))


def listed_or_none(rows: Iterable[str]) -> list[str]:
    """Indented lines, or that there is no difference."""
    return [f"  {row}" for row in rows] or ["  no difference"]


def _title(side: Mapping[str, Any]) -> str:
    names = ", ".join(dict.fromkeys([*side["aliases"], side["name"]]) - {side["model_id"]: None}.keys())
    return f"{side['model_id']}{f' ({names})' if names else ''}"


def _settings(one: Version) -> dict[str, Any]:
    manifest = {name: value for name, value in one.model.manifest.items() if name not in _SAID_ELSEWHERE}
    own = {name: manifest[name] for name in ("algorithm", "params", "seed") if name in manifest}
    return own | {"retraining": one.lineage.get("settings", {})}


def _origin(one: Version) -> dict[str, Any]:
    manifest, known = one.model.manifest, dict(one.lineage)
    out: dict[str, Any] = {name: known[name] for name in ("run_id", "trained_at", "code") if name in known}
    out |= {"parent": manifest.get("parent", known.get("parent", "–")), "data": manifest.get("data", {})}
    return out | {"arrays_sha256": manifest.get("arrays_sha256", "–"), "libraries": manifest.get("versions", {})}


def _gates(one: Version) -> dict[str, str]:
    found = one.lineage.get("gates")
    rows = found if isinstance(found, list) else []
    return {str(row.get("name")): _shown(row.get("value")) for row in rows if isinstance(row, dict)}


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of what is not the same; what one side lacks is "–"."""
    rows = [{"name": name, "old": old.get(name, "–"), "new": new.get(name, "–")} for name in {**old, **new}]
    return [row for row in rows if row["old"] != row["new"]]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        elif name in _TIMES and isinstance(value, int | float):
            yield f"{prefix}{name}", utc(value)
        else:
            yield f"{prefix}{name}", _shown(value)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else printable("–" if value is None else value)


def _scores(old: Model, new: Model, scale: Scale) -> dict[str, Any]:
    groups: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    for group, names in shipped_groups().items():
        features = extract(names)
        before, after = (model.score(features, names) for model in (old, new))
        levels = [scale.severities(one.astype(np.float64)) for one in (before, after)]
        groups.append(
            {
                "group": group,
                "names": len(names),
                "old": int(np.count_nonzero(levels[0])),
                "new": int(np.count_nonzero(levels[1])),
                "mean_difference": float(np.abs(after - before).mean()) if names else 0.0,
            }
        )
        for row in np.flatnonzero(levels[0] != levels[1]).tolist():
            sides = {"old": float(before[row]), "new": float(after[row])}
            shown: dict[str, Any] = {"qname": to_text(names[row]), "group": group}
            shown |= {f"{side}_score": score for side, score in sides.items()}
            changes.append(shown | {side: scale.severity(score).name for side, score in sides.items()})
    changes.sort(key=lambda row: -abs(row["new_score"] - row["old_score"]))
    return {
        "names": sum(row["names"] for row in groups),
        "changed": len(changes),
        "groups": groups,
        "changes": changes[:CHANGES_MAX],
    }
