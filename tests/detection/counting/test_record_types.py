"""Data in the choice of record types: what everybody asks for is free, the first few others are the flow's own."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.types import Severity
from agents.detection.counting.order_kernels import USUAL_TYPES
from agents.detection.limits import CHOICE_BYTES
from agents.detection.state import OWN_TYPES, Left
from tests.corpora.evasions import SIXTEEN_TYPES
from tests.support.detecting import START, incidents_of, query
from tests.support.judged import Judged, ask

UNHURRIED = settings(deadline=None, max_examples=30)
OTHERS = [qtype for qtype in range(200, 260) if qtype not in USUAL_TYPES]


def asked_for(types: list[int]) -> float:
    """Bytes that leave in so many queries for one name of no cost, by type. Their order does not count."""
    judged = Judged()
    rest = {"domain": "evil.com", "bits": 0.0, "encoded": False, "left": Left.STAYED}
    judged.ask(*(ask("www", qtype=qtype, **rest) for qtype in types))  # type: ignore[arg-type]
    return judged.view().leaked_bytes


@UNHURRIED
@given(st.lists(st.sampled_from([*USUAL_TYPES, *OTHERS[:OWN_TYPES]]), min_size=1, max_size=200))
def test_usual_types_and_the_first_others_carry_nothing(types: list[int]) -> None:
    assert asked_for(types) == 0


def test_each_query_of_a_further_type_carries_the_choice_among_all() -> None:
    own = OTHERS[:OWN_TYPES]
    fifth, sixth = (math.log2(len(USUAL_TYPES) + OWN_TYPES + more) / 8 for more in (1, 2))
    assert asked_for([*own, OTHERS[4]]) == fifth
    assert asked_for([*own, OTHERS[4], *own, OTHERS[4]]) == 2 * fifth
    assert asked_for([*own, OTHERS[4], OTHERS[5], OTHERS[4]]) == fifth + 2 * sixth


def test_an_incident_says_that_it_is_about_record_types() -> None:
    types = [SIXTEEN_TYPES[number * 7 % 16] for number in range(1500)]
    (found,) = incidents_of([query(START + at, "192.0.2.1", "evil-tunnel.net", kind) for at, kind in enumerate(types)])
    assert (found.client, found.domain, found.severity) == ("192.0.2.1", "evil-tunnel.net", Severity.HIGH)
    assert "bytes in the choice of known names and record types below evil-tunnel.net in 1 h" in found.reasons[0]
    assert found.sample_names == ("evil-tunnel.net",)
    assert len(found.evidence["qtypes"]) > 3
    assert "watched over" in found.evidence["benign_if"]
    assert found.bytes_before_detection >= CHOICE_BYTES[3600]
