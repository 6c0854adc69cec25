"""`dns-tunnel stage` between two installations, each with a store of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.cli.parser import main
from agents.runtime import bootstrap
from tests.support.carrier import with_factor
from tests.support.filled import fill

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_a_candidate_goes_out_and_its_verdict_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "candidate.stage"
    model = with_factor(0.95)
    registry = bootstrap.registry_of(bootstrap.load_settings(data_dir=first))
    registry.save_candidate(model)
    registry.mark(model.model_id, "waiting")
    fill(second)
    assert main(["--data-dir", str(first), "stage", "export", str(file), "--author", "ann"]) == 0
    assert main(["--data-dir", str(second), "stage", "import", str(file), "--author", "bob"]) == 0
    assert "every gate was passed" in capsys.readouterr().out
    assert main(["--data-dir", str(second), "models", "show", model.model_id]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["state"] == "waiting"
    assert {"alerts a week", "false incidents"} <= {gate["name"] for gate in known["lineage"]["gates"]}
    assert main(["--data-dir", str(first), "stage", "import", f"{file}.verdict"]) == 0
    assert "says: it passed every gate" in capsys.readouterr().out
    damaged = tmp_path / "damaged.stage"
    damaged.write_bytes(file.read_bytes().replace(b'"parent"', b'"tnerap"', 1).replace(b'"site"', b'"Site"', 1))
    assert main(["--data-dir", str(second), "stage", "import", str(damaged)]) == 1
    assert "was changed or damaged" in capsys.readouterr().err
    assert main(["--data-dir", str(second), "stage", "import", str(tmp_path / "none")]) == 2
