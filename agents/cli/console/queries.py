"""`dns-tunnel queries` and `clients`: a search over all stored queries, and who asks how much."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing

from agents.core.text import counted, printable, utc, who
from agents.core.types import DAY_S
from agents.dns.message import type_name
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.console import ConsoleStore
from agents.store.console.terms import parse_search
from agents.store.feedback.clients import ROWS_A_PAGE


def queries(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel queries SEARCH …`, newest first."""
    terms = parse_search(" ".join(options.search), time.time())
    left, cursor = options.limit, None
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        hunter = ConsoleStore(store).hunter
        while left > 0:
            found = hunter.search(terms, limit=min(left, ROWS_A_PAGE), cursor=cursor)
            for row in found.queries:
                if options.json:
                    print(json.dumps(row))
                    continue
                reasons = f"  {printable('; '.join(row['reasons']))}" if row["reasons"] else ""
                asked = f"{printable(row['qname'] or '.', 300)}  {type_name(row['qtype'])}"
                print(f"{utc(row['ts'])}  {who(row['client'])}  {asked}  {row['severity']} {row['score']:.2f}{reasons}")
            left -= len(found.queries)
            cursor = found.cursor
            if cursor is None:
                break
    return 0


def clients(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel clients`: those with most queries first."""
    now = time.time()
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        rows = ConsoleStore(store).hunter.clients(now - options.days * DAY_S, now, options.limit)
    for row in rows:
        if options.json:
            print(json.dumps(row))
            continue
        print(
            f"{who(row['client'])}  {counted(row['queries'], 'query')}  {counted(row['domains'], 'domain')}"
            f"  {row['severity']}  {utc(row['last_seen'])}"
        )
    return 0
