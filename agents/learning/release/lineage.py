"""Where a version comes from: a file of JSON beside the model's own, written as its run goes on.

models/candidates/<model id>.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import structlog

import agents
from agents.core.files import write_atomic
from agents.core.npz import FormatError, object_of
from agents.core.types import Sample

LINEAGE_BYTES_MAX = 4 << 20
"""A larger file is no lineage of ours."""
_log = structlog.get_logger()


def sample_digest(sample: Sample) -> str:
    """sha256 of what a training learns from: names and features, in their order. Who asked is not learnt."""
    total = hashlib.sha256()
    for name in sample.qname:
        total.update(name.encode("utf-8", "surrogateescape") + b"\0")
    total.update(sample.features.astype("<f4").tobytes())
    return total.hexdigest()


@cache
def code_version() -> Mapping[str, str]:
    """Release of this program, and the sha256 of its sources: a checkout may differ from its release."""
    package, total = Path(agents.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return {"release": agents.__version__, "sources_sha256": total.hexdigest()}


def lineage_path(model_path: Path) -> Path:
    """Where the lineage of the model at a path is kept."""
    return model_path.with_suffix(".json")


def read_lineage(model_path: Path) -> dict[str, Any]:
    """What is known of a version; {} where there is nothing, or nothing that can be read."""
    path = lineage_path(model_path)
    try:
        if path.stat().st_size > LINEAGE_BYTES_MAX:
            raise FormatError("it is too large")
        found = object_of(path.read_bytes(), "it")
    except FileNotFoundError:
        return {}
    except (FormatError, OSError) as error:
        _log.warning("lineage_not_read", path=str(path), error=str(error))
        return {}
    return found


def note_lineage(model_path: Path, facts: Mapping[str, Any]) -> None:
    """Add facts, which must be JSON, to what is known of a version. Raises OSError."""
    known = read_lineage(model_path)
    write_atomic(lineage_path(model_path), json.dumps(known | dict(facts), indent=1).encode())
