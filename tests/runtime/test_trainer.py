"""Training in a process of its own gives what training here gives, and its errors."""

from __future__ import annotations

import sys

import pytest

from agents.core.errors import AgentsError
from agents.learning.baseline import benign_sample
from agents.learning.run import TrainRequest
from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings
from agents.runtime.trainer import train_apart

pytestmark = pytest.mark.integration

REQUEST = TrainRequest(seed=7, since=0.0, until=86_400.0, parent="0" * 16, live=300, topped_up=0)


def test_the_model_is_the_same() -> None:
    here = bootstrap.train_model(load_settings(), benign_sample(300, 1), REQUEST)
    assert train_apart(load_settings(), benign_sample(300, 1), REQUEST).to_bytes() == here.to_bytes()


def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="fewer than 2"):
        train_apart(load_settings(), benign_sample(1, 1), REQUEST)


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AgentsError, match="ended with 1"):
        train_apart(load_settings(), benign_sample(300, 1), REQUEST)
