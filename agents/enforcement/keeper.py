"""Makes blocks and ends them: the one writer of the file that is in force, under a lock.

Undoing is the easiest of all: it needs no database, and a file that cannot be read is replaced.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from agents.core.errors import BusyError, SettingsError, UsageError
from agents.core.files import FILE_MODE, PRIVATE_MODE, heirs_of, json_state, locked_within, write_atomic
from agents.core.text import NETWORK, counted, network_text, printable, said_text
from agents.core.types import DAY_S, HOUR_S, Incident
from agents.dns.blocks import AHEAD_S, BLOCKS_FILE, BLOCKS_MAX, Block, BlockAction, BlockList, read_blocks
from agents.enforcement.brakes import NeverBlock, checked_domain
from agents.enforcement.options import EnforceMode, EnforceOptions

LOCK_S = 5.0
"""Another process has so long to finish its change."""
KEPT_S = 7 * DAY_S
"""Ended blocks stay in the file for so long, for the count of a week; the database keeps them longer."""
ENDED_MAX = 1000
REASON_MAX, AUTHOR_MAX, CLIENT_MAX = 500, 80, 64
HOURS_MAX = 8760.0
AUTOMATIC = "dns-tunnel"
"""The author of blocks that no person made."""
HITS_FILE = "block_hits.json"
"""How often each block was met, in the folder of the detector's state; the detector writes it."""
_log = structlog.get_logger()


class BlockKeeper:
    """The blocks of one DATA_DIR. Raises AgentsError from each method; OSError where the disk takes nothing."""

    def __init__(
        self,
        state_dir: Path,
        options: EnforceOptions,
        never: NeverBlock | None = None,
        clock: Callable[[], float] = time.time,
        even: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.options, self.never = state_dir / BLOCKS_FILE, options, never or NeverBlock()
        self._clock, self._even = clock, even
        self.began_counting: tuple[float, float] | None = None
        """When it began, where this process noted it: by the wall clock, and by one that nobody sets."""

    def blocks(self) -> BlockList:
        """The list as the file has it."""
        return read_blocks(self.path)

    def hits(self) -> Mapping[str, int]:
        """How often each block was met, by its id, as the detector wrote it last."""
        return read_hits(self.path.with_name(HITS_FILE))

    @property
    def mode(self) -> EnforceMode:
        """What ENFORCE says."""
        return self.options.mode

    def watch(self) -> BlockList:
        """Note when counting began, once; anew where the clock was wrong then."""
        with self._changing() as found:
            found[0] = self._watched(found[0])
            return found[0]

    def _watched(self, blocks: BlockList) -> BlockList:
        """The list with when counting began, by the clock of today: it may have been set since, or been ahead then."""
        now, even, noted = self._clock(), self._even(), blocks.watched_since
        if noted is None or noted > now + AHEAD_S:
            began = now
        elif self.began_counting is not None and noted == self.began_counting[0]:
            began = now - (even - self.began_counting[1])
            if abs(began - noted) <= HOUR_S:
                return blocks
        else:
            return blocks
        self.began_counting = began, even - (now - began)
        return replace(blocks, watched_since=began)

    def counts_alone(self, blocks: BlockList) -> bool:
        """Whether a block that no person makes would be dry now."""
        since = self._clock() if blocks.watched_since is None else blocks.watched_since
        return self.options.mode != EnforceMode.ON or self._clock() - since < self.options.dry_days * DAY_S

    def add(
        self,
        domain: str,
        client: str = NETWORK,
        action: str = "",
        *,
        reason: str,
        author: str,
        hours: float = 0.0,
        anyway: bool = False,
    ) -> Block:
        """A person's block. client: address or network, NETWORK = all; action, hours: the settings' unless given.

        anyway: also a known service, and what is popular here.
        """
        options = self.options
        if options.mode == EnforceMode.OFF:
            raise UsageError("cannot block: ENFORCE is off")
        reason, author = said_text(reason, "a reason", REASON_MAX), said_text(author, "an author", AUTHOR_MAX)
        domain, chosen = checked_domain(domain), _action(action, options)
        if not 0 < (hours or options.hours) <= HOURS_MAX:
            raise UsageError(f"cannot block for {hours:g} hours: 1 to {HOURS_MAX:g} are possible")
        why = self.never.always(domain)
        if not why and not anyway and (why := self.never.usually(domain, self._clock())):
            why += "; with --anyway a person may"
        if why:
            raise UsageError(f"cannot block {domain}: {why}")
        now = self._clock()
        made = Block(
            block_id=secrets.token_hex(6),
            domain=domain,
            client=_client(client),
            action=chosen,
            reason=reason,
            author=author,
            began_at=now,
            until=now + (hours or options.hours) * HOUR_S,
            dry=options.mode == EnforceMode.DRY_RUN,
        )
        return self._put(made)

    def add_for(self, incident: Incident, why: str) -> Block | None:
        """A block that no person makes; the brakes have been asked. None where it is there, or they are paused.

        Nor is one made that a person has ended, until it would have ended by itself.

        The one beyond ENFORCE_PER_HOUR is not made, and pauses all: BlockList.paused says so then. Where it is only
        counted, counting goes on an hour later by itself.
        """
        now, options = self._clock(), self.options
        client = NETWORK if options.for_all or incident.client == NETWORK else incident.client
        with self._changing() as found:
            found[0] = blocks = self._watched(found[0])
            dry, wanted = self.counts_alone(blocks), {NETWORK, client}
            there = [one for one in blocks.lasting(now) if one.domain == incident.domain and one.client in wanted]
            if blocks.paused or any(dry or not one.dry for one in there):
                return None
            if any(
                _undone(one, now) and one.domain == incident.domain and one.client in wanted for one in blocks.blocks
            ):
                return None
            lately = _made_lately(blocks, dry, now)
            if lately >= options.per_hour:
                if dry:
                    return None
                found[0] = replace(blocks, paused=f"{counted(lately, 'block')} in an hour (ENFORCE_PER_HOUR)")
                return None
            made = Block(
                block_id=secrets.token_hex(6),
                domain=incident.domain,
                client=client,
                action=options.action,
                reason=printable(why, REASON_MAX),
                author=AUTOMATIC,
                began_at=now,
                until=now + options.hours * HOUR_S,
                dry=dry,
                incident_id=incident.incident_id,
            )
            found[0] = self._with(blocks, made)
        return made

    def remove(self, which: str, author: str) -> Sequence[Block]:
        """End the blocks with this id, or of this domain."""
        author, wanted = said_text(author, "an author", AUTHOR_MAX), which.strip().rstrip(".").lower()
        with self._changing() as found:
            now = self._clock()
            chosen = {one.block_id for one in found[0].lasting(now) if wanted in (one.block_id, one.domain)}
            if not chosen:
                raise UsageError(f"cannot remove {printable(which)}: no block has that id or domain")
            return self._end(found, chosen, author)

    def undo_all(self, author: str) -> Sequence[Block]:
        """End all blocks, and make none without a person until `resume`. A list that cannot be read is replaced.

        Where the disk takes nothing the file is deleted: without it nothing is blocked. That may have made room.
        """
        author = said_text(author, "an author", AUTHOR_MAX)
        try:
            return self._undo_all(author)
        except OSError:
            for path in (self.path, self.options.list_file):
                if path is not None:
                    path.unlink(missing_ok=True)
            return self._undo_all(author)

    def _undo_all(self, author: str) -> Sequence[Block]:
        with self._changing(replacing=True) as found:
            found[0] = replace(found[0], paused=f"all blocks were undone by {author}")
            return self._end(found, {one.block_id for one in found[0].lasting(self._clock())}, author)

    def resume(self) -> bool:
        """Let blocks be made without a person again; whether they were not."""
        with self._changing() as found:
            paused = bool(found[0].paused)
            found[0] = replace(found[0], paused="", resumed_at=self._clock())
            return paused

    def pause(self, author: str) -> None:
        """Make no block without a person until `resume`."""
        author = said_text(author, "an author", AUTHOR_MAX)
        with self._changing() as found:
            found[0] = replace(found[0], paused=f"paused by {author}")

    def _put(self, made: Block) -> Block:
        with self._changing() as found:
            found[0] = self._with(found[0], made)
        return made

    def _with(self, blocks: BlockList, made: Block) -> BlockList:
        """The list with one more; one of the same domain and client is replaced by it."""
        now = self._clock()
        if len(blocks.lasting(now)) >= BLOCKS_MAX:
            raise UsageError(f"cannot block {made.domain}: {counted(BLOCKS_MAX, 'block')} are there already")
        kept = [
            replace(one, ended_at=now, ended_by=made.author)
            if one.lasts(now) and (one.domain, one.client) == (made.domain, made.client)
            else one
            for one in blocks.blocks
        ]
        return replace(blocks, blocks=(*kept, made))

    def _end(self, found: list[BlockList], chosen: set[str], author: str) -> Sequence[Block]:
        now = self._clock()
        ended = {
            one.block_id: replace(one, ended_at=now, ended_by=author)
            for one in found[0].blocks
            if one.block_id in chosen
        }
        found[0] = replace(found[0], blocks=tuple(ended.get(one.block_id, one) for one in found[0].blocks))
        return list(ended.values())

    @contextmanager
    def _changing(self, replacing: bool = False) -> Iterator[list[BlockList]]:
        """The list, alone; what the caller puts into its place is written."""
        try:
            lock = locked_within(self.path.with_suffix(".lock"), LOCK_S)
        except BlockingIOError:
            raise BusyError("cannot change the blocks: another process is changing them") from None
        with lock:
            if (heirs := heirs_of(self.path)) is not None:
                os.chown(self.path.with_suffix(".lock"), *heirs, follow_symlinks=False)
            try:
                before = read_blocks(self.path)
            except SettingsError:
                if not replacing:
                    raise
                before = BlockList(paused="the list could not be read")
            found = [before]
            yield found
            if found[0] != before or replacing:
                write_atomic(self.path, self._shortened(found[0]).to_json(), PRIVATE_MODE, owner=heirs)
                try:
                    self.write_list(found[0])
                except OSError as error:  # the detector, where one runs, tries again
                    _log.warning("list_not_written", path=str(self.options.list_file), error=error.strerror)

    def write_list(self, blocks: BlockList) -> None:
        """Write ENFORCE_LIST_FILE, where there is to be one, for other programs.

        Raises OSError; where nothing is blocked the file is gone then, which says the same.
        """
        if (path := self.options.list_file) is None:
            return
        in_force = blocks.in_force(self._clock()) if self.options.mode == EnforceMode.ON else []
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomic(path, list_text(in_force).encode(), FILE_MODE, owner=heirs_of(path))
        except OSError:
            if not in_force:
                path.unlink(missing_ok=True)
            raise

    def _shortened(self, blocks: BlockList) -> BlockList:
        now = self._clock()
        lasting = blocks.lasting(now)
        ended = [
            one for one in blocks.blocks if not one.lasts(now) and (now - _end_of(one) < KEPT_S or _undone(one, now))
        ]
        ended = sorted(ended, key=_end_of)[-ENDED_MAX:]
        return replace(blocks, blocks=(*ended, *lasting))


def list_text(blocks: Sequence[Block]) -> str:
    """Blocks for other programs: a line each of action, client (* = all), domain, and the end (Unix seconds)."""
    rows = sorted((str(one.action), one.client, one.domain, f"{one.until:.0f}") for one in blocks)
    return "".join("\t".join(row) + "\n" for row in rows)


def _undone(block: Block, now: float) -> bool:
    """Whether a person has ended a block that no person made, and it would last otherwise.

    One that was only counted is also ended where one in force takes its place.
    """
    replaced = block.dry and block.ended_by == AUTOMATIC
    return block.author == AUTOMATIC and block.ended_at is not None and now < block.until and not replaced


def _made_lately(blocks: BlockList, dry: bool, now: float) -> int:
    """Blocks of an hour that no person made, in force or dry ones, since blocking was last resumed."""
    since = max(now - HOUR_S, blocks.resumed_at or 0.0)
    return sum(one.author == AUTOMATIC and one.dry == dry and since < one.began_at <= now for one in blocks.blocks)


def _end_of(block: Block) -> float:
    return block.until if block.ended_at is None else min(block.ended_at, block.until)


def _action(text: str, options: EnforceOptions) -> BlockAction:
    if not text:
        return options.action
    try:
        chosen = BlockAction(text)
    except ValueError:
        raise UsageError(f"cannot block with {printable(text)!r}: {', '.join(BlockAction)} are possible") from None
    if chosen == BlockAction.SINKHOLE and not options.sinkhole:
        raise UsageError("cannot block with sinkhole: ENFORCE_SINKHOLE names no address")
    return chosen


def _client(text: str) -> str:
    if text == NETWORK:
        return text
    try:
        return network_text(text.strip()[:CLIENT_MAX])
    except ValueError:
        raise UsageError(f"cannot block for {printable(text)!r}: it is no address or network") from None


def read_hits(path: Path) -> dict[str, int]:
    """How often each block was met, by its id; nothing where the file cannot be read."""
    return {name: number for name, number in json_state(path).items() if isinstance(number, int) and number >= 0}


def week_of(blocks: BlockList, hits: Mapping[str, int], now: float) -> tuple[int, int]:
    """Dry blocks of the file, which keeps a week, and queries that met them: what would have been blocked."""
    dry = [one for one in blocks.blocks if one.dry and one.began_at <= now]
    return len(dry), sum(hits.get(one.block_id, 0) for one in dry)
