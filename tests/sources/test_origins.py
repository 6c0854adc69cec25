"""What incidents say of what heard them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.sources import origins
from agents.sources.collector import COLLECTED, RECEIVED
from agents.sources.origins import LISTENER, LISTENER_NAME, Origins, origin_numbers
from agents.sources.tail import COLLECT_MAX

FILES, LIVE = ["/a.log", "/b.log"], ["dnstap+unix:///x", "syslog+udp://[::]:514"]


@pytest.fixture
def heard(tmp_path: Path) -> Origins:
    (tmp_path / COLLECTED).write_text(json.dumps({"/a.log": {"kind": "bind"}, "/b.log": {"kind": ""}}))
    live = {"dnstap+unix:///x": {"kind": "dnstap", "senders": {}, "lines": []}}
    live["syslog+udp://[::]:514"] = {"kind": "syslog", "senders": {}, "lines": ["unbound", "nosuch"]}
    (tmp_path / RECEIVED).write_text(json.dumps(live))
    return Origins(FILES, LIVE, tmp_path, {})


def test_numbers_are_of_one_byte_and_no_two_intakes_have_the_same() -> None:
    files, live = ([f"{kind}{at}" for at in range(COLLECT_MAX)] for kind in ("file", "live"))
    numbers = origin_numbers(files, live)
    assert numbers == origin_numbers(files) | origin_numbers((), live)
    assert len(set(numbers.values()) | {LISTENER}) == 2 * COLLECT_MAX + 1
    assert max(numbers.values()) <= 255


def test_an_incident_has_the_losses_of_what_heard_it_alone(heard: Origins) -> None:
    a_log, b_log, tap, syslog = origin_numbers(FILES, LIVE).values()
    assert heard.describe([LISTENER]) == {"intakes": [LISTENER_NAME]}
    assert heard.describe([tap]) == {"intakes": ["dnstap+unix:///x"]}
    assert heard.describe([a_log])["losses"][0] == "answers: none: data in answers is not seen"
    assert heard.describe([b_log])["losses"] == ["answers: not known until its kind is found"]
    assert any(text.startswith("names: ") for text in heard.describe([syslog])["losses"])
    both = heard.describe({tap, a_log})
    assert both["intakes"] == ["/a.log", "dnstap+unix:///x"]
    assert both["losses"][0].startswith("a query log of BIND: answers: none")
    assert heard.describe([250]) == {"intakes": []}


def test_what_an_incident_had_before_a_restart_is_known_again(heard: Origins) -> None:
    numbers = origin_numbers(FILES, LIVE)
    assert heard.numbers(["/a.log", "gone", LISTENER_NAME]) == {numbers["/a.log"], LISTENER}
    assert heard.numbers(None) == set()


def test_what_is_known_at_the_start_stands_until_more_is_heard(heard: Origins, tmp_path: Path) -> None:
    syslog = "syslog+udp://[::]:514"
    known: dict[str, dict[str, Any]] = {
        "/b.log": {"kind": "zeek"},
        syslog: {"kind": "syslog", "senders": {}, "lines": ["bind"]},
    }
    early = Origins(FILES, LIVE, tmp_path, known)
    numbers = origin_numbers(FILES, LIVE)
    assert early.describe([numbers["/b.log"]])["losses"][0].startswith("names: small letters only")
    assert not any(
        text.startswith("names: ")
        for text in Origins(FILES, LIVE, tmp_path / "no", known).describe([numbers[syslog]])["losses"]
    )
    assert any(text.startswith("names: ") for text in early.describe([numbers[syslog]])["losses"])


def test_a_kind_that_is_found_later_is_looked_up_again(
    heard: Origins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = origin_numbers(FILES)["/b.log"]
    assert heard.describe([number])["losses"] == ["answers: not known until its kind is found"]
    (tmp_path / COLLECTED).write_text(json.dumps({"/b.log": {"kind": "zeek"}}))
    assert heard.describe([number])["losses"] == ["answers: not known until its kind is found"], (
        "a file is read now and then"
    )
    monkeypatch.setattr(origins, "LOOK_S", 0.0)
    assert heard.describe([number])["losses"][0].startswith("names: small letters only")
