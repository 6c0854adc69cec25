"""make chaos: every fault in random order under load, and whether each promise was kept. Exit code 1 where one was not.

python -m tests.chaos [--seconds S] [--seed N] [--only PART OF A FAULT'S NAME] [--keep]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.clients import ORDINARY, QuietTunnel, ordinary
from tests.chaos.faults import Lane, Notes, lanes
from tests.chaos.promises import Run, causes, promises, report
from tests.chaos.system import System, soon, system

ORDINARY_PER_S = 40.0
FILES = 4096


def rehearse(made: System, lanes_: Sequence[Lane], seconds: float, seed: int) -> Run:
    """Load and faults for so many seconds; all is mended and at rest afterwards, and the product has ended."""
    begun, notes = time.monotonic(), Notes()
    clients = [ordinary(address, made.port, ORDINARY_PER_S, seed + at) for at, address in enumerate(ORDINARY)]
    quiet = QuietTunnel(made.port, seed)
    given = (made, notes, begun + seconds)
    threads = [threading.Thread(target=lane.run, args=given, daemon=True) for lane in lanes_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lasted = time.monotonic() - begun
    for one in (*clients, quiet.client):
        one.finish()
    mended = ""
    try:
        soon(made.healthy, 60)
        made.rest()
    except AssertionError as error:
        mended = str(error) or "not at rest"
    code = made.product.stop()
    done = {name: one for lane in lanes_ for name, one in lane.done.items()}
    told = dict(zip(ORDINARY, [client.told for client in clients], strict=True))
    return Run(seed, lasted, done, notes, told, quiet.client.told, quiet.finished, mended, code)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults under load.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (600)")
    parser.add_argument("--seed", type=int, default=11, help="of the order and of the names (11)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name holds this")
    parser.add_argument("--keep", action="store_true", help="leave the product's folder, and say where it is")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard) if hard > 0 else FILES, hard))
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        with system(folder) as made:
            run = rehearse(made, lanes(options.seed, options.only), options.seconds, options.seed)
            found = promises(made, run)
            print(report(made, run, found))
            print(causes(made, run), file=sys.stderr)
            if options.keep:
                kept = folder.with_name(folder.name + "-kept")
                shutil.copytree(folder / "product", kept)
                shutil.copy(made.product.log, kept)
                print(f"kept: {kept}", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(not all(one.kept or one.excused for one in found))


if __name__ == "__main__":
    sys.exit(main())
