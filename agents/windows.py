"""What left towards one (client, domain), as people and rules read it. The sums lie in kernels/ (state, windows)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agents.kernels.counting import CARRYING_TYPES, SAMPLES
from agents.kernels.state import QTYPES_MAX, WINDOWS_S

__all__ = ["CARRYING_TYPES", "QTYPES_MAX", "SAMPLES", "WINDOWS_S", "Flow", "flow_of"]


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of one (client, domain) at one time. Times are Unix seconds; qtypes from when it first carried."""

    first_seen: float
    last_seen: float
    queries: int
    names: int  # different ones
    encoded_names: int  # those with a label that reads as encoded
    leaked_bytes: float  # of information, in names
    encoded_bytes: float  # the part of it that read as encoded
    bytes_in: int  # in answers of types that carry text or names
    samples: tuple[tuple[bytes, int], ...] = ()  # first names, as sent, with their query types
    qtypes: dict[int, int] = field(default_factory=dict)


def flow_of(kept: Any, detail: Any, samples: tuple[tuple[bytes, int], ...]) -> Flow:
    """A flow of its row of FLOW and its row of DETAIL, None where it has none."""
    types = () if detail is None else zip(detail["qtype"].tolist(), detail["count"].tolist(), strict=True)
    return Flow(
        first_seen=float(kept["first_seen"]),
        last_seen=float(kept["last_seen"]),
        queries=int(kept["queries"]),
        names=int(kept["names"]),
        encoded_names=int(kept["encoded_names"]),
        leaked_bytes=float(kept["leaked"]),
        encoded_bytes=float(kept["encoded"]),
        bytes_in=int(kept["bytes_in"]),
        samples=samples,
        qtypes={qtype: count for qtype, count in types if count},
    )
