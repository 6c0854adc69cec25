"""`dns-tunnel incidents`: a list by the same search as the console's, labels, assignment, notes, undo."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace

from agents.cli.output import incident_json, login_name
from agents.core.errors import UsageError
from agents.core.text import counted, printable, utc, who
from agents.core.types import Incident, Severity
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.console import ConsoleStore
from agents.store.console.exporting import csv_lines, row_of
from agents.store.console.finding import IncidentSearch
from agents.store.console.ordering import IncidentOrder, order_of
from agents.store.console.terms import OF_QUERIES, Terms, parse_search
from agents.store.console.triage import Change, Triage
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewState

WAY = "command line"
LISTED_MAX = 50
"""Incidents that a list shows; an export has all."""


def incidents(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel incidents …`."""
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        console = ConsoleStore(store)
        if options.action is None:
            _list(console, options)
        elif options.action == "undo":
            ids = console.triage.undo(options.change, options.author or login_name(), WAY)
            print(f"undone for {counted(len(ids), 'incident')}")
        else:
            change = _change_of(options)
            done = console.triage.change(options.incidents, change, options.author or login_name(), WAY)
            print(f"{counted(len(options.incidents), 'incident')} changed; undo: dns-tunnel incidents undo {done}")
    return 0


def _search_of(options: argparse.Namespace) -> IncidentSearch:
    """What the options of a list ask for."""
    terms = parse_search(options.search, time.time(), OF_QUERIES)
    say_odd(terms)
    if options.since:
        read = (parse_search(text, time.time()).since for text in (options.since, f"last {options.since}"))
        since = next((at for at in read if at is not None), None)
        if since is None:
            raise UsageError(f"cannot use --since {printable(options.since, 40)}: name 2h, 7d or 2026-11-20")
        terms = replace(terms, since=since)
    return IncidentSearch(
        terms=terms,
        client=[options.client] if options.client else (),
        domain=[options.domain] if options.domain else (),
        severity=[int(Severity[name]) for name in options.severity or ()],
        state=options.in_state or (),
        order=order_of(options.sort),
    )


def say_odd(terms: Terms) -> None:
    """Say on stderr what of a search is probably not what somebody meant."""
    for one in terms.not_understood:
        print(f"not understood: {printable(one, 200)}", file=sys.stderr)


def _list(console: ConsoleStore, options: argparse.Namespace) -> None:
    search = _search_of(options)
    if options.json or options.csv:
        _export(console.said_of_all(search), options)
        return
    page = console.finder.page(search, limit=LISTED_MAX)
    said = console.triage.of(one.incident_id for one in page.incidents)
    for one in page.incidents:
        told = said[one.incident_id]
        label = f" {told.label}" if told.label else ""
        whose = f" by {printable(told.assignee, 40)}" if told.assignee else ""
        tool = f"  {printable(one.tool)}" if one.tool else ""
        print(
            f"{one.incident_id}  {utc(one.last_seen)}  {one.severity.name:<10} {told.state}{label}{whose}"
            f"  {who(one.client)} -> {printable(one.domain)}  {counted(one.leaked_bytes, 'byte')}{tool}"
        )
    first = "newest" if search.order == IncidentOrder() else "first"
    more = f", the {first} {len(page.incidents)} of them here" if page.count > len(page.incidents) else ""
    print(f"{counted(page.count, 'incident')}{more}")


def _export(rows: Iterator[tuple[Incident, Triage]], options: argparse.Namespace) -> None:
    if options.json:
        for one, told in rows:
            print(json.dumps(incident_json(one) | {"triage": asdict(told)}))
        return
    for line in csv_lines(row_of(one, told) for one, told in rows):
        sys.stdout.write(line)


def _change_of(options: argparse.Namespace) -> Change:
    if options.action == "label":
        return Change(label=Label(options.label), reason=options.reason)
    if options.action == "state":
        return Change(state=ReviewState(options.state), reason=options.reason)
    if options.action == "assign":
        return Change(assignee=options.to)
    return Change(comment=options.text)
