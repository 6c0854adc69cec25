"""A single name that the model finds odd: HIGH by itself once a day and young domain, unless a kind of service explains
it that this network's own data support."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from agents.core.types import DAY_S, Row, Severity, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.explanations.explainer import LOOKS_A_MINUTE, MAIL_DOMAINS
from agents.detection.limits import Scale
from tests.support.detecting import fresh_detector, query, shipped_model

START = 1_795_000_000.0 // DAY_S * DAY_S
HEX, BASE32 = "0123456789abcdef", "abcdefghijklmnopqrstuvwxyz234567"
CLIENT, OTHER = "192.0.2.1", "192.0.2.2"
A, CNAME, MX, TXT = 1, 5, 15, 16


def token(rng: random.Random, alphabet: str, size: int) -> str:
    return "".join(rng.choices(alphabet, k=size))


def senders(ts: float, client: str = CLIENT) -> list[Row]:
    """What makes a client one that handles mail."""
    return [query(ts + n, client, f"sender{n}.com", MX) for n in range(8)]


def signers_keys(ts: float, count: int, client: str = CLIENT, seed: int = 1) -> list[Row]:
    """Keys below a new sender's domain each, four minutes apart."""
    rng = random.Random(seed)
    return [
        query(ts + 240 * n, client, f"{token(rng, BASE32, 32)}._domainkey.writes{seed}-{n}.com", TXT)
        for n in range(count)
    ]


def severities(detector: TunnelDetector, rows: Iterable[Row]) -> list[Severity]:
    """Of each query, judged by itself; no incident opens."""
    found = []
    for row in rows:
        said = detector.detect(batch_of([row]), explain=False)
        assert not said.incidents
        found.append(Severity(int(said.severity[0])))
    return found


@pytest.fixture
def detector() -> TunnelDetector:
    return fresh_detector(shipped_model(), Scale())


def test_keys_of_mail_signers_are_odd_to_no_mail_host_and_high_for_others(detector: TunnelDetector) -> None:
    severities(detector, senders(START))
    assert set(severities(detector, signers_keys(START + 600, 20))) == {Severity.SUSPICIOUS}
    few = signers_keys(START + 600, MAIL_DOMAINS - 1, OTHER, seed=2)
    assert set(severities(detector, few)) == {Severity.HIGH}, "who asks for a few does not handle mail"


@pytest.mark.parametrize(
    ("make", "qtype"),
    [
        (lambda rng: f"{token(rng, HEX, 40)}.lists-of-hashes.net", A),
        (lambda rng: f"_{token(rng, HEX, 32)}.www.{token(rng, BASE32[:26], 9)}.com", CNAME),
    ],
    ids=["hashes below one domain, of a mail host", "proofs for certificates below many"],
)
def test_what_a_kind_of_service_explains_is_below_high(
    detector: TunnelDetector, make: Callable[[random.Random], str], qtype: int
) -> None:
    rng = random.Random(3)
    severities(detector, senders(START))
    rows = [query(START + 600 + 7200 * n, CLIENT, make(rng), qtype) for n in range(10)]
    found = severities(detector, rows)
    assert found.count(Severity.HIGH) <= 1, "the first one below a second domain has no sign yet"
    assert found.count(Severity.SUSPICIOUS) >= 9


def test_an_explained_name_hides_no_other_client_s(detector: TunnelDetector) -> None:
    severities(detector, senders(START))
    rng = random.Random(4)
    names = [f"{token(rng, HEX, 40)}.lists-of-hashes.net" for _ in range(4)]
    rows = [query(START + 600 + n, (CLIENT, OTHER)[n % 2], name, A) for n, name in enumerate(names)]
    assert severities(detector, rows) == [Severity.SUSPICIOUS, Severity.HIGH, Severity.SUSPICIOUS, Severity.SUSPICIOUS]
    tomorrow = [query(START + DAY_S, OTHER, f"{token(rng, HEX, 40)}.lists-of-hashes.net", A)]
    assert severities(detector, tomorrow) == [Severity.HIGH]


def test_text_and_other_types_are_explained_by_nothing(detector: TunnelDetector) -> None:
    severities(detector, senders(START))
    text = b"customers, all of them, A to K".hex()[:58]
    rows = [query(START + 600, CLIENT, f"{text}.lists-of-hashes.net", A)]
    rows += [query(START + 660, CLIENT, f"{token(random.Random(5), HEX, 40)}.more-hashes.net", 10)]
    assert min(severities(detector, rows)) >= Severity.HIGH


def test_in_a_flood_of_odd_names_the_rest_is_explained_by_nothing(detector: TunnelDetector) -> None:
    severities(detector, senders(START))
    rows = signers_keys(START + 600, LOOKS_A_MINUTE + 20)
    minute = [(START + 600 + n / 2, *row[1:]) for n, row in enumerate(rows)]
    found = [Severity(int(one)) for one in detector.detect(batch_of(minute), explain=False).severity]
    assert found == [Severity.SUSPICIOUS] * LOOKS_A_MINUTE + [Severity.HIGH] * 20
    assert set(severities(detector, signers_keys(START + 7200, 5, seed=9))) == {Severity.SUSPICIOUS}


def test_nothing_is_kept_of_a_client_that_is_forgotten(detector: TunnelDetector) -> None:
    severities(detector, [*senders(START), *signers_keys(START + 600, 3)])
    assert any(client == CLIENT for _, client in detector._voted)
    detector.forget(CLIENT)
    assert not any(client == CLIENT for _, client in detector._voted)
