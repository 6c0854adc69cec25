"""What the package ships is what its scripts make, and holds what validation needs."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from agents.dns.name import from_text, labels_of
from agents.learning import baseline
from agents.scoring.features import SCHEMA, extract
from agents.scoring.model import Model
from scripts.maintainer import baseline_names, make_baseline

BASELINE = Path(baseline.__file__).parent / "baseline"


@pytest.mark.parametrize(
    ("file", "made"),
    [
        ("benign_names.txt.gz", lambda: baseline_names.names(make_baseline.SAMPLE_NAMES, seed=1)),
        ("golden_names.txt.gz", lambda: sorted(set(baseline_names.names(make_baseline.GOLDEN_NAMES, seed=2)))),
        ("lookalike_names.txt.gz", lambda: sorted(set(baseline_names.lookalikes(2_100, seed=3)))),
    ],
)
def test_name_lists_are_what_the_script_makes(file: str, made: object) -> None:
    assert callable(made)
    assert gzip.decompress((BASELINE / file).read_bytes()).decode().splitlines() == made()


@pytest.mark.slow
def test_the_first_model_is_what_the_script_makes(model: Model) -> None:
    """Compared by what it says: other versions of NumPy and scikit-learn, and other processors, round elsewhere."""
    again = Model.from_bytes(make_baseline.model())
    assert again.manifest["feature_schema"] == SCHEMA
    assert {k: v for k, v in again.manifest.items() if k not in ("versions", "arrays_sha256")} == {
        k: v for k, v in model.manifest.items() if k not in ("versions", "arrays_sha256")
    }
    names = [from_text(name) for name in (*baseline.golden_names()[:2000], *baseline.lookalike_names()[:500])]
    features = extract(names)
    assert np.allclose(again.score(features, names), model.score(features, names), atol=1e-3)
    if again.manifest["versions"] == model.manifest["versions"]:
        assert again.arrays.keys() == model.arrays.keys()
        assert all(np.allclose(again.arrays[one], model.arrays[one], atol=1e-9) for one in model.arrays)


def test_golden_names_were_not_learned_from() -> None:
    golden = set(baseline.golden_names())
    shared = golden & set(baseline.benign_names())
    assert len(golden) > 5000
    assert len(shared) < len(golden) / 4, "popular names may be in both"


def test_every_shipped_name_is_one() -> None:
    for names in (baseline.benign_names(), baseline.golden_names(), baseline.lookalike_names()):
        assert all(labels_of(from_text(name)) for name in names)
        assert len(names) > 1000


def test_golden_traffic_is_a_day_in_order_and_the_same_every_time() -> None:
    traffic, again = baseline.golden_traffic(), baseline.golden_traffic()
    assert len(traffic) == len(baseline.golden_names()) + len(baseline.lookalike_names())
    assert (np.diff(traffic.ts) >= 0).all()
    assert traffic.ts[-1] - traffic.ts[0] <= baseline.GOLDEN_SPAN_S + baseline.BURST
    assert len(set(traffic.client)) == baseline.GOLDEN_CLIENTS
    assert traffic.qname == again.qname


def test_golden_sessions_are_of_several_tools() -> None:
    sessions = baseline.golden_sessions()
    assert len(sessions) >= 10
    assert {name.split("-")[0] for name in sessions} >= {"iodine", "dns2tcp"}
    assert all(len(batch) >= 50 and (np.diff(batch.ts) >= 0).all() for batch in sessions.values())


def test_a_sample_is_chosen_by_its_seed() -> None:
    one, same, other = (baseline.benign_sample(500, seed) for seed in (1, 1, 2))
    assert one.qname == same.qname != other.qname
    assert len(one) == len(one.features) == 500
    assert np.array_equal(one.features, extract([from_text(name) for name in one.qname]))
    assert len(baseline.benign_sample(10**9, 1)) == len(baseline.benign_names())
