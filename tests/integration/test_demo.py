"""make demo, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def test_the_demo_finds_the_tunnel_retrains_and_leaves_only_a_report(tmp_path: Path) -> None:
    program, demo = tmp_path / "dns-tunnel", tmp_path / "demo"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m agents "$@"\n')
    program.chmod(0o755)
    old = demo / "reports" / "training_reports" / "training_report_20260101_000000.html"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier demo")
    done = subprocess.run(
        [REPOSITORY / "scripts" / "demo.sh", program, demo], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "CRITICAL incident: 10.53.0.11 -> tunnel.test" in done.stdout
    assert "1 incidents" in done.stdout
    assert "DEPLOYED" in done.stdout
    (report,) = demo.rglob("*.html")
    assert done.stdout.rstrip().endswith(str(report))
    assert [path.name for path in demo.iterdir()] == ["reports"]
