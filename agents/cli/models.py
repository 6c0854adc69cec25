"""`dns-tunnel models`: list, show, profile, diff, history, log, and what people decide about versions."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.cli.output import login_name, print_note
from agents.core.errors import ModelError, StoreError, UsageError
from agents.core.files import write_atomic
from agents.core.text import printable, utc
from agents.learning.registry import ModelRegistry
from agents.learning.release.desk import Decided, ModelDesk
from agents.learning.release.diff import difference_text
from agents.learning.release.learnt import LearntVersions, learnt_difference_text, learnt_lines
from agents.learning.release.learnt_desk import LearntDesk
from agents.learning.release.learnt_registry import LEARNT_KINDS
from agents.runtime import bootstrap, warmup
from agents.scoring.model import Model
from agents.settings import Settings


def models(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel models …`."""
    store, action = bootstrap.store_of(settings), options.action
    desk, learnt = bootstrap.model_desk_of(settings, store), bootstrap.learnt_desk_of(settings, store)
    try:
        if action == "list":
            _list_all(desk.registry, learnt, options.of)
        elif kind := _learnt_kind(learnt, options):
            _learnt(desk, learnt, kind, options)
        elif action == "show":
            found = desk.version(options.model_id or "champion")
            shown = {name: found[name] for name in ("model_id", "state", "aliases", "lineage", "approvals")}
            print(json.dumps(found["manifest"] | shown, indent=1))
        elif action == "profile":
            print(json.dumps(desk.profile(options.model_id or "champion"), indent=1))
        elif action == "log":
            _print_log(desk.log(people_only=not options.all))
        elif action == "diff":
            warmup.up(print_note)
            found = desk.diff(options.old, options.new)
            print(difference_text(found)) if not options.json else _write_json(options.json, found)
        elif action == "history":
            periods = desk.history()
            _print_history(periods) if not options.json else _write_json(options.json, periods)
        elif action == "canary" and not options.model_id:
            print(json.dumps(desk.canary(), indent=1))
        else:
            _decide(desk, options)
    finally:
        store.close()
    return 0


def _learnt_kind(learnt: LearntVersions, options: argparse.Namespace) -> str:
    """The kind of learnt model that something is asked about: as --of says, or as the id says; else ""."""
    of = getattr(options, "of", "query")
    if of == "query":
        return ""
    named = options.old if options.action == "diff" else getattr(options, "model_id", None)
    return of or (learnt.kind_of(named) if named else "")


def _learnt(desk: ModelDesk, learnt: LearntDesk, kind: str, options: argparse.Namespace) -> None:
    action = options.action
    if action == "show":
        print(json.dumps(learnt.version(kind, options.model_id or "champion"), indent=1))
    elif action == "history":
        found = learnt.history(kind)
        _print_history(found) if not options.json else _write_json(options.json, found)
    elif action == "log":
        _print_log(one for one in learnt.log(kind) if options.all or one["by_person"])
    elif action == "diff":
        compared = learnt.diff(kind, options.old, options.new)
        print(learnt_difference_text(compared)) if not options.json else _write_json(options.json, compared)
    else:
        with suppress(StoreError):
            desk.store.migrate()
        author, named = options.author or login_name(), getattr(options, "model_id", None) or ""
        _print_done(learnt.decide(kind, action, named, author, options.reason))


def _list_all(registry: ModelRegistry[Model], learnt: LearntVersions, of: str) -> None:
    """Versions of the query model, and of what cycles learn; of: one kind alone."""
    if of in ("", "query"):
        _list_models(registry)
    for kind in LEARNT_KINDS:
        if of in ("", kind):
            for line in learnt_lines(learnt.versions(kind)):
                print(line)


def _decide(desk: ModelDesk, options: argparse.Namespace) -> None:
    """Do what a person asked for, and print it in one sentence."""
    if options.action == "restore":
        warmup.up(print_note)
    with suppress(StoreError):  # without a database, too, one can go back
        desk.store.migrate()
    named = str(getattr(options, "file", None) or getattr(options, "model_id", None) or "")
    if options.action == "rollback" and named:
        raise UsageError(f"cannot go back to {printable(named)}: a query model is put back by models restore FILE")
    try:
        done = desk.decide(options.action, named, options.author or login_name(), options.reason)
    except ModelError as error:
        if options.action != "restore":
            raise
        raise ModelError(f"cannot restore {named}: {str(error).removeprefix('cannot restore ')}") from None
    _print_done(done)


def _print_done(done: Decided) -> None:
    print(printable(done.made.text))
    for problem in done.problems:
        print(f"warning: {problem}", file=sys.stderr)


def _print_log(rows: Iterable[Mapping[str, Any]]) -> None:
    for one in rows:
        print(f"{utc(one['at'])}  {_line_of(one)}")


def _line_of(one: Mapping[str, Any]) -> str:
    reason = f": {printable(one['reason'])}" if one["reason"] else ""
    by = printable(one["by"]) or ("unknown" if one["by_person"] else "the program")
    return f"{printable(one['text'])} (by {by}{reason})"


def _print_history(periods: list[dict[str, Any]]) -> None:
    for one in periods:
        since = utc(one["since"]) if one["since"] is not None else "before this registry"
        until = utc(one["until"]) if one["until"] is not None else "now"
        how = f"  {one['how']}" + (f" by {printable(one['by'])}" if one["by"] else "") if one["how"] else ""
        print(f"{one['model_id']}  {since} to {until}{how}{': ' + printable(one['reason']) if one['reason'] else ''}")


def _write_json(path: str, found: object) -> None:
    text = json.dumps(found, indent=1)
    if path == "-":
        print(text)
    else:
        write_atomic(Path(path), text.encode())


def _list_models(registry: ModelRegistry[Model]) -> None:
    current = registry.current()
    if registry.origin == "baseline":
        print(f"{current.model_id}  shipped    in use until a first retraining deploys another")
    for row in registry.list():
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row["created"]))
        named = [alias for alias in row["aliases"] if alias != row["state"]]
        also = f"  ({', '.join(named)})" if named else ""
        print(f"{row['model_id']}  {row['state']:<11}  {at}  {row['path']}{also}")
    if pinned := registry.pinned():
        print(pinned)
