"""A Pi-hole that is asked for its queries: each once, whatever fails in between."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from agents.sources import pihole_api
from agents.sources.pihole import PiHoleAwayError
from agents.sources.pihole_api import PAGE, SETTLE_S, PiHoleApi
from tests.support.log_lines import T0
from tests.support.pihole_server import PASSWORD, PiHole, pi_hole_server

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[PiHole]:
    with pi_hole_server() as found:
        yield found


@pytest.fixture
def api(server: PiHole) -> Iterator[PiHoleApi]:
    found = PiHoleApi(server.url + "/", PASSWORD, T0)
    yield found
    found.close()


def names(api: PiHoleApi, now: float) -> list[str]:
    return [str(one.qname) for one in api.read(now)]


def test_each_query_comes_once_when_it_has_settled(server: PiHole, api: PiHoleApi) -> None:
    server.ask(T0, "before.example")
    server.ask(T0 + 1, "a.example")
    server.ask(T0 + 5, "b.example")
    assert names(api, T0 + 5) == ["a.example"]
    assert names(api, T0 + 5 + SETTLE_S) == ["b.example"]
    assert names(api, T0 + 5 + SETTLE_S) == []
    assert api.since == T0 + 5


def test_what_is_told_and_what_is_not(server: PiHole, api: PiHoleApi) -> None:
    server.ask(T0 + 1, "Back\\slash.example")
    server.ask(T0 + 2, "b.example", type="TYPE65399", status="CACHE", reply={"type": None, "time": -1})
    server.ask(T0 + 3, "c.example", type="OTHER", status=None, reply=None)
    server.ask(T0 + 4, "hidden")
    server.rows += [{"time": T0 + 5}, 7]
    first, second, third = api.read(T0 + 60)
    assert (first.qname, first.qtype, first.client, first.rcode) == ("Back\\\\slash.example", "TXT", "192.0.2.7", 3)
    assert (first.rtt_ms, first.cached, first.ts) == (19.5, 0, T0 + 1)
    assert (second.qtype, second.cached, second.rcode) == ("TYPE65399", 1, -1)
    assert math.isnan(second.rtt_ms)
    assert (third.qtype, third.cached, third.rcode, third.ancount) == ("TYPE0", -1, -1, -1)
    assert (api.malformed, api.nameless) == (1, 1)  # the number is outside the window of time


def test_more_than_a_page_comes_whole_and_in_order(server: PiHole, api: PiHoleApi) -> None:
    for number in range(2 * PAGE + 1):
        server.ask(T0 + 1 + number / 1000, f"n{number}.example")
    assert names(api, T0 + 60) == [f"n{number}.example" for number in range(2 * PAGE + 1)]
    assert server.pages == 3


def test_a_session_is_begun_and_begun_again_when_it_has_ended(server: PiHole, api: PiHoleApi) -> None:
    server.sid = "one"
    server.ask(T0 + 1, "a.example")
    assert names(api, T0 + 10) == ["a.example"]
    server.sid = "two"
    server.ask(T0 + 11, "b.example")
    assert names(api, T0 + 20) == ["b.example"]
    assert server.log_ins == 2


def test_a_long_gap_is_caught_up_with_in_parts_and_loses_nothing(server: PiHole) -> None:
    for number in range(3 * PAGE):
        server.ask(T0 + number / 5, f"n{number}.example")
    api, found, calls, most = PiHoleApi(server.url, "", 0.0), list[str](), 0, 0
    now, api.behind, beats = T0 + 86_400, True, list[None]()
    api.beat = lambda: beats.append(None)
    while api.behind:
        part = names(api, now)
        found, calls, most = found + part, calls + 1, max(most, len(part))
    api.close()
    assert found == [f"n{number}.example" for number in range(3 * PAGE)]
    assert most < PAGE
    assert len(beats) >= calls
    assert calls < 100  # although it began in 1970


def test_an_answer_that_never_ends_is_given_up(server: PiHole, api: PiHoleApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pihole_api, "ANSWER_S", 0.2)
    server.ask(T0 + 1, "a.example")
    server.drips_s = 0.02
    with pytest.raises(PiHoleAwayError, match=r"an answer takes longer than 0\.2 s$"):
        api.read(T0 + 10)
    server.drips_s = 0.0
    assert names(api, T0 + 10) == ["a.example"]


def test_a_session_ends_with_the_connection(server: PiHole) -> None:
    server.sid = "one"
    api = PiHoleApi(server.url, PASSWORD, T0)
    api.read(T0 + 10)
    api.close()
    assert (server.log_ins, server.log_outs) == (1, 1)


@pytest.mark.parametrize("ts", [math.nan, math.inf, 1e300, -5])
def test_a_time_that_is_none_is_a_bad_row(ts: float, server: PiHole, api: PiHoleApi) -> None:
    server.body = json.dumps({"queries": [{"time": ts, "type": "A", "domain": "a", "client": {"ip": "::1"}}]}).encode()
    assert (names(api, T0 + 10), api.malformed) == ([], 1)


def test_a_failure_is_one_line_and_loses_nothing(server: PiHole, api: PiHoleApi) -> None:
    server.ask(T0 + 1, "a.example")
    for body in (b"<html>", b"[]", b"{}", b'{"queries": 1}', b"[" * 100_000):
        server.body = body
        with pytest.raises(PiHoleAwayError, match=f"^cannot ask {server.url}: it answers with status 200$"):
            api.read(T0 + 10)
    server.body = None
    server.sid = "one"
    other = PiHoleApi(server.url, "wrong", T0)
    with pytest.raises(PiHoleAwayError, match=f"^cannot log in at {server.url}: status 401; see PIHOLE_PASSWORD$"):
        other.read(T0 + 10)
    other.close()
    assert names(api, T0 + 10) == ["a.example"]
    gone = PiHoleApi("http://127.0.0.1:9", "", T0)
    with pytest.raises(PiHoleAwayError, match=r"^cannot reach http://127\.0\.0\.1:9: "):
        gone.read(T0 + 10)
    gone.close()
