"""Limits and severities: how many bytes may leave, how evidence becomes a score, and the alert budget."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.npz import FormatError, object_of
from agents.core.types import DAY_S, Severity
from agents.detection.evidence_kernels import (
    FACTOR_AT,
    FRESH_BYTES_AT,
    FRESH_ENCODED_AT,
    FRESH_NAME_AT,
    LIMIT_ROWS,
    MIN_NAMES_AT,
    QUIET_AT,
    RULES,
    SCATTERED_AT,
    SPARED_BYTES,
    SPARED_NAMES,
    WORDS_SPARED_AT,
)
from agents.detection.judge_kernels import PEAK_MIN
from agents.detection.state import WINDOWS_S, Kind, Sign

INFORMATION_BYTES = {60: 500.0, 600: 800.0, 3600: 1_000.0, 86_400: 2_500.0, 604_800: 6_000.0}
"""Bytes of new names that one client may send below one domain per window, whatever they look like."""
YOUNG_INFORMATION_BYTES = {3600: 800.0, 86_400: 1_500.0, 604_800: 2_500.0}
"""The same below a domain that is young or rare here."""
ENCODED_BYTES = {60: 100.0, 600: 140.0, 3600: 200.0, 86_400: 400.0, 604_800: 800.0}
"""The same for labels that read as encoded data. docs/detection.md shows how much benign traffic carries."""
SPREAD_BYTES = {3600: 220.0, 86_400: 800.0}
"""The same, summed over all carriers of one client: data split over domains."""
ANSWER_BYTES = {60: 1_600.0, 3600: 3_200.0, 86_400: 6_000.0}
"""Bytes of new data in answers, without the largest one; below a domain that is old and common here
flow_kernels.PLAIN_ANSWERS times as many."""
CHOICE_BYTES = {3600: 150.0, 86_400: 2_500.0}
"""Bytes in the choice of record types below one domain, unusual ones beyond the flow's first ones; and, if it is young
or rare here, in the order of types and of known names."""
ORDERED_BYTES = {3600: 800.0, 86_400: 5_000.0}
"""The same of one client, below all domains that are young or rare here."""
FRESH_NAMES = {3600: 12.0, 86_400: 24.0, 604_800: 40.0}
"""Encoded names below one domain per window, if the flow is fresh: a few short names a minute. A burst counts once
(evidence_kernels.BURST_S)."""
SPREAD_FRESH_NAMES = {3600: 12.0, 86_400: 24.0}
"""The same, summed over the fresh carriers of one client."""
SPREAD_SPARED_BYTES, SPREAD_SPARED_NAMES = {3600: 15.0, 86_400: 50.0}, {3600: 1.0, 86_400: 4.0}
"""The allowance of each carrier before it adds to its client's sums: each page loads a few keyed hosts from many third
parties, so more pages mean more such hosts."""
FRESH_BYTES_A_NAME = 3.5
"""Bytes that a fresh name must carry at least, on average."""
FRESH_ENCODED_SHARE, FRESH_NAME_SHARE = 0.85, 0.4
"""A flow is fresh if at least 85 % of its names are encoded and at least 40 % of its queries ask for a new name (a
browser asks for A and AAAA and repeats names; a carrier asks once). Padding evades this limit, not the others."""
SCATTERED_BYTES = {3600: 300.0, 86_400: 800.0}
"""Encoded bytes of one client below domains with one or two such names each: throw-away domains."""
WORDS_BYTES = {3600: 1_000.0, 86_400: 3_500.0}
"""Bytes of information of one client below domains that are young or rare here, beyond WORDS_SPARED_BYTES each."""
WORDS_SPARED_BYTES = 100.0
FIRST_BYTES = {86_400: 4_000.0}
"""The first WORDS_SPARED_BYTES below each of these domains together. What browsing carries: docs/detection.md."""
SIBLING_NAMES = {86_400: 20.0, 604_800: 40.0}
"""New encoded names of one form and record type that one client asks for below young domains, the first below each left
out, and in proportion below evidence_kernels.SCATTERED_BYTES_A_NAME (docs/detection.md)."""
SCATTERED_DOMAINS = 5
"""Fewer scattered names than this do not form a pattern."""
BEACON_NAMES = {3600: 20.0}
"""New names at a machine's pace below a domain that is young and rare here."""
POLLS = {86_400: 20.0}
"""Queries for text at a machine's pace, one after the other, below such a domain: an implant that waits for a task."""
MIN_NAMES = 2
"""Fewer names than this do not show a behaviour; single names may still be odd."""


class Limit(NamedTuple):
    """One kind of limit. by_window: the most that a window of so many seconds may hold.

    carried: the noun for its amount in a reason. where: below what the names were. alone: it says nothing of names.
    explained: its evidence lies in names, of what a benign service may be. together: all clients of a domain are held
    to it, too; not where it compares with all queries of a flow or a client, as those count there that carry something.
    """

    kind: Kind
    by_window: Mapping[int, float]
    carried: str
    where: str = "below {domain}"
    in_names: bool = False  # its amount is a number of names, not bytes
    alone: bool = False
    explained: bool = False
    together: bool = True


_SPREAD, _SCATTERED = "below {domains} domains ({sharing})", "below as many domains, one or two each,"
LIMITS = (
    Limit(Kind.INFORMATION, INFORMATION_BYTES, "bytes of information", explained=True),
    Limit(Kind.ENCODED, ENCODED_BYTES, "bytes of encoded data", explained=True),
    Limit(Kind.ANSWERS, ANSWER_BYTES, "bytes of data in answers"),
    Limit(Kind.FRESH, FRESH_NAMES, "each new and encoded", in_names=True, explained=True, together=False),
    Limit(Kind.SPREAD, SPREAD_BYTES, "bytes of encoded data", _SPREAD, explained=True, together=False),
    Limit(
        Kind.SPREAD_FRESH,
        SPREAD_FRESH_NAMES,
        "each new and encoded",
        _SPREAD,
        in_names=True,
        explained=True,
        together=False,
    ),
    Limit(Kind.SCATTERED, SCATTERED_BYTES, "bytes of encoded data", _SCATTERED, explained=True),
    Limit(Kind.CHOICE, CHOICE_BYTES, "bytes in the choice of known names and record types", alone=True),
    Limit(Kind.SECRET, {}, ""),
    Limit(Kind.WORDS, WORDS_BYTES, "bytes of information", "below many young domains", explained=True),
    Limit(Kind.SIBLINGS, SIBLING_NAMES, "each encoded", "of one form below {domains} young domains", in_names=True),
    Limit(
        Kind.YOUNG,
        YOUNG_INFORMATION_BYTES,
        "bytes of information",
        "below {domain}, which is new or rare here,",
        explained=True,
        together=False,
    ),
    Limit(
        Kind.FIRST,
        FIRST_BYTES,
        "bytes of information",
        f"below many young domains, at most {WORDS_SPARED_BYTES:.0f} bytes each,",
        explained=True,
    ),
    Limit(
        Kind.ORDERED, ORDERED_BYTES, "bytes in the choice of types and names", "below many young domains", alone=True
    ),
    Limit(Kind.BEACON, BEACON_NAMES, "one at a time", in_names=True),
    Limit(Kind.POLLS, POLLS, "queries for text", alone=True),
)
"""Every kind of limit with its numbers and its words, in the order of Kind."""
assert [limit.kind for limit in LIMITS] == list(Kind)
SCATTERED = "*"
"""The domain of an incident of names scattered over many domains."""
CRITICAL_RATIO = 3.0
"""An incident is CRITICAL from this many times its limit on."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The scores at which severities begin, and how the two votes on a query are combined."""

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

    def confidence(self, score: float) -> float:
        """How far inside its severity's band a score is: 0 at a boundary, 1 in the middle or at an end of the scale."""
        return float(self.confidences(np.array([score]))[0])

    def confidences(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """`confidence` of n scores."""
        bounds = np.array((self.suspicious, self.high, self.critical))
        edges = np.array((0.0, *bounds, 1.0))
        found = scores.astype(np.float64)
        level = np.searchsorted(bounds, found, side="right")
        low, high = edges[level], edges[level + 1]
        near = 2 * np.minimum(found - low, high - found)
        near = np.where(level == 0, high - found, np.where(level == len(bounds), found - low, near))
        sure: NDArray[np.float64] = np.clip(near / np.maximum(high - low, 1e-9), 0.0, 1.0)
        return sure

    def ratio(self, score: float) -> float:
        """How many times over its limit evidence of this score is: the inverse of `behaviour`."""
        if score < self.high:
            return float((score / self.high) ** 0.5)
        if score < self.critical:
            return 1 + (CRITICAL_RATIO - 1) * (score - self.high) / (self.critical - self.high)
        return (1 - self.critical) * CRITICAL_RATIO / max(1 - score, 1e-9)

    def votes(self, model: NDArray[np.float32], discount: NDArray[np.float64]) -> NDArray[np.float32]:
        """The model's votes. If a known service explains a name (discount > 1), its vote stays below suspicious."""
        explained = discount > 1
        if not np.count_nonzero(explained):
            return model
        quiet = np.nextafter(np.float32(self.suspicious), np.float32(0))
        return np.where(explained, np.minimum(model, quiet), model)

    def combined(self, model: NDArray[np.float32], behaviour: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of queries: the louder vote, or their weighted mean."""
        if self.combine == "weighted":
            return self.model_weight * model + (1 - self.model_weight) * behaviour
        return np.maximum(model, behaviour)

    def behaviours(self, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """`behaviour` for each ratio."""
        slope = (self.critical - self.high) / (CRITICAL_RATIO - 1)
        beyond = 1 - (1 - self.critical) * CRITICAL_RATIO / np.maximum(ratios, 1.0)
        over = np.where(ratios < CRITICAL_RATIO, self.high + slope * (ratios - 1), beyond)
        return np.where(ratios < 1, self.high * ratios * ratios, over)

    def severities(self, scores: NDArray[np.float64]) -> NDArray[np.uint8]:
        """`severity` for each score."""
        levels = np.array([self.suspicious, self.high, self.critical])
        return np.searchsorted(levels, scores, side="right").astype(np.uint8)

    def behaviour(self, ratio: float) -> float:
        """Score of evidence: `high` at the limit, `critical` at CRITICAL_RATIO times the limit, towards 1 beyond.

        Below the limit it rises with the square, so that half of a limit stays far below suspicious.
        """
        if ratio < 1:
            return self.high * ratio * ratio
        if ratio < CRITICAL_RATIO:
            return self.high + (self.critical - self.high) * (ratio - 1) / (CRITICAL_RATIO - 1)
        return 1 - (1 - self.critical) * CRITICAL_RATIO / ratio


@dataclass(frozen=True, slots=True)
class Evidence:
    """The limit that a flow is nearest to, or furthest beyond, and the amount that counts for it."""

    ratio: float
    window_s: int = 60
    amount: float = 0.0  # bytes, or names if the kind is fresh; seconds between names of a beacon
    limit: float = 0.0
    names: int = 0
    kind: Kind = Kind.INFORMATION
    domains: int = 1
    sign: Sign = Sign.NONE  # what else speaks for a tunnel
    text: str = ""  # description of a secret
    refused: str = ""  # name that the list of the client's strict group does not have
    learnt: float = 0.0  # learnt probability of a tunnel, where no limit was reached


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits as the kernels read them. table: bytes or names by [kind, window], inf = none; rules: the rest."""

    table: NDArray[np.float64]
    rules: NDArray[np.float64]


def limits_of(factor: float = 1.0, quiet_s: float = 3600.0) -> Limits:
    """All limits. Evidence is reported against `factor` times their numbers. An incident is over after `quiet_s`."""
    table = np.full((LIMIT_ROWS, len(WINDOWS_S)), np.inf)
    rows = [(limit.kind, limit.by_window) for limit in LIMITS]
    for row, by_window in (*rows, (SPARED_BYTES, SPREAD_SPARED_BYTES), (SPARED_NAMES, SPREAD_SPARED_NAMES)):
        for window_s, amount in by_window.items():
            table[row, WINDOWS_S.index(window_s)] = amount
    rules = np.zeros(RULES)
    rules[MIN_NAMES_AT], rules[SCATTERED_AT], rules[WORDS_SPARED_AT] = MIN_NAMES, SCATTERED_DOMAINS, WORDS_SPARED_BYTES
    rules[FACTOR_AT], rules[QUIET_AT] = factor, quiet_s
    rules[FRESH_BYTES_AT], rules[FRESH_ENCODED_AT], rules[FRESH_NAME_AT] = (
        FRESH_BYTES_A_NAME,
        FRESH_ENCODED_SHARE,
        FRESH_NAME_SHARE,
    )
    return Limits(table, rules)


def evidence_of(row: np.void) -> Evidence:
    """Evidence from a row of state.EVIDENCE."""
    ratio, amount, limit, names, domains, kind, window, sign = row.item()
    return Evidence(ratio, WINDOWS_S[window], amount, limit, names, Kind(kind if ratio > 0 else 0), domains, Sign(sign))


def with_secret(evidence: Evidence, secret: str) -> Evidence:
    """Evidence of a query that contains a secret: it reaches a limit by itself, whatever the windows hold."""
    return replace(evidence, ratio=max(evidence.ratio, 1.0), kind=Kind.SECRET, text=secret) if secret else evidence


LISTED_RATIO = 0.99
"""What explained evidence counts as: close below its limit, which makes SUSPICIOUS."""


def as_listed(evidence: Evidence) -> Evidence:
    """Evidence that is explained: its incident is listed, and nobody is paged."""
    return replace(evidence, ratio=min(evidence.ratio, LISTED_RATIO))


def bounds(factor: float = 1.0) -> dict[str, float]:
    """Bytes that can leave undetected at a factor on the limits (docs/bound.md): of a client below one domain, and of
    a client below all young domains together."""
    return {
        "bytes_below_young_domains_a_day": (WORDS_BYTES[86_400] + FIRST_BYTES[86_400]) * factor,
        "encoded_bytes_a_day": ENCODED_BYTES[86_400] * factor,
        "encoded_bytes_an_hour": ENCODED_BYTES[3600] * factor,
        "bytes_in_words_a_day": YOUNG_INFORMATION_BYTES[86_400] * factor,
    }


KEPT_DAYS = 28
PEAKS_MAX = 20_000
FACTOR_MIN, FACTOR_MAX = 0.5, 2.0
DAYS_MIN = 7
"""A history is used from this many days on."""
WEEK_DAYS = 7
LOOSE_WEEKS_MIN = 2
"""Limits may be looser than the shipped ones from this many whole weeks of history on."""
LOOSE_CROWD_MIN = 10
"""Clients, each with a domain of its own, that must reach a limit in every week of history before it is loosened."""
STEPS = tuple(round(FACTOR_MIN + 0.1 * i, 1) for i in range(16))

_PeakKey = tuple[int, str, str]


class Peaks:
    """Peaks by (day, client, domain), at most PEAKS_MAX; at that number the lower half is dropped."""

    def __init__(self, rows: Iterable[tuple[int, str, str, float]] = ()) -> None:
        self.rows: dict[_PeakKey, float] = {(day, client, domain): ratio for day, client, domain, ratio in rows}
        self.days: set[int] = {key[0] for key in self.rows}

    def note(self, ts: float, client: str, domain: str, ratio: float) -> None:
        """Note the ratio that a flow's evidence reached."""
        day = int(ts // DAY_S)
        self.days.add(day)
        key = (day, client, domain)
        if ratio < PEAK_MIN or ratio <= self.rows.get(key, 0.0):
            return
        if key not in self.rows and len(self.rows) >= PEAKS_MAX:
            loudest = sorted(self.rows, key=lambda one: (-self.rows[one], one))[: PEAKS_MAX // 2]
            self.rows = {one: self.rows[one] for one in loudest}
        self.rows[key] = ratio

    def forget(self, client: str) -> None:
        """Drop the peaks of a client."""
        self.rows = {key: ratio for key, ratio in self.rows.items() if key[1] != client}

    def dump(self) -> bytes:
        """The last KEPT_DAYS days with queries, as JSON; a day of a wrong clock takes the place of one of them."""
        days = sorted(self.days)[-KEPT_DAYS:]
        rows = [[*key, round(ratio, 4)] for key, ratio in sorted(self.rows.items()) if key[0] in days]
        return json.dumps({"days": days, "peaks": rows}).encode()


def load_peaks(data: bytes) -> Peaks:
    """Peaks from a dump. Raises FormatError for any other contents."""
    state = object_of(data, "the file of peaks")
    days, rows = state.get("days"), state.get("peaks")
    if not isinstance(days, list) or not isinstance(rows, list) or not all(map(_is_peak, rows)):
        raise FormatError("cannot read peaks: damaged file")
    if not all(isinstance(day, int) for day in days):
        raise FormatError("cannot read peaks: damaged file")
    peaks = Peaks((day, client, domain, float(ratio)) for day, client, domain, ratio in rows)
    peaks.days |= set(days)
    return peaks


def _is_peak(row: Any) -> bool:
    kinds = (int, str, str, int | float)
    return isinstance(row, list) and len(row) == 4 and all(map(isinstance, row, kinds))


@dataclass(frozen=True, slots=True)
class BudgetChoice:
    """The chosen factor, and the investigations a week at every factor."""

    factor: float
    days: int  # of history
    budget_per_week: float
    curve: tuple[tuple[float, float], ...]  # (factor, investigations a week)

    def to_json(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "days": self.days,
            "budget_per_week": self.budget_per_week,
            "curve": [list(point) for point in self.curve],
        }


def choose(peaks: Peaks, budget_per_week: float) -> BudgetChoice:
    """The factor on all limits: the tightest whose investigations a week are within the budget.

    An investigation is a day on which a client and a domain reach the limits: an incident would have opened.
    With fewer than DAYS_MIN days of history the factor is 1.

    Any history may tighten the limits, or bring them back to the shipped ones, but only a crowd may loosen them
    further. An attacker chooses how loud his traffic is, and could get loose limits for next week with a few loud
    decoys today. So above 1 an investigation counts only once a week for each client and once a week for each domain,
    and only the quietest week of the history counts. A factor above 1 needs LOOSE_WEEKS_MIN whole weeks, and in each
    of them LOOSE_CROWD_MIN different clients, each with a domain of its own, that reach the limits below it. One
    client, one domain or one loud week therefore never loosens the limits. A network that exceeds its budget because
    of fewer clients keeps the shipped limits; its known services belong on the operator's allowlist.
    """
    days = len(peaks.days)
    weeks = max(days / WEEK_DAYS, 1.0)
    ratios = np.sort(np.fromiter(peaks.rows.values(), np.float64, len(peaks.rows)))
    counts = [len(ratios) - int(np.searchsorted(ratios, step)) for step in STEPS]
    curve = tuple((step, round(count / weeks, 2)) for step, count in zip(STEPS, counts, strict=True))
    factor = 1.0
    if days >= DAYS_MIN:
        affordable = [step for step, investigations in curve if investigations <= budget_per_week and step <= 1]
        factor = affordable[0] if affordable else _loosened(peaks, budget_per_week)
    return BudgetChoice(factor, days, budget_per_week, curve)


def _loosened(peaks: Peaks, budget_per_week: float) -> float:
    """The factor, 1 or more, for a history that exceeds its budget at the shipped limits."""
    days = sorted(peaks.days, reverse=True)
    weeks = [set(days[at : at + WEEK_DAYS]) for at in range(0, len(days) - WEEK_DAYS + 1, WEEK_DAYS)]
    if len(weeks) < LOOSE_WEEKS_MIN:
        return 1.0
    crowds = [_crowd(peaks, week) for week in weeks]
    enough = max(budget_per_week, LOOSE_CROWD_MIN - 1)
    for step in (step for step in STEPS if step >= 1):
        if min(sum(ratio >= step for ratio in crowd) for crowd in crowds) <= enough:
            return step
    return FACTOR_MAX


def _crowd(peaks: Peaks, week: set[int]) -> list[float]:
    """The peaks of a week, loudest first, in which each client and each domain appears once at most."""
    clients: set[str] = set()
    domains: set[str] = set()
    found = []
    rows = ((-ratio, key) for key, ratio in peaks.rows.items() if key[0] in week)
    for loudness, (_, client, domain) in sorted(rows):
        if client not in clients and domain not in domains:
            clients.add(client)
            domains.add(domain)
            found.append(-loudness)
    return found
