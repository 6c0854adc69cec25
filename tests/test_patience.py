"""Time limits are for the machine that the tests run on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support import patience


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing has been measured yet; afterwards the session's own factor is back."""
    monkeypatch.delenv(patience.VARIABLE, raising=False)
    monkeypatch.setattr(patience, "_work", lambda: None)
    patience.factor.cache_clear()
    yield
    patience.factor.cache_clear()


def test_a_quick_machine_is_given_the_limits_as_they_stand() -> None:
    assert patience.patient(5) == 5


def test_a_slow_machine_is_given_more_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "REFERENCE_S", 1e-12)
    assert patience.patient(5) == 5 * patience.FACTOR_MAX


def test_more_processes_than_cores_are_given_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert patience.factor(4) == 2


def test_the_environment_decides_and_children_are_handed_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.VARIABLE, "3.5")
    assert patience.patient(2) == 7
    assert os.environ[patience.VARIABLE] == "3.50"


@pytest.mark.timeout(7)
def test_a_tests_own_limit_is_for_this_machine_too(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert marker is not None
    monkeypatch.undo()  # the session's factor
    assert marker.args[0] == pytest.approx(patience.patient(7))
