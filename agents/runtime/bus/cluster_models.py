"""Which host on a bus runs which model, as the host that deploys has read it last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

CLUSTER_FILE = "cluster.json"
"""In the folder of the state of the host that deploys."""
SILENT_S = 60.0
"""A host that has said nothing for so long is silent."""


class HostModel(BaseModel):
    """What a host says it runs. since, at: Unix seconds; since it runs this model, and when it said so last.

    lag: messages of its slots that no saved state has. candidate: of a canary that judges there, "" = none does.
    """

    model_id: str
    since: float
    at: float
    slots: int
    lag: int = 0
    candidate: str = ""
    candidate_since: float = 0.0


class ClusterModels(BaseModel):
    """What is in force on the bus, "" = nothing, and what the hosts that judge run, by name. at: when that was read."""

    model_id: str = ""
    hosts: dict[str, HostModel] = {}
    at: float = 0.0

    @property
    def behind(self) -> set[str]:
        """Hosts that run another model."""
        return {name for name, one in self.hosts.items() if self.model_id and one.model_id != self.model_id}

    def silent(self, now: float) -> set[str]:
        """Hosts that have said nothing for a while."""
        return {name for name, one in self.hosts.items() if now - one.at > SILENT_S}


_HOSTS = TypeAdapter(dict[str, HostModel])


def noted_hosts(data: bytes) -> dict[str, dict[str, Any]]:
    """The table of hosts on the bus; an empty one where it cannot be read."""
    try:
        return {name: one.model_dump() for name, one in _HOSTS.validate_json(data or b"{}").items()}
    except ValidationError:
        return {}


def shown_hosts(state_dir: Path) -> Mapping[str, Any]:
    """All of it, for API and console."""
    found, now = cluster_models(state_dir) or ClusterModels(), time.time()
    behind, silent = found.behind, found.silent(now)
    hosts = [
        {"name": name, **one.model_dump(), "behind": name in behind, "silent": name in silent}
        for name, one in sorted(found.hosts.items())
    ]
    return {"model_id": found.model_id, "hosts": hosts}


def candidate_hosts(state_dir: Path, model_id: str) -> Mapping[str, float] | None:
    """Hosts where this candidate judges, and since when; None where there is no bus, or none runs."""
    found = cluster_models(state_dir)
    if found is None:
        return None
    return {name: one.candidate_since for name, one in found.hosts.items() if one.candidate == model_id}


def cluster_models(state_dir: Path) -> ClusterModels | None:
    """What the process that deploys has read last; None where there is no bus, or none runs."""
    try:
        found = ClusterModels.model_validate_json((state_dir / CLUSTER_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if abs(time.time() - found.at) < SILENT_S else None
