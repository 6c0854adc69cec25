"""`dns-tunnel review`: the whole way of a domain, as a person goes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.runtime.bootstrap import load_settings, store_of
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.reviews import ReviewItem, ReviewStore
from tests.support.commands import Inside
from tests.support.flow_hours import flow_hours

pytestmark = pytest.mark.integration
EVIL = "evil\x1b[31m.example"


@pytest.fixture
def filled(tmp_path: Path) -> None:
    store = store_of(load_settings(data_dir=tmp_path / "data"))
    store.migrate()
    FlowHourStore(store).add(flow_hours([EVIL, "good.example"], queries=7, peak_today=0.8))
    items = [
        ReviewItem(EVIL, 0.8, "0.80 times a limit, 1 client", 1, ("a.b",)),
        ReviewItem("good.example", 0.5, "w", 2),
    ]
    ReviewStore(store).fill(items, 5.0, 9, 100.0)
    store.close()


@pytest.mark.usefixtures("filled")
def test_list_show_take_label_undo_log(inside: Inside) -> None:
    listed = inside("review", "list")
    assert listed.out.splitlines() == [
        "0.80  new  evil\\027[31m.example  0.80 times a limit, 1 client",
        "0.50  new  good.example  w",
        "2 new, 0 in work, 0 closed",
    ]
    assert inside("review", "take", "good.example", "--author", "ann").out == "good.example is in work by ann\n"
    assert "in work by ann  good.example" in inside("review", "list", "--state", "in work").out
    shown = inside("review", "show", EVIL).out
    assert "queries 7" in shown
    assert "peak_today 0.8" in shown
    assert "\x1b" not in shown
    done = inside("review", "label", "benign", "good[.]example", EVIL, "--reason", "ours", "--author", "ann")
    assert done.code == 0
    assert "2 domains labelled" in done.out
    assert inside("review", "list").out == "0 new, 0 in work, 2 closed\n"
    assert inside("review", "undo", "good.example", "--reason", "no", "--author", "bob").out == (
        "good.example is no longer labelled benign\n"
    )
    log = inside("review", "log").out
    assert "good.example  benign, by ann: ours; undone" in log
    assert "by bob: no" in log
    assert "\x1b" not in log


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("undo", "good.example", "--reason", "x"), "cannot undo: nothing is decided about good.example"),
        (("take", "other.example"), "cannot take other.example: it does not wait in the review queue"),
        (("show", "other.example"), "cannot show other.example: nothing is known of it"),
        (("label", "tunnel", "a.example", "--reason", " "), "cannot keep this without a reason of 1 to 500 characters"),
    ],
)
def test_what_cannot_be_done_is_one_line(inside: Inside, arguments: tuple[str, ...], said: str) -> None:
    done = inside("review", *arguments)
    assert (done.code, done.out, done.err) == (2, "", f"dns-tunnel: {said}\n")
