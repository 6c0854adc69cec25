"""The reasons for a query's severity or for an incident, in words."""

from __future__ import annotations

from collections.abc import Sequence

from agents.core.text import counted
from agents.detection.limits import LIMITS, Evidence, Scale
from agents.detection.state import Kind, Sign
from agents.scoring.features import HEX, View, view_of


def _span(seconds: int) -> str:
    return {60: "60 s", 600: "10 min", 3600: "1 h", 86_400: "24 h", 604_800: "7 d"}[seconds]


def _amount(evidence: Evidence) -> str:
    """What counts for a limit: "1 byte of encoded data", "500 bytes of information"."""
    carried = LIMITS[evidence.kind].carried
    return counted(evidence.amount, "byte") + carried.removeprefix("bytes")


STRICT_REASON = "the client is in a strict group"
LEARNT_REASON = "what it did in an hour looks like a tunnel to the learnt model"
SEQUENCE_REASON = "its queries come at an even pace, each for a new name"
IMAGE_REASON = "what it did over several hours is strange beside ordinary flows"
LEARNT_REASONS = LEARNT_REASON, SEQUENCE_REASON, IMAGE_REASON
"""What the reasons of an incident begin with that no limit opened."""
CERTAIN_REASONS = "one query below", STRICT_REASON
"""What the reasons of a query that is an incident by itself begin with."""


def _refused(evidence: Evidence) -> str:
    return f"{STRICT_REASON} and asked for {evidence.refused}, which its list does not have"


_SIGNS = {
    Sign.TYPES: "its record types carry text",
    Sign.EMPTY: "its answers are empty",
    Sign.DIFFER: "its answers differ",
    Sign.SIBLINGS: "names of the same form lie below other young domains",
}


def _beacon_reasons(domain: str, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"{counted(evidence.names, 'unique name')} below {domain} in {_span(evidence.window_s)}",
        f"one every {evidence.amount:,.0f} s, as a program asks",
        *([_SIGNS[evidence.sign]] if evidence.sign else []),
    )


def _polls_reasons(domain: str, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"asked {evidence.names:,} times in a row for text below {domain}",
        f"once every {evidence.amount:,.0f} s, as a program asks",
    )


def incident_reasons(
    domain: str, names: int, encoded_names: int, evidence: Evidence, sharing: Sequence[str]
) -> tuple[str, ...]:
    """Why an incident was opened, in words. names: the flow's unique names; sharing: the loudest of several domains."""
    if evidence.refused:
        return (_refused(evidence),)
    if evidence.learnt:
        return (evidence.text or f"{LEARNT_REASON} (probability {evidence.learnt:.3f})", "no limit was reached")
    if evidence.kind == Kind.SECRET:
        return (f"one query below {domain} carried {evidence.text}",)
    if evidence.kind == Kind.BEACON:
        return _beacon_reasons(domain, evidence)
    if evidence.kind == Kind.POLLS:
        return _polls_reasons(domain, evidence)
    limit, span = LIMITS[evidence.kind], _span(evidence.window_s)
    where = limit.where.format(domain=domain, domains=evidence.domains, sharing=", ".join(sharing))
    times = f"{evidence.ratio:,.1f} times the limit of {evidence.limit:,.0f}"
    if limit.alone:
        return (f"{_amount(evidence)} {where} in {span}, {times}",)
    reasons = [f"{counted(evidence.names, 'unique name')} {where} in {span}"]
    if limit.in_names:
        reasons.append(f"{limit.carried}, {times} such names")
    else:
        reasons.append(f"{_amount(evidence)}, {times}")
    # What came in with the answers does not lie in the names.
    if evidence.kind != Kind.ANSWERS and names and encoded_names / names >= 0.5:
        reasons.append(f"{100 * encoded_names // names} % of the names read as encoded, not as words")
    if evidence.sign == Sign.SIBLINGS and evidence.kind != Kind.SIBLINGS:
        reasons.append(_SIGNS[evidence.sign])
    return tuple(reasons)


def query_reasons(
    qname: bytes, model: float, behaviour: float, evidence: Evidence, domain: str, scale: Scale
) -> tuple[str, ...]:
    """Why a query is not NORMAL, in words; evidence of the flow first, then features of the name."""
    reasons: list[str] = []
    limit = LIMITS[evidence.kind]
    below = domain if "{domain}" in limit.where else "many domains"
    if evidence.refused:
        reasons.append(_refused(evidence))
    elif evidence.kind == Kind.SECRET:
        reasons.append(f"it carries {evidence.text}")
    elif evidence.kind == Kind.POLLS and behaviour >= scale.suspicious:
        reasons += _polls_reasons(domain, evidence)
    elif limit.alone and behaviour >= scale.suspicious:
        reasons.append(f"{_amount(evidence)} below {below}")
    elif behaviour >= scale.suspicious:
        reasons.append(f"{counted(evidence.names, 'unique name')} below {below} in {_span(evidence.window_s)}")
        if not limit.in_names:
            reasons.append(f"{counted(evidence.amount, 'byte')} of information")
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
