"""Which labelled flow-hours may be learnt: nothing in doubt, nothing near an incident, and no one's flood.

People's labels are learnt as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import coded
from agents.store.feedback.labelled import LabelledFlows, labelled_flows
from agents.store.feedback.labels import LabelledHours
from agents.store.feedback.tables import LabelOrigin
from agents.store.sampling import home_of
from agents.store.sql import LONG_S, Database

CLIENT_SHARE, DOMAIN_SHARE = 0.1, 0.02
"""Most of a cycle's new labels that one client (of IPv6 one /64) and one domain may give."""
CLIENT_FREE, DOMAIN_FREE = 1.0, 0.2
"""Or so many times the labels that a cycle needs, where that is more: one client alone teaches slowly, but it does."""


def without_doubt(store: Database, labels: LabelledHours) -> NDArray[np.bool_]:
    """Which of n labels may be learnt, shape (n,): of learnt ones, none below a domain that waits for a person, of a
    flow that a rule calls a tunnel, or within a day of an incident of its client. Raises StoreError."""
    left = np.ones(len(labels), np.bool_)
    guessed = np.flatnonzero([origin == LabelOrigin.LEARNED for origin in labels.origin])
    if not len(guessed):
        return left
    ts = (labels.hour[guessed] + 0.5).astype(np.float64) * 3600.0
    flows = flows_in_doubt(store, float(ts.min()), float(ts.max()))
    clients, domains = ([column[row] for row in guessed.tolist()] for column in (labels.client, labels.domain))
    left[guessed] = flows.left(coded(clients), coded(domains), ts)
    return left


def flows_in_doubt(store: Database, since: float, until: float) -> LabelledFlows:
    """What is labelled, waits for a person, or lies near an incident, of queries with since <= ts < until, Unix
    seconds. Raises StoreError."""
    with store.reading("read what is in doubt", LONG_S) as connection:
        return labelled_flows(connection, since, until)


def within_shares(labels: LabelledHours, new: NDArray[np.bool_], needed: int) -> NDArray[np.bool_]:
    """Those of the new labels, shape (n,), that keep within the shares of clients and domains; people's all do.

    needed: labels that a cycle needs.
    """
    rows = np.flatnonzero(new & np.array([origin != LabelOrigin.PERSON for origin in labels.origin], np.bool_))
    kept = new.copy()
    kept[rows] = False
    kept[within_caps(labels.client, labels.domain, rows, needed)] = True
    return kept


def within_caps(
    clients: Sequence[str], domains: Sequence[str], rows: NDArray[np.int64], needed: int
) -> NDArray[np.int64]:
    """Of rows of two columns those within the shares of clients (of IPv6 of a /64) and of domains; "" has no share.

    needed: rows that a training needs. Which ones of a flood are taken is drawn, the same for as many rows.
    """
    rows = np.random.default_rng(len(rows)).permutation(rows)
    beyond = set[int]()
    for column, share, free, named in (
        (clients, CLIENT_SHARE, CLIENT_FREE, home_of),
        (domains, DOMAIN_SHARE, DOMAIN_FREE, str),
    ):
        most = max(int(share * len(rows)), int(free * needed), 1)
        beyond.update(_beyond(column, rows, most, named))
    return np.array([row for row in rows.tolist() if row not in beyond], np.int64)


def _beyond(column: Sequence[str], rows: NDArray[np.int64], most: int, named: Callable[[str], str]) -> list[int]:
    """Rows whose value has had its share before them."""
    given: Counter[str] = Counter()
    found = []
    for row in rows.tolist():
        name = named(column[row])
        given[name] += 1
        if name and given[name] > most:
            found.append(row)
    return found
