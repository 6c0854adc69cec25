"""Small tables after what users of such tools report: services that paged somebody, and tunnels that did not."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest

from agents.core.types import Incident, Severity
from agents.detection.limits import Scale
from agents.detection.runner import verdicts_of
from agents.sources import open_source
from tests.support.detecting import fresh_detector, shipped_model

TABLES = Path(__file__).parent.parent / "data" / "reports"
QUIET = (
    "mcafee rspamd_rbl_unlisted ipleak dnsleaktest eip1459 rdns_flood metric_gstatic plex6 fcrdns_dsl spf_macros "
    "big_apex_txt any_dnskey msbl_small vcn_light ad_small"
).split()
FOUND = ("nslookup_bursts", "below_private_suffix")


def replayed(path: Path) -> tuple[list[Incident], int]:
    """The last state of each incident, and how many queries were HIGH or above."""
    found: dict[str, Incident] = {}
    loud = 0
    for verdicts in verdicts_of(fresh_detector(shipped_model(), Scale()), open_source([path]).batches(4096)):
        found |= {one.incident_id: one for one in verdicts.incidents}
        loud += int((verdicts.severity >= Severity.HIGH).sum())
    return list(found.values()), loud


def changed(folder: Path, name: str, others: Mapping[str, str]) -> Path:
    """A table of another network: with other domains."""
    text = gzip.decompress((TABLES / f"{name}.tsv.gz").read_bytes()).decode()
    for old, new in others.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.tsv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", QUIET)
def test_what_services_ask_pages_nobody(name: str) -> None:
    found, loud = replayed(TABLES / f"{name}.tsv.gz")
    assert [one for one in found if one.severity >= Severity.HIGH] == []
    assert loud <= 1
    assert all("explanation" in one.evidence for one in found)


@pytest.mark.parametrize("name", FOUND)
def test_what_tunnels_ask_is_found(name: str) -> None:
    found, _ = replayed(TABLES / f"{name}.tsv.gz")
    assert max(one.severity for one in found) >= Severity.HIGH


@pytest.mark.parametrize(
    ("name", "others", "kind"),
    [
        ("ipleak", {"ipleak.net": "show-my-resolver.net"}, "a test of the network"),
        ("dnsleaktest", {"dnsleaktest.com": "leaky-pages.com"}, "a test of the network"),
        ("fcrdns_dsl", {"t-ipconnect.de": "lines-of-a-provider.de"}, "addresses in names"),
        ("spf_macros", {"vali.email": "policy-macros.email"}, "sender policy macros"),
        ("eip1459", {"ethdisco.net": "tree-of-nodes.net"}, "peer-to-peer nodes"),
    ],
)
def test_an_unlisted_service_pages_and_says_what_it_may_be(
    tmp_path: Path, name: str, others: dict[str, str], kind: str
) -> None:
    found, _ = replayed(changed(tmp_path, name, others))
    loud = [one for one in found if one.severity >= Severity.HIGH]
    assert loud and loud[0].evidence["explanation"]["kind"] == kind
