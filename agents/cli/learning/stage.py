"""`dns-tunnel stage`: a candidate to a second installation, and its verdict back."""

from __future__ import annotations

import argparse
from contextlib import closing

from agents.cli.output import login_name, print_note
from agents.core.text import printable
from agents.learning.release.transitions import Author
from agents.runtime import bootstrap, warmup
from agents.settings import Settings

REJECTED_CODE = 3
"""Exit code where the candidate missed a gate here."""


def stage(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel stage …`."""
    author = Author(options.author or login_name(), options.reason)
    with closing(bootstrap.store_of(settings)) as store:
        staging, desk = bootstrap.staging_of(settings, store), bootstrap.model_desk_of(settings, store)
        if options.action == "export":
            made = staging.export(options.file, options.model_id, author)
        else:
            warmup.up(print_note)
            verdict = options.verdict or options.file.with_name(f"{options.file.name}.verdict")
            made = staging.take(options.file, verdict, author)
        print(printable(made.text, 1000))
        if made.action == "import":
            print(f"verdict, to be taken back: {verdict}")
        for problem in desk.follow(made).problems:
            print_note(f"warning: {problem}")
        missed = made.action == "import" and not desk.registry.lineage(made.model_id).get("passed")
        return REJECTED_CODE if missed else 0
