"""Benign traffic that looks like exfiltration raises no incident; a tunnel below a known service does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from agents.core.types import HOUR_S
from agents.detection.known_services import services
from agents.dns.name import domain_text, from_text
from tests.corpora import lookalikes
from tests.corpora.lookalike_kinds import ALNUM, HEX, octets, token
from tests.support.detecting import incidents_of, paced

pytestmark = pytest.mark.integration

SEED = 101
RATE = 50_000


@pytest.mark.slow
def test_a_week_of_58_clients_that_look_alike_raises_no_incident() -> None:
    """The bound is one in 100 client-days, and none that is CRITICAL: here none at all in 406."""
    assert sum(role.clients for role in lookalikes.ROLES) == 58
    found = incidents_of(lookalikes.week(SEED))
    assert [(one.severity.name, one.client, one.domain, one.reasons, one.sample_names[:2]) for one in found] == []


@pytest.mark.slow
def test_the_suite_has_thousands_of_names_of_many_kinds_and_is_the_same_every_time() -> None:
    few = tuple(role._replace(clients=1) for role in lookalikes.ROLES)
    day = lookalikes.rows(SEED, few)
    kinds = Counter(kind for _, kind in day)
    assert len(kinds) == 27
    assert min(kinds.values()) >= 20
    assert len({row[2].lower() for row, _ in day}) >= 10_000
    assert {row[5] for row, _ in day} == {0, 3}
    assert day == lookalikes.rows(SEED, few)


@pytest.mark.parametrize("suffix", [service.suffix for service in services().values()])
def test_a_hex_tunnel_below_a_known_service_is_found(suffix: str) -> None:
    """50 kB an hour: far more than anything of its kind."""
    rng = random.Random(suffix)
    names = [f"{token(rng, HEX, 60)}.x1.{suffix}" for _ in range(200)]
    found = incidents_of(paced(names, 30 / RATE * HOUR_S))
    assert found, suffix
    assert found[0].domain == domain_text(from_text(names[0]))
    assert found[0].bytes_before_detection <= 5_000


SHAPED: dict[str, tuple[Callable[[random.Random], str], int]] = {
    "zen.spamhaus.org": (octets, 4),
    "ip6.arpa": (lambda rng: ".".join(token(rng, HEX, 16)) + ".1.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2", 8),
    "plex.direct": (lambda rng: f"{octets(rng, '-')}.{token(rng, HEX, 32)}", 20),
    "avqs.mcafee.com": (lambda rng: f"0.0.0.0.1.0.0.4e.{token(rng, ALNUM, 26)}", 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SHAPED)
def test_a_tunnel_in_the_shape_of_a_known_service_is_found_within_the_hour(suffix: str) -> None:
    make, carried = SHAPED[suffix]
    rng = random.Random(1)
    names = [f"{make(rng)}.{suffix}" for _ in range(RATE // carried)]
    assert incidents_of(paced(names, HOUR_S / len(names))), suffix
