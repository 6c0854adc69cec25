"""Formats keep every field, and text of attackers stays text: read back by what each format's readers do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.alerting.grouping import Event
from agents.core.text import printable
from agents.core.types import Severity
from agents.export.formats import BY_NAME, FORMATS, cef, ecs, leef, ocsf, rfc5424
from agents.export.record import Record, record_of, record_row
from tests.support.incidents import incident

AT = 1_763_604_900.25
HOSTILE = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z", "C")), max_size=80)
ATTACK = {"attack": ["T1071.004", "T1048.003"], "losses": []}


def record(event: Event = Event.NEW, **changed: Any) -> Record:
    return Record(incident(**{"evidence": ATTACK, **changed}), event, AT, "https://tunnels.example/console/incidents/x")


def from_cef(text: str) -> tuple[list[str], dict[str, str]]:
    """The header's fields and the extension, as ArcSight's guide says that they are read."""
    parts = _split_header(text)
    head, extension = parts[:7], parts[7]
    found: dict[str, str] = {}
    keys = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", extension))
    for one, following in zip(keys, [*keys[1:], None], strict=True):
        raw = extension[one.end() : following.start() if following else len(extension)]
        found[one[1]] = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), raw)
    return [re.sub(r"\\(.)", r"\1", one) for one in head], found


def _split_header(text: str) -> list[str]:
    parts, at = [""], 0
    while at < len(text):
        if len(parts) == 8:
            parts[-1] = text[at:]
            break
        if text[at] == "\\" and at + 1 < len(text):
            parts[-1] += text[at : at + 2]
            at += 2
            continue
        if text[at] == "|":
            parts.append("")
        else:
            parts[-1] += text[at]
        at += 1
    return parts


def params_of(element: str) -> dict[str, str]:
    """The PARAMs of an SD-ELEMENT, by the grammar of RFC 5424 section 6."""
    found = re.fullmatch(r'\[[!-~]+((?: [!-~]+?="(?:[^"\\\]]|\\.)*")*)\]', element, re.S)
    assert found is not None
    pairs = re.findall(r' ([!-~]+?)="((?:[^"\\\]]|\\.)*)"', found[1], re.S)
    return {name: re.sub(r'\\(["\\\]])', r"\1", value) for name, value in pairs}


@pytest.mark.parametrize("form", FORMATS, ids=lambda one: one.name)
@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8::7", "*", "client-a\n"])
def test_a_record_is_one_printable_line_in_every_format(form: Any, event: Event, client: str) -> None:
    text = form.render(record(event, client=client, domain='e\\"]|=\x1b.com', sample_names=("a\n|=]b\x00.evil.com",)))
    lines = text.split("\n")
    assert len(lines) == 1 or form.lines
    assert all(one.isprintable() or (form.name == "leef" and one.replace("\t", "").isprintable()) for one in lines)
    if text.startswith("{"):
        assert all(isinstance(json.loads(one), dict) for one in lines)


def test_cef_says_who_what_and_how_much() -> None:
    head, found = from_cef(BY_NAME["cef"].render(record()))
    assert head[:2] == ["CEF:0", "dns-tunnel-detector"] and head[4:] == ["dns-tunnel", "DNS tunnel", "8"]
    assert found["src"] == "192.0.2.7" and found["destinationDnsDomain"] == "evil.com"
    assert (found["out"], found["cnt"], found["cs3"]) == ("9120", "120", "iodine")
    assert found["cs2"] == "T1071.004 T1048.003" and found["rt"] == "1763604900250"
    assert from_cef(BY_NAME["cef"].render(record(client="2001:db8::7")))[1]["c6a2"] == "2001:db8::7"


@given(HOSTILE)
def test_cef_escapes_are_read_back(text: str) -> None:
    assert from_cef(f"CEF:0|a|b|c|{cef.head_field(text)}|n|1|msg=x")[0][4] == text.replace("\r", " ").replace("\n", " ")
    assert re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), cef.extension(text)) == text
    assert not re.search(r"(?<!\\)(?:\\\\)*=", cef.extension(text)) and "\n" not in cef.extension(text)


@given(HOSTILE)
def test_structured_data_is_read_back(text: str) -> None:
    assert params_of(f'[a@1 b="{rfc5424.param(text)}" c="d"]') == {"b": text, "c": "d"}


@given(HOSTILE)
def test_leef_values_hold_no_divider(text: str) -> None:
    assert not {"\t", "\n", "\r"} & set(leef.value(text))


def test_structured_data_has_the_incident() -> None:
    text = BY_NAME["rfc5424"].render(record(domain="e]v\\il.com"))
    found = params_of(text[: text.index("] DNS") + 1])
    assert (
        found["domain"] == printable("e]v\\il.com") and found["leakedBytes"] == "9120" and found["severity"] == "HIGH"
    )
    assert text.endswith("41 unique names below evil.com in 60 s")


# elastic.co/guide/en/ecs/8.17: field sets and their fields that are used here
ECS = {
    "@timestamp", "message", "ecs.version", "observer.vendor", "observer.product", "observer.type", "observer.version",
    "network.protocol", "network.application", "dns.question.registered_domain", "rule.name", "rule.ruleset",
    "related.hosts", "related.ip", "source.address", "source.ip", "threat.framework", "threat.tactic.id",
    "threat.tactic.name", "threat.technique.id", "threat.technique.name", "threat.software.name",
    "threat.software.type", "event.kind", "event.category", "event.type", "event.id", "event.action",
    "event.provider", "event.module", "event.dataset", "event.severity", "event.risk_score", "event.start",
    "event.end", "event.reason", "event.url",
}  # fmt: skip


def _paths(found: Any, before: str = "") -> set[str]:
    if not isinstance(found, dict):
        return {before}
    return set().union(*(_paths(value, f"{before}.{name}" if before else name) for name, value in found.items()))


def test_ecs_has_fields_of_ecs_and_our_own_below_one_name() -> None:
    found = json.loads(BY_NAME["ecs"].render(record()))
    assert {path for path in _paths(found) if not path.startswith("dns_tunnel.")} == ECS
    assert found["event"]["kind"] == "alert" and found["source"]["ip"] == "192.0.2.7"
    assert found["dns_tunnel"]["leaked_bytes"] == 9120
    several = json.loads(BY_NAME["ecs"].render(record(client="*")))
    assert "ip" not in several["source"] and several["source"]["address"] == "several clients"


def test_ocsf_findings_have_what_the_class_requires() -> None:
    for event, activity in ((Event.NEW, 1), (Event.UPDATE, 2), (Event.ENDED, 3)):
        found = json.loads(BY_NAME["ocsf"].render(record(event)))
        # schema.ocsf.io/1.3.0/classes/detection_finding: required attributes
        required = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
        assert required | {"finding_info"} <= set(found)
        assert (found["class_uid"], found["type_uid"]) == (2004, 200_400 + activity)
        assert {"title", "uid"} <= set(found["finding_info"]) and {"product", "version"} <= set(found["metadata"])
    lines = BY_NAME["ocsf-dns"].render(record(sample_names=("a.evil.com", "b.evil.com"))).split("\n")
    assert [json.loads(one)["query"]["hostname"] for one in lines] == ["a.evil.com", "b.evil.com"]
    assert {json.loads(one)["type_uid"] for one in lines} == {400_301}


def test_stix_objects_refer_to_each_other_and_have_the_same_ids_each_time() -> None:
    first, again = (json.loads(BY_NAME["stix"].render(record(domain="e'v.com"))) for _ in range(2))
    assert first == again
    ids = {one["id"]: one["type"] for one in first["objects"]}
    assert all(name.startswith(f"{kind}--") for name, kind in ids.items())
    for one in first["objects"]:
        refs = [value for key, value in one.items() if key.endswith("_ref")]
        refs += [value for key, held in one.items() if key.endswith("_refs") for value in held]
        assert set(refs) <= set(ids)
    (pattern,) = [one["pattern"] for one in first["objects"] if one["type"] == "indicator"]
    assert pattern == "[domain-name:value = 'e\\'v.com']"


def test_misp_blocks_the_domain_alone() -> None:
    found = json.loads(BY_NAME["misp"].render(record()))["Event"]
    assert {(one["type"], one["value"]) for one in found["Attribute"] if one["to_ids"]} == {("domain", "evil.com")}
    assert found["threat_level_id"] == "2"


def test_records_survive_the_disk_and_nothing_else_is_taken_for_one() -> None:
    one = record(Event.UPDATE)
    assert record_of(json.loads(json.dumps(record_row(one)))) == one
    wrong: Any
    for wrong in (None, [], {}, {"at": "x"}, {"at": 1.0, "link": "", "event": "new", "incident": {}}):
        with pytest.raises(ValueError):
            record_of(wrong)


def test_severities_of_every_format_rise() -> None:
    for numbers in (cef.SEVERITIES, ecs.SEVERITIES, ocsf.SEVERITY_IDS):
        assert sorted(numbers.values()) == [numbers[severity] for severity in Severity]
