"""A search is read as people type it, and nothing that they type is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.store.console.terms import Terms, parse_search

NOW = 1_800_000_000.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("10.0.0.7", {"clients": ("10.0.0.7",)}),
        ("2001:DB8::1", {"clients": ("2001:db8::1",)}),
        ("client:10.0.0.7", {"clients": ("10.0.0.7",)}),
        ("10.0.0.9/8", {"networks": ("10.0.0.0/8",)}),
        ("Evil.Example.", {"domains": ("evil.example",)}),
        ("evil[.]example", {"domains": ("evil.example",)}),
        ("*.evil.example", {"patterns": ("*.evil.example",)}),
        ("dnscat", {"words": ("dnscat",)}),
        ("last 2h", {"since": NOW - 7200}),
        ("last 15min", {"since": NOW - 900}),
        ("last 30 minutes", {"since": NOW - 1800}),
        ("last hour", {"since": NOW - 3600}),
        ("state:in-work", {"keys": (("state", "in work"),)}),
        ("last 3 days", {"since": NOW - 3 * 86_400}),
        ("2026-11-20", {"since": at("2026-11-20"), "until": at("2026-11-21")}),
        ("2026-11-20..21", {"since": at("2026-11-20"), "until": at("2026-11-22")}),
        ("2026-11-20..2026-12-01", {"since": at("2026-11-20"), "until": at("2026-12-02")}),
        ("2026-11-20T10:00..2026-11-20T11:30", {"since": at("2026-11-20T10:00"), "until": at("2026-11-20T11:31")}),
        ("2026-11-20..", {"since": at("2026-11-20")}),
        ("9999-12-31", {"words": ("9999-12-31",)}),
        ("client:*", {"clients": ("*",)}),
        ("domain:lan", {"domains": ("lan",)}),
        (" ".join(f"w{number}" for number in range(99)), {"words": tuple(f"w{number}" for number in range(16))}),
        ("2026-02-31", {"words": ("2026-02-31",)}),
        ("score>0.7 score<=0.9", {"score_from": 0.7, "score_to": 0.9}),
        ("severity:HIGH type:txt", {"keys": (("severity", "high"), ("type", "txt"))}),
        ("10.0.0.7 evil last 1h", {"clients": ("10.0.0.7",), "words": ("evil",), "since": NOW - 3600}),
        ("key:value", {"words": ("key:value",)}),
        ("999.0.0.1/8", {"words": ("999.0.0.1/8",)}),
    ],
)
def test_what_is_typed_is_understood(text: str, expected: dict[str, Any]) -> None:
    assert parse_search(text, NOW) == Terms(**expected)


@given(st.text(max_size=60))
def test_nothing_is_an_error(text: str) -> None:
    assert isinstance(parse_search(text, NOW), Terms)
