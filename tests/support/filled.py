"""A store with ordinary queries of a few clients, so that a retraining has something to learn."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from agents.learning.baseline import benign_names
from agents.runtime import bootstrap
from agents.scoring.features import extract
from agents.settings import load
from tests.support.verdicts import verdicts

CLIENTS = 20


def fill(data_dir: Path, count: int = 300) -> None:
    """Store `count` NORMAL queries of the last hour in the database of this DATA_DIR."""
    store = bootstrap.store_of(load(data_dir=data_dir))
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
