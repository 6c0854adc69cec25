"""What a detector type takes for a name, and how many names it finds odd, as metrics."""

from __future__ import annotations

import numpy as np
import pytest

from agents.core.types import batch_of
from agents.detection.known_services import Entry, services_at
from agents.detection.limits import Scale
from agents.runtime.health import metrics_of
from agents.runtime.heartbeat import DetectorHealth
from agents.runtime.several.network_process import scoring_summed
from agents.scoring.features import extract
from agents.scoring.model import detector_type_name
from tests.support.detecting import fresh_detector, query, shipped_model

NOW = 1_767_571_200.0
ODD = "abcdefghij234567klmnop76543qrstuvwxyz"


def test_odd_names_of_a_known_service_are_false_positives() -> None:
    detector = fresh_detector(shipped_model(), Scale())
    entry = Entry("files.example", 10.0, "our backup", "ann", "2026-01-01", "2026-12-31")
    detector.reload_services(services_at([entry], NOW))
    rows = [query(NOW + at, "10.0.0.7", f"{ODD}{at}.evil.example") for at in range(3)]
    rows += [query(NOW + 5 + at, "10.0.0.7", f"{ODD}{at}.files.example") for at in range(2)]
    rows += [query(NOW + 9 + at, "10.0.0.7", f"www{at}.files.example") for at in range(4)]
    detector.detect(batch_of(rows))
    gauges = detector.gauges()["scoring"]
    one = gauges["forest"]
    assert (one["names"], one["odd"], one["benign"], one["benign_odd"]) == (9, 5, 6, 2)
    assert one["seconds"] > 0
    numbers = {metric.name: metric.value for metric in metrics_of(DetectorHealth(scoring=gauges))}
    assert numbers["model_forest_names_total"] == 9 and numbers["model_forest_odd_total"] == 5
    assert numbers["model_forest_false_positive_rate"] == 2 / 6
    assert numbers["model_forest_score_us"] == one["seconds"] / 9 * 1e6
    names = [row[2].lower() for row in rows]
    scores = shipped_model().score(extract(names), names)
    wanted = np.mean([Scale().confidence(score) for score in scores.tolist()])
    assert numbers["model_forest_confidence"] == pytest.approx(wanted, abs=1e-4) and 0 < wanted < 1
    assert numbers["model_forest_confidence_total"] == pytest.approx(9 * wanted, abs=1e-3)
    both = scoring_summed([gauges, gauges, {"padim": one}])
    assert (both["forest"]["names"], both["padim"]["names"]) == (18, 9)
    assert both["forest"]["confidence"] == 2 * one["confidence"]


def test_a_model_says_its_type_as_the_setting_does() -> None:
    assert detector_type_name(shipped_model().manifest) == "forest"
