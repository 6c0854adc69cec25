"""The same stream gives the same verdicts and incidents, however it is cut, with and without compiled kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core import jit
from agents.core.types import Row, Severity
from tests.support.mixed import QUIET_S, Judgement, judgement, mixed
from tests.support.patience import patient


@lru_cache(maxsize=1)
def stream() -> list[Row]:
    return mixed()


@lru_cache(maxsize=1)
def one_by_one() -> Judgement:
    """Each query a batch."""
    return judgement(stream(), list(range(1, len(stream()))))


@pytest.mark.slow
def test_the_stream_shows_what_it_should() -> None:
    found = {(one.client, one.domain) for one in one_by_one().incidents.values()}
    expected = {
        ("10.20.0.4", "evil-tunnel.net"),
        ("10.20.0.9", "*"),
        ("10.20.0.6", "one-shot.net"),
        ("10.20.0.6", "oast.fun"),
    }
    assert expected <= found
    assert any(client == "10.20.0.7" for client, _ in found), "the real session"
    assert any(client == "10.20.0.5" for client, _ in found), "data split over nine domains"
    tunnel = [one for one in one_by_one().incidents.values() if one.domain == "evil-tunnel.net"]
    assert len(tunnel) == 2, "it was quiet for long enough in between"
    assert all(one.closed_at is not None for one in one_by_one().incidents.values())
    assert {*one_by_one().severities} >= {Severity.NORMAL, Severity.HIGH}


def without_evidence(said: Judgement) -> Judgement:
    return replace(said, incidents={name: replace(one, evidence={}) for name, one in said.incidents.items()})


def hours() -> list[int]:
    """Rows where a batch must end for none to be longer than the quiet after which an incident is closed."""
    rows, ends = stream(), [0]
    for row, (ts, *_) in enumerate(rows):
        if ts - rows[ends[-1]][0] > QUIET_S:
            ends.append(row)
    return ends


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(0, 1600), max_size=40), st.booleans())
@pytest.mark.slow
def test_however_it_is_cut_it_is_judged_the_same(cuts: list[int], short: bool) -> None:
    """An incident that is closed and opened anew within one batch shows evidence of the batch's end."""
    rows = stream()
    found = judgement(rows, [*cuts, *(hours() if short else ())])
    if short:
        assert found == one_by_one()
    assert without_evidence(found) == without_evidence(one_by_one())


@pytest.mark.slow
def test_all_in_one_batch_too() -> None:
    assert without_evidence(judgement(stream(), [])) == without_evidence(one_by_one())


SHOWN = """
import json, sys
from dataclasses import asdict
from agents.core import jit
from tests.support.mixed import judgement, mixed
assert not jit.COMPILED
said = judgement(mixed(300), [100, 400])
print(json.dumps(asdict(said)))
"""


@pytest.mark.skipif(not jit.COMPILED, reason="kernels are off")
@pytest.mark.slow
def test_without_kernels_it_is_judged_the_same(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOWN],
        env={**os.environ, "COMPILED": "off"},
        capture_output=True,
        text=True,
        check=True,
        timeout=patient(100),
    )
    found, expected = json.loads(shown.stdout), json.loads(json.dumps(asdict(judgement(mixed(300), [100, 400]))))
    assert found.pop("scores") == pytest.approx(expected.pop("scores"), abs=1e-6)
    for name, incident in expected["incidents"].items():
        for field in ("score", "leaked_bytes", "bytes_before_detection"):
            assert found["incidents"][name].pop(field) == pytest.approx(incident.pop(field), rel=1e-6)
    assert found == expected
