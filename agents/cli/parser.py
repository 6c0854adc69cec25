"""The command line: arguments and commands. Exit codes: 0 done, 1 failed, 2 bad usage or setting, 3 no new model."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from agents import __version__, settings
from agents.core import logs
from agents.core.errors import AgentsError, CaptureError, MessageError, SettingsError, UsageError
from agents.core.text import given, printable
from agents.runtime import heartbeat
from agents.sources import SPECS

GARBAGE = 50_000, 20, 20
"""Thresholds of the garbage collector (gc.set_threshold). Loading modules and kernels makes a million objects that
stay; at Python's default thresholds, going through them takes a sixth of every start."""
ERROR_MAX = 1000
"""Characters shown of an error, at most."""
USAGE_ERRORS = (SettingsError, UsageError, CaptureError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors become one line on standard error."""
    gc.set_threshold(*GARBAGE)
    try:
        options = build_parser().parse_args(arguments)
        # What `run` suggests is for another terminal, which may lack this one's environment.
        chosen = options.data_dir or (os.environ.get("DATA_DIR") if options.name == "run" else None)
        given(*(("--data-dir", str(chosen)) if chosen else ()))
        overrides = {"data_dir": options.data_dir} if options.data_dir is not None else {}
        found = _load(options.name, **overrides)
        logs.setup(found.log_level)
        code: int = options.call(found, options)
        if code in (0, 3) and options.name != "health":  # which runs every few seconds, and changes nothing there
            importlib.import_module("agents.cli.upkeep.noting").note_command(found, options)
    except USAGE_ERRORS as error:
        return _fail(error, 2)
    except AgentsError as error:
        return _fail(error, 1)
    except BrokenPipeError:  # the reader of our output has closed it; nothing more can be printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # DATA_DIR cannot be written, the disk is full
        return _fail(AgentsError(f"cannot use {error.filename or 'a file'}: {error.strerror or error}"), 1)
    except KeyboardInterrupt:
        return 130
    finally:
        given()
    return code


def _load(command: str, **overrides: Path) -> settings.Settings:
    """The settings that the command needs. A health check runs every few seconds: it reads only the common settings."""
    common = settings.load(**overrides)  # first, so that a bad setting is reported before the compiler loads
    if command == "health":
        return common
    bootstrap = importlib.import_module("agents.runtime.bootstrap")
    found: settings.Settings = bootstrap.load_settings(**overrides)
    for name in settings.unknown_names(found):
        _warn(f".env names {printable(name, 60)}, which is no setting")
    for name in settings.old_names():
        _warn(f"{name} is called {settings.RENAMED[name]} now; the old name works for one release more")
    return found


def _warn(text: str) -> None:
    print(f"dns-tunnel: warning: {text}", file=sys.stderr)


ROUNDS_MAX = 1000
_MODULES = {
    **dict.fromkeys(("run", "listen", "collect", "detect", "api", "schedule"), "serve"),
    "review": "learning.review",
    "incidents": "console.incidents",
    "queries": "console.queries",
    "clients": "console.queries",
    "hunt": "console.hunt",
    "learn": "learning.learn",
    "stage": "learning.stage",
    "fleet": "learning.fleet",
    "tidy": "upkeep.tidy",
    "outbox": "upkeep.outbox",
    "block": "upkeep.block",
    "rules": "upkeep.rules",
    "client": "upkeep.client",
    "users": "console.people",
    "tokens": "console.people",
}
"""Commands in a file of another name; every other one has a file of its own name."""


def _command(name: str) -> Callable[[settings.Settings, argparse.Namespace], int]:
    """The function of that name, imported at its call: a health check runs every few seconds and needs few modules."""

    def call(found: settings.Settings, options: argparse.Namespace) -> int:
        run = getattr(importlib.import_module(f"agents.cli.{_MODULES.get(name, name)}"), name)
        # the supervisor handles Ctrl-C itself, once everything is loaded
        with nullcontext() if name in ("listen", "run", "collect", "detect", "health") else _interruptible():
            code: int = run(found, options)
        return code

    return call


@contextmanager
def _interruptible() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt if it ended the process before (__main__.py)."""
    ends = signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    if ends:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ends:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fail(error: AgentsError, code: int) -> int:
    print(f"dns-tunnel: {printable(error, ERROR_MAX)}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data-dir", type=Path, metavar="DIR", default=argparse.SUPPRESS, help=_DATA_DIR)
    parser = argparse.ArgumentParser(prog="dns-tunnel", description="Finds data leaving through DNS.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", default=None, help=_DATA_DIR)
    commands_ = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, *aliases: str) -> argparse.ArgumentParser:
        made = commands_.add_parser(name, help=text, description=text, parents=[common], aliases=aliases)
        made.set_defaults(name=name, call=_command(name))
        return made

    add("run", "listener, API and scheduler together")
    add("listen", "the listener alone")
    add("detect", "detectors of queries that come over the bus (STREAM)")
    add("api", "API and console alone")
    add("schedule", "the scheduler alone")
    _add_logs(add("collect", "follow query logs of other servers, and judge what they say"))
    _add_captures(add("replay", "judge the queries of captures, logs and tables"))
    _add_score(add("score", "score names, one by one"))
    _add_explain(add("explain", "an incident's evidence"))
    _add_incidents(add("incidents", "what was found: list, label, assign, note, undo; the console's search"))
    _add_queries(add("queries", "search all stored queries: client, CIDR, domain, *, part of a name, `last 2h` …"))
    _add_hunt(add("hunt", "ask all kept queries in SQL, or by a hunt's name, days in files among them"))
    _add_clients(add("clients", "who asks, those with most queries first"))
    _add_retrain(add("retrain", "learn, validate, report, deploy or reject; once, now"))
    _add_models(add("models", "list, show, compare, approve, reject, roll back, restore or pin models"))
    _add_evaluate(add("evaluate", "measure detection on the captures that a manifest lists"))
    _add_allow(add("allow", "your own known services: list, preview, add, remove", "known"))
    _add_stage(add("stage", "a candidate to a second installation, and its verdict back: export, import"))
    _add_review(add("review", "domains that a person is asked about: list, show, take, label, undo, log"))
    _add_learn(add("learn", "the online learner of flow-hours, and cycles of the sequence model"))
    _add_fleet(add("fleet", "sites that learn together: take part in rounds, or coordinate others"))
    _add_secrets(add("secrets", "honeytokens: add, list, remove; a name that contains one is an incident"))
    _add_outbox(add("outbox", "messages that wait or were given up: list them, send them again, drop them"))
    _add_block(add("block", "blocked domains: list, add, remove, undo all, pause, go on, log"))
    _add_people(add)
    _add_client(add("client", "what is kept of one client: its name, all its rows, and their erasure"))
    _add_rules(add("rules", "rules for Sigma, Suricata, Zeek or a policy zone, of confirmed tunnels"))
    tidy = add("tidy", "drop what is older than the settings keep; once, now")
    tidy.add_argument("--anyway", action="store_true", help="also where the clock is doubted, and all at once")
    doctor = add("doctor", "check settings, database, ports, upstreams, model and channels")
    doctor.add_argument("--send", action="store_true", help="also send a test message over every channel")
    health = add("health", "whether what runs on this DATA_DIR, or one part of it, is alive (for health checks)")
    health.add_argument("part", nargs="?", choices=heartbeat.PARTS)
    health.add_argument("--acknowledge", action="store_true", help="take note of the verdicts that were lost")
    return parser


_DATA_DIR = "where models/, reports/, logs/ and data/ lie (setting DATA_DIR)"


def _add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="a log, or http://… of a Pi-hole (default: COLLECT_FILES)"
    )
    parser.add_argument("--format", choices=("auto", *(spec.name for spec in SPECS if spec.reader)))
    parser.add_argument("--from-start", action="store_true", help="read what a file had before it was followed, too")


def _add_captures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="capture, log or table, also .gz")
    parser.add_argument("--format", choices=("auto", *(spec.name for spec in SPECS)), default="auto")
    parser.add_argument("--json", metavar="PATH", help="write one JSON object a line there, - = standard output")
    parser.add_argument("--verdicts", action="store_true", help="with --json: also one object a query")
    parser.add_argument("--store", action="store_true", help="store what was judged in the database")
    parser.add_argument(
        "--source",
        metavar="NAME",
        help="with --store: its mark (default: the file's name), which sets it apart from what is seen live; "
        "'' = none: it is kept, and learned from, as if it had been seen live",
    )


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("manifest", type=Path)
    evaluate.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output")


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--file", type=Path, metavar="NAMES.txt", help="names, one a line, also .gz")
    parser.add_argument(
        "--qtype", type=_qtype, default=1, help="record type, repeated in the answer (a score rests on the name alone)"
    )
    parser.add_argument("--json", metavar="PATH", help="write one JSON object a name there, - = standard output")


def _add_retrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=_days, help="days of NORMAL queries to learn from")
    parser.add_argument("--samples", type=_samples, help="queries to learn from, at most")
    parser.add_argument("--deploy", choices=("auto", "manual", "canary"), help="manual = wait for `models approve`")
    parser.add_argument("--replayed", action="store_true", help="learn from queries of stored replays, too")


def _add_models(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="champion, candidates and backups")
    for name, text in (
        ("show", "its manifest"),
        ("profile", "the network profile that was made with it"),
        ("approve", "deploy a waiting candidate"),
        ("reject", "turn one down"),
        ("canary", "let one that waits judge some clients; without one: how the canary does"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("model_id", nargs="?", help="default: the champion, or the candidate that waits")
    diff = actions.add_parser("diff", help="two versions side by side, and which shipped names change severity")
    for side in ("old", "new"):
        diff.add_argument(side, metavar=side.upper(), help="id, file, champion, candidate, canary, anchor or shipped")
    history = actions.add_parser("history", help="what was in production when")
    for action in (diff, history):
        action.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output")
    anchor = actions.add_parser("anchor", help="the version that candidates are compared with, beside the champion")
    anchor.add_argument("model_id", metavar="VERSION", help="id, file, alias or shipped")
    back = actions.add_parser("rollback", help="back to the model before, or to a kept flow, sequence or image model")
    back.add_argument("model_id", nargs="?", metavar="VERSION", help="id, previous, anchor or taken-back")
    actions.add_parser("restore", help="put a backup back, after validating it").add_argument("file", type=Path)
    actions.add_parser("pin", help="keep the model in use, whatever a retraining finds")
    actions.add_parser("unpin", help="let it be replaced again")
    log = actions.add_parser("log", help="what people did with models, when and why")
    log.add_argument("--all", action="store_true", help="what the program did, too")
    for name in ("list", "show", "diff", "approve", "reject", "history", "log", "rollback", "pin", "unpin", "anchor"):
        actions.choices[name].add_argument(
            "--of",
            choices=("query", "flow", "sequences", "images"),
            default="",
            help="of which kind of model; flow, sequence and image models have ids and the names "
            "champion, candidate, previous, anchor and canary",
        )
    for name in ("approve", "reject", "canary", "rollback", "restore", "pin", "unpin", "anchor"):
        actions.choices[name].add_argument("--reason", default="", help="why; it is recorded and told")
        actions.choices[name].add_argument(
            "--author", default="", help="who decides: a user, if there are any (default: your login)"
        )


def _qtype(text: str) -> int:
    from agents.dns.message import type_number  # here: it loads kernels, which most commands do not need

    try:
        return type_number(text)
    except MessageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_allow(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the entries")
    for name, text in (
        ("preview", "what an entry would have silenced in the last week"),
        ("add", "add or replace one"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("suffix")
        action.add_argument(
            "--factor",
            default="10",
            help="how many times more bytes its names may carry (10); own = it is a zone of this network",
        )
        action.add_argument("--reason", required=name == "add", default="preview")
        action.add_argument("--author", required=name == "add", default="preview")
        action.add_argument("--expires", metavar="YYYY-MM-DD", help="last day (default: in 90 days)")
        action.add_argument("--client", default="", help="an address or network that it is for; SUFFIX may be . then")
    action = actions.add_parser("remove", help="take one away")
    action.add_argument("suffix")
    action.add_argument("--client", default="", help="the one that is for this address or network")


def _add_queries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("search", nargs="*", metavar="TERM", help="also type:TXT, rcode:NXDOMAIN, score>0.7")
    _add_listing(parser)


def _add_clients(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=_days, default=1, help="of the last so many days (1)")
    _add_listing(parser)


def _add_hunt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sql", nargs="*", metavar="SQL|NAME", help="one SELECT over `queries`, or the name of a hunt")
    parser.add_argument("--list", action="store_true", help="the hunts that have a name")
    parser.add_argument("--days", type=_days, default=1, help="a named hunt is about the last so many days (1)")
    parser.add_argument("--closed", action="store_true", help="leave out days that are not in files yet: quicker")
    parser.add_argument("--limit", type=_count, default=100, help="at most so many rows (100)")
    parser.add_argument("--seconds", type=_count, default=60, help="give up after so many seconds (60)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="a table for other programs")


def _add_listing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=_count, default=100, help="at most so many (100)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="a table for other programs")


def _add_incidents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--search", metavar="TERMS", default="", help="client, CIDR, domain, *, tool:x, `last 2h` …")
    parser.add_argument("--since", metavar="WHEN", help="last seen since then: 2h, 7d or YYYY-MM-DD")
    parser.add_argument("--client")
    parser.add_argument("--domain")
    parser.add_argument("--severity", action="append", choices=("NORMAL", "SUSPICIOUS", "HIGH", "CRITICAL"))
    parser.add_argument(
        "--in-state",
        action="append",
        type=lambda text: text.replace("-", " "),
        choices=("new", "in work", "closed"),
        metavar="{new,in-work,closed}",
    )
    by = "last_seen, first_seen, severity, score, bytes, client or domain"
    parser.add_argument("--sort", metavar="BY[:up|:down]", default="", help=f"{by} (last_seen:down)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all of them, one JSON object a line")
    form.add_argument("--csv", action="store_true", help="all of them, as a table")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", help="without one: list them")
    for name, text in (
        ("label", "say what incidents are; the learning loop is told, too"),
        ("state", "say where incidents are"),
        ("assign", "say whose incidents are"),
        ("note", "keep a comment"),
        ("undo", "take a change back, by the id that it printed"),
    ):
        action = actions.add_parser(name, help=text)
        if name == "label":
            action.add_argument("label", choices=("tunnel", "benign", "ignore"))
        elif name == "state":
            action.add_argument("state", choices=("new", "in work", "closed"))
        elif name == "assign":
            action.add_argument("to", metavar="NAME", help="'' = nobody")
        elif name == "note":
            action.add_argument("text")
        if name == "undo":
            action.add_argument("change")
        else:
            action.add_argument("incidents", nargs="+", metavar="INCIDENT", help="ids, as the list has them")
        if name in ("label", "state"):
            action.add_argument("--reason", default="", help="why; it is recorded")
        action.add_argument("--author", default="", help="who decides (default: your login)")


def _add_review(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    queue = actions.add_parser("list", help="the queue, most informative first")
    queue.add_argument("--state", choices=("new", "in work", "closed"), help="default: what is not closed")
    actions.add_parser("show", help="a domain: why, its names, its flow-hours").add_argument("domain")
    actions.add_parser("log", help="what people decided, when and why")
    actions.add_parser("take", help="say that you look at a domain").add_argument("domain")
    label = actions.add_parser("label", help="label all that clients ask below domains, now and later")
    label.add_argument("label", choices=("tunnel", "benign", "ignore"))
    label.add_argument("domains", nargs="+", metavar="DOMAIN")
    actions.add_parser("undo", help="take a decision back").add_argument("domain")
    for name in ("label", "undo"):
        actions.choices[name].add_argument("--reason", required=True, help="why; it is recorded")
    for name in ("take", "label", "undo"):
        actions.choices[name].add_argument("--author", default="", help="who decides (default: your login)")


def _add_stage(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write a candidate with its lineage and report")
    export.add_argument("file", type=Path)
    export.add_argument(
        "model_id", nargs="?", default="candidate", metavar="VERSION", help="default: the candidate that waits"
    )
    take = actions.add_parser("import", help="validate a candidate here and write the verdict; or take a verdict back")
    take.add_argument("file", type=Path)
    take.add_argument("--verdict", type=Path, metavar="FILE", help="where the verdict goes (default: FILE.verdict)")
    for action in (export, take):
        action.add_argument("--reason", default="", help="why; it is recorded and told")
        action.add_argument("--author", default="", help="who decides (default: your login)")


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("status", help="the open round, what this site took, and how its clients compare")
    actions.add_parser("show", help="exactly what this site would send")
    actions.add_parser("join", help="start from the fleet's models; nothing is sent")
    run = actions.add_parser("run", help="take part in rounds, now")
    run.add_argument("--rounds", type=_rounds, default=1, help="so many, waiting for the other sites (default: 1)")
    engines = "https, or Flower (extra flower) for the flow model's weights alone: all rounds of its server"
    run.add_argument("--engine", choices=("https", "flower"), default="https", help=engines)
    serve = actions.add_parser("serve", help="as coordinator: rounds over Flower (extra flower), now")
    serve.add_argument("--rounds", type=_rounds, default=1, help="so many (default: 1)")
    serve.add_argument("--sites", type=_rounds, default=3, help="begin when so many sites are there (default: 3)")
    for action in (run, serve):
        action.add_argument("--address", default="127.0.0.1:9092", metavar="HOST:PORT", help="Flower's, here")
    actions.add_parser("sites", help="as coordinator: the sites, and which have sent")
    for name, text in (
        ("add", "let a site take part; prints its settings once"),
        ("remove", "let one take part no more"),
    ):
        actions.add_parser(name, help=f"as coordinator: {text}").add_argument("site", metavar="SITE")


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= ROUNDS_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {ROUNDS_MAX}")
    return int(text)


def _add_secrets(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the tokens' names")
    add = actions.add_parser("add", help="keep hashes of a made-up secret, read from standard input")
    add.add_argument("token", metavar="NAME", help="what incidents call it")
    source = add.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, metavar="FILE", help="read it from a file")
    source.add_argument("--text", help="the secret itself: the shell's history and other users' `ps` show it")
    actions.add_parser("remove", help="forget one").add_argument("token", metavar="NAME")


def _add_learn(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for verb, text in (
        ("status", "what the online learner is doing and has done"),
        ("now", "one cycle of it, now"),
        ("history", "its last cycles"),
        ("store", "what the feature store holds: flow-hours, weeks, bytes, labels by origin"),
        ("start", "let cycles begin by themselves"),
        ("stop", "let none begin by itself"),
        ("images", "learn ordinary images of flows, now (FLOW_IMAGES)"),
    ):
        actions.add_parser(verb, help=text)
    back = actions.add_parser("rollback", help="use the model before this one again; what is labelled stays")
    back.add_argument(
        "which", nargs="?", choices=("flow", "sequences", "images"), default="flow", help="of which model"
    )
    back.add_argument("--reason", required=True)
    back.add_argument("--author", default="")
    cycle = actions.add_parser("cycle", help="the sequence model: collect, train, validate, deploy, and delete")
    cycle.add_argument(
        "what",
        nargs="?",
        choices=("status", "run", "start", "train", "stop", "history"),
        default="status",
        help="run = start one in what judges here, and wait for its end; history = the last ones",
    )
    cycle.add_argument("--minutes", type=float, default=10, help="for how long queries are collected (1 to 60)")
    cycle.add_argument("--length", type=int, default=10, help="steps of a window (5 to 50)")
    cycle.add_argument("--epochs", type=int, default=10, help="passes of the training (5 to 50)")
    cycle.add_argument("--again", action="store_true", help="begin anew after each end")
    cycle.add_argument("--from-store", action="store_true", help="learn from stored queries, here and now")
    cycle.add_argument("--days", type=_days, default=7, help="days of stored queries")


def _add_outbox(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="all that waits, or was given up")
    for verb, text in (("retry", "send what was given up again"), ("drop", "forget what was given up")):
        action = actions.add_parser(verb, help=text)
        action.add_argument("number", metavar="NUMBER", help="as `list` shows it, or all")


def _add_block(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what is blocked, or would be, by whom and why")
    add = actions.add_parser("add", help="block a domain and all names below it")
    add.add_argument("domain")
    add.add_argument("--client", default="*", help="an address or network (default: all clients)")
    add.add_argument("--answer", choices=("nxdomain", "refused", "sinkhole", "slow"), help="default: ENFORCE_ACTION")
    add.add_argument("--hours", type=float, help="until it ends by itself (default: ENFORCE_HOURS)")
    add.add_argument("--reason", required=True, help="why; it is recorded")
    add.add_argument("--anyway", action="store_true", help="also a known service, and what is popular here")
    actions.add_parser("remove", help="end blocks").add_argument("which", metavar="ID|DOMAIN")
    actions.add_parser("undo-all", help="end all blocks, and make none without a person until `resume`")
    actions.add_parser("pause", help="make no block without a person until `resume`")
    actions.add_parser("resume", help="make blocks again")
    actions.add_parser("log", help="all that was ever blocked, from the database")
    for name in ("add", "remove", "undo-all", "pause"):
        actions.choices[name].add_argument("--author", default="", help="who decides (default: your login)")


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client")
    parser.add_argument("domain")


def _add_people(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    _add_users(add("users", "who may log in at the console: list, add, link, role, disable, enable, remove"))
    _add_tokens(add("tokens", "tokens of users for programs: list, add, revoke"))


def _add_users(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="by name").add_argument("--json", action="store_true", help="a JSON object a line")
    for name, text in (
        ("add", "add one; prints the one-time link that sets a password"),
        ("link", "another one-time link, for a forgotten password"),
        ("role", "another role; it holds at once"),
        ("disable", "no more logins; sessions and tokens end"),
        ("enable", "logins again"),
        ("remove", "forget one; what they did stays in the audit log"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("user", metavar="NAME")
        if name == "add":
            action.add_argument("--role", default="analyst", help="viewer, analyst (default), operator, admin")
        elif name == "role":
            action.add_argument("role", metavar="ROLE")


def _add_tokens(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="newest first, without their secrets")
    add = actions.add_parser("add", help="make one for a user; printed once")
    add.add_argument("user", metavar="NAME")
    add.add_argument("--for", dest="what_for", required=True, metavar="TEXT", help="what it is for")
    add.add_argument("--scope", action="append", help="metrics, read (default), triage, operate, admin; repeat it")
    add.add_argument("--days", type=float, default=90.0, help="how long it holds (default: 90)")
    actions.add_parser("revoke", help="end one").add_argument("token_id", metavar="ID")


def _add_client(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for verb, text in (
        ("name", "the name under which it is kept (PRIVACY)"),
        ("export", "all its rows, a JSON object a line"),
        ("erase", "delete all its rows, and what the detector knows of it"),
    ):
        action = actions.add_parser(verb, help=text)
        action.add_argument("client", metavar="ADDRESS")
        if verb == "export":
            action.add_argument("--out", metavar="PATH", default="-", help="a file; - is standard output")
        if verb == "erase":
            action.add_argument("--yes", action="store_true", help="it does not come back")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("sigma", "suricata", "zeek", "rpz"))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--incident", nargs=2, metavar=("CLIENT", "DOMAIN"), help="of this incident")
    which.add_argument("--confirmed", action="store_true", help="of domains that people labelled tunnels (default)")
    which.add_argument("--since", metavar="24h|7d", help="of incidents of HIGH and CRITICAL in that time")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of standard output")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= settings.COUNT_MAX):
        raise argparse.ArgumentTypeError(f"{printable(text, 40)!r} is no whole number from 1 to {settings.COUNT_MAX}")
    return int(text)


def _samples(text: str) -> int:
    number = _count(text)
    if number < settings.SAMPLES_MIN:
        raise argparse.ArgumentTypeError(f"{number} is less than {settings.SAMPLES_MIN}")
    return number


def _days(text: str) -> int:
    number = _count(text)
    if number > settings.DAYS_MAX:
        raise argparse.ArgumentTypeError(f"{number} is more than {settings.DAYS_MAX}")
    return number
