"""Staging at the console: a candidate to a second installation and its verdict back, over the API and on the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agents.core.types import Gate
from agents.learning.release.stage_folder import StageFolder
from agents.learning.release.staging import Staging
from agents.learning.release.transitions import Author
from agents.learning.run import AlertDiff
from agents.scoring.model import Model
from agents.web import create_app
from tests.support.carrier import with_factor
from tests.web.test_console import AUTH, World

pytestmark = pytest.mark.integration
NEW = with_factor(0.8)
URL = "/console/models/staging"


class Site(World):
    """An installation with a folder of staging; `passes`: what its gates say."""

    def __init__(self, folder: Path, name: str, passes: bool = True) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.folder = folder / "staging"
        self.passes = passes

        def judge(candidate: Model, champion: Model) -> tuple[Sequence[Gate], AlertDiff]:
            gate = Gate("alerts <a week>", 2.0 if self.passes else 9.0, 3.0, False)
            return (gate,), AlertDiff(queries=100, days=7.0, old_a_week=1.0, new_a_week=2.0, added=1)

        staging = Staging(self.registry, judge, "", name, self.reports)
        self.parts = replace(self.parts, staging=StageFolder(self.folder, lambda: staging, self.parts.desk))  # type: ignore[arg-type]
        self.app = create_app(self.parts)  # two sites are in one test

    def waiting(self) -> None:
        """A candidate waits."""
        self.registry.save_candidate(NEW)
        self.registry.mark(NEW.model_id, "waiting", Author("the retraining"))

    def send(self, **form: str) -> tuple[int, str]:
        """A form of the page."""
        cookie = self.cookie()
        shown = self.call("GET", URL, headers={"Cookie": cookie}).text
        (key,) = set(re.findall(r'name="key" value="([0-9a-f]+)"', shown))
        answer = self.submit(URL, cookie, {"key": key, **form})
        return answer.status_code, answer.text


@pytest.mark.slow
@pytest.mark.parametrize("passes", [True, False])
def test_a_candidate_goes_out_and_its_verdict_comes_back(tmp_path: Path, passes: bool) -> None:
    first, second = Site(tmp_path / "a", "north"), Site(tmp_path / "b", "south", passes)
    first.waiting()
    name = f"{NEW.model_id}.stage"
    done = first.call(
        "POST",
        "/models/staging/export",
        headers=AUTH,
        json={"model_id": NEW.model_id, "author": "ann", "reason": "please look"},
    )
    assert done.json()["made"]["action"] == "export", done.text
    assert [one["name"] for one in first.get("/models/staging").json()["files"]] == [name]
    sent = first.get(f"/models/staging/{name}")
    assert sent.content == (first.folder / name).read_bytes()
    second.folder.mkdir()
    (second.folder / name).write_bytes(sent.content)
    status, text = second.send(do="import", name=name, reason="as asked")
    assert status == 200 and f"{name}.verdict" in text
    assert [row["state"] for row in second.registry.list()] == ["waiting" if passes else "rejected"]
    shutil.copy(second.folder / f"{name}.verdict", first.folder)
    status, text = first.send(do="import", name=f"{name}.verdict", reason="came back")
    assert status == 200 and "Verdict of south" in text
    assert ("passed every gate" in text, "missed a gate" in text) == (passes, not passes)
    assert "alerts &lt;a week&gt;" in text and "2.0 alerts a week to expect there" in text
    assert "staging" in first.page("/console/models").text
    for site in (first, second):
        site.store.close()


@pytest.mark.slow
def test_what_is_no_staged_file_of_the_folder_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "a", "north")
    assert "There is no file" in site.page(URL).text
    site.waiting()
    assert site.send(do="export", model_id=NEW.model_id, reason="")[0] == 422
    status, text = site.send(do="export", model_id="0" * 16, reason="x")
    assert status == 422 and "cannot find" in text
    assert site.send(do="dance", reason="x")[0] == 422
    assert site.send(do="export", model_id=NEW.model_id, reason="x")[0] == 200
    (tmp_path / "secret.stage").write_text("{}")
    (site.folder / "link.stage").symlink_to(tmp_path / "secret.stage")
    (site.folder / "bad.stage").write_text("{}")
    assert {one["name"] for one in site.get("/models/staging").json()["files"]} == {
        "bad.stage",
        f"{NEW.model_id}.stage",
    }
    for name in ("../secret.stage", "link.stage", "none.stage"):
        status, text = site.send(do="import", name=name, reason="x")
        assert status == 422 and "cannot find" in text, name
    assert site.get("/models/staging/link.stage").status_code == 404
    assert site.page(f"{URL}/..%2Fsecret.stage").status_code == 404
    status, text = site.send(do="import", name="bad.stage", reason="x")
    assert status == 422 and "cannot import" in text
    sent = {"name": "bad.stage", "reason": "x", "author": ""}
    unnamed = site.call("POST", "/models/staging/import", headers=AUTH, json=sent)
    assert unnamed.status_code == 422 and "an author must be given" in unnamed.text
    site.store.close()
