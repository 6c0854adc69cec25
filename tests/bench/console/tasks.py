"""Tasks of an operator's day, carried out in a browser over a console that runs: clicks, seconds, CPU of the console.

Typing, and going on to the next field by Tab, is no click; ticking a box is one.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from playwright.sync_api import Locator, Page, expect

from agents.core.types import Incident, Severity
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.learning.release.transitions import Author
from agents.scoring.model import Model
from agents.store import Store, open_store
from tests.bench.console.measuring import TOKEN, console
from tests.bench.processes import cpu_s, family
from tests.e2e.browsing import chromium, page_of
from tests.support.carrier import with_factor
from tests.support.patience import patient
from tests.support.verdicts import incident, verdicts

ROUNDS = 5
"""How often the bench has all tasks done, each time with incidents and a candidate of its own."""
OLDER, OLD = with_factor(1.1), with_factor(0.9)
"""The model before, and the one in production."""
LOUD, CALM, BUSY = "10.0.0.17", "10.0.0.18", "10.0.0.19"
"""Clients of the three incidents."""


@dataclass(frozen=True)
class Stage:
    """A console that runs, and what the tasks are about: incidents "loud", "calm" and "busy", and a candidate."""

    base: str
    incidents: Mapping[str, Incident]
    candidate: str  # its model_id

    def told(self, path: str) -> Any:
        """What the API says."""
        answer = httpx.get(self.base + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=patient(20))
        assert answer.status_code == 200, answer.text
        return answer.json()


def _incident_of(client: str, domain: str, ago: float, **facts: Any) -> Incident:
    now = time.time()
    return incident(
        client=client, domain=domain, first_seen=now - ago - 240, detected_at=now - ago - 200, last_seen=now - ago,
        sample_names=(f"6e616d653d616e6e3b6b65793d3132333435363738393031.{domain}",),
        evidence={"qtypes": {"TXT": 9}, "bytes_in": 1, "queries_per_minute": 3.0, "attack": [], "benign_if": ""},
        **facts,
    )  # fmt: skip


def add_incidents(store: Store, mark: str = "") -> dict[str, Incident]:
    """Three incidents of this hour, with what their clients did. mark: what their domains begin with."""
    made = {
        "loud": _incident_of(
            LOUD, f"{mark}loud.example", 0, severity=Severity.CRITICAL, tool="dnscat2", leaked_bytes=1234.0
        ),
        "calm": _incident_of(CALM, f"{mark}calm.example", 60, severity=Severity.HIGH, score=0.995),
        "busy": _incident_of(BUSY, f"{mark}busy.example", 120, severity=Severity.CRITICAL, tool="iodine"),
    }
    for one in made.values():
        names = [*(f"n{number}.{one.domain}" for number in range(20)), "www.example.com", "mail.example.net"]
        times = [one.first_seen + 10 * number for number in range(len(names))]
        written = verdicts(names, ts=times, client=one.client, incidents=(one,))
        store.write(written, f"filled {one.domain}")
    return made


class StagedModels:
    """A model folder with a model in production, and one before it."""

    def __init__(self, folder: Path) -> None:
        self._registry = ModelRegistry(folder, Model.from_bytes, model_bytes())
        for model, run in ((OLDER, "run 5"), (OLD, "run 6")):
            self._registry.save_candidate(model)
            self._registry.promote(model.model_id, Author("the retraining", run))

    def add_candidate(self, model: Model, run: str) -> str:
        """One that waits for somebody to decide, with its gates; its model_id."""
        gates = [
            {"name": "golden tunnels found", "value": 0.994, "threshold": 0.98, "margin": 0.014, "passed": True},
            {"name": "alerts a day", "value": 1.2, "threshold": 2.0, "margin": 0.8, "passed": True},
        ]
        self._registry.save_candidate(model)
        self._registry.mark(model.model_id, "waiting", Author("the retraining", run))
        self._registry.note(model.model_id, {"parent": OLD.model_id, "gates": gates, "run_id": "20260104_020011"})
        return model.model_id


class Operator:
    """Somebody at the mouse: counts what they click, and for how long they are at it."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks, self._begun = page, 0, time.monotonic()

    def click(self, target: Locator) -> None:
        """One click."""
        self.clicks += 1
        target.click()

    def press(self, button: str) -> None:
        """One click on the button of this name."""
        self.click(self.page.get_by_role("button", name=button, exact=True))

    def follow(self, link: str) -> None:
        """One click on the first link of this name."""
        self.click(self.page.get_by_role("link", name=link, exact=True).first)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun


def _understand(operator: Operator, stage: Stage) -> None:
    operator.follow(stage.incidents["loud"].domain)
    expect(operator.page.get_by_role("heading", level=1)).to_contain_text(f"{LOUD} sent at least 1.23 kB")
    expect(operator.page.get_by_text("hex: name=ann;key=12345678901")).to_be_visible()


def _silence(operator: Operator, stage: Stage) -> None:
    operator.follow("Known service…")
    expect(operator.page.get_by_text(f"{stage.incidents['calm'].domain} would be silent")).to_be_visible()
    operator.press("Keep")
    expect(operator.page.get_by_role("status")).to_contain_text("1 incident closed, its incident labelled benign.")


def _is_silent(stage: Stage) -> bool:
    calm = stage.incidents["calm"]
    kept = [one["suffix"] for one in stage.told("/services")["services"]]
    return calm.domain in kept and stage.told(f"/incidents/{calm.incident_id}")["closed_at"] is not None


def _look_around(operator: Operator, stage: Stage) -> None:
    operator.follow(stage.incidents["loud"].domain)
    expect(operator.page.get_by_text("What else the client did")).to_be_visible()
    operator.follow(LOUD)
    expect(operator.page.get_by_role("link", name="example.net", exact=True).first).to_be_visible()


def _block(operator: Operator, stage: Stage) -> None:
    domain = stage.incidents["busy"].domain
    operator.follow(domain)
    operator.press("Tunnel, and block…")
    expect(operator.page.get_by_role("status")).to_contain_text("1 incident: labelled tunnel.")
    operator.press("Block")
    expect(operator.page.get_by_role("status")).to_contain_text(f"{domain} is blocked.")


def _is_blocked(stage: Stage) -> bool:
    made = [(one["domain"], one["client"], one["dry"]) for one in stage.told("/blocks")["blocks"]]
    return (stage.incidents["busy"].domain, BUSY, False) in made


def _approve(operator: Operator, stage: Stage) -> None:
    operator.follow(stage.candidate)
    expect(operator.page.get_by_role("heading", name="Gates")).to_be_visible()
    operator.page.get_by_label("Reason").fill("its gates are passed")
    operator.click(operator.page.get_by_label("I am sure"))
    operator.press("Approve")
    expect(operator.page.get_by_role("status")).to_contain_text(f"deployed {stage.candidate}.")


def _roll_back(operator: Operator, stage: Stage) -> None:
    operator.follow("Models")
    form = operator.page.locator("form").filter(has_text="Back to the model before")
    form.get_by_label("Reason").fill("too loud")
    operator.click(form.get_by_label("I am sure"))
    operator.press("Back to the model before")
    expect(operator.page.get_by_role("status")).to_contain_text(f"back to {OLD.model_id}.")


def _is_production(model_id: str, stage: Stage) -> bool:
    return bool(stage.told("/models/champion")["model_id"] == model_id)


class Task(NamedTuple):
    """One task: the page where it begins, and the clicks that it may take."""

    name: str
    begin: str
    most: int
    carry_out: Callable[[Operator, Stage], None]
    is_done: Callable[[Stage], bool]
    """Whether the API says that it came to something."""


TASKS = (
    Task("first alarm understood", "Now", 1, _understand, lambda _: True),
    Task("a false alarm silenced", "its incident", 2, _silence, _is_silent),
    Task("what else did this client do", "Now", 3, _look_around, lambda _: True),
    Task("a tunnel confirmed and blocked", "Now", 3, _block, _is_blocked),
    Task("a candidate read and approved", "Now", 3, _approve, lambda stage: _is_production(stage.candidate, stage)),
    Task("a model rolled back", "Now", 3, _roll_back, lambda stage: _is_production(OLD.model_id, stage)),
)
"""In the order in which they are carried out."""


class Carried(NamedTuple):
    """What one task took: clicks, and seconds of wall clock and of the console's CPU."""

    task: Task
    clicks: int
    wall_s: float
    cpu_s: float


def carried_out(page: Page, stage: Stage, pids: Sequence[int]) -> list[Carried]:
    """All tasks, one after another, by somebody who is logged in. pids: processes of the console."""
    found = []
    for task in TASKS:
        calm = stage.incidents["calm"].incident_id
        page.goto(stage.base + ("/" if task.begin == "Now" else f"/console/incidents/{calm}"))
        before, operator = cpu_s(list(pids)), Operator(page)
        task.carry_out(operator, stage)
        found.append(Carried(task, operator.clicks, operator.seconds, cpu_s(list(pids)) - before))
        assert task.is_done(stage), f"{task.name}: the API does not say so"
    return found


def operated(url: str, directory: Path, say: Callable[[str], None]) -> list[Carried]:
    """Each task over a filled database, ROUNDS times: clicks at most, medians of seconds and of CPU."""
    models, rounds = StagedModels(directory / "models"), list[list[Carried]]()
    settings = {"ENFORCE": "on", "COMPILED": "off"}
    with console(directory, url, **settings) as (port, pid), chromium() as browser, page_of(browser) as page:
        base = f"http://127.0.0.1:{port}"
        page.goto(f"{base}/login")
        page.get_by_label("Name").fill("bench")
        page.get_by_label("Password").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        for number in range(ROUNDS):
            with closing(open_store(url)) as store:
                incidents = add_incidents(store, f"{uuid.uuid4().hex[:8]}-")
            candidate = models.add_candidate(with_factor(0.8 - number / 100), f"run {7 + number}")
            rounds.append(carried_out(page, Stage(base, incidents, candidate), family(pid)))
            say(f"operator, round {number + 1}: {sum(one.wall_s for one in rounds[-1]):.1f} s")
    return [
        Carried(
            tried[0].task,
            max(one.clicks for one in tried),
            statistics.median(one.wall_s for one in tried),
            statistics.median(one.cpu_s for one in tried),
        )
        for tried in zip(*rounds, strict=True)
    ]


def table_of_tasks(rows: Sequence[Carried]) -> str:
    """A row a task."""
    lines = ["| task | from | clicks | at most | seconds | CPU, s |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for one in rows:
        task = one.task
        lines.append(
            f"| {task.name} | {task.begin} | {one.clicks} | {task.most} | {one.wall_s:.1f} | {one.cpu_s:.2f} |"
        )
    return "\n".join(lines)
