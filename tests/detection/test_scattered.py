"""Names scattered over throw-away domains, one or two each, add up to one incident of their client."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable

import numpy as np
import pytest

from agents.core import types
from agents.core.text import NETWORK
from agents.core.types import Incident, Severity
from agents.detection.detector import TunnelDetector
from agents.detection.evidence_kernels import SCATTERED_NAMES
from agents.detection.known_services import services
from agents.detection.limits import SCATTERED, SCATTERED_BYTES, SCATTERED_DOMAINS, Scale
from agents.detection.state import Kind
from agents.learning.baseline import asked_batch
from agents.scoring.model import Model
from tests.corpora.lookalikes import ROLES, traffic
from tests.support.detecting import fresh_detector
from tests.support.judged import START, Judged, ask

CLIENT = "192.0.2.7"


def code(number: int, size: int = 30) -> str:
    """Random-looking base32."""
    return base64.b32encode(hashlib.sha256(b"%d" % number).digest()).decode().lower()[:size]


def found(
    detector: TunnelDetector, names: list[str], gap_s: float = 30.0, client: str = CLIENT, at: float = START
) -> tuple[Incident, ...]:
    count = len(names)
    return detector.detect(
        asked_batch([at + i * gap_s for i in range(count)], [client] * count, names, [1] * count)
    ).incidents


@pytest.mark.parametrize("names_each", [1, 2])
def test_throw_away_domains_add_up_to_one_incident(model: Model, names_each: int) -> None:
    names = [f"{code(i)}.shop{i // names_each}.com" for i in range(60)]
    (incident,) = found(fresh_detector(model, Scale()), names)
    assert (incident.client, incident.domain) == (CLIENT, SCATTERED)
    assert incident.severity >= Severity.HIGH
    assert incident.bytes_before_detection <= SCATTERED_BYTES[3600] + 20
    assert incident.unique_names == 60
    assert incident.sample_names[0] == names[0]
    assert "below as many domains, one or two each" in incident.reasons[0]


def test_the_queries_of_it_are_said_to_be_of_many_domains(model: Model) -> None:
    names = [f"{code(i)}.shop{i}.com" for i in range(60)]
    verdicts = fresh_detector(model, Scale()).detect(
        asked_batch([START + i for i in range(60)], [CLIENT] * 60, names, [1] * 60)
    )
    assert verdicts.severity[-1] >= Severity.HIGH
    assert any("below many domains" in reason for reason in verdicts.reasons[-1])
    assert not any("many domains" in reason for reasons in verdicts.reasons[:5] for reason in reasons)


def test_each_client_has_its_own_sum(model: Model) -> None:
    detector = fresh_detector(model, Scale())
    for number in range(60):
        incidents = found(detector, [f"{code(number)}.shop{number}.com"], client=f"192.0.2.{number % 6}")
        assert {one.client for one in incidents} <= {NETWORK}


def test_queries_of_nobody_in_particular_add_up_to_nothing(model: Model) -> None:
    """Where a source does not say who asked, all of them would be one client."""
    assert found(fresh_detector(model, Scale()), [f"{code(i)}.shop{i}.com" for i in range(60)], client="") == ()


def test_words_below_many_domains_are_none(model: Model) -> None:
    names = [f"{word}.shop{i}.com" for i in range(40) for word in ("www", "mail", "static", "images")]
    assert found(fresh_detector(model, Scale()), names, 5.0) == ()


@pytest.mark.slow
def test_hash_hosts_of_pages_are_none(model: Model) -> None:
    """A client of an ordinary day asks for hash hosts, below few domains that are not its carriers."""
    detector = fresh_detector(model, Scale())
    names = [f"d{code(i, 13)}.cdn{i % 8}.net" for i in range(24)]
    assert found(detector, names, 1200.0) == ()
    rows = traffic(5, ROLES[:2])
    assert len(rows) > 1000
    assert not [one for one in detector.detect(types.batch_of(rows)).incidents if one.domain == SCATTERED]


def test_listed_services_do_not_count(model: Model) -> None:
    listed = sorted(service.suffix for service in services().values() if service.shape is None)
    assert len(listed) > 20
    names = [f"{code(i)}.{listed[i % len(listed)]}" for i in range(min(2 * len(listed), 80))]
    detector = fresh_detector(model, Scale())
    assert not [one for one in found(detector, names) if one.domain == SCATTERED]
    assert not detector.flows.rows(lambda flows: flows["scattered"] == 1)


def scattered_sum(judged: Judged) -> float:
    """Encoded bytes that count for the client's scattered names in the window of a day."""
    row = int(judged.flows.state.clients[0]["scattered"])
    flow = judged.flows.state.flows[row]
    if flow["windows"] < 0:
        return float(flow["single"][1])
    return float(judged.flows.state.windows[flow["windows"]]["now"][3, 1])


@pytest.mark.parametrize("others", [0, 1, 7])
def test_a_domain_that_becomes_a_carrier_of_its_own_takes_its_part_back(others: int) -> None:
    judged = Judged()
    for number in range(others):
        judged.ask(ask(number, domain=f"{number}.com"))
    assert SCATTERED_NAMES == 2
    judged.ask(ask("a", domain="own.com"), ask("b", domain="own.com", bits=160.0))
    assert scattered_sum(judged) == 10 * others + 30
    judged.ask(ask("c", domain="own.com", bits=80.0))
    assert scattered_sum(judged) == 10 * others + 30, "as long as it is spared as a carrier"
    judged.ask(ask("c2", domain="own.com", bits=160.0))
    assert scattered_sum(judged) == 10 * others
    judged.ask(ask("d", domain="own.com"))
    assert scattered_sum(judged) == 10 * others, "once"


def test_a_part_that_is_the_only_one_is_taken_back_too() -> None:
    judged = Judged()
    judged.ask(ask("a", domain="own.com"), ask("b", domain="own.com", bits=8.0), ask("c", domain="own.com", bits=400.0))
    judged.ask(ask(1, domain="1.com"))
    assert scattered_sum(judged) == 10


def test_short_names_and_few_domains_are_no_pattern() -> None:
    judged = Judged()
    short = judged.tell([ask(number, domain=f"{number}.com", bits=40.0) for number in range(100)])
    assert short.counts[0] == 0
    assert not judged.flows.rows(lambda flows: (flows["scattered"] == 1) & (flows["encoded"] > 0))
    big = [ask(number, domain=f"{number}.com", bits=8 * 400.0) for number in range(SCATTERED_DOMAINS)]
    said = Judged().tell(big)
    events = said.events[: said.counts[0]]
    told = [(int(one["row"]), int(one["evidence"]["kind"])) for one in events if not one["network"]]
    assert [row for row, kind in told if kind == Kind.SCATTERED] == [SCATTERED_DOMAINS - 1]


def test_the_caps_hold_for_it_too() -> None:
    judged = Judged(3)
    judged.ask(*(ask(number, domain=f"{number}.com") for number in range(3)))
    assert len(judged.flows) == 3
    assert np.count_nonzero(judged.flows.state.flows["used"]) == 3


def test_keys_of_mail_signers_are_asked_for_once_below_each_senders_domain(model: Model) -> None:
    names = [f"{code(number)}._domainkey.sender{number}.example" for number in range(80)]
    assert found(fresh_detector(model, Scale()), names) != (), "of a type that holds no keys they count"
    asked = asked_batch([START + i * 30 for i in range(80)], [CLIENT] * 80, names, [16] * 80)
    assert fresh_detector(model, Scale()).detect(asked).incidents == ()


@pytest.mark.parametrize(
    ("width", "below", "is_found"),
    [
        (lambda _: 10, lambda i: (i, i % 6), True),
        (lambda i: 8 + i % 9, lambda i: (i, i % 6), False),  # of no one form
        (lambda _: 10, lambda i: (i, i), False),  # a keyed host of each of many third parties
        (lambda _: 10, lambda i: (i // 4, i % 4), False),  # one hash in each of four lists
        (lambda _: 10, lambda i: (i, i % 2), False),  # the limits of each domain hold
    ],
)
def test_names_of_one_form_below_several_young_domains_are_one_carrier(
    model: Model, width: Callable[[int], int], below: Callable[[int], tuple[int, int]], is_found: bool
) -> None:
    names = [f"{code(below(i)[0], width(i))}.sibling{below(i)[1]}.com" for i in range(40)]
    reasons = [one.reasons[0] for one in found(fresh_detector(model, Scale()), names, 3000.0)]
    assert any("of one form below" in reason for reason in reasons) == is_found
    assert is_found or not reasons


@pytest.mark.parametrize(
    ("qtypes", "is_found"),
    [
        ((16, 15, 5), True),
        ((16,), True),
        ((1,), False),  # hosts by number, below the domains of a group
    ],
)
def test_siblings_of_types_that_carry_text_are_one_carrier_encoded_or_not(
    model: Model, qtypes: tuple[int, ...], is_found: bool
) -> None:
    rng = random.Random(4)
    names = [f"{rng.randrange(16**4):04x}011375{number:04d}0000.sibling{number % 6}.com" for number in range(38)]
    asked = asked_batch(
        [START + i * 600.0 for i in range(38)], [CLIENT] * 38, names, [qtypes[i % len(qtypes)] for i in range(38)]
    )
    reasons = [reason for one in fresh_detector(model, Scale()).detect(asked).incidents for reason in one.reasons[:2]]
    assert any("of one form below" in reason for reason in reasons) == is_found
