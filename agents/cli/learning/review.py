"""`dns-tunnel review`: the review queue; labels with reason and author, undo, and what people decided."""

from __future__ import annotations

import argparse
import time
from contextlib import closing

from agents.cli.output import login_name
from agents.core.errors import UsageError
from agents.core.text import counted, printable, refang, utc
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.review import teaches
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewDecision, ReviewState, ReviewStore
from agents.store.sql import Database

SHOWN_MAX = 1_000
"""Domains, decisions and flow-hours that one command shows, each, at most."""
_SHOWN = ("queries", "names", "information_bytes", "encoded_share", "domain_clients", "peak_today")


def review(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel review …`."""
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        if options.action == "list":
            _print_queue(ReviewStore(store), options.state)
        elif options.action == "show":
            _show(store, refang(options.domain))
        elif options.action == "log":
            for one in ReviewStore(store).decisions(limit=SHOWN_MAX):
                print(_line(one))
        else:
            _decide(ReviewStore(store), options)
    return 0


def _print_queue(reviews: ReviewStore, state: str | None) -> None:
    for item in reviews.items(ReviewState(state) if state else None, limit=SHOWN_MAX):
        taken = f" by {printable(item.taken_by)}" if item.taken_by else ""
        print(f"{item.informativeness:.2f}  {item.state}{taken}  {printable(item.domain)}  {printable(item.why)}")
    counts = reviews.counts()
    print(", ".join(f"{count} {name}" for name, count in counts.items()))


def _show(store: Database, domain: str) -> None:
    item, rows = ReviewStore(store).item(domain), FlowHourStore(store).read(SCHEMA, domain=domain, limit=SHOWN_MAX)
    said = [one for one in ReviewStore(store).decisions(limit=SHOWN_MAX) if one.domain == domain]
    if item is None and not len(rows) and not said:
        raise UsageError(f"cannot show {printable(domain)}: nothing is known of it")
    if item is not None:
        print(f"{printable(domain)}: {item.state}, {printable(item.why)}")
    for name in dict.fromkeys([*(item.names if item else ()), *(name for some in rows.names for name in some)]):
        print(f"  {printable(name)}")
    for hour, client, numbers in zip(rows.hour.tolist(), rows.client, rows.numbers, strict=True):
        shown = "  ".join(f"{name} {numbers[NUMBERS.index(name)]:.4g}" for name in _SHOWN)
        print(f"{utc(hour * 3600.0)}  {printable(client)}  {shown}")
    for one in said:
        print(_line(one))


def _decide(reviews: ReviewStore, options: argparse.Namespace) -> None:
    author = options.author or login_name()
    if options.action == "take":
        reviews.take(refang(options.domain), author)
        print(f"{printable(refang(options.domain))} is in work by {printable(author)}")
    elif options.action == "undo":
        one = reviews.undo(refang(options.domain), options.reason, author, time.time())
        print(f"{printable(one.domain)} is no longer labelled {one.label}")
    else:
        made = reviews.decide(
            [*map(refang, options.domains)], Label(options.label), options.reason, author, time.time()
        )
        for one in made:
            use = "nobody learns from it" if one.label is Label.IGNORE else _use(one.domain)
            print(f"{printable(one.domain)} is labelled {one.label}: {use}")
        print(f"{counted(len(made), 'domain')} labelled; take one back: dns-tunnel review undo DOMAIN --reason …")


def _use(domain: str) -> str:
    return (
        "its flow-hours are examples to learn from"
        if teaches(domain)
        else "its names are validation cases of every retraining"
    )


def _line(one: ReviewDecision) -> str:
    undone = f"; undone {utc(one.undone_at)} by {one.undone_by}: {one.undone_why}" if one.undone_at is not None else ""
    return printable(f"{utc(one.at)}  {one.domain}  {one.label}, by {one.author}: {one.reason}{undone}", SHOWN_MAX)
