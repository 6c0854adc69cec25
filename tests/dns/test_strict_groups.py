"""Groups of clients that may ask for listed domains alone: their setting, their files, who is in one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agents.core.errors import SettingsError
from agents.core.files import LOOK_EVERY_S
from agents.dns.name import from_text
from agents.dns.strict_groups import StrictGroups, read_groups

LISTED = (
    "# what builds need\nregistry.example\nFiles.Wheels.example.   # and its files\n\n_tcp.example.net\n"
    "s3.amazonaws.com\n"
)


def groups(folder: Path, text: str = "10.0.9.0/24=allow.txt,2001:db8:9::/64=allow.txt") -> StrictGroups:
    (folder / "allow.txt").write_text(LISTED)
    return StrictGroups(read_groups(text, folder), [from_text("localhost")])


@pytest.mark.parametrize("client", ["10.0.9.1", "::ffff:10.0.9.1", "2001:db8:9::77"])
def test_a_member_may_ask_for_what_is_listed_alone(client: str, tmp_path: Path) -> None:
    strict = groups(tmp_path)
    for name in (
        "registry.example",
        "WWW.Registry.example",
        "a.b.files.wheels.example",
        "x._tcp.example.net",
        "b.s3.amazonaws.com",
    ):
        assert not strict.refuses(client, from_text(name)), name
    for name in (
        "wheels.example",
        "xregistry.example",
        "registry.example.evil.test",
        "example",
        "example.net",
        ".",
        "localhost",
    ):
        assert strict.refuses(client, from_text(name)), name
    assert not strict.offends(client, from_text("a.localhost")) and strict.offends(client, from_text("evil.example"))


@pytest.mark.parametrize("client", ["10.0.8.255", "10.0.10.0", "2001:db8:9:1::1", "::10.0.9.1", "a host", "", "10.0.9"])
def test_others_may_ask_for_anything(client: str, tmp_path: Path) -> None:
    assert not groups(tmp_path).refuses(client, from_text("evil.example"))


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16))
def test_an_address_of_16_bytes_is_the_one_it_maps(address: bytes) -> None:
    strict = StrictGroups()
    assert strict.group_of(address) is None and not strict


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.9.0/24=none.txt", "No such file or directory"),
        ("10.0.9.0/24", "NETWORK=FILE is needed"),
        ("=allow.txt", "NETWORK=FILE is needed"),
        ("10.0.9.1/24=allow.txt", "has host bits set"),
        ("host=allow.txt", "does not appear to be an IPv4 or IPv6 network"),
        ("10.0.0.0/8=allow.txt,10.0.9.0/24=allow.txt", "10.0.0.0/8 and 10.0.9.0/24 overlap"),
        ("10.0.9.7=allow.txt,10.0.9.7=allow.txt", "overlap"),
        ("2001:db8::/32=allow.txt,10.0.9.7=allow.txt,2001:db8:9::/64=allow.txt", "overlap"),
        ("10.0.9.0/24=bad.txt", "bad.txt, line 2: '\\*.example' is no domain"),
        ("10.0.9.0/24=suffix.txt", "suffix.txt, line 1: 'co.uk' is a public suffix"),
        ("10.0.9.0/24=long.txt", "long.txt, line 1: cannot parse name"),
        ("10.0.9.0/24=binary.txt", "cannot read"),
    ],
)
def test_a_bad_group_is_one_line(text: str, why: str, tmp_path: Path) -> None:
    for name, content in (
        *(("bad.txt", b"example.org\n*.example\n"), ("suffix.txt", b"co.uk")),
        *(("long.txt", b"x" * 64 + b".example"), ("binary.txt", b"\xff\xfe")),
    ):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=why) as raised:
        groups(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_list_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict, now = groups(tmp_path), time.monotonic()
    asked = from_text("new.example")
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert strict.refuses("10.0.9.1", asked)
    (tmp_path / "allow.txt").write_text(LISTED + "new.example\n")
    now += LOOK_EVERY_S
    assert not strict.refuses("10.0.9.1", asked) and not strict.refuses("2001:db8:9::1", asked)
    (tmp_path / "allow.txt").write_text("new example\n")
    now += LOOK_EVERY_S
    with capture_logs() as logs:
        assert not strict.refuses("10.0.9.1", asked), "the last list that could be read holds"
    assert [line["event"] for line in logs] == ["file_not_read_again"]
    (tmp_path / "allow.txt").unlink()
    now += LOOK_EVERY_S
    assert not strict.refuses("10.0.9.1", asked) and strict.refuses("10.0.9.1", from_text("evil.example"))
