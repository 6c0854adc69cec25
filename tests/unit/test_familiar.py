"""An old and common domain may carry a little more; a new one, or one client's, may not."""

from __future__ import annotations

from agents.familiar import AGE_S, CLIENTS, FACTOR, Familiar
from agents.flows import Flows
from agents.model import Model
from agents.policy import Scale
from agents.shipped import batch_of
from agents.validation import fresh_detector
from agents.windows import Flow

START = 1_700_000_000.0


def test_common_and_old_is_familiar_and_neither_alone() -> None:
    familiar = Familiar()
    for _ in range(CLIENTS - 1):
        familiar.note(START, "few.test")
    for _ in range(CLIENTS):
        familiar.note(START, "many.test")
    assert familiar.factor(START + AGE_S, "few.test") == 1
    assert familiar.factor(START + AGE_S - 1, "many.test") == 1
    assert familiar.factor(START + AGE_S, "many.test") == FACTOR
    assert familiar.factor(START, "unseen.test") == 1


def test_it_is_counted_anew_from_flows() -> None:
    familiar = Familiar()
    familiar.rebuild(((f"192.0.2.{i}", "many.test"), Flow(START + i)) for i in range(CLIENTS))
    assert familiar.factor(START + AGE_S, "many.test") == FACTOR


def asked(client: str, at: float, count: int, seed: int) -> tuple[list[float], list[str], list[str]]:
    names = [f"{(number + seed) * 0x9E3779B97F4A7C15 % 2**64:016x}.shop.test" for number in range(count)]
    return [at + i for i in range(count)], [client] * count, names


def test_a_tunnel_below_a_familiar_domain_is_found_later_and_found(model: Model) -> None:
    lost = {}
    for clients in (1, CLIENTS + 1):
        detector = fresh_detector(model, Scale())
        for number in range(clients):
            ts, who, names = asked(f"192.0.2.{number}", START, 1, 1000 + number)
            detector.detect(batch_of(ts, who, names, [1]))
        ts, who, names = asked("192.0.2.0", START + 2 * AGE_S, 60, 1)
        incidents = detector.detect(batch_of(ts, who, names, [1] * 60)).incidents
        assert len(incidents) == 1
        lost[clients] = incidents[0].queries_before_detection
    assert lost[1] < lost[CLIENTS + 1] <= 2 * lost[1] + 2


def test_one_client_whose_flow_was_dropped_and_made_anew_counts_once() -> None:
    flows = Flows(100)
    for number in range(CLIENTS + 3):
        flows.flow(START + number, "192.0.2.1", "evil.test")
        flows.forget("192.0.2.1", "evil.test")
    assert flows.familiar.factor(START + 2 * AGE_S, "evil.test") == 1
