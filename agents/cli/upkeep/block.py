"""`dns-tunnel block`: what is blocked, by whom and why; block, end a block, undo all, pause and go on."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from datetime import timedelta

from agents.cli.output import login_name
from agents.core.errors import AgentsError
from agents.core.text import NETWORK, command, counted, printable, refang, utc
from agents.core.types import DAY_S
from agents.dns.blocks import Block
from agents.enforcement.keeper import BlockKeeper, week_of
from agents.enforcement.options import EnforceMode
from agents.enforcement.rpz import options as rpz_options
from agents.runtime import bootstrap
from agents.runtime.heartbeat import settings_in_force
from agents.settings import Settings
from agents.store.feedback.blocks import BlockStore

LOGGED_MAX = 1_000
"""Blocks that `log` shows, the newest."""


def block(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel block …`. ENFORCE and what belongs to it are those of the running listener, where one runs."""
    settings = bootstrap.as_noted(settings, settings_in_force(settings.state_dir, "listener"))
    with closing(bootstrap.store_of(settings)) as store:
        keeper, author = bootstrap.block_keeper_of(settings, store), getattr(options, "author", "") or login_name()
        if options.action == "list":
            _print_list(keeper)
        elif options.action == "log":
            store.migrate()
            for one, hits in BlockStore(store).history(limit=LOGGED_MAX):
                print(_line(one, hits, time.time()))
        elif options.action == "add":
            if not options.anyway:  # else no database is needed
                store.migrate()
            made = keeper.add(
                refang(options.domain),
                options.client,
                options.answer or "",
                reason=options.reason,
                author=author,
                hours=options.hours or 0.0,
                anyway=options.anyway,
            )
            print(f"{'would block' if made.dry else 'blocked'}: {_line(made, 0, time.time())}")
        else:
            _end(keeper, options, author)
    return 0


def _end(keeper: BlockKeeper, options: argparse.Namespace, author: str) -> None:
    if options.action == "remove":
        for one in keeper.remove(refang(options.which), author):
            print(f"ended: {printable(one.domain)} for {_whom(one)}")
    elif options.action == "undo-all":
        ended = keeper.undo_all(author)
        print(f"{counted(len(ended), 'block')} undone; none is made without a person until: {command('block resume')}")
    elif options.action == "pause":
        keeper.pause(author)
        print(f"no block is made without a person until: {command('block resume')}")
    else:
        print("blocks are made again" if keeper.resume() else "blocks were made all the while")


def _print_list(keeper: BlockKeeper) -> None:
    now, found = time.time(), keeper.blocks()
    hits = keeper.hits()
    for one in found.lasting(now):
        print(_line(one, hits.get(one.block_id, 0), now))
    mode = keeper.options.mode
    lasting = found.lasting(now)
    in_force = sum(not one.dry for one in lasting) if mode == EnforceMode.ON else 0
    print(f"ENFORCE={mode}: {counted(in_force, 'block')} in force")
    blocks, queries = week_of(found, hits, now)
    print(f"would have been blocked in seven days: {counted(blocks, 'tunnel')}, {counted(queries, 'query')}")
    if mode == EnforceMode.ON and keeper.counts_alone(found):
        ends = (found.watched_since or now) + keeper.options.dry_days * DAY_S
        print(f"without a person it is only counted until {utc(ends)} (ENFORCE_DRY_DAYS)")
    if keeper.options.people_alone:
        print(f"no block is made without a person: {keeper.options.people_alone}")
    if found.paused:
        print(f"no block is made without a person: {printable(found.paused)}; go on with {command('block resume')}")


def _whom(one: Block) -> str:
    return "all clients" if one.client == NETWORK else printable(one.client)


def _line(one: Block, hits: int, now: float) -> str:
    if one.ended_at is not None:
        end = f"ended {utc(one.ended_at)} by {printable(one.ended_by)}"
    elif now >= one.until:
        end = f"over since {utc(one.until)}"
    else:
        end = f"until {utc(one.until)}, {timedelta(seconds=round(one.until - now))} left"
    dry = "  counted only" if one.dry else ""
    who = f"{printable(one.author)}: {printable(one.reason)}"
    return (
        f"{one.block_id}  {printable(one.domain)}  {_whom(one)}  {one.action}{dry}  {end}"
        f"  {counted(hits, 'query')}  {who}"
    )


def enforcement_text(settings: Settings) -> str:
    """What `doctor` says. Raises AgentsError where the blocks cannot be read."""
    with closing(bootstrap.store_of(settings)) as store:
        keeper = bootstrap.block_keeper_of(settings, store)
    if keeper.options.mode == EnforceMode.OFF:
        return "nothing is blocked (ENFORCE)"
    if settings.of(rpz_options.SPEC)["rpz_listen"] and not keeper.options.for_all:
        raise AgentsError("cannot serve what is blocked without a person: RPZ_LISTEN needs ENFORCE_SCOPE=all")
    found, now = keeper.blocks(), time.time()
    lasting = found.lasting(now)
    text = f"{keeper.options.mode}: {counted(len(lasting), 'block')}, {sum(one.dry for one in lasting)} only counted"
    if keeper.options.people_alone:
        text += f"; none is made without a person: {keeper.options.people_alone}"
    if found.paused:
        raise AgentsError(f"cannot block without a person: {found.paused}; {text}")
    return text
