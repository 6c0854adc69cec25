"""Blocks are made and ended: what a person may, what brakes forbid, how many an hour; and how all is undone."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import SettingsError, StoreError, UsageError
from agents.core.text import NETWORK
from agents.core.types import DAY_S
from agents.dns.blocks import BLOCKS_FILE, BlockAction, BlockFile, BlockTable, address_range, read_blocks
from agents.dns.name import from_text, labels_of
from agents.enforcement.brakes import NeverBlock, checked_domain
from agents.enforcement.keeper import AUTOMATIC, ENDED_MAX, KEPT_S, BlockKeeper
from agents.enforcement.options import EnforceMode, EnforceOptions
from tests.support.incidents import incident

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def keeper(
    folder: Path, never: NeverBlock | None = None, clock: Callable[[], float] | None = None, **options: Any
) -> BlockKeeper:
    values: dict[str, Any] = {"mode": EnforceMode.ON, "dry_days": 0.0} | options
    chosen = clock or Clock()
    return BlockKeeper(folder, EnforceOptions(**values), never, chosen, chosen)


def test_a_persons_block_has_reason_author_and_end(tmp_path: Path) -> None:
    one = keeper(tmp_path)
    made = one.add("Evil.Example.COM.", "192.0.2.7", "slow", reason="  a \n test ", author="ann", hours=2)
    assert (made.domain, made.client, made.action) == ("evil.example.com", "192.0.2.7", BlockAction.SLOW)
    assert (made.reason, made.author, made.until - made.began_at, made.dry) == ("a test", "ann", 7200, False)
    assert read_blocks(tmp_path / BLOCKS_FILE).blocks == (made,)
    (ended,) = one.remove("evil.example.com", "bob")
    assert (ended.ended_by, ended.lasts(NOW)) == ("bob", False)
    with pytest.raises(UsageError, match=r"cannot remove evil\.example\.com: no block has that id or domain"):
        one.remove("evil.example.com", "bob")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"domain": "com"}, "strangers have names below it"),
        ({"domain": "github.io"}, "strangers have names below it"),
        ({"domain": "."}, "strangers have names below it"),
        ({"domain": "32.8.8.8.8.rpz-client-ip"}, "a response policy zone takes its last label for an instruction"),
        ({"domain": "a..b"}, "cannot block 'a..b'"),
        ({"client": "somebody"}, "it is no address or network"),
        ({"action": "sinkhole"}, "ENFORCE_SINKHOLE names no address"),
        ({"action": "drop"}, "nxdomain, refused, sinkhole, slow are possible"),
        ({"hours": -1.0}, "cannot block for -1 hours"),
        ({"hours": float("nan")}, "cannot block for nan hours"),
        ({"reason": " "}, "a reason of 1 to 500 characters"),
        ({"author": "x" * 81}, "an author of 1 to 80 characters"),
    ],
)
def test_what_cannot_be_blocked_is_said(tmp_path: Path, changed: dict[str, Any], error: str) -> None:
    values: dict[str, Any] = {"domain": "evil.example.com", "reason": "a test", "author": "ann"} | changed
    with pytest.raises(UsageError, match=error):
        keeper(tmp_path).add(values.pop("domain"), **values)
    assert not (tmp_path / BLOCKS_FILE).exists()


def test_off_blocks_nothing_and_dry_run_only_counts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot block: ENFORCE is off"):
        keeper(tmp_path, mode=EnforceMode.OFF).add("evil.net", reason="x", author="ann")
    assert keeper(tmp_path, mode=EnforceMode.DRY_RUN).add("evil.net", reason="x", author="ann").dry


NEVER = NeverBlock(
    own=("corp.example.com",),
    never=("bank.example",),
    known=lambda: [labels_of(from_text("avqs.mcafee.com"))],
    clients_since=lambda domain, since: 9 if domain == "popular.net" else 0,
)


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("corp.example.com", "a zone of your own"),
        ("example.com", "a zone of your own"),  # its parent
        ("x.corp.example.com", "a zone of your own"),
        ("www.bank.example", "ENFORCE_NEVER"),
        ("in-addr.arpa", "reserved|strangers"),
        ("mcafee.com", "known service.*--anyway"),
        ("popular.net", "popular here: 9 clients.*--anyway"),
    ],
)
def test_brakes_hold_a_person_too(tmp_path: Path, domain: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        keeper(tmp_path, NEVER).add(domain, reason="x", author="ann")
    insists = {"reason": "x", "author": "ann", "anyway": True}
    if "anyway" in why:
        assert keeper(tmp_path, NEVER).add(domain, **insists).domain == domain  # type: ignore[arg-type]
    else:
        with pytest.raises(UsageError):
            keeper(tmp_path, NEVER).add(domain, **insists)  # type: ignore[arg-type]


def test_strangers_names_are_blocked_by_no_machine_either() -> None:
    assert [NeverBlock().always(one) for one in ("co.uk", "github.io", "com")] == ["strangers have names below it"] * 3


def test_a_name_beside_an_own_zone_may_be_blocked() -> None:
    for domain in ("evil.example.net", "notcorp.example.net"):
        assert not NEVER.always(domain) and not NEVER.usually(domain)


def test_without_the_database_nobody_knows_what_is_popular(tmp_path: Path) -> None:
    def away(domain: str, since: float) -> int:
        raise StoreError("cannot count: it is away")

    with pytest.raises(StoreError):
        keeper(tmp_path, NeverBlock(clients_since=away)).add("evil.net", reason="x", author="ann")
    made = keeper(tmp_path, NeverBlock(clients_since=away)).add("evil.net", reason="x", author="ann", anyway=True)
    assert made.domain == "evil.net"


def test_so_many_an_hour_then_it_stops_until_a_person_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    one = keeper(tmp_path, clock=clock, per_hour=2)
    for number in range(2):
        assert one.add_for(replace(incident(), domain=f"evil{number}.net"), "CRITICAL")
    assert not one.blocks().paused
    assert one.add_for(replace(incident(), domain="evil2.net"), "CRITICAL") is None
    assert one.blocks().paused == "2 blocks in an hour (ENFORCE_PER_HOUR)"
    clock.now += DAY_S
    assert one.add_for(replace(incident(), domain="evil3.net"), "CRITICAL") is None, "an hour alone does not go on"
    assert one.resume() and not one.resume()
    made = one.add_for(replace(incident(), domain="evil3.net"), "CRITICAL")
    assert made and (made.author, made.client, made.incident_id != "") == (AUTOMATIC, incident().client, True)


def test_counting_goes_on_by_itself(tmp_path: Path) -> None:
    clock = Clock()
    one = keeper(tmp_path, clock=clock, per_hour=1, mode=EnforceMode.DRY_RUN)
    for number, expected in ((0, True), (1, False)):
        assert bool(one.add_for(replace(incident(), domain=f"evil{number}.net"), "CRITICAL")) == expected
    clock.now += 3601
    assert one.add_for(replace(incident(), domain="evil1.net"), "CRITICAL") and not one.blocks().paused


def test_a_person_is_not_counted_nor_paused(tmp_path: Path) -> None:
    one = keeper(tmp_path, per_hour=1)
    one.pause("ann")
    for number in range(3):
        one.add(f"evil{number}.net", reason="x", author="ann")
    assert len(one.blocks().in_force(NOW)) == 3


def test_counting_comes_first(tmp_path: Path) -> None:
    clock = Clock()
    one = keeper(tmp_path, clock=clock, dry_days=7.0)
    assert one.watch() == one.watch()
    first = one.add_for(replace(incident(), domain="evil.net"), "CRITICAL")
    assert first and first.dry
    assert not one.add("sure.net", reason="x", author="ann").dry, "a person's is in force at once"
    assert one.add_for(replace(incident(), domain="evil.net"), "CRITICAL") is None, "it is counted already"
    clock.now += 6.5 * DAY_S
    assert one.add_for(replace(incident(), domain="evil.net"), "CRITICAL").dry  # type: ignore[union-attr]
    clock.now += 0.6 * DAY_S
    real = one.add_for(replace(incident(), domain="evil.net"), "CRITICAL")
    assert real and not real.dry, "it takes the place of what was only counted"
    assert [block.domain for block in one.blocks().in_force(clock.now)] == ["evil.net"]


def test_a_block_for_all_covers_each_client(tmp_path: Path) -> None:
    one = keeper(tmp_path, for_all=True)
    made = one.add_for(replace(incident(), domain="evil.net", client="192.0.2.1"), "CRITICAL")
    assert made and made.is_for_all
    assert one.add_for(replace(incident(), domain="evil.net", client="192.0.2.2"), "CRITICAL") is None


def test_undo_all_needs_nothing_and_stays(tmp_path: Path) -> None:
    one = keeper(tmp_path)
    for number in range(3):
        one.add(f"evil{number}.net", reason="x", author="ann")
    assert len(one.undo_all("bob")) == 3
    assert one.blocks().lasting(NOW) == [] and "undone by bob" in one.blocks().paused
    assert one.add_for(replace(incident(), domain="evil.net"), "CRITICAL") is None
    for damage in (b"{", b"[]", b'{"blocks": 3}', b"\xff"):
        (tmp_path / BLOCKS_FILE).write_bytes(damage)
        with pytest.raises(SettingsError, match="cannot read"):
            one.add("evil.net", reason="x", author="ann")
        assert (tmp_path / BLOCKS_FILE).read_bytes() == damage
        one.undo_all("bob")
        assert one.blocks().lasting(NOW) == []


def test_the_file_forgets_what_ended_a_week_ago(tmp_path: Path) -> None:
    clock = Clock()
    one = keeper(tmp_path, clock=clock)
    one.add("evil.net", reason="x", author="ann", hours=1)
    one.add("long.net", reason="x", author="ann", hours=8000)
    clock.now += KEPT_S + 3700
    one.add("other.net", reason="x", author="ann")
    assert {block.domain for block in one.blocks().blocks} == {"long.net", "other.net"}
    assert ENDED_MAX >= 1000


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    one, other = keeper(tmp_path), keeper(tmp_path)
    one.add("a.net", reason="x", author="ann")
    other.add("b.net", reason="x", author="bob")
    one.add("a.net", reason="again", author="ann")
    assert {block.domain for block in other.blocks().lasting(NOW)} == {"a.net", "b.net"}
    assert len(other.blocks().lasting(NOW)) == 2


def test_the_file_is_readable_json(tmp_path: Path) -> None:
    keeper(tmp_path).add("evil.net", reason="x", author="ann")
    found = json.loads((tmp_path / BLOCKS_FILE).read_bytes())
    assert found["blocks"][0]["domain"] == "evil.net" and found["paused"] == ""
    assert (tmp_path / BLOCKS_FILE).stat().st_mode & 0o077 == 0


@given(
    st.lists(st.sampled_from(["a.net", "b.a.net", "c.b.a.net", "d.net"]), unique=True),
    st.sampled_from(["a.net", "x.b.a.net", "X.D.net", "ad.net", "net"]),
)
def test_the_longest_blocked_domain_decides(domains: list[str], name: str) -> None:
    base = BlockTable.of([])
    assert not base and base.find(bytes(16), from_text(name)) is None
    blocks = [_block(domain) for domain in domains]
    wanted = [one for one in domains if f".{name.lower()}".endswith(f".{one}")]
    found = BlockTable.of(blocks).find(address_range("192.0.2.1")[0], from_text(name))
    assert (found.domain if found else None) == (max(wanted, key=len) if wanted else None)


def _block(domain: str, client: str = NETWORK) -> Any:
    from agents.dns.blocks import Block

    return Block(domain, domain, client, BlockAction.NXDOMAIN, "x", "ann", NOW, NOW + 1)


def test_a_clients_own_block_goes_before_that_of_all() -> None:
    table = BlockTable.of([_block("evil.net"), replace(_block("evil.net", "192.0.2.0/24"), action=BlockAction.SLOW)])
    actions = [table.find(address_range(client)[0], from_text("a.evil.net")) for client in ("192.0.2.255", "192.0.3.0")]
    assert [one and one.action for one in actions] == [BlockAction.SLOW, BlockAction.NXDOMAIN]
    assert table.for_all == [from_text("evil.net")] and table.clients == ["192.0.2.0/24"]
    assert BlockTable.of([_block("a..b"), _block("x.net", "nobody")]).unusable == 2


def test_domains_are_those_that_people_type() -> None:
    assert checked_domain(" Evil.Example.COM. ") == "evil.example.com"


def test_what_a_person_ended_is_not_made_again_until_its_time(tmp_path: Path) -> None:
    clock = Clock()
    one = keeper(tmp_path, clock=clock, hours=9 * 24.0)
    found = replace(incident(), domain="evil.net")
    made = one.add_for(found, "CRITICAL")
    assert made
    one.remove(made.block_id, "ann")
    clock.now += 8 * DAY_S
    one.add("other.net", reason="x", author="ann")  # the file is written, and forgets what it may
    assert one.add_for(found, "CRITICAL") is None
    assert one.add_for(replace(found, client="192.0.2.99"), "CRITICAL"), "another client's"
    clock.now += 1.1 * DAY_S
    assert one.add_for(found, "CRITICAL")


def test_after_resume_the_hour_begins_anew(tmp_path: Path) -> None:
    clock = Clock()
    one = keeper(tmp_path, clock=clock, per_hour=2)
    for number in range(3):
        one.add_for(replace(incident(), domain=f"evil{number}.net"), "CRITICAL")
    assert one.blocks().paused
    clock.now += 60
    one.resume()
    clock.now += 1
    assert one.add_for(replace(incident(), domain="evil3.net"), "CRITICAL") and not one.blocks().paused


def test_blocks_that_were_only_counted_do_not_use_up_the_hour(tmp_path: Path) -> None:
    clock = Clock()
    for number in range(2):
        dry = keeper(tmp_path, clock=clock, per_hour=2, mode=EnforceMode.DRY_RUN)
        assert dry.add_for(replace(incident(), domain=f"dry{number}.net"), "CRITICAL")
    one = keeper(tmp_path, clock=clock, per_hour=2)
    assert one.add_for(replace(incident(), domain="evil.net"), "CRITICAL") and not one.blocks().paused


def test_below_a_popular_domain_it_is_as_popular() -> None:
    assert "popular here: 9 clients" in NEVER.usually("a.b.popular.net")


def test_a_block_of_a_clock_that_was_wrong_does_not_last(tmp_path: Path) -> None:
    clock = Clock()
    clock.now += 3650 * DAY_S
    one = keeper(tmp_path, clock=clock)
    one.add("evil.net", reason="x", author="ann")
    clock.now = NOW
    assert one.blocks().in_force(NOW) == []
    file = BlockFile(tmp_path / BLOCKS_FILE)
    assert file.changed() and file.next_end(NOW) == NOW + 3649 * DAY_S, "it is looked at again when it may be true"


def test_other_programs_list_is_written_by_whoever_changes_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    one = keeper(tmp_path, list_file=path)
    made = one.add("evil.net", reason="x", author="ann")
    assert path.read_text() == f"nxdomain\t*\tevil.net\t{made.until:.0f}\n"
    one.undo_all("ann")
    assert path.read_text() == ""


def test_a_list_that_cannot_be_written_holds_no_block_up(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one = keeper(tmp_path, list_file=tmp_path / "file" / "list.txt")
    assert one.add("evil.net", reason="x", author="ann") in one.blocks().in_force(NOW)


def test_undo_all_on_a_full_disk_blocks_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.txt"
    one = keeper(tmp_path, list_file=path)
    one.add("evil.net", reason="x", author="ann")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agents.enforcement.keeper.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        one.undo_all("ann")
    assert one.blocks().lasting(NOW) == [] and not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into another user's folder")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    keeper(tmp_path, list_file=tmp_path / "list.txt").add("evil.net", reason="x", author="root")
    for name in (BLOCKS_FILE, "blocks.lock", "list.txt"):
        assert (tmp_path / name).stat().st_uid == 65534, name


@pytest.mark.parametrize("first", [0.0, NOW + 3650 * DAY_S])
def test_days_of_counting_are_those_of_a_clock_that_is_right(tmp_path: Path, first: float) -> None:
    """A machine without a clock of its own begins in 1970, or anywhere, and is then told the time."""
    clock, even = Clock(), Clock()
    clock.now = first
    one = BlockKeeper(tmp_path, EnforceOptions(mode=EnforceMode.ON), clock=clock, even=even)
    one.watch()
    clock.now, even.now = NOW, even.now + 60
    made = one.add_for(replace(incident(), domain="evil.net"), "CRITICAL")
    assert made and made.dry
    assert abs((one.blocks().watched_since or 0) - NOW) <= 60
    for keeps in (one, BlockKeeper(tmp_path, EnforceOptions(mode=EnforceMode.ON), clock=clock, even=even)):
        clock.now, even.now = clock.now + 3.5 * DAY_S, even.now + 3.5 * DAY_S
        before = keeps.watch()
    assert not keeps.counts_alone(before)
