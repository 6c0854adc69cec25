"""A search is read as people type it, and nothing that they type is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.store.console.terms import OF_INCIDENTS, OF_QUERIES, Terms, parse_search

NOW = 1_800_000_000.0
NO_DAY = "no day; taken as a part of a name"


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
        ("9999-12-31", {"words": ("9999-12-31",), "not_understood": (f"9999-12-31 ({NO_DAY})",)}),
        ("client:*", {"clients": ("*",)}),
        ("domain:lan", {"domains": ("lan",)}),
        (
            " ".join(f"w{number}" for number in range(18)),
            {
                "words": tuple(f"w{number}" for number in range(16)),
                "not_understood": tuple(f"w{number} (left out: more than 16 words)" for number in (16, 17)),
            },
        ),
        ("2026-02-31", {"words": ("2026-02-31",), "not_understood": (f"2026-02-31 ({NO_DAY})",)}),
        ("score>0.7 score<=0.9", {"score_from": 0.7, "score_to": 0.9}),
        ("severity:HIGH type:txt", {"keys": (("severity", "high"), ("type", "txt"))}),
        ("10.0.0.7 evil last 1h", {"clients": ("10.0.0.7",), "words": ("evil",), "since": NOW - 3600}),
        (
            "key:value",
            {
                "words": ("key:value",),
                "not_understood": ("key:value (there is no key:; taken as a part of a name)",),
            },
        ),
        (
            "999.0.0.1/8",
            {"words": ("999.0.0.1/8",), "not_understood": ("999.0.0.1/8 (no address; taken as a name)",)},
        ),
    ],
)
def test_what_is_typed_is_understood(text: str, expected: dict[str, Any]) -> None:
    assert parse_search(text, NOW) == Terms(**expected)


@pytest.mark.parametrize(
    "text",
    ["sevrity:high", "severity:hihg", "type:TXTT", "rcode:NXDOMIAN", "state:gone", "label:evil", "10.0.0.300",
     "10.0.0.0/33", "client:", "score>2,5", "last fortnight", "2026-11-31..", "2026-1-1"],
)  # fmt: skip
def test_what_is_mistyped_is_said(text: str) -> None:
    terms = parse_search(f"{text} evil.example last 2h", NOW)
    (said,) = terms.not_understood
    assert said.startswith(text.split()[0] + " (")


@pytest.mark.parametrize(
    "text",
    ["2001:db8::7", "::1", "state:in-work", "label:none", "severity:high", "type:TYPE65399", "rcode:nxdomain", "dnscat",
     "_dmarc.evil.example", "tool:anything", "1.0.0.10.in-addr.arpa", "score>0.7", "10.0.0.0/8", "lastpass.com"],
)  # fmt: skip
def test_what_is_typed_well_is_not_doubted(text: str) -> None:
    assert parse_search(text, NOW).not_understood == ()


def test_a_key_that_rows_do_not_have_is_said_and_a_day_is_utc() -> None:
    terms = parse_search("type:TXT 2026-11-20 10.0.0.7", NOW, OF_QUERIES)
    assert terms.not_understood == ("type:TXT (these have no type: nothing can be found)",)
    assert terms.understood == [
        "client 10.0.0.7", "type txt", "from 2026-11-20 00:00:00 UTC", "before 2026-11-21 00:00:00 UTC",
    ]  # fmt: skip
    assert "severity" not in str(parse_search("severity:high", NOW, OF_INCIDENTS).not_understood)


@given(st.text(max_size=60))
def test_nothing_is_an_error(text: str) -> None:
    assert isinstance(parse_search(text, NOW), Terms)
