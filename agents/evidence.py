"""What an analyst needs of an incident beside its reasons: what it decodes to, techniques, types, rate, a way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents.decoding import preview
from agents.fingerprints import tool_of, trace_of
from agents.names import to_text
from agents.windows import Flow
from agents.wire import type_name

PROTOCOL, EXFILTRATION, TUNNELLING, ENCODING = "T1071.004", "T1048.003", "T1572", "T1132.001"
"""MITRE ATT&CK: application layer protocol DNS, exfiltration over an unencrypted protocol, protocol tunnelling,
standard encoding."""
TYPES_SHOWN = 6
SHOWN_SAMPLES = 8
"""Names that an incident shows."""
TYPES_MANY = 8
"""Record types of a flow from which they are more telling than its few names."""
TIMELINE_MAX = 32
TIMELINE_START_S = 60.0


class Timeline:
    """Queries and bytes over time in at most TIMELINE_MAX steps; where they run out, steps double in length."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.step_s = TIMELINE_START_S
        self.rows: list[list[float]] = []

    def add(self, ts: float, queries: float, leaked: float) -> None:
        """Count what came at ts; what lies before the start counts for the first step."""
        while (at := int(max(ts - self.start, 0) // self.step_s)) >= TIMELINE_MAX:
            self._double()
        self.rows += [[0.0, 0.0] for _ in range(at + 1 - len(self.rows))]
        self.rows[at][0] += queries
        self.rows[at][1] += leaked

    def _double(self) -> None:
        self.step_s *= 2
        pairs = [self.rows[i : i + 2] for i in range(0, len(self.rows), 2)]
        self.rows = [[sum(row[0] for row in pair), sum(row[1] for row in pair)] for pair in pairs]

    def to_json(self) -> list[dict[str, float]]:
        """One row a step that saw queries: when it began, queries, bytes."""
        return [
            {"at": self.start + i * self.step_s, "queries": queries, "bytes": round(leaked, 1)}
            for i, (queries, leaked) in enumerate(self.rows)
            if queries
        ]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the first names of a flow say, which costs more than all the rest of its evidence."""

    count: int = 0  # of names that were read
    tool: str | None = None
    readable: str = ""  # what they decode to
    shown: tuple[str, ...] = ()  # the first of them


UNREAD = Reading()


def reading_of(flow: Flow) -> Reading:
    """Read the names that are kept of a flow."""
    samples = flow.samples
    readable = preview(trace_of(samples).names) if samples else ""
    return Reading(
        len(samples), tool_of(samples), readable, tuple(to_text(wire) for wire, _ in samples[:SHOWN_SAMPLES])
    )


def evidence_json(flow: Flow, domain: str, tool: str | None, readable: str, timeline: Timeline) -> dict[str, Any]:
    """Evidence as JSON values; text is ASCII. readable: what its names decode to."""
    lasted = max(flow.last_seen - flow.first_seen, 60.0)  # a burst of a second is no rate
    common = sorted(flow.qtypes.items(), key=lambda item: (-item[1], item[0]))[:TYPES_SHOWN]
    return {
        "attack": attack(flow, tool, readable),
        "preview": readable,
        "qtypes": {type_name(qtype): count for qtype, count in common},
        "queries_per_minute": round(flow.queries / lasted * 60, 2),
        "bytes_in": flow.bytes_in,
        "benign_if": benign_if(flow, domain),
        "timeline": timeline.to_json(),
        "step_s": timeline.step_s,
    }


def attack(flow: Flow, tool: str | None, readable: str) -> list[str]:
    """ATT&CK technique ids that fit."""
    found = [PROTOCOL]
    if tool is not None:
        found.append(TUNNELLING)
    if flow.leaked_bytes >= flow.bytes_in:
        found.append(EXFILTRATION)
    if readable or 0 < flow.names <= flow.encoded_names * 2:
        found.append(ENCODING)
    return found


def benign_if(flow: Flow, domain: str) -> str:
    """In one sentence, what would have made it benign."""
    if domain == ".":
        return "It would be benign if names without any domain were a broken program's, and not data sent to a server."
    if 0 < flow.names <= flow.encoded_names * 2:
        return (
            f"It would be benign if {domain} ran a service that puts keys or hashes into names, as antivirus, block "
            "list and content delivery services do."
        )
    if len(flow.qtypes) >= TYPES_MANY:
        return f"It would be benign if the client watched over {domain}, or resolved it for many others."
    return f"It would be benign if {domain} had this many hosts, all of them asked for by one client."


def attack_names(ids: Sequence[str]) -> str:
    """Technique ids in words."""
    names = {PROTOCOL: "DNS as channel", EXFILTRATION: "exfiltration", TUNNELLING: "tunnelling", ENCODING: "encoding"}
    return ", ".join(f"{one} ({names[one]})" for one in ids if one in names)
