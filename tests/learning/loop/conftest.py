"""A store for the tests of the loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()
