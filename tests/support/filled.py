"""A store with ordinary queries of a few clients, so that a retraining has something to learn."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from agents.core.types import DAY_S
from agents.learning.baseline import benign_names
from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings
from agents.scoring.features import extract
from agents.store import Store
from tests.support.verdicts import verdicts

CLIENTS = 20


def fill(data_dir: Path, count: int = 300) -> None:
    """Store `count` NORMAL queries of the last hour in the database of this DATA_DIR."""
    store = bootstrap.store_of(load_settings(data_dir=data_dir))
    store.migrate()
    names, since = benign_names()[:count], time.time() - 3600
    found = verdicts(
        names,
        ts=[since + 3600 * i / count for i in range(count)],
        client=[f"192.0.2.{i % CLIENTS + 1}" for i in range(count)],
    )
    store.write(replace(found, features=extract(found.queries.qname)), f"filled-{since}")
    store.fold()
    store.close()


def fill_days(store: Store, days: Iterable[int]) -> None:
    """Store one query on each of these days since 1970-01-01, and close."""
    store.migrate()
    for day in days:
        store.write(verdicts(["www.example.com"], ts=[(day + 0.5) * DAY_S]), f"day-{day}")
    store.close()
