"""What a client asks, as steps without names: hashes and numbers, made into windows that overlap by half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, hash_pieces
from agents.core.columns import Coded, coded, lowered
from agents.core.types import Severity, Verdicts
from agents.detection.counting.flow_kernels import CARRYING, GOLDEN
from agents.detection.counting.order_kernels import USUAL_TYPES
from agents.scoring.features import FEATURES

STEPS_SCHEMA = 1
"""Version of COLUMNS. Whoever changes them raises it."""
GROUPS = (
    ("same", "seen", "new"),  # the domain: that of the query before, one asked before, or neither
    ("repeated", "fresh"),  # the name: asked before, or not
    ("address", "text", "other"),  # the type: A, AAAA or HTTPS; one whose answers hold text or names; any other
    ("answered", "empty", "unknown"),  # the outcome
)
AMOUNTS = ("length", "information", "gap")
"""Logarithms of bytes left of the domain, of bits of information, and of milliseconds since the query before."""
COLUMNS = (*(name for group in GROUPS for name in group), *AMOUNTS)
AMOUNTS_AT = len(COLUMNS) - len(AMOUNTS)
GAP_AT, FRESH_AT = COLUMNS.index("gap"), COLUMNS.index("fresh")
SCALES = np.array([np.log1p(250.0), np.log1p(1000.0), np.log1p(3.6e6)], np.float32)
"""What AMOUNTS are divided by: a long name, a name that carries much, an hour."""
QUERIES_MIN = 5
"""A client with fewer queries gives no window."""
"""2**64 divided by the golden ratio: numbers of clients get far from each other (Knuth 1973, 6.4)."""
_ADDRESS = np.zeros(1 << 16, np.bool_)
_ADDRESS[list(USUAL_TYPES)] = True
_LENGTH, _INFORMATION = ([one.name for one in FEATURES].index(name) for name in ("subdomain_length", "information"))


@dataclass(frozen=True, slots=True)
class StepRows:
    """n queries as numbers, in the order they came."""

    ts: NDArray[np.float64]  # Unix seconds
    client: NDArray[np.int32]  # number of the client
    domain: NDArray[np.uint64]  # keyed hashes
    name: NDArray[np.uint64]
    kind: NDArray[np.uint8]  # place in GROUPS[2]
    outcome: NDArray[np.uint8]  # place in GROUPS[3]
    amounts: NDArray[np.float32]  # (n, 2): length, information, scaled

    def __len__(self) -> int:
        return len(self.ts)

    def at(self, rows: Any) -> StepRows:
        """Those of these rows."""
        return StepRows(*(getattr(self, name)[rows] for name in self.__slots__))


NO_STEP_ROWS = StepRows(
    np.empty(0, np.float64),
    np.empty(0, np.int32),
    np.empty(0, np.uint64),
    np.empty(0, np.uint64),
    np.empty(0, np.uint8),
    np.empty(0, np.uint8),
    np.empty((0, 2), np.float32),
)


def step_rows_of(verdicts: Verdicts, numbers: dict[str, int], key: Key) -> StepRows:
    """The queries of a batch. numbers: of clients, to which new ones are added; key: of the hashes."""
    batch = verdicts.queries
    clients = coded(batch.client)
    own = np.array([numbers.setdefault(client, len(numbers)) for client in clients.values] or [0], np.int32)
    names, domains = lowered(batch.qname), coded(verdicts.domain)
    kind = np.where(_ADDRESS[batch.qtype], 0, np.where(CARRYING[batch.qtype] > 0, 1, 2))
    empty = (batch.rcode > 0) | (batch.ancount == 0)
    outcome = np.where(batch.rcode < 0, 2, empty.astype(np.int64))
    return StepRows(
        ts=batch.ts,
        client=own[clients.codes],
        domain=_hashed(domains, key),
        name=_hashes(names.array, names.starts, key),
        kind=kind.astype(np.uint8),
        outcome=outcome.astype(np.uint8),
        amounts=_scaled(verdicts.features[:, [_LENGTH, _INFORMATION]], SCALES[:2]),
    )


def _hashes(data: NDArray[np.uint8], starts: NDArray[np.int64], key: Key) -> NDArray[np.uint64]:
    out = np.empty(len(starts) - 1, np.uint64)
    hash_pieces(data, starts[:-1], np.diff(starts), np.uint64(key[0]), np.uint64(key[1]), out)
    return out


def domain_hashes(domains: Sequence[str], key: Key) -> NDArray[np.uint64]:
    """The hashes that steps have of these domains. key: of the hashes."""
    return _hashed(coded(domains), key)


def _hashed(texts: Coded, key: Key) -> NDArray[np.uint64]:
    names = lowered([text.encode("utf-8", "surrogatepass") for text in texts.values])
    return _hashes(names.array, names.starts, key)[texts.codes]


def _scaled(amounts: NDArray[Any], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (np.log1p(np.maximum(amounts, 0)) / scale).astype(np.float32)
    return found


def joined_step_rows(parts: Sequence[StepRows]) -> StepRows:
    """All of them, one part after another."""
    columns = ([getattr(part, name) for part in parts] for name in StepRows.__slots__)
    return StepRows(*map(np.concatenate, columns)) if parts else NO_STEP_ROWS


HeardPart = tuple[StepRows, NDArray[np.bool_]]
"""Queries of a batch, and which of them are loud: HIGH or above, as those that take their flow above a limit."""


def heard_part(verdicts: Verdicts, numbers: dict[str, int], key: Key) -> HeardPart:
    """The queries of a batch, to be learnt. Arguments: as for step_rows_of."""
    return step_rows_of(verdicts, numbers, key), np.asarray(verdicts.severity >= Severity.HIGH)


def learnable_rows(parts: Sequence[HeardPart]) -> StepRows:
    """All of them, without a client's queries below a domain below which one of its queries is loud: an attack."""
    heard = joined_step_rows([rows for rows, _ in parts])
    flows = _of_client(heard.client, heard.domain)
    loud = np.concatenate([loud for _, loud in parts] or [np.zeros(0, np.bool_)])
    return heard.at(~np.isin(flows, flows[loud]))


@dataclass(frozen=True, slots=True)
class Windows:
    """n windows of one client each. known: steps that are there; a client's only window may begin with some that are
    not. domain: the hash that most steps have, and in `share` how many of them; fresh: share of new names."""

    steps: NDArray[np.float32]  # (n, length, len(COLUMNS))
    known: NDArray[np.bool_]  # (n, length)
    client: NDArray[np.int32]
    domain: NDArray[np.uint64]
    share: NDArray[np.float32]
    last: NDArray[np.float64]  # Unix seconds of the last step

    def __len__(self) -> int:
        return len(self.client)

    def at(self, rows: Any) -> Windows:
        """Those of these rows."""
        return Windows(*(getattr(self, name)[rows] for name in self.__slots__))


def step_windows(heard: StepRows, length: int, newest: bool = False) -> Windows:
    """Windows of `length` steps of each client with QUERIES_MIN queries or more, each half a window behind another.

    newest: of each client only the one that ends with its last step.
    """
    order = np.lexsort((heard.ts, heard.client))
    heard = heard.at(order)
    steps = steps_of(heard)
    bounds = [*np.flatnonzero(np.diff(heard.client, prepend=-1)).tolist(), len(heard)]
    spans = [(begin, end) for begin, end in pairwise(bounds) if end - begin >= QUERIES_MIN]
    rows = [row for begin, end in spans for row in _rows(max(begin, end - length) if newest else begin, end, length)]
    at = np.array(rows, np.int64).reshape(-1, length)
    known = at >= 0
    domains = np.where(known, heard.domain[at], 0) if len(at) else np.empty((0, length), np.uint64)
    most = [_most(row, there) for row, there in zip(domains, known, strict=True)]
    return Windows(
        steps=np.where(known[:, :, None], steps[at], 0.0).astype(np.float32) if len(at) else _no_steps(length),
        known=known,
        client=heard.client[at[:, -1]] if len(at) else np.empty(0, np.int32),
        domain=np.array([domain for domain, _ in most], np.uint64),
        share=np.array([share for _, share in most], np.float32),
        last=heard.ts[at[:, -1]] if len(at) else np.empty(0, np.float64),
    )


def _no_steps(length: int) -> NDArray[np.float32]:
    return np.empty((0, length, len(COLUMNS)), np.float32)


def _rows(begin: int, end: int, length: int) -> list[list[int]]:
    """The rows of each window between two rows; -1 = no step."""
    if end - begin < length:
        return [[-1] * (length - (end - begin)) + list(range(begin, end))]
    starts = range(begin, end - length + 1, max(length // 2, 1))
    return [list(range(start, start + length)) for start in starts]


def _most(domains: NDArray[np.uint64], known: NDArray[np.bool_]) -> tuple[int, float]:
    found, counts = np.unique(domains[known], return_counts=True)
    at = int(np.argmax(counts))
    return int(found[at]), float(counts[at] / known.sum())


def steps_of(heard: StepRows) -> NDArray[np.float32]:
    """COLUMNS of n queries in the order of client and time. Shape (n, len(COLUMNS))."""
    out = np.zeros((len(heard), len(COLUMNS)), np.float32)
    if not len(heard):
        return out
    first = np.diff(heard.client, prepend=-1) != 0
    before = np.roll(heard.domain, 1)
    same = ~first & (heard.domain == before)
    domain = np.where(same, 0, np.where(_met(heard.client, heard.domain), 1, 2))
    fresh = (~_met(heard.client, heard.name)).astype(np.int64)
    at = 0
    places: list[NDArray[Any]] = [domain, fresh, heard.kind, heard.outcome]
    for group, place in zip(GROUPS, places, strict=True):
        out[np.arange(len(heard)), at + place.astype(np.int64)] = 1.0
        at += len(group)
    gaps = np.where(first, 0.0, np.maximum(np.diff(heard.ts, prepend=heard.ts[0]), 0.0)) * 1000
    out[:, AMOUNTS_AT : AMOUNTS_AT + 2] = heard.amounts
    out[:, GAP_AT] = np.minimum(_scaled(gaps, SCALES[2]), 1.5)
    return out


def _of_client(client: NDArray[np.int32], what: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes of client and thing together."""
    found: NDArray[np.uint64] = what ^ ((client.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return found


def _met(client: NDArray[np.int32], what: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether a client had asked for it before, of n queries in the order of client and time."""
    _, firsts = np.unique(_of_client(client, what), return_index=True)
    met = np.ones(len(client), np.bool_)
    met[firsts] = False
    return met


def told(windows: Windows) -> Mapping[str, NDArray[np.float32]]:
    """Of n windows: regularity (1 = equal gaps; 1 minus the deviation of their logarithms), share of new names, and
    median pause in seconds."""
    gaps = np.where(windows.known, windows.steps[:, :, GAP_AT] * SCALES[2], np.nan)[:, 1:]
    with np.errstate(invalid="ignore"):
        deviation, median = np.nanstd(gaps, axis=1), np.nanmedian(gaps, axis=1)
    fresh = (windows.steps[:, :, FRESH_AT] * windows.known).sum(axis=1) / np.maximum(windows.known.sum(axis=1), 1)
    return {
        "regularity": np.clip(1 - deviation, 0, 1).astype(np.float32),
        "fresh": fresh.astype(np.float32),
        "pause_s": (np.expm1(median) / 1000).astype(np.float32),
    }
