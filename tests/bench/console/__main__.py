"""How quick the console is on a large store, on SQLite and on Postgres; it never fails for slowness.

python -m tests.bench.console [--rows N] [--incidents N] [--rounds N] [--on sqlite postgres] [--filled URL] [--tasks]
python -m tests.bench.console --tabs | --late
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from agents.core import logs
from agents.store import open_store
from agents.store.console.summing import QuerySums
from tests.bench.__main__ import machine
from tests.bench.console.late import late_notes
from tests.bench.console.measuring import NAMES_MS, PAGE_MS, Address, Session, Took, console, table, took
from tests.bench.console.network import CLIENTS, NEEDLE, Network
from tests.bench.console.tabs import tabs
from tests.bench.console.tasks import operated, table_of_tasks
from tests.bench.table import seconds
from tests.e2e.browsing import CHROMIUM
from tests.support.postgres_server import PostgresServer

ROWS, INCIDENTS, ROUNDS = 10_000_000, 2_000, 30
KINDS = ("sqlite", "postgres")
QUESTIONS = (
    "rarest-domains", "new-domains", "largest-answers", "most-in-words", "failing-domains", "nearest-to-limits",
)  # fmt: skip
TERMS = {
    "nothing": "",
    "a client": "10.0.{third}.{last}",
    "a network": "10.0.0.0/26",
    "a domain": "{domain}",
    "a name": "www.{domain}",
    "names by *": "*sync*.{domain}",
    "a part of many names": "video",
    "a type": "type:TXT",
    "a rare type": "type:NS rcode:SERVFAIL",
    "a response code": "rcode:NXDOMAIN",
    "a severity": "severity:critical",
    "a score": "score>0.9",
    "a reason": "why:encoded",
    "a time": "last 3 days type:SRV",
    "a client and a domain": "client:10.0.{third}.{last} domain:{domain}",
}
"""What is hunted for; figures in braces change from round to round."""


def pages(network: Network, incidents: Sequence[str]) -> Iterator[tuple[str, Address, float]]:
    """Every page with its budget: name, address, milliseconds."""
    plain = {
        "Now": "/", "Models": "/console/models", "Reviews": "/console/reviews", "Learning": "/console/learning",
        "Services": "/console/services", "Health": "/console/health", "Audit": "/console/audit",
        "Blocks": "/console/blocks", "Incidents": "/console/incidents", "Clients": "/console/clients",
        "Clients, 30 days": "/console/clients?range=last+30d",
        "Incidents, two facets": "/console/incidents?severity=CRITICAL&state=new",
    }  # fmt: skip
    for name, path in plain.items():
        yield name, lambda _, path=path: path, PAGE_MS  # type: ignore[misc]

    def filled(text: str, number: int) -> str:
        which = number % CLIENTS
        domain = network.names.domains[(number * 7) % 400]
        return text.format(third=which // 50, last=which % 50 + 10, domain=domain)

    at = "{third}.{last}"
    yield "Incidents, search", lambda n: filled(f"/console/incidents?q=10.0.{at}", n), PAGE_MS
    yield "Incidents, part of a name", lambda n: f"/console/incidents?q=6e61+t00{n % 90:02d}", PAGE_MS
    yield "One incident", lambda n: f"/console/incidents/{incidents[(n * 37) % len(incidents)]}", PAGE_MS
    for name, text in TERMS.items():
        query = text.replace(">", "%3E").replace(" ", "+").replace(":", "%3A").replace("/", "%2F")
        yield f"Hunt, {name}", lambda n, query=query: filled(f"/console/hunt?q={query}", n), PAGE_MS  # type: ignore[misc]
    yield "Hunt, one part of a rare name", lambda n: f"/console/hunt?q={NEEDLE[n % 3 :]}", NAMES_MS
    yield "Hunt, a part that no name has", lambda n: f"/console/hunt?q=nosuch{n}name", NAMES_MS
    for span in ("last+24h", "last+30d"):
        days = "a day" if span == "last+24h" else "30 days"
        client, domain = f"/console/clients/10.0.{at}?range={span}", f"/console/domains/{{domain}}?range={span}"
        yield f"One client, {days}", lambda n, path=client: filled(path, n), PAGE_MS  # type: ignore[misc]
        yield f"One domain, {days}", lambda n, path=domain: filled(path, n), PAGE_MS  # type: ignore[misc]
        for one in QUESTIONS:
            path = f"/console/questions/{one}?range={span}"
            yield f"{one.replace('-', ' ').capitalize()}, {days}", lambda _, path=path: path, PAGE_MS  # type: ignore[misc]


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The address of a new database."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        if kind == "sqlite":
            yield f"sqlite:///{Path(name, 'queries.db')}"
            return
        server = PostgresServer(Path(name))
        try:
            yield server.url
        finally:
            server.stop()


def measured(url: str, network: Network, directory: Path, rounds: int, say: Callable[[str], None]) -> list[Took]:
    """What each page takes over a filled database whose hours are summed up."""
    store = open_store(url)
    incidents = [one.incident_id for one in store.incidents(limit=1_000)]
    store.close()
    found = []
    with console(directory, url) as (port, pid):
        session = Session(port)
        session.get("/")  # compiles templates
        for name, address, budget in pages(network, incidents):
            found.append(took(session, pid, name, address, rounds, budget))
            say(f"{found[-1].median:8.0f} {found[-1].p99:8.0f} ms  CPU {found[-1].cpu:6.0f} ms  {name}")
    return found


def prepared(url: str, network: Network, filled: bool, say: Callable[[str], None]) -> None:
    """Fill a database, unless it is filled already, and sum up its hours, as the console does in the background."""
    store = open_store(url)
    store.migrate()
    if not filled:
        say(f"filled with {network.rows:,} queries in {seconds(lambda: network.fill(store)):,.0f} s")
    sums, hours = QuerySums(store), list[int]()
    took_s = seconds(lambda: hours.append(sums.catch_up(time.time())))
    say(f"{hours[0]:,} hours summed up in {took_s:,.0f} s")
    store.close()


def over(url: str, network: Network, options: argparse.Namespace, kind: str, say: Callable[[str], None]) -> None:
    """What is measured over one database: pages, unless tasks alone are asked for, and an operator's tasks."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        if not options.tasks:
            say("\n" + table(kind, measured(url, network, Path(name), options.rounds, say)) + "\n")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        if CHROMIUM is None:
            say("the operator's tasks are left out: chromium is not installed")
        else:
            say("\n" + table_of_tasks(operated(url, Path(name), say)) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.console", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"queries in the store (default: {ROWS:,})")
    parser.add_argument("--incidents", type=int, default=INCIDENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each page is asked for")
    parser.add_argument("--on", nargs="*", choices=KINDS, default=KINDS, help="databases (default: both), or none")
    parser.add_argument("--filled", metavar="URL", help="a database that an earlier run filled, instead of new ones")
    parser.add_argument("--tasks", action="store_true", help="what an operator's tasks take, and no pages")
    parser.add_argument("--tabs", action="store_true", help="what open tabs cost the detector, and nothing else")
    parser.add_argument("--late", action="store_true", help="what noting late hours costs a writer, and nothing else")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(text, flush=True)

    logs.setup("error")
    say(machine())
    alone = late_notes if options.late else tabs if options.tabs else None
    if alone is None:
        network = Network(options.rows, options.incidents, time.time())
        for kind in ["filled"] if options.filled else options.on:
            with nullcontext(options.filled) if options.filled else database(kind) as url:
                prepared(url, network, bool(options.filled), say)
                over(url, network, options, kind, say)
        alone = None if options.tasks else tabs
    if alone is not None:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            alone(Path(name), say)


if __name__ == "__main__":
    main()
