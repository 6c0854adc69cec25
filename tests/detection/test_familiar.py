"""An old and common domain may carry a little more, through the whole detector; tests of flows hold the rest."""

from __future__ import annotations

from agents.detection.counting.flow_kernels import FAMILIAR_AGE_S, FAMILIAR_CLIENTS
from agents.detection.limits import Scale
from agents.learning.baseline import asked_batch
from agents.scoring.model import Model
from tests.support.detecting import fresh_detector

START = 1_700_000_000.0


def asked(client: str, at: float, count: int, seed: int) -> tuple[list[float], list[str], list[str]]:
    names = [f"{(number + seed) * 0x9E3779B97F4A7C15 % 2**64:016x}.shop.test" for number in range(count)]
    return [at + i for i in range(count)], [client] * count, names


def test_a_tunnel_below_a_familiar_domain_is_found_later_and_found(model: Model) -> None:
    lost = {}
    for clients in (1, FAMILIAR_CLIENTS + 1):
        detector = fresh_detector(model, Scale())
        for number in range(clients):
            ts, who, names = asked(f"192.0.2.{number}", START, 1, 1000 + number)
            detector.detect(asked_batch(ts, who, names, [1]))
        ts, who, names = asked("192.0.2.0", START + 2 * FAMILIAR_AGE_S, 60, 1)
        incidents = detector.detect(asked_batch(ts, who, names, [1] * 60)).incidents
        assert len(incidents) == 1
        lost[clients] = incidents[0].queries_before_detection
    assert lost[1] < lost[FAMILIAR_CLIENTS + 1] <= 2 * lost[1] + 2
