"""The leak curve of learning/evaluation.py with names of several sizes, over a client's day of the look-alike suite.

python -m tests.support.leak_curve [--json PATH|-]        writes the table of docs/detection-slow.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from agents.cli.output import leak_cells
from agents.core.types import Row
from agents.detection.limits import Scale
from agents.learning import evaluation
from agents.learning.evaluation import Leak
from tests.corpora.lookalikes import ROLES, traffic
from tests.support.detecting import START, fresh_detector, shipped_model

SHAPES = (6, 30, 110)
"""Bytes that one name carries: a few letters, a label, a full name."""
CLIENT = "10.20.0.7"


def measure(rate: float, carried: int, background: Sequence[Row]) -> Leak:
    """Lay one tunnel over the background, which is CLIENT's, and find it."""
    sent = evaluation.tunnel(rate, carried, CLIENT, START)
    return evaluation.measure(fresh_detector(shipped_model(), Scale()), background, sent, rate, carried)


def curve(seed: int = 1) -> list[Leak]:
    """Every rate with every shape, over one client's day of the look-alike suite."""
    own = [row for row in traffic(seed, ROLES[1:2]) if row[1] == CLIENT]
    return [measure(rate, carried, own) for rate in evaluation.RATES for carried in SHAPES]


def table(found: Sequence[Leak]) -> str:
    """As Markdown."""
    lines = ["| bytes/s | bytes a name | found after | bytes out | queries |", "| ---: | ---: | ---: | ---: | ---: |"]
    return "\n".join([*lines, *(f"| {' | '.join(leak_cells(row))} |" for row in found)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output")
    target = parser.parse_args().json
    found = curve()
    text = json.dumps([asdict(row) for row in found])
    if target == "-":
        print(text)
        return
    if target:
        Path(target).write_text(text + "\n", "utf-8")
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
