"""The reasons for a query's severity or for an incident, in words."""

from __future__ import annotations

from collections.abc import Sequence

from agents.detection.limits import Evidence, Scale
from agents.scoring.features import HEX, View, view_of


def _span(seconds: int) -> str:
    return {60: "60 s", 600: "10 min", 3600: "1 h", 86_400: "24 h", 604_800: "7 d"}[seconds]


def incident_reasons(
    domain: str, names: int, encoded_names: int, evidence: Evidence, sharing: Sequence[str]
) -> tuple[str, ...]:
    """Why an incident was opened, in words. names: the flow's unique names; sharing: the loudest of several domains."""
    span, where = _span(evidence.window_s), f"below {domain}"
    times = f"{evidence.ratio:,.1f} times the limit of {evidence.limit:,.0f}"
    if evidence.kind == "secret":
        return (f"one query below {domain} carried {evidence.text}",)
    if evidence.kind == "choice":
        return (f"{evidence.amount:,.0f} bytes in the choice of record types {where} in {span}, {times}",)
    if evidence.kind == "scattered":
        where = "below as many domains, one or two each,"
    elif evidence.kind.startswith("spread"):
        where = f"below {evidence.domains} domains ({', '.join(sharing)})"
    reasons = [f"{evidence.names:,} unique names {where} in {span}"]
    if evidence.kind.endswith("fresh"):
        reasons.append(f"each new and encoded, {times} such names")
    else:
        carried = {"information": "information", "answers": "data in answers"}.get(evidence.kind, "encoded data")
        reasons.append(f"{evidence.amount:,.0f} bytes of {carried}, {times}")
    if names and encoded_names / names >= 0.5:
        reasons.append(f"{100 * encoded_names // names} % of the names read as encoded, not as words")
    return tuple(reasons)


def query_reasons(
    qname: bytes, model: float, behaviour: float, evidence: Evidence, domain: str, scale: Scale
) -> tuple[str, ...]:
    """Why a query is not NORMAL, in words; evidence of the flow first, then features of the name."""
    reasons: list[str] = []
    if evidence.kind == "secret":
        reasons.append(f"it carries {evidence.text}")
    elif evidence.kind == "choice" and behaviour >= scale.suspicious:
        reasons.append(f"{evidence.amount:,.0f} bytes in the choice of record types below {domain}")
    elif behaviour >= scale.suspicious:
        below = "many domains" if evidence.kind == "scattered" else domain
        reasons.append(f"{evidence.names:,} unique names below {below} in {_span(evidence.window_s)}")
        if not evidence.kind.endswith("fresh"):
            reasons.append(f"{evidence.amount:,.0f} bytes of information")
    if model >= scale.suspicious:
        reasons += name_reasons(view_of(qname))
    return tuple(reasons)


def name_reasons(view: View) -> Sequence[str]:
    """The unusual features of a name, in words."""
    longest = view.longest
    reasons = []
    if len(longest) >= 16 and all(byte in HEX for byte in longest):
        reasons.append(f"{len(longest)} hex characters in one label")
    elif len(longest) >= 24:
        reasons.append(f"a label of {len(longest)} characters")
    if len(view.text) >= 52:
        reasons.append(f"{len(view.text)} characters left of the registered domain")
    if any(byte not in b"abcdefghijklmnopqrstuvwxyz0123456789-_" for byte in view.text):
        reasons.append("bytes that host names do not use")
    return reasons or ["a name unlike those that this network usually asks for"]
