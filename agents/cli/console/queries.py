"""`dns-tunnel queries` and `clients`: a search over all stored queries, and who asks how much."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from agents.cli.console.incidents import say_odd
from agents.core.text import counted, printable, utc, who
from agents.core.types import DAY_S
from agents.dns.message import type_name
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.console import ConsoleStore
from agents.store.console.exporting import CLIENT_COLUMNS, QUERY_COLUMNS, client_row, csv_lines, query_row
from agents.store.console.terms import OF_INCIDENTS, parse_search


def queries(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel queries SEARCH …`, newest first."""
    terms = parse_search(" ".join(options.search), time.time(), OF_INCIDENTS)
    say_odd(terms)
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        found = islice(ConsoleStore(store).hunter.search_all(terms, most=options.limit), options.limit)
        if options.csv:
            return _table(map(query_row, found), QUERY_COLUMNS)
        for row in found:
            if options.json:
                print(json.dumps(row))
                continue
            reasons = f"  {printable('; '.join(row['reasons']))}" if row["reasons"] else ""
            asked = f"{printable(row['qname'] or '.', 300)}  {type_name(row['qtype'])}"
            print(f"{utc(row['ts'])}  {who(row['client'])}  {asked}  {row['severity']} {row['score']:.2f}{reasons}")
    return 0


def clients(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel clients`: those with most queries first."""
    now = time.time()
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        rows = ConsoleStore(store).hunter.clients(now - options.days * DAY_S, now, options.limit)
    if options.csv:
        return _table(map(client_row, rows), CLIENT_COLUMNS)
    for row in rows:
        if options.json:
            print(json.dumps(row))
            continue
        print(
            f"{who(row['client'])}  {counted(row['queries'], 'query')}  {counted(row['domains'], 'domain')}"
            f"  {row['severity']}  {utc(row['last_seen'])}"
        )
    return 0


def _table(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> int:
    for line in csv_lines(rows, names):
        sys.stdout.write(line)
    return 0
