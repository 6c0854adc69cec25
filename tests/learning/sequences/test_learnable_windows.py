"""What a cycle of the sequence model may learn: no one's flood, nothing in doubt, nothing near an incident."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from agents.core.errors import BusyError
from agents.core.types import DAY_S, Row, Severity
from agents.detection.detector import empty_verdicts
from agents.learning.loop.learnable import CLIENT_SHARE, DOMAIN_FREE, flows_in_doubt
from agents.learning.sequences.learnable_windows import OWN_FROM, HeardSteps, learnable_windows
from agents.learning.sequences.learning import SequenceModels
from agents.learning.sequences.steps import Windows, domain_hashes, heard_part
from agents.store import Store, open_store
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewItem, ReviewStore
from tests.support.sequences import KEY, NOW, browsing, judged, knocking
from tests.support.verdicts import incident

NEEDED = 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()


def collected(rows: list[Row]) -> HeardSteps:
    numbers: dict[str, int] = {}
    part = heard_part(judged(rows), numbers, KEY)
    return HeardSteps([part], numbers, KEY)


def by_client(heard: HeardSteps, windows: Windows) -> Counter[str]:
    names = list(heard.numbers)
    return Counter(names[number] for number in windows.client.tolist())


def everybody(clients: int = 12) -> list[Row]:
    return [row for at in range(clients) for row in browsing(f"10.7.7.{at}", 60, at)]


def test_a_client_that_floods_a_cycle_gives_its_share_and_no_more() -> None:
    flood = browsing("10.7.7.66", 6000, 66)
    heard = collected([*everybody(), *flood])
    windows = learnable_windows(heard, 10, needed=NEEDED)
    found, all_of_it = by_client(heard, windows), 12 * 11 + 1199
    assert found["10.7.7.66"] == int(CLIENT_SHARE * all_of_it), (
        "a tenth of what was collected, of nine tenths that it sent"
    )
    assert all(found[f"10.7.7.{at}"] == 11 for at in range(12)), "what others ask is learnt whole"
    same = learnable_windows(collected([*everybody(), *flood]), 10, needed=NEEDED)
    assert np.array_equal(same.steps, windows.steps), "which ones of a flood are taken is drawn, the same each time"


def test_a_network_of_addresses_in_one_64_is_one_client() -> None:
    flood = [row for at in range(60) for row in browsing(f"2001:db8:0:1::{at + 1:x}", 100, at)]
    heard = collected([*everybody(), *flood])
    found = by_client(heard, learnable_windows(heard, 10, needed=NEEDED))
    total = 12 * 11 + 60 * 19
    assert sum(count for client, count in found.items() if ":" in client) == int(CLIENT_SHARE * total)


def test_a_domain_below_which_many_clients_knock_gives_its_share() -> None:
    flood = [row for at in range(40) for row in knocking(f"10.9.9.{at}", 30, every_s=1.0)]
    heard = collected([*everybody(), *flood])
    windows = learnable_windows(heard, 10, needed=NEEDED)
    below = Counter(windows.domain[windows.share > OWN_FROM].tolist())
    total = 12 * 11 + 40 * 5
    assert max(below.values()) <= max(int(0.02 * total), int(DOMAIN_FREE * NEEDED))
    assert sum(by_client(heard, windows)[f"10.7.7.{at}"] for at in range(12)) > 0.9 * 12 * 11


def test_what_waits_for_a_person_or_was_decided_is_not_learnt(store: Store) -> None:
    ReviewStore(store).fill([ReviewItem("site3.example", 0.9, "why", 1)], NOW, 5, 9e9)
    ReviewStore(store).decide(["site4.example"], Label.TUNNEL, "seen", "ann", NOW)
    heard, plain = collected(everybody()), collected(everybody())
    doubts = flows_in_doubt(store, NOW, NOW + DAY_S)
    assert doubts.domains == {"site3.example", "site4.example"}
    found = learnable_windows(heard, 10, partial(flows_in_doubt, store), NEEDED)
    assert 0 < len(found) < len(learnable_windows(plain, 10, needed=NEEDED))
    hashes = {int(one) for one in np.unique(found.domain)}
    assert not hashes & {int(one) for one in domain_hashes(["site3.example", "site4.example"], KEY)}


def test_nothing_is_learnt_of_a_client_within_a_day_of_an_incident_of_its_own(store: Store) -> None:
    spans = (
        ("10.7.7.1", 3600.0, Severity.HIGH),
        ("10.7.7.2", -2 * DAY_S, Severity.HIGH),
        ("10.7.7.3", 0.0, Severity.SUSPICIOUS),
    )
    for client, after_s, severity in spans:
        found = incident(
            client=client, domain="t.example", severity=severity, detected_at=NOW + after_s, last_seen=NOW + after_s
        )
        store.write(empty_verdicts("m", (found,)), uuid.uuid4().hex)
    heard = collected(everybody())
    learnt = by_client(heard, learnable_windows(heard, 10, partial(flows_in_doubt, store), NEEDED))
    assert "10.7.7.1" not in learnt and learnt["10.7.7.2"] == learnt["10.7.7.3"] == 11


@pytest.mark.slow
def test_of_two_trainers_one_runs_and_the_other_says_who_holds_the_lock(tmp_path: Path) -> None:
    models = SequenceModels(tmp_path)
    script = (
        "import sys; from pathlib import Path; from agents.learning.sequences.learning import SequenceModels\n"
        f"with SequenceModels(Path({str(tmp_path)!r})).training():\n    print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(BusyError, match=f"a training is under way, and process {other.pid} holds the lock"),
            models.training(),
        ):
            pass
        other.communicate("\n")
    with models.training():
        pass
