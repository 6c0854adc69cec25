"""`dns-tunnel hunt`: questions in SQL about all queries that are kept, days that are in files among them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

from agents.core.errors import UsageError
from agents.core.text import printable
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.console.exporting import csv_lines
from agents.store.hunting.answers import HuntRows, plain_value
from agents.store.hunting.hunts import HUNTS, HuntQuestion

CELL_MAX = 80
"""Characters of a cell for people, at most."""


def hunt(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel hunt SQL|NAME`."""
    if options.list:
        for name, one in HUNTS.items():
            print(f"{name:<16} {one.words}")
        return 0
    question = _question_of(options)
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        hunter = bootstrap.hunter_of(settings, store, options.closed)
        answer = hunter.ask(question.sql_of(hunter.dialect), options.limit, options.seconds)
    rows = [dict(zip(answer.names, map(plain_value, row), strict=True)) for row in answer.rows]
    if options.json:
        for row in rows:
            print(json.dumps(row))
    elif options.csv:
        for line in csv_lines(rows, answer.names):
            sys.stdout.write(line)
    else:
        _print_table(answer.names, [list(row.values()) for row in rows])
    _note_rest(answer, options.limit)
    return 0


def _question_of(options: argparse.Namespace) -> HuntQuestion:
    """One word is the name of a hunt."""
    text = " ".join(options.sql).strip()
    if not text:
        raise UsageError("cannot hunt: write a SELECT, or the name of a hunt (dns-tunnel hunt --list)")
    given = (options.days, options.limit, options.seconds)
    return HuntQuestion(text, "", *given) if len(text.split()) > 1 else HuntQuestion("", text, *given)


def _print_table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    cells = [[printable("" if value is None else value, CELL_MAX) for value in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _note_rest(answer: HuntRows, limit: int) -> None:
    if answer.cut:
        print(f"dns-tunnel: there are more than {limit:,} rows; --limit shows more", file=sys.stderr)
