"""The shipped detector over made-up traffic, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from agents.core.types import Incident, Row, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.flows import Flows
from agents.detection.limits import Scale
from agents.dns.name import from_text
from agents.learning.baseline import model_bytes
from agents.scoring.model import Model
from tests.support.siphash import siphash

START = 1_767_571_200.0
BATCH = 1024


@lru_cache(maxsize=1)
def shipped_model() -> Model:
    """The model that the package ships."""
    return Model.from_bytes(model_bytes())


KEYS_MAX = 200_000
QUIET_S = 3600.0


def fresh_detector(
    model: Model, scale: Scale, keys_max: int = KEYS_MAX, quiet_s: float = QUIET_S, burn_in_days: float = 0
) -> TunnelDetector:
    """A detector that has seen nothing yet, with the shipped known services."""
    return TunnelDetector(model, keys_max, quiet_s, scale, burn_in_days=burn_in_days)


def query(ts: float, client: str, name: str | bytes, qtype: int = 1) -> Row:
    """A query of which little else is known; bytes are a name in wire form."""
    wire = from_text(name) if isinstance(name, str) else name
    return ts, client, wire, qtype, len(wire) + 17, 0, 1, len(wire) + 40, 60, 12.0, ""


def paced(names: Iterable[str | bytes], every_s: float, client: str = "10.9.0.9", qtype: int = 1) -> list[Row]:
    """One client asks for each of the names, `every_s` seconds apart."""
    return [query(START + i * every_s, client, name, qtype) for i, name in enumerate(names)]


def domain_key(detector: TunnelDetector, domain: str) -> int:
    """What a detector's flows know a registered domain by."""
    return siphash(from_text(domain), detector.flows.key)


def incidents_of(rows: Iterable[Row], model: Model | None = None) -> list[Incident]:
    """All incidents of the rows, which must be in time order; the last state of each, by time of detection."""
    detector = fresh_detector(model or shipped_model(), Scale())
    found: dict[str, Incident] = {}
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        for incident in detector.detect(batch_of(batch)).incidents:
            found[incident.incident_id] = incident
    last = detector.flush()
    found |= {incident.incident_id: incident for incident in (last.incidents if last else ())}
    return sorted(found.values(), key=lambda incident: incident.detected_at)


def bytes_held(flows: Flows) -> int:
    """Memory of all arrays of flows."""
    return sum(array.nbytes for array in flows.state)
