"""make bench: how fast, as ratios to a baseline of the same run. Never fails for slowness.

python -m tests.bench [PART …] [--json PATH|-]

parts: reading replay listener forwarders caches live footprint stores sampling retraining honeytokens intakes
       hours several bus takeover hunting
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.parts import PARTS
from tests.bench.table import markdown


def machine() -> str:
    """Processor, cores, Python: what the absolute figures depend on."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed, as ratios to a baseline.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {' '.join(PARTS)}")
    parser.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output instead of the table")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"cannot measure {', '.join(sorted(unknown))}: parts are {' '.join(PARTS)}")
    figures = []
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            figures += list(PARTS[name](Path(directory)))
    rows = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
    text = json.dumps({"machine": machine(), "figures": rows}, indent=1) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
        return
    if options.json:
        Path(options.json).write_text(text, "utf-8")
    print(f"{machine()}\n\n{markdown(figures)}")


if __name__ == "__main__":
    main()
