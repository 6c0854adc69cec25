"""`dns-tunnel evaluate`: measures detection on the captures that a manifest lists."""

from __future__ import annotations

import argparse
import json
import sys

from tqdm import tqdm

from agents.cli.output import json_output, print_evaluation, print_note
from agents.cli.replay import open_files
from agents.learning import evaluation
from agents.runtime import bootstrap, warmup
from agents.settings import Settings


def evaluate(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel evaluate`."""
    warmup.up(print_note)
    model = bootstrap.registry_of(settings).current()
    with json_output(options.json) as out:  # opened first: a bad path must not fail after minutes of work
        found = evaluation.evaluate(
            options.manifest,
            model,
            lambda: bootstrap.detector_of(settings, model),
            lambda path: open_files(settings, [path]),
            lambda rows: tqdm(rows, unit=" captures", disable=None, file=sys.stderr, leave=False),
        )
        if out is not None:
            out.write(json.dumps(found.to_json()) + "\n")
    if options.json != "-":
        print_evaluation(found)
    return 0
