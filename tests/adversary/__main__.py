"""Every known way past the detector at the attacker's best pace, against the shipped model and limits.

python -m tests.adversary [--only TEXT] [--paces N] [--seed N] [--json PATH|-]

A row a channel: bytes of the attacker's own before an incident (HIGH or above), at the fastest pace and at the worst;
before it was CRITICAL; and bytes a day that leave for ever at the best pace without one. Then the worst of each kind
beside its target.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from tests.adversary import answers, messages, names, priced, rooms
from tests.adversary.channel import Channel, Sent
from tests.adversary.decoys import factor_after_decoys
from tests.adversary.measure import PACES, Figure, figure_of
from tests.adversary.summary import one_name_line, summary, table
from tests.support.detecting import shipped_model

CHANNELS: tuple[Channel, ...] = (
    *names.CHANNELS, *priced.CHANNELS, *messages.CHANNELS, *rooms.CHANNELS, *answers.CHANNELS,
)  # fmt: skip
WORKERS = 2


def measured(channels: Sequence[Channel], seed: int = 1, paces: int = PACES, workers: int = WORKERS) -> list[Figure]:
    """The figures of channels, in their order."""
    shipped_model()  # before the fork: one copy for all workers
    _CHOSEN[:] = channels
    many = len(channels)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(_figure, range(many), [seed] * many, [paces] * many))
    return [replace(one, channel=channel) for one, channel in zip(found, channels, strict=True)]


_CHOSEN: list[Channel] = []
"""What the workers measure: a channel's functions cannot be sent between processes."""


def _figure(number: int, seed: int, paces: int) -> Figure:
    found = figure_of(_CHOSEN[number], seed, paces)
    return replace(found, channel=replace(found.channel, send=_nothing))


def _nothing(rng: random.Random) -> Iterator[Sent]:
    yield from ()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.adversary", description="Ways past the detector.")
    parser.add_argument("--only", default="", metavar="TEXT", help="channels whose name or kind holds this")
    parser.add_argument("--paces", type=int, default=PACES, help=f"trials between fastest and slowest ({PACES})")
    parser.add_argument("--seed", type=int, default=1, help="of all that is made up (1)")
    parser.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output instead of the tables")
    options = parser.parse_args(arguments)
    chosen = [one for one in CHANNELS if options.only in one.what or options.only in one.kind]
    if not chosen:
        parser.error(f"cannot measure {options.only!r}: no channel's name holds it")
    figures = measured(chosen, options.seed, options.paces)
    rows = [
        {"what": one.channel.what, "kind": one.channel.kind, "up_a_day": one.up_a_day, "down_a_day": one.down_a_day}
        | {name: run and asdict(run) for name, run in (("fast", one.fast), ("worst", one.worst), ("ever", one.ever))}
        for one in figures
    ]
    text = json.dumps(rows, indent=1) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
        return 0
    if options.json:
        Path(options.json).write_text(text, "utf-8")
    parts = [table(figures), one_name_line(figures), summary(figures)]
    if not options.only:
        parts.append(f"Limits after two weeks of decoys from forty spoofed sources: {factor_after_decoys():.1f} times.")
    print("\n\n".join(part for part in parts if part))
    return 0


if __name__ == "__main__":
    sys.exit(main())
