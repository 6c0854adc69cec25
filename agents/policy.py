"""From numbers to severity and reasons: how evidence of a flow and a query's score become a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agents.features import View, view_of
from agents.letters import HEX
from agents.types import Severity
from agents.windows import Flow, Window

INFORMATION_BYTES = {60: 500.0, 600: 800.0, 3600: 1_000.0, 86_400: 2_500.0, 604_800: 6_000.0}
"""Bytes of new names that one client may send below one domain per window, whatever they look like."""
ENCODED_BYTES = {60: 100.0, 600: 140.0, 3600: 200.0, 86_400: 400.0, 604_800: 900.0}
"""The same for labels that read as encoded data. The highest of the benign development captures, known services
apart, are 48 bytes in an hour and 38 in a day for one client (docs/detection.md)."""
SPREAD_BYTES = {3600: 300.0, 86_400: 800.0}
"""The same, summed over all carriers of one client: data split over domains."""
ANSWER_BYTES = {60: 6_000.0, 3600: 12_000.0, 86_400: 30_000.0}
"""Bytes in answers of types that carry text or names, each name, type and size counted once."""
FRESH_NAMES = {3600: 15.0, 86_400: 60.0}
"""Encoded names below one domain per window, where the flow is little else: a few short names a minute."""
SPREAD_FRESH_NAMES = {3600: 24.0, 86_400: 100.0}
"""The same, summed over all carriers of one client."""
FRESH_BYTES_A_NAME = 3.5
"""What each of those must carry at least, on average."""
FRESH_ENCODED_SHARE, FRESH_NAME_SHARE = 0.85, 0.4
"""Shares from which a flow is little else: of its names that are encoded, and of its queries that ask for a name for
the first time (a browser asks for A and AAAA, and comes back; a carrier asks once). Padding evades this limit, not
the others."""
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

    def ratio(self, score: float) -> float:
        """How many times over its limit evidence of this score is: the inverse of `behaviour`."""
        if score < self.high:
            return float((score / self.high) ** 0.5)
        if score < self.critical:
            return 1 + (CRITICAL_RATIO - 1) * (score - self.high) / (self.critical - self.high)
        return (1 - self.critical) * CRITICAL_RATIO / max(1 - score, 1e-9)

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
    amount: float = 0.0  # bytes, or names where the kind is fresh
    limit: float = 0.0
    names: int = 0
    kind: str = "information"  # "answers", "encoded", "fresh", "spread", "spread fresh", "secret"
    domains: int = 1
    text: str = ""  # what a secret is


def evidence_of(ts: float, flow: Flow, carriers: Mapping[str, Flow], factor: float = 1.0) -> Evidence:
    """The strongest evidence about a flow at time ts, at `factor` times the limits.

    carriers: the client's flows that carry encoded names, this one among them if it is one. A flow that reaches a
    limit by itself is marked `alone`: from then on it counts for no other domain's evidence.
    """
    best = _own(ts, flow)
    flow.alone = flow.alone or best.ratio >= factor
    if not flow.alone:
        best = _shared(best, ts, [one for one in carriers.values() if not one.alone], _is_fresh(flow))
    return best if factor == 1.0 else replace(best, ratio=best.ratio / factor, limit=best.limit * factor)


def _own(ts: float, flow: Flow) -> Evidence:
    best = Evidence(0.0)
    enough = flow.names >= MIN_NAMES
    fresh = enough and _is_fresh(flow)
    for window in flow.windows:
        information, encoded, names, encoded_names, answers = window.sums(ts)
        best = _louder(best, window, "answers", answers, ANSWER_BYTES, names)
        if not enough:
            continue
        best = _louder(best, window, "information", information, INFORMATION_BYTES, names)
        best = _louder(best, window, "encoded", encoded, ENCODED_BYTES, names)
        if fresh:
            amount = min(encoded_names, encoded / FRESH_BYTES_A_NAME)
            best = _louder(best, window, "fresh", amount, FRESH_NAMES, names)
    return best


def _shared(best: Evidence, ts: float, carriers: Sequence[Flow], fresh: bool) -> Evidence:
    if len(carriers) < 2:
        return best
    for number, window in enumerate(carriers[0].windows):
        if window.seconds not in SPREAD_BYTES:
            continue
        sums = [carrier.windows[number].sums(ts) for carrier in carriers]
        encoded, names = sum(one[1] for one in sums), sum(one[3] for one in sums)
        best = _louder(best, window, "spread", encoded, SPREAD_BYTES, names, len(carriers))
        if fresh:
            amount = min(names, encoded / FRESH_BYTES_A_NAME)
            best = _louder(best, window, "spread fresh", amount, SPREAD_FRESH_NAMES, names, len(carriers))
    return best


def with_secret(evidence: Evidence, secret: str) -> Evidence:
    """Evidence of a query that gives a secret away: enough by itself, whatever the windows say."""
    return replace(evidence, ratio=max(evidence.ratio, 1.0), kind="secret", text=secret) if secret else evidence


def _is_fresh(flow: Flow) -> bool:
    encoded, new = flow.encoded_names / max(flow.names, 1), flow.names / max(flow.queries, 1)
    return encoded >= FRESH_ENCODED_SHARE and new >= FRESH_NAME_SHARE


def _louder(
    best: Evidence,
    window: Window,
    kind: str,
    amount: float,
    limits: Mapping[int, float],
    names: float,
    domains: int = 1,
) -> Evidence:
    limit = limits.get(window.seconds)
    if limit is None or amount / limit <= best.ratio:
        return best
    return Evidence(amount / limit, window.seconds, amount, limit, round(names), kind, domains)


def bounds(factor: float = 1.0) -> dict[str, float]:
    """What can leave unseen at a factor on the limits, bytes per client and domain."""
    return {
        "encoded_bytes_a_day": ENCODED_BYTES[86_400] * factor,
        "encoded_bytes_an_hour": ENCODED_BYTES[3600] * factor,
        "bytes_in_words_a_day": INFORMATION_BYTES[86_400] * factor,
    }


def _span(seconds: int) -> str:
    return {60: "60 s", 600: "10 min", 3600: "1 h", 86_400: "24 h", 604_800: "7 d"}[seconds]


def incident_reasons(domain: str, flow: Flow, evidence: Evidence, carriers: Mapping[str, Flow]) -> tuple[str, ...]:
    """Why there is an incident, in words."""
    span = _span(evidence.window_s)
    where = f"below {domain}"
    if evidence.kind.startswith("spread"):
        shared = [name for name in carriers if not carriers[name].alone]
        loudest = sorted(shared, key=lambda name: (-carriers[name].encoded_bytes, name))[:5]
        where = f"below {evidence.domains} domains ({', '.join(loudest)})"
    if evidence.kind == "secret":
        return (f"one query below {domain} carried {evidence.text}",)
    reasons = [f"{evidence.names} unique names {where} in {span}"]
    if evidence.kind.endswith("fresh"):
        reasons.append(f"each new and encoded, {evidence.ratio:.1f} times the limit of {evidence.limit:.0f} such names")
    else:
        carried = {"information": "information", "answers": "data in answers"}.get(evidence.kind, "encoded data")
        times = f"{evidence.ratio:.1f} times the limit of {evidence.limit:.0f}"
        reasons.append(f"{evidence.amount:.0f} bytes of {carried}, {times}")
    if flow.names and flow.encoded_names / flow.names >= 0.5:
        reasons.append(f"{100 * flow.encoded_names // flow.names} % of the names read as encoded, not as words")
    return tuple(reasons)


def query_reasons(
    qname: bytes, model: float, behaviour: float, evidence: Evidence, domain: str, scale: Scale
) -> tuple[str, ...]:
    """Why a query is not NORMAL, in words; the loudest first."""
    reasons: list[str] = []
    if evidence.kind == "secret":
        reasons.append(f"it carries {evidence.text}")
    elif behaviour >= scale.suspicious:
        reasons.append(f"{evidence.names} unique names below {domain} in {_span(evidence.window_s)}")
        if not evidence.kind.endswith("fresh"):
            reasons.append(f"{evidence.amount:.0f} bytes of information")
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
