"""`dns-tunnel hunt`: questions in SQL about all queries that are kept, days that are in files among them."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from agents.core.errors import UsageError
from agents.core.text import printable
from agents.core.types import DAY_S
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.console.exporting import csv_lines
from agents.store.hunting.answers import HuntRows
from agents.store.hunting.hunts import HUNTS, named_hunt

CELL_MAX = 80
"""Characters of a cell for people, at most."""


def hunt(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel hunt SQL|NAME`."""
    if options.list:
        for name, one in HUNTS.items():
            print(f"{name:<16} {one.words}")
        return 0
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        hunter = bootstrap.hunter_of(settings, store, options.closed)
        sql = _sql_of(" ".join(options.sql), options.days, hunter.dialect)
        answer = hunter.ask(sql, options.limit, options.seconds)
    rows = [dict(zip(answer.names, map(_plain, row), strict=True)) for row in answer.rows]
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


def _sql_of(text: str, days: int, dialect: str) -> str:
    """One word is the name of a hunt, of the last days."""
    if not text.strip():
        raise UsageError("cannot hunt: write a SELECT, or the name of a hunt (dns-tunnel hunt --list)")
    if len(text.split()) > 1:
        return text
    now = time.time()
    return named_hunt(text.strip()).of_span(now - days * DAY_S, now, dialect)


def _plain(value: Any) -> Any:
    """A value as JSON has it: times in UTC."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | str) else _text(value)


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else value.isoformat() if isinstance(value, date) else str(value)


def _print_table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    cells = [[printable("" if value is None else value, CELL_MAX) for value in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _note_rest(answer: HuntRows, limit: int) -> None:
    if answer.cut:
        print(f"dns-tunnel: there are more than {limit:,} rows; --limit shows more", file=sys.stderr)
