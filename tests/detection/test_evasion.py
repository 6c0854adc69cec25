"""Tunnels that try not to be seen: what leaves before they are found stays below a stated bound."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from agents.core.types import Row, Sample
from agents.learning.baseline import benign_names, benign_sample, sample_of
from agents.scoring.model import Model
from agents.scoring.training import TrainConfig, train
from agents.settings import Settings
from tests.corpora.evasions import EVASIONS, Evasion, Sent, loss_of
from tests.corpora.lookalike_kinds import HEX, token
from tests.corpora.lookalikes import ROLES, traffic
from tests.support.leak_curve import measure

pytestmark = pytest.mark.integration

FOUND = [evasion for evasion in EVASIONS if evasion.bound is not None]
NOT_FOUND = [evasion for evasion in EVASIONS if evasion.bound is None]


def _name(evasion: Evasion) -> str:
    return evasion.what


@pytest.mark.parametrize("evasion", FOUND, ids=_name)
@pytest.mark.slow
def test_an_evasion_is_found_within_its_bound(evasion: Evasion) -> None:
    loss = loss_of(evasion)
    print(f"{evasion.what}: {loss.bytes_out:.0f} bytes out, {loss.queries} queries, {loss.seconds:.0f} s")
    assert loss.domain is not None
    assert loss.bytes_out <= (evasion.bound or 0)


@pytest.mark.parametrize("evasion", NOT_FOUND, ids=_name)
@pytest.mark.slow
def test_what_is_known_not_to_be_found_is_said_so(evasion: Evasion) -> None:
    """Once it is found, its bound belongs into EVASIONS and the table into the documentation."""
    loss = loss_of(evasion)
    print(f"{evasion.what}: not found in {loss.bytes_out:.0f} bytes, {loss.queries} queries")
    assert loss.domain is None


def test_a_domain_below_a_public_suffix_is_one_users() -> None:
    (tunnel,) = [evasion for evasion in EVASIONS if evasion.what == "below one user of github.io"]
    assert loss_of(tunnel).domain == "some-user.github.io"


ALPHABETS = {"hexadecimal": HEX, "letters alone": "abcdefghijklmnop"}


def _poisoned(alphabet: str) -> Sample:
    """A week's sample in which one client put in all that the caps of client and domain let it: encoded names."""
    settings = Settings.model_fields
    ordinary, rng = benign_sample(10_000, seed=5), random.Random(9)
    share, domain_share = settings["retrain_client_share"].default, settings["retrain_domain_share"].default
    each = int(10_000 * domain_share)
    bad = [
        f"{token(rng, alphabet, 24)}.patient{number}.net"
        for number in range(int(share / domain_share))
        for _ in range(each)
    ]
    names = [*ordinary.qname[: 10_000 - len(bad)], *bad]
    made = sample_of(names)
    clients = ["10.0.0.1"] * (len(names) - len(bad)) + ["10.9.0.9"] * len(bad)
    return Sample(np.arange(len(names), dtype=np.float64), clients, names, made.domain, made.features)


def _encoded(alphabet: str) -> Callable[[random.Random], Iterator[Sent]]:
    def send(rng: random.Random) -> Iterator[Sent]:
        while True:
            yield Sent(f"{token(rng, alphabet, 24)}.evil-tunnel.net", 12)

    return send


@pytest.mark.parametrize("kind", ALPHABETS)
@pytest.mark.slow
def test_a_patient_client_that_poisons_the_training_week_is_still_found(kind: str) -> None:
    poisoned = train(_poisoned(ALPHABETS[kind]), sample_of(benign_names()), TrainConfig(), {})
    loss = loss_of(Evasion(kind, _encoded(ALPHABETS[kind]), None), poisoned)
    clean = loss_of(Evasion(kind, _encoded(ALPHABETS[kind]), None))
    print(f"{kind}: {loss.bytes_out:.0f} bytes out after poisoning, {clean.bytes_out:.0f} without")
    assert isinstance(poisoned, Model)
    assert loss.domain == clean.domain == "evil-tunnel.net"
    assert loss.bytes_out <= 150


@pytest.fixture(scope="module")
def client_day() -> list[Row]:
    return [row for row in traffic(1, ROLES[1:2]) if row[1] == "10.20.0.7"]


SLOW: tuple[tuple[float, float, int], ...] = (
    (0.0116, 86_400, 500),
    (0.1, 3600, 300),
    (0.7, 600, 300),
    (10, 30, 300),
    (1000, 2, 300),
)
"""Bytes a second; found within so many seconds, and so many bytes."""


@pytest.mark.parametrize(("rate", "seconds", "out"), SLOW)
@pytest.mark.parametrize("carried", [6, 30, 110])
def test_a_channel_of_any_speed_is_found(
    rate: float, seconds: float, out: int, carried: int, client_day: list[Row]
) -> None:
    found = measure(rate, carried, client_day)
    assert found.seconds is not None and found.bytes_out is not None
    assert found.seconds <= seconds
    assert found.bytes_out <= out
