"""Images of flows judge live: what is learnt, what is strange, what is listed, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import ModelError, TrainingError
from agents.core.types import Message, Severity
from agents.detection.reasons import IMAGE_REASON
from agents.learning.comparison.bounds import GateBounds
from agents.learning.images.image_judge import LISTED_FROM, images_of_hour, with_history
from agents.learning.images.image_learner import IMAGES_MIN, ImageLearner, ImageThread
from agents.learning.images.image_listing import GOLDEN_LEAST, golden_share, listed_images
from agents.learning.images.image_model import IMAGE_TYPES, ImageModel, fitted_images, load_image_model
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.flow_images import image_rows
from agents.learning.loop.review import RARE_FROM, Reviewer, ReviewLimits
from agents.runtime import bootstrap
from agents.runtime.bootstrap.judging import _after_hour
from agents.runtime.trainer import fit_images_spawned
from agents.store import Store, open_store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from tests.support.detecting import query
from tests.support.flow_hours import HOUR, collecting

HOURS = 6
LAST = HOUR + HOURS - 1
NOW = (LAST + 1) * 3600.0
BOUNDS = GateBounds(budget_per_week=3.0, alert_rise=0.5)
PARAMS = {"deep_epochs": 2, "deep_batch": 64, "deep_rate": 0.01, "deep_hidden": 8, "device": "auto", "flow_steps": 2}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()


def ordinary(flows: int, seed: int = 1, prefix: str = "o") -> FlowHours:
    """Flows of HOURS hours each: a few queries, names and bytes."""
    draw = np.random.default_rng(seed)
    count = flows * HOURS
    numbers = np.zeros((count, len(NUMBERS)), np.float32)
    for name, mean in (("queries", 20), ("names", 4), ("information_bytes", 30), ("types", 2), ("domain_clients", 12)):
        numbers[:, NUMBERS.index(name)] = draw.poisson(mean, count)
    flow = np.repeat(np.arange(flows), HOURS)
    hours = np.tile(np.arange(HOUR, HOUR + HOURS, dtype=np.int64), flows)
    clients = [f"10.0.{one % 40}.{one // 40}" for one in flow.tolist()]
    domains = [f"{prefix}{one % 120}.example" for one in flow.tolist()]
    names = [(f"a.{domain}",) for domain in domains]
    return FlowHours(SCHEMA, hours, clients, domains, names, numbers)


def strange(store: Store, domain: str = "slow.example", client: str = "10.9.9.9") -> None:
    """A flow that carries a little in each of some hours, below every limit."""
    numbers = np.zeros((3, len(NUMBERS)), np.float32)
    for name, value in (
        ("queries", 900),
        ("names", 850),
        ("encoded_names", 800),
        ("encoded_bytes", 3000),
        ("types", 9),
    ):
        numbers[:, NUMBERS.index(name)] = value
    hours = np.arange(LAST - 2, LAST + 1, dtype=np.int64)
    FlowHourStore(store).add(FlowHours(SCHEMA, hours, [client] * 3, [domain] * 3, [(f"a.{domain}",)] * 3, numbers))


def fit(kind: str, learn: np.ndarray, calibrate: np.ndarray, seed: int) -> ImageModel:
    return fitted_images(kind, PARAMS, learn, calibrate, seed)


def learner_of(store: Store, folder: Path, kind: str = "padim") -> ImageLearner:
    return ImageLearner(store, folder / "images", kind, fit, BOUNDS, lambda: NOW)


@pytest.fixture
def learner(store: Store, tmp_path: Path) -> ImageLearner:
    FlowHourStore(store).add(ordinary(240))
    made = learner_of(store, tmp_path)
    assert made.learn()["state"] == "deployed"
    return made


def test_what_is_strange_over_hours_is_found_and_ordinary_flows_are_not(store: Store, learner: ImageLearner) -> None:
    strange(store)
    found = images_of_hour(store, learner.model(), LAST)
    assert len(found.rarity) == 241, "each flow with a history has an image"
    assert found.by_key()["10.9.9.9", "slow.example"] >= LISTED_FROM
    assert sum(rarity >= LISTED_FROM for rarity in found.rarity.values()) <= 3
    told = found.suspects(LAST, NOW)
    assert told[0][:3] == (NOW, "10.9.9.9", "slow.example") and told[0][4].startswith(IMAGE_REASON)
    assert found.suspects(LAST, NOW, lambda client: client != "10.9.9.9") == told[1:]
    first = images_of_hour(store, learner.model(), HOUR)
    assert first.rarity == {}, "in their first hour flows have no history"
    assert images_of_hour(store, None, LAST).rarity == {}


def test_the_queue_shows_it(store: Store, learner: ImageLearner) -> None:
    strange(store)
    images = images_of_hour(store, learner.model(), LAST)
    Reviewer(store, ReviewLimits(20), rarity=images.of_rows, clock=lambda: NOW)(LAST)
    queued = {one.domain: one.why for one in ReviewStore(store).items()}
    assert "image as one in " in queued["slow.example"]
    assert all(
        max(rarity for key, rarity in images.by_key().items() if key[1] == domain) >= RARE_FROM for domain in queued
    )


def test_an_open_incident_shows_it_and_a_strange_flow_is_listed_and_pages_nobody(store: Store, tmp_path: Path) -> None:
    with collecting(store, tmp_path) as one:
        one.ask([query(NOW + at, "192.0.2.7", f"{at:x}.slow.example") for at in range(3)])
        why = f"{IMAGE_REASON}: one ordinary image in 100,000 is as strange"
        key = ("192.0.2.7", "slow.example")
        one.detector.appraise({}, [(NOW + 4, *key, 0.63, why)], {key: 5.0, ("192.0.2.8", "none.example"): 8.0})
        told = one.detector.tick(NOW + 5)
        assert told is not None
        (incident,) = told.incidents
        assert incident.severity is Severity.SUSPICIOUS and incident.reasons[0] == why
        assert incident.evidence["image"] == 5.0 and "probability" not in incident.evidence


def test_what_is_in_doubt_is_not_learnt_and_too_little_is_one_line(store: Store, tmp_path: Path) -> None:
    FlowHourStore(store).add(ordinary(100))
    learner = learner_of(store, tmp_path)
    assert len(learner._ordinary(FlowHourStore(store).read(SCHEMA))) == 500
    ReviewStore(store).decide(["o1.example", "o2.example"], Label.TUNNEL, "seen", "ann", NOW)
    ReviewStore(store).decide(["o3.example"], Label.BENIGN, "ours", "ann", NOW)
    assert len(learner._ordinary(FlowHourStore(store).read(SCHEMA))) == 490
    empty = open_store(f"sqlite:///{tmp_path / 'e.db'}")
    empty.migrate()
    few = ImageLearner(empty, tmp_path / "few", "padim", fit, BOUNDS)
    with pytest.raises(TrainingError, match=f"0 ordinary ones with a history, {IMAGES_MIN} are needed"):
        few.learn()
    empty.close()


def test_one_client_and_one_domain_have_their_share(store: Store, tmp_path: Path) -> None:
    FlowHourStore(store).add(ordinary(240))
    mine = ordinary(600, 4, "g")
    own = [f"{at // HOURS}.example" for at in range(len(mine))]
    FlowHourStore(store).add(replace(mine, client=["10.66.0.1"] * len(mine), domain=own))
    flood = ordinary(300, 3, "f")
    FlowHourStore(store).add(replace(flood, domain=["flood.example"] * len(flood)))
    rows = FlowHourStore(store).read(SCHEMA)
    chosen = learner_of(store, tmp_path)._ordinary(rows).tolist()
    assert [rows.client[row] for row in chosen].count("10.66.0.1") == max(int(0.1 * 5700), IMAGES_MIN)
    assert [rows.domain[row] for row in chosen].count("flood.example") == int(0.02 * 5700)


def test_a_model_that_finds_less_than_the_anchor_is_refused(store: Store, learner: ImageLearner) -> None:
    before = learner.path.read_bytes()
    good = learner.model()
    assert good is not None and golden_share(good) > 0.9

    found = replace(learner, train=deaf).learn()
    missed = [gate["name"] for gate in found["gates"] if not gate["passed"]]
    assert found["state"] == "rejected" and "golden tunnels that are strange, beside the anchor" in missed
    assert learner.path.read_bytes() == before

    def loud(kind: str, learn: np.ndarray, calibrate: np.ndarray, seed: int) -> ImageModel:
        made = fit(kind, learn, calibrate, seed)
        return replace(made, knots=made.knots * 0.01)

    found = replace(learner, train=loud).learn()
    assert [gate["name"] for gate in found["gates"] if not gate["passed"]] == ["listed a week"]


def deaf(kind: str, learn: np.ndarray, calibrate: np.ndarray, seed: int) -> ImageModel:
    made = fit(kind, learn, calibrate, seed)
    return replace(made, knots=made.knots * 1e6)


def test_the_first_model_must_find_golden_tunnels_strange(store: Store, tmp_path: Path) -> None:
    FlowHourStore(store).add(ordinary(120))
    told: list[Message] = []

    def tell(message: Message) -> tuple[()]:
        told.append(message)
        return ()

    first = replace(learner_of(store, tmp_path), train=deaf, tell=tell)
    found = first.learn()
    (gate,) = found["gates"]
    assert (gate["name"], gate["threshold"], gate["passed"]) == ("golden tunnels that are strange", GOLDEN_LEAST, False)
    assert first.model() is None and first.anchor.model() is None
    assert found["state"] == "rejected" and told[0].title == "Images of flows: rejected"
    assert "missed golden tunnels that are strange" in told[0].summary
    assert first.learn()["state"] == "rejected" and len(told) == 1, "told once"
    assert replace(first, train=fit).learn()["state"] == "deployed" and len(told) == 2


def test_after_a_refusal_it_waits_a_day(store: Store, tmp_path: Path) -> None:
    FlowHourStore(store).add(ordinary(120))
    tries: list[float] = []

    def counted(kind: str, learn: np.ndarray, calibrate: np.ndarray, seed: int) -> ImageModel:
        tries.append(0.0)
        return deaf(kind, learn, calibrate, seed)

    learner = replace(learner_of(store, tmp_path), train=counted)
    for hours, wanted in ((0, 1), (1, 1), (23, 1), (25, 2), (26, 2), (-1, 3)):
        ImageThread(replace(learner, clock=partial(float, NOW + hours * 3600))).step()
        assert len(tries) == wanted, hours
    (learner.folder / "last.json").write_bytes(b"[")
    ImageThread(learner).step()
    assert len(tries) == 4
    assert replace(learner, train=fit).learn()["state"] == "deployed"
    learner.learn()
    assert len(tries) == 5 and not replace(learner, clock=lambda: NOW + 90_000).is_due(), "the one in use is new"


@pytest.mark.slow
def test_the_model_before_is_kept_and_can_be_put_back(store: Store, learner: ImageLearner) -> None:
    first, data = learner.model(), learner.path.read_bytes()
    later = replace(learner, clock=lambda: NOW + 8 * 86_400)
    found = later.learn()
    (kept,) = learner.earlier()
    assert kept.read_bytes() == data and found["kept_as"] == str(kept)
    assert first is not None and found["parent"] == first.model_id != found["model_id"]
    learner.path.write_bytes(kept.read_bytes())
    assert not later.is_due(), "what a person put back stays for a week"
    for day in range(9, 14):
        replace(learner, days=0, clock=partial(float, NOW + day * 86_400)).learn()
    assert len(learner.earlier()) == 5


def test_certain_tunnels_and_benign_domains_are_compared(store: Store, learner: ImageLearner) -> None:
    good = learner.model()
    assert good is not None
    for at, domain in enumerate(("slow.example", "ours.example", "new.example")):
        strange(store, domain, f"10.9.9.{at}")
    ReviewStore(store).decide(["slow.example"], Label.TUNNEL, "seen", "ann", NOW)
    ReviewStore(store).decide(["ours.example"], Label.BENIGN, "ours", "ann", NOW)
    rows, silent = FlowHourStore(store).read(SCHEMA), replace(good, knots=good.knots * 1e6)
    lost, loud = listed_images(store, good, silent, rows), listed_images(store, silent, good, rows)
    assert (lost.tunnels_lost, lost.benign_added, loud.tunnels_lost, loud.benign_added) == (1, 0, 0, 1)
    listed = {one.domain: one for one in loud.changes}
    assert listed["new.example"].what == "new" and listed["new.example"].names == ("a.new.example",)
    assert listed["ours.example"].label == "benign" and listed["ours.example"].times == 0
    found = replace(learner, train=deaf).learn()
    assert "certain tunnels lost" in [gate["name"] for gate in found["gates"] if not gate["passed"]]


def test_a_model_is_its_file_and_another_type_is_not_used(store: Store, learner: ImageLearner, tmp_path: Path) -> None:
    model = learner.model()
    assert model is not None
    again = load_image_model(model.to_bytes())
    assert again.model_id == model.model_id
    images = np.random.default_rng(0).random((5, 7 * len(NUMBERS))).astype(np.float32)
    assert again.rarity(images).tolist() == model.rarity(images).tolist()
    assert replace(learner, kind="fastflow").model() is None and replace(learner, kind="off").model() is None
    learner.path.write_bytes(b"damaged")
    assert learner.model() is None


@given(st.binary(max_size=300))
def test_other_bytes_are_no_model_of_images(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"^cannot read the model of images: "):
        load_image_model(data)


def test_without_the_extra_the_types_that_need_it_say_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optax", None)
    FlowHourStore(store).add(ordinary(120))
    learner = learner_of(store, tmp_path, "efficient_ad")
    with pytest.raises(TrainingError, match="without the extra deep"):
        learner.learn()
    thread = ImageThread(learner)
    thread.step()
    thread.step()
    assert capsys.readouterr().out.count("images_not_learnt") == 1, "said once"


@pytest.mark.parametrize("kind", ["fastflow", "efficient_ad"])
def test_networks_find_it_too(store: Store, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("optax", reason="the extra deep is not installed")
    FlowHourStore(store).add(ordinary(240))
    learner = learner_of(store, tmp_path, kind)
    assert learner.learn()["state"] == "deployed"
    strange(store)
    assert images_of_hour(store, learner.model(), LAST).by_key()["10.9.9.9", "slow.example"] >= LISTED_FROM


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(IMAGE_TYPES))
@pytest.mark.timeout(400)
def test_golden_tunnels_are_strange_to_each_type_as_it_is_shipped(kind: str) -> None:
    """Whether a type passes the gate GOLDEN_LEAST with its own settings, and with how much to spare (-s says it)."""
    if kind != "padim":
        pytest.importorskip("optax", reason="the extra deep is not installed")
    rows = ordinary(120)
    chosen = np.random.default_rng(1).permutation(with_history(rows, np.unique(rows.hour)))
    images = image_rows(rows, chosen=chosen)
    model = fitted_images(kind, IMAGE_TYPES[kind].values({}), images[::2], images[1::2], 1)
    share = golden_share(model)
    print(f"{kind}: {share:.3f} of golden tunnels are strange, the gate asks for {GOLDEN_LEAST}")
    assert share >= GOLDEN_LEAST


def test_the_thread_learns_when_there_is_no_model_or_an_old_one(store: Store, tmp_path: Path) -> None:
    FlowHourStore(store).add(ordinary(120))
    learner = learner_of(store, tmp_path)
    ImageThread(learner).step()
    first = learner.path.read_bytes()
    ImageThread(learner).step()
    assert learner.path.read_bytes() == first
    ImageThread(replace(learner, clock=lambda: NOW + 8 * 86_400)).step()
    assert learner.path.read_bytes() != first


@pytest.mark.integration
def test_it_is_a_setting_and_off_by_default(tmp_path: Path, store: Store) -> None:
    settings = bootstrap.load_settings(data_dir=tmp_path / "data")
    assert bootstrap.image_learner_of(settings, store).kind == "off"
    FlowHourStore(store).add(ordinary(120))
    spawned = replace(learner_of(store, tmp_path), train=partial(fit_images_spawned, {}))
    assert spawned.learn()["state"] == "deployed", "in a process of its own"


@pytest.mark.integration
def test_after_an_hour_the_detector_lists_it_within_the_budget(store: Store, tmp_path: Path) -> None:
    settings = bootstrap.load_settings(data_dir=tmp_path / "data", flow_images="padim", alert_budget_per_week=1.0)
    FlowHourStore(store).add(ordinary(240))
    assert learner_of(store, settings.models_dir).learn()["state"] == "deployed"
    strange(store)
    strange(store, "other.example", "10.9.9.8")
    with collecting(store, tmp_path) as one:
        one.ask([query(NOW, "10.9.9.9", "a.slow.example"), query(NOW + 1, "10.9.9.8", "a.other.example")])
        _after_hour(settings, store, one.detector, lambda client, domain: True, LAST)
        told = one.detector.tick(NOW + 5)
        assert told is not None
        (incident,) = told.incidents
        assert incident.severity is Severity.SUSPICIOUS and incident.evidence["image"] >= LISTED_FROM
    assert "image as one in" in " ".join(one.why for one in ReviewStore(store).items())
    off = bootstrap.load_settings(data_dir=tmp_path / "data")
    (tmp_path / "off").mkdir()
    with collecting(store, tmp_path / "off") as one:
        one.ask([query(NOW, "10.9.9.9", "a.slow.example")])
        _after_hour(off, store, one.detector, lambda client, domain: True, LAST)
        assert one.detector.tick(NOW + 5) is None
