"""From numbers to severity and reasons: how evidence of a flow and a query's score become a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agents.features import HEX, View, view_of
from agents.types import Severity
from agents.windows import Flow, Spread

INFORMATION_BYTES = {60: 500.0, 600: 800.0, 3600: 1_000.0, 86_400: 2_500.0, 604_800: 6_000.0}
"""Bytes of new names that one client may send below one domain per window, whatever they look like."""
ENCODED_BYTES = {60: 100.0, 600: 140.0, 3600: 200.0, 86_400: 400.0, 604_800: 900.0}
"""The same for labels that read as encoded data. The highest of the benign development captures, known services
apart, are 48 bytes in an hour and 38 in a day for one client (docs/detection.md)."""
SPREAD_BYTES = {3600: 300.0, 86_400: 800.0}
"""The same, summed over all carriers of one client: data split over domains."""
MIN_NAMES = 2
"""Names below which there is no behaviour, only odd names."""
CRITICAL_RATIO = 3.0
"""Times over a limit from which an incident is CRITICAL."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where severities begin, and how the two votes on a query are combined."""

    suspicious: float = 0.5
    high: float = 0.7
    critical: float = 0.9
    model_weight: float = 0.7
    combine: str = "max"  # or "weighted"

    def severity(self, score: float) -> Severity:
        if score < self.suspicious:
            return Severity.NORMAL
        if score < self.high:
            return Severity.SUSPICIOUS
        return Severity.HIGH if score < self.critical else Severity.CRITICAL

    def combined(self, model: float, behaviour: float) -> float:
        """Score of a query: the louder vote, or their weighted mean."""
        if self.combine == "weighted":
            return self.model_weight * model + (1 - self.model_weight) * behaviour
        return max(model, behaviour)

    def behaviour(self, ratio: float) -> float:
        """Score of evidence: `high` where a limit is reached, `critical` at CRITICAL_RATIO times it, towards 1 beyond.

        Below the limit it rises with the square, so that half of a limit raises no eyebrow.
        """
        if ratio < 1:
            return self.high * ratio * ratio
        if ratio < CRITICAL_RATIO:
            return self.high + (self.critical - self.high) * (ratio - 1) / (CRITICAL_RATIO - 1)
        return 1 - (1 - self.critical) * CRITICAL_RATIO / ratio


@dataclass(frozen=True, slots=True)
class Evidence:
    """The limit that a flow is nearest to, or furthest beyond."""

    ratio: float
    window_s: int = 60
    amount: float = 0.0
    limit: float = 0.0
    names: int = 0
    kind: str = "information"  # "encoded", "spread"
    domains: int = 1


def evidence_of(ts: float, flow: Flow, spread: Spread | None) -> Evidence:
    """The strongest evidence about a flow at time ts; ratio 0 while it has shown too few names."""
    best = Evidence(0.0)
    if flow.names < MIN_NAMES:
        return best
    for window in flow.windows:
        information, encoded, names = window.sums(ts)
        for kind, amount, limits in (
            ("information", information, INFORMATION_BYTES),
            ("encoded", encoded, ENCODED_BYTES),
        ):
            limit = limits[window.seconds]
            if amount / limit > best.ratio:
                best = Evidence(amount / limit, window.seconds, amount, limit, round(names), kind)
    if spread is not None and len(spread.domains) > 1:
        for window in spread.windows:
            amount, limit = window.sums(ts)[1], SPREAD_BYTES.get(window.seconds, 0.0)
            if limit and amount / limit > best.ratio:
                names = round(window.sums(ts)[2])
                best = Evidence(amount / limit, window.seconds, amount, limit, names, "spread", len(spread.domains))
    return best


def _span(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds > 60:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def incident_reasons(domain: str, flow: Flow, evidence: Evidence, spread: Spread | None) -> tuple[str, ...]:
    """Why there is an incident, in words."""
    span = _span(evidence.window_s)
    first = f"{evidence.names} unique names below {domain} in {span}"
    if evidence.kind == "spread" and spread is not None:
        others = sorted(spread.domains, key=lambda name: (-spread.domains[name], name))[:5]
        first = f"{evidence.names} unique names below {evidence.domains} domains in {span}: {', '.join(others)}"
    carried = "information" if evidence.kind == "information" else "encoded data"
    reasons = [
        first,
        f"{evidence.amount:.0f} bytes of {carried}, {evidence.ratio:.1f} times the {evidence.limit:.0f} of its limit",
    ]
    if flow.names and flow.encoded_names / flow.names >= 0.5:
        reasons.append(f"{100 * flow.encoded_names // flow.names} % of the names read as encoded, not as words")
    return tuple(reasons)


def query_reasons(
    qname: bytes, model: float, behaviour: float, evidence: Evidence, domain: str, scale: Scale
) -> tuple[str, ...]:
    """Why a query is not NORMAL, in words; the loudest first."""
    reasons: list[str] = []
    if behaviour >= scale.suspicious:
        span, names = _span(evidence.window_s), evidence.names
        reasons.append(f"{names} unique names below {domain} in {span}; {evidence.amount:.0f} bytes of information")
    if model >= scale.suspicious:
        reasons += name_reasons(view_of(qname))
    return tuple(reasons)


def name_reasons(view: View) -> Sequence[str]:
    """What is odd about a name, in words."""
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
