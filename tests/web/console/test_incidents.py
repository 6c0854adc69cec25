"""Incidents at the console and over its API: searched, narrowed, exported as shown, triaged in bulk, undone."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from agents.core.text import NETWORK
from agents.core.types import Severity
from agents.store.feedback.labels import Label
from tests.support.verdicts import START, incident, verdicts
from tests.web.test_console import HOSTILE_TEXT, HTML, World

pytestmark = pytest.mark.integration
LOUD = [Severity.HIGH, Severity.CRITICAL]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def fill(world: World, count: int = 120) -> list[str]:
    """So many incidents, every third CRITICAL, of two networks; their ids, last seen first."""
    made = [
        incident(
            client=f"10.0.{number % 2}.{number % 40}",
            domain=f"d{number}.example",
            severity=Severity.CRITICAL if number % 3 == 0 else Severity.HIGH,
            tool="iodine" if number % 5 == 0 else None,
            first_seen=START + number,
            last_seen=START + number + 1,
            detected_at=START + number + 0.5,
        )
        for number in range(count)
    ]
    world.store.write(verdicts([], incidents=tuple(made)), "filled")
    return [one.incident_id for one in reversed(made)]


class Person:
    """A browser with a session, under a name."""

    def __init__(self, world: World, name: str = "ann") -> None:
        self._world = world
        self.cookie = world.cookie(name=name)

    def page(self, url: str) -> httpx.Response:
        return self._world.call("GET", url, headers=HTML | {"Cookie": self.cookie})

    def send(self, url: str = "/console/incidents", **form: Any) -> httpx.Response:
        """Send a form of the page; the page that follows."""
        key = re.search(r'name="key" value="([0-9a-f]+)"', self.page(url).text)
        assert key is not None
        answer = self._world.call("POST", url, data=form | {"key": key[1]}, headers={"Cookie": self.cookie})
        assert answer.status_code == 303, answer.text
        return answer


def told(answer: httpx.Response) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def post(world: World, path: str, **body: Any) -> httpx.Response:
    return world.call("POST", path, json=body, headers={"Authorization": "Bearer correct horse battery staple"})


def test_pages_by_cursor_miss_none_and_show_none_twice(world: World) -> None:
    expected, found, cursor = fill(world), [], ""
    while True:
        page = world.get("/incidents", params={"limit": 50} | ({"cursor": cursor} if cursor else {})).json()
        found += [one["incident_id"] for one in page["incidents"]]
        assert page["count"] == 120
        if not (cursor := page["cursor"] or ""):
            break
    assert found == expected


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"q": "10.0.1.0/24"}, 60),
        ({"q": "10.0.0.2"}, 3),
        ({"q": "10.0.1.0/24 tool:iodine"}, 12),
        ({"q": "d7.example"}, 1),
        ({"q": "www.d7.example"}, 1),
        ({"q": "d7*"}, 11),
        ({"q": "iodine severity:critical"}, 8),
        ({"q": "2025-12-31"}, 0),
        ({"q": "2026-01-01"}, 120),
        ({"q": "state:closed"}, 0),
        ({"q": "severity:loud"}, 0),
        ({"severity": "CRITICAL"}, 40),
        ({"severity": ["CRITICAL", "HIGH"], "tool": "none"}, 96),
        ({"client": "10.0.0.2", "domain": "d2.example"}, 1),
        ({"q": "%"}, 0),
        ({"q": "_"}, 0),
        ({"q": "' OR 1=1 --"}, 0),
    ],
)
def test_a_search_finds_what_it_says(world: World, params: dict[str, Any], count: int) -> None:
    fill(world)
    assert world.get("/incidents", params=params).json()["count"] == count


def test_facets_count_what_choosing_them_would_give(world: World) -> None:
    fill(world)
    facets = world.get("/incidents", params={"severity": "CRITICAL"}).json()["facets"]
    assert sorted(facets["severity"]) == [["CRITICAL", 40], ["HIGH", 80]]
    assert sorted(facets["tool"]) == [["iodine", 8], ["none", 32]]
    assert facets["state"] == [["new", 40]]
    page = Person(world).page("/console/incidents?severity=CRITICAL").text
    assert 'href="/console/incidents?severity=CRITICAL&amp;tool=iodine">iodine</a>' in page
    assert 'href="/console/incidents?" class="chosen"' in page


def test_an_export_has_exactly_what_is_shown(world: World) -> None:
    fill(world)
    world.store.write(verdicts([], incidents=(incident(domain="=cmd|x.example", tool="@SUM(1)"),)), "odd")
    rows = list(csv.DictReader(io.StringIO(world.get("/incidents/export?severity=CRITICAL").text)))
    assert len(rows) == 40
    assert {row["severity"] for row in rows} == {"CRITICAL"}
    (odd,) = csv.DictReader(io.StringIO(world.get("/incidents/export", params={"q": "cmd"}).text))
    assert (odd["domain"], odd["tool"]) == ("'=cmd|x.example", "'@SUM(1)")
    lines = world.get("/incidents/export?format=json&q=tool:iodine").text.splitlines()
    assert len(lines) == 24
    assert json.loads(lines[0])["tool"] == "iodine"


def test_a_label_in_bulk_is_told_to_the_learning_loop_and_undone_by_one_click(world: World) -> None:
    first, second, *_ = fill(world)
    ann, bob = Person(world), Person(world, "bob")
    answer = ann.send(incident=[first, second], do="tunnel", reason="seen it", query="q=last+2h")
    assert told(answer)["done"] == "2 incidents: labelled tunnel."
    assert told(answer)["q"] == "last 2h", "the list stays as it was"
    said = world.get(f"/incidents/{first}").json()["triage"]
    assert (said["state"], said["label"], said["changed_by"], said["reason"]) == ("closed", "tunnel", "ann", "seen it")
    decided = world.parts.reviews.decisions(standing=True)
    assert sorted((one.domain, one.label, one.author) for one in decided) == [
        ("d118.example", Label.TUNNEL, "ann"),
        ("d119.example", Label.TUNNEL, "ann"),
    ]
    assert world.get("/incidents?label=tunnel").json()["count"] == 2
    undone = bob.send(do="undo", action=told(answer)["undo"])
    assert told(undone)["done"] == "Undone for 2 incidents."
    assert world.get(f"/incidents/{first}").json()["triage"]["label"] is None
    assert world.parts.reviews.decisions(standing=True) == []
    history = world.get(f"/incidents/{first}/history").json()["history"]
    assert [(one["author"], one["undone_by"]) for one in history] == [("ann", "bob")]
    noted = [one["action"] for one in world.get("/audit").json()["entries"]]
    assert [one for one in noted if one != "login"] == [
        "change of incidents undone",
        "incident changed",
    ]


def test_what_was_changed_again_is_not_undone(world: World) -> None:
    first, second, *_ = fill(world)
    done = post(world, "/incidents/change", incidents=[first, second], label="benign", author="ann").json()
    post(world, "/incidents/change", incidents=[second], label="tunnel", author="bob")
    post(world, "/incidents/change", incidents=[first], comment="why?", author="bob")
    answer = post(world, "/incidents/undo", action_id=done["action_id"], author="ann")
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        f"cannot undo: incident {second} was changed again since",
    )
    assert world.get(f"/incidents/{first}").json()["triage"]["label"] == "benign"
    assert [one.label for one in world.parts.reviews.decisions(standing=True)] == [Label.TUNNEL, Label.BENIGN]


def test_a_label_that_is_taken_away_is_no_decision_any_more(world: World) -> None:
    first, *_ = fill(world)
    post(world, "/incidents/change", incidents=[first], label="benign", author="ann")
    done = post(world, "/incidents/change", incidents=[first], unlabel=True, author="bob").json()
    assert world.parts.reviews.decisions(standing=True) == []
    post(world, "/incidents/undo", action_id=done["action_id"], author="bob")
    assert world.get(f"/incidents/{first}").json()["triage"]["label"] == "benign"
    assert [one.label for one in world.parts.reviews.decisions(standing=True)] == [Label.BENIGN]


def test_undoing_a_second_label_restores_the_first_ones_decision_and_that_can_be_undone(world: World) -> None:
    first, *_ = fill(world)
    one = post(world, "/incidents/change", incidents=[first], label="benign", author="ann").json()
    two = post(world, "/incidents/change", incidents=[first], label="tunnel", author="bob").json()
    post(world, "/incidents/undo", action_id=two["action_id"], author="bob")
    assert [each.label for each in world.parts.reviews.decisions(standing=True)] == [Label.BENIGN]
    assert world.get(f"/incidents/{first}").json()["triage"]["label"] == "benign"
    post(world, "/incidents/undo", action_id=one["action_id"], author="ann")
    assert world.parts.reviews.decisions(standing=True) == []


def test_six_hundred_domains_and_a_delegation_are_labelled_at_once(world: World) -> None:
    ids = fill(world, 600)
    delegation = incident(domain="7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", client="10.0.0.7")
    world.store.write(verdicts([f"{'1.' * 20}7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"], incidents=(delegation,)), "reverse")
    sent = [*ids, delegation.incident_id]
    assert post(world, "/incidents/change", incidents=sent, label="tunnel", author="ann").status_code == 200
    assert len(world.parts.reviews.decisions(standing=True, limit=1000)) == 601
    found = world.get(f"/domains/{delegation.domain}?since={START}&until={START + 86_400}").json()
    assert found["queries"] == 1


def test_a_decision_that_somebody_made_since_stays(world: World) -> None:
    first, *_ = fill(world)
    done = post(world, "/incidents/change", incidents=[first], label="benign", author="ann").json()
    world.parts.reviews.decide(["d119.example"], Label.TUNNEL, "looked again", "bob", START)
    assert post(world, "/incidents/undo", action_id=done["action_id"], author="ann").status_code == 200
    assert [(one.label, one.author) for one in world.parts.reviews.decisions(standing=True)] == [(Label.TUNNEL, "bob")]


def test_state_assignee_and_comments(world: World) -> None:
    first, *_ = fill(world)
    ann = Person(world, "Ann B.")
    ann.send(incident=first, do="mine")
    ann.send(incident=first, do="comment", comment="asked\nthe owner", page=first)
    said = world.get(f"/incidents/{first}").json()["triage"]
    assert (said["state"], said["assignee"], said["changed_by"]) == ("in work", "Ann B.", "Ann B.")
    page = ann.page(f"/console/incidents/{first}").text
    assert "asked the owner" in page
    assert "assignee: none &#8594; Ann B." in page
    assert world.get("/incidents", params={"assignee": "Ann B."}).json()["count"] == 1
    assert post(world, "/incidents/change", incidents=[first], assignee="", author="x").status_code == 200
    assert world.get("/incidents?assignee=none").json()["count"] == 120


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"incidents": []}, "incidents"),
        ({"incidents": ["0" * 16], "label": "benign"}, "cannot find incident 0000000000000000"),
        ({"incidents": ["0" * 16], "label": "good"}, "label"),
        ({"incidents": ["0" * 16]}, "nothing is to be changed"),
        ({"incidents": ["0" * 16], "comment": "x" * 5000}, "comment"),
        ({"incidents": ["0" * 16] * 1001, "label": "benign"}, "incidents"),
    ],
)
def test_what_cannot_be_changed_is_said_in_one_line_and_nothing_is_kept(
    world: World, body: dict[str, Any], words: str
) -> None:
    answer = post(world, "/incidents/change", **body)
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert world.get("/audit").json()["entries"] == []


def test_one_that_is_not_there_changes_none_of_them(world: World) -> None:
    first, *_ = fill(world)
    assert post(world, "/incidents/change", incidents=[first, "0" * 16], label="benign").status_code == 422
    assert world.get(f"/incidents/{first}").json()["triage"]["label"] is None
    assert world.parts.reviews.decisions() == []


def test_a_form_of_another_site_or_session_changes_nothing(world: World) -> None:
    first, *_ = fill(world)
    ann, bob = Person(world), Person(world, "bob")
    key = re.search(r'name="key" value="([0-9a-f]+)"', bob.page("/console/incidents").text)
    assert key is not None
    for cookie, sent in ((ann.cookie, key[1]), (ann.cookie, ""), ("", key[1])):
        form = {"key": sent, "incident": first, "do": "benign"}
        assert world.call("POST", "/console/incidents", data=form, headers={"Cookie": cookie}).status_code == 401
    assert world.get(f"/incidents/{first}").json()["triage"]["label"] is None


def test_words_that_a_link_puts_there_are_not_the_consoles(world: World) -> None:
    first, *_ = fill(world)
    ann = Person(world)
    told = "done=Session+over&problem=Log+in+elsewhere&undo=0123"
    for path in ("/console/incidents", f"/console/incidents/{first}"):
        page = ann.page(f"{path}?{told}&sign={'0' * 64}").text
        assert "Session over" not in page
        assert "elsewhere" not in page
    said = ann.send(incident=first, do="mine").headers["location"]
    assert "in work by ann" in ann.page(said).text
    assert "in work by ann" not in Person(world, "bob").page(said).text.split("<table")[0]


def test_a_session_of_the_release_before_has_to_log_in(world: World) -> None:
    gate = world.app.state.gate
    ends = "9999999999"
    mac = gate._mac(ends)
    answer = world.call("GET", "/console/incidents", headers={"Cookie": f"dns_tunnel_session={ends}.{mac}"})
    assert answer.status_code == 303


def test_an_incident_reads_like_a_sentence_and_shows_what_it_stands_on(world: World) -> None:
    made = incident(
        client="10.0.0.7",
        domain="evil.example",
        tool="dnscat2",
        leaked_bytes=1234.0,
        first_seen=START,
        last_seen=START + 240,
        detected_at=START + 10,
        evidence={"qtypes": {"TXT": 12, "MX": 2}, "bytes_in": 20, "benign_if": "It would be benign if so."},
        sample_names=("6e616d653d616e6e3b6b65793d3132333435363738393031.evil.example",),
    )
    names = [f"n{number}.other.example" for number in range(3)]
    world.store.write(verdicts(names, client="10.0.0.7", incidents=(made,)), "b1")
    world.store.write(verdicts(["x.evil.example"], client="10.0.0.9"), "b2")
    page = Person(world).page(f"/console/incidents/{made.incident_id}").text
    assert "10.0.0.7 sent at least 1.23 kB to evil.example through TXT names of dnscat2 within 4 minutes." in page
    assert "hex: name=ann;key=12345678901" in page
    assert ">other.example</a>" in page
    assert ">10.0.0.9</a>" in page
    assert "It would be benign if so." in page
    assert ">Tunnel, and block&#8230;<" in page
    assert "/console/services?suffix=evil.example" in page


def test_a_program_reads_of_an_incident_what_its_page_says(world: World) -> None:
    made = incident(
        client="10.0.0.7",
        domain="evil.example",
        tool="dnscat2",
        leaked_bytes=1234.0,
        first_seen=START,
        last_seen=START + 240,
        detected_at=START + 10,
        sample_names=("6e616d653d616e6e3b6b65793d3132333435363738393031.evil.example", "x.evil.example"),
    )
    other = incident(client="10.0.0.7", domain="worse.example", last_seen=START + 90)
    world.store.write(verdicts(["n.other.example"], client="10.0.0.7", incidents=(made, other)), "b1")
    world.store.write(verdicts(["x.evil.example"], client="10.0.0.9"), "b2")
    page = Person(world).page(f"/console/incidents/{made.incident_id}").text
    told = world.get(f"/incidents/{made.incident_id}").json()
    assert told["claim"] in page and told["claim"].startswith("10.0.0.7 sent at least 1.23 kB to evil.example")
    assert [one["text"] for one in told["decoded"]] == ["hex: name=ann;key=12345678901", ""]
    listed = world.get("/incidents").json()["incidents"]
    assert listed[0]["claim"] == told["claim"], "the list says it, too"
    around = world.get(f"/incidents/{made.incident_id}/context").json()
    assert [one["other"] for one in around["near"]["others"]] == ["other.example"]
    assert [one["other"] for one in around["others"]["others"]] == ["10.0.0.9"]
    assert (around["first_seen"], around["near_span"]) == (START, [START + 10 - 3600, START + 10 + 3600])
    assert [one["incident_id"] for one in around["earlier"]] == [other.incident_id]


def test_what_has_no_client_or_domain_has_no_context_of_it(world: World) -> None:
    made = incident(client=NETWORK, domain=".")
    world.store.write(verdicts([], incidents=(made,)), "b1")
    around = world.get(f"/incidents/{made.incident_id}/context").json()
    assert (around["near"], around["others"], around["first_seen"], around["earlier"]) == (None, None, None, [])
    assert world.get(f"/incidents/{'0' * 16}/context").status_code == 404


def test_others_are_others_and_links_lead_to_the_days_of_the_incident(world: World) -> None:
    made = incident(
        client="10.0.0.7", domain="evil.example", first_seen=START, last_seen=START + 240, detected_at=START
    )
    names = ["x.evil.example", "n.other.example"]
    world.store.write(verdicts(names, client="10.0.0.7", incidents=(made,)), "b1")
    page = Person(world).page(f"/console/incidents/{made.incident_id}").text
    near = page.split("What else the client did")[1].split("</section>")[0]
    assert ">other.example</a>" in near and "evil.example" not in near and "1 other domain" in near
    asked = page.split("Who else asks below this domain")[1].split("</section>")[0]
    assert "Nobody else" in asked and "10.0.0.7" not in asked
    day = time.strftime("%Y-%m-%d", time.gmtime(START))
    links = {
        f"/console/{kind}?range={day}" for kind in ("clients/10.0.0.7", "domains/evil.example", "domains/other.example")
    }
    assert links <= set(re.findall(r'href="([^"]+)"', page))
    assert "1 query" in Person(world).page(f"/console/domains/evil.example?range={day}").text


def test_who_labels_on_a_later_page_stays_there(world: World) -> None:
    fill(world)
    person = Person(world)
    older = html.unescape(str(re.search(r'href="([^"]+cursor=[^"]+)"', person.page("/console/incidents").text)[1]))  # type: ignore[index]
    page = person.page(older).text
    cursor = html.unescape(str(re.search(r'name="cursor" value="([^"]+)"', page)[1]))  # type: ignore[index]
    marked = re.findall(r'name="incident" value="([0-9a-f]+)"', page)
    answer = person.send(do="ignore", incident=marked[0], query="", cursor=cursor)
    back = person.page(answer.headers["location"]).text
    assert re.findall(r'name="incident" value="([0-9a-f]+)"', back) == marked and "1 incident: labelled ignore." in back


def test_the_first_page_lists_what_nobody_has_closed_the_gravest_first(world: World) -> None:
    ids = fill(world, 6)
    person = Person(world)
    person.send(do="closed", incident=ids[2])
    person.send(do="assign", assignee="bob", incident=ids[5])
    page = person.page("/").text.split("Incidents to look at")[1].split("</section>")[0]
    shown = re.findall(r'class="badge (\w+)".*?>(d\d)\.example', page, re.DOTALL)
    assert shown == [("critical", "d0"), ("high", "d5"), ("high", "d4"), ("high", "d2"), ("high", "d1")]
    assert page.count("bob") == 1


def test_the_first_page_has_the_newest_of_the_gravest_where_there_are_more_than_it_shows(world: World) -> None:
    made = tuple(
        incident(domain=f"c{number}.example", severity=Severity.CRITICAL, last_seen=float(number))
        for number in range(60)
    )
    world.store.write(verdicts([], incidents=(*made, incident(domain="high.example", severity=Severity.HIGH))), "b1")
    page = Person(world).page("/").text.split("Incidents to look at")[1].split("</section>")[0]
    shown = re.findall(r'class="badge (\w+)".*?>(\w+)\.example', page, re.DOTALL)
    assert shown == [("critical", f"c{number}") for number in range(59, 9, -1)]


def test_neighbours_are_those_of_the_list_that_it_was_opened_from(world: World) -> None:
    ids = fill(world)
    page = Person(world).page(f"/console/incidents/{ids[5]}?severity=CRITICAL").text
    assert [
        ids.index(one) for one in re.findall(r'href="/console/incidents/([0-9a-f]{16})\?severity=CRITICAL"', page)
    ] == [2, 8]


@pytest.mark.parametrize(
    ("client", "domain"), [("", "evil.example"), (NETWORK, "."), ("10.0.0.7", NETWORK), ("x/y?", "a/b")]
)
def test_what_has_no_page_has_no_link(world: World, client: str, domain: str) -> None:
    made = incident(client=client, domain=domain)
    world.store.write(verdicts([], incidents=(made,)), "b1")
    person = Person(world)
    for path in ("/", "/console/incidents", f"/console/incidents/{made.incident_id}"):
        page = person.page(path)
        assert page.status_code == 200
        for link in set(re.findall(r'href="(/console/(?:clients|domains)/[^"]+)"', page.text)):
            assert person.page(link).status_code == 200


def test_views_are_kept_shared_and_forgotten(world: World) -> None:
    ann, bob = Person(world), Person(world, "bob")
    ann.send(do="save", view="loud ones", query="severity=CRITICAL&state=new")
    assert (
        'href="/console/incidents?severity=CRITICAL&amp;state=new" title="kept by ann">loud ones<'
        in bob.page("/console/incidents").text
    )
    assert "cannot keep this without a name" in told(ann.send(do="save", view="  ", query=""))["problem"]
    bad = post(world, "/views", name="x", address="https://elsewhere.example/", author="ann")
    assert bad.status_code == 422
    bob.send(do="forget", view="loud ones")
    assert world.get("/views").json() == {"views": []}


def test_hostile_text_is_escaped_everywhere(world: World) -> None:
    made = incident(domain=HOSTILE_TEXT, client="<b>", tool="<i>x", reasons=("<u>",), sample_names=(HOSTILE_TEXT,))
    world.store.write(verdicts([], incidents=(made,)), "b1")
    person = Person(world, "<em>ann")
    person.send(incident=made.incident_id, do="comment", comment="<img src=x>", page=made.incident_id)
    person.send(do="save", view="<s>view", query="q=%3Cscript%3E")
    for path in (
        "/console/incidents?q=%22%3E%3Cscript%3E&done=%3Cscript%3E&problem=%3Cscript%3E",
        f"/console/incidents/{made.incident_id}",
        "/console/audit",
        "/console/hunt?q=%22%3E%3Cscript%3E",
        "/console/services?suffix=%3Cscript%3E&reason=%22%3E%3Cscript%3E",
        "/console/clients/%3Cscript%3E",
        "/console/domains/%3Cscript%3E",
    ):
        text = person.page(path).text
        for bad in ("<script>", "<b>", "<i>x", "<u>", "<em>", "<img", "<s>"):
            assert bad not in text, (path, bad)


def test_a_mistyped_search_is_said_and_not_taken_for_all_clear(world: World) -> None:
    ann = Person(world)
    for url, api in (("/console/incidents", "/incidents"), ("/console/hunt", "/hunt")):
        page = ann.page(f"{url}?q=severity%3Ahihg+10.0.0.7").text
        said = "severity:hihg (there is no such severity: nothing can be found)"
        assert f"Not understood: {said}." in page and "Looked for: client 10.0.0.7" in page
        answer = world.get(f"{api}?q=severity%3Ahihg+10.0.0.7").json()
        assert answer["not_understood"] == [said] and "client 10.0.0.7" in answer["understood"]
        assert "Not understood" not in ann.page(f"{url}?q=10.0.0.7").text
    assert "Not understood: type:TXT (these have no type" in ann.page("/console/incidents?q=type%3ATXT").text
