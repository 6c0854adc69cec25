"""What `replay --store` stores is marked, and nothing that lives on the store takes it for what was seen live."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from agents.core.types import DAY_S
from agents.store import Store, open_store
from tests.cli.test_cli import CLIENT, tsv, tunnel_rows
from tests.support.commands import Inside, is_one_line

LATER = 365 * DAY_S


def opened(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'data' / 'data' / 'dns-tunnel.db'}")


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    """A tunnel, and the same a year later from another client."""
    rows = tunnel_rows()
    (tmp_path / "tunnel.tsv").write_text(tsv(rows))
    (tmp_path / "later.tsv").write_text(tsv([(ts + LATER, "192.0.2.77", qname, kind) for ts, _, qname, kind in rows]))
    return tmp_path


def test_a_replay_is_marked_with_its_file(captures: Path, inside: Inside) -> None:
    done = inside("replay", "tunnel.tsv", "--store")
    assert done.out.endswith("\nstored as tunnel.tsv, for 30 days\n")
    assert inside("replay", "tunnel.tsv", "later.tsv", "--store").out.endswith(
        "\nstored as tunnel.tsv and 1 other, for 30 days\n"
    )
    with closing(opened(captures)) as store:
        assert {one.source for one in store.incidents(limit=9)} == {"tunnel.tsv", "tunnel.tsv and 1 other"}
        assert len(store.queries(source="tunnel.tsv", limit=999)[0]) == 90
        assert store.open_incidents() == []
        assert store.stored_days() == []
    assert "dropped: 0 queries, 0 incidents seen live; 0 queries, 0 incidents of replays" in inside("tidy").out
    explained = inside("explain", CLIENT, "tunnel.test")
    assert explained.code == 0 and "from tunnel.tsv" in explained.out and "not seen live" in explained.out


def test_a_mark_of_ones_own(captures: Path, inside: Inside) -> None:
    name = "Büro, Freitag"
    assert inside("replay", "tunnel.tsv", "--store", "--source", name).out.endswith(f"stored as {name}, for 30 days\n")
    printed = json.loads(inside("replay", "tunnel.tsv", "--json", "-").out.splitlines()[0])
    with closing(opened(captures)) as store:
        found = store.incident_by_id(printed["incident_id"])
        assert found is not None and found.source == name
    assert {"source", "imported_at"}.isdisjoint(printed), "the same lines whether it is stored or not"


def test_without_a_mark_it_counts_as_seen_live(captures: Path, inside: Inside) -> None:
    assert "stored as" not in inside("replay", "tunnel.tsv", "--store", "--source", "").out
    with closing(opened(captures)) as store:
        assert len(store.queries(source="", limit=999)[0]) == 90
        assert store.stored_days() != [] and store.import_days() == []


@pytest.mark.parametrize(
    "arguments", [("--source", "x"), ("--store", "--source", "x" * 65), ("--store", "--source=\n")]
)
def test_a_mark_that_cannot_be_used(captures: Path, inside: Inside, arguments: tuple[str, ...]) -> None:
    done = inside("replay", "tunnel.tsv", *arguments)
    assert done.code == 2 and is_one_line(done) and "cannot use --source" in done.err
    assert not (captures / "data" / "data").exists(), "nothing was opened"


def test_a_file_with_any_name_gives_a_mark(captures: Path, inside: Inside) -> None:
    path = captures / ("\033]0;" + "x" * 100 + ".tsv")
    path.write_bytes((captures / "tunnel.tsv").read_bytes())
    assert inside("replay", path, "--store").code == 0
    with closing(opened(captures)) as store:
        (found,) = store.incidents(limit=9)
    assert found.source.startswith("\\027]0;xxx") and found.source.isprintable() and len(found.source) == 64


def test_retraining_learns_from_replays_only_where_it_is_asked_to(tmp_path: Path, inside: Inside) -> None:
    names = [f"www.shop{i}.example" for i in range(60)]
    (tmp_path / "day.tsv").write_text(tsv([(1e9 + i, f"192.0.2.{i % 9}", name, "A") for i, name in enumerate(names)]))
    assert inside("replay", "day.tsv", "--store").code == 0
    done = inside("retrain", "--days", "3650")
    assert done.code == 3
    assert "nothing new to learn: 0 stored NORMAL queries" in done.out and "retrain --replayed" in done.out
