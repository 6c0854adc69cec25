#!/usr/bin/env python3
"""How long the ways through the package are: files of agents/ whose functions run, and moves from room to room.

    python scripts/maintainer/walk.py            a table
    COMPILED=off python scripts/maintainer/walk.py            with the kernels as functions that the profiler sees

A file counts where one of its functions is called; a room is entered where a function of it is called from another.
What runs once at start is not counted: each way is walked once before it is measured. The ways:

    query       one benign query, from its datagram to its stored verdict
    capture     `dns-tunnel replay` of one capture
    retraining  `dns-tunnel retrain` in a folder with a week of queries
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import socket
import sqlite3
import sys
import tempfile
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PACKAGE = str(ROOT / "agents") + os.sep
NO_FUNCTIONS = {"<module>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>"}
CARRIED = {"core", "dns"}
"""Rooms of nouns and names: every way goes in and out of them."""
DEMO = ROOT / "tests" / "data" / "demo.pcap.gz"
LISTENED_S = 10.0
DATABASE = "dns-tunnel.db"
BACKGROUND = {"ticker", "store-opener", "heartbeat", "alerts", "sender", "flow-hours", "enforcement"}
"""Threads that turn by themselves, whether a query comes or not."""


class Walk:
    """Notes functions of the package that are called while it does, in this thread and those that began in `heard`."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.entered: Counter[str] = Counter()
        self.calls = 0
        self._notes = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Threads that begin meanwhile can be noted for as long as they live."""
        threading.setprofile(self._note)
        try:
            yield
        finally:
            threading.setprofile(None)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        self._notes = True
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._notes = False

    def _note(self, frame: types.FrameType, event: str, _: object) -> None:
        if not self._notes or event != "call" or threading.current_thread().name in BACKGROUND:
            return
        if not frame.f_code.co_filename.startswith(PACKAGE) or not _is_function(frame):
            return
        file = frame.f_code.co_filename[len(PACKAGE) :]
        self.files.add(file)
        self.calls += 1
        room, caller = Path(file).parts[0], _caller(frame)
        if room != caller:
            self.entered[room] += 1


def _is_function(frame: types.FrameType) -> bool:
    code = frame.f_code
    in_module = code.co_filename.endswith(".py")  # a template's is its own file
    return in_module and code.co_name not in NO_FUNCTIONS and bool(code.co_flags & 0x1)  # CO_OPTIMIZED: no class body


def _caller(frame: types.FrameType) -> str:
    """The room that the call comes from: that of the nearest frame of the package."""
    back = frame.f_back
    while back is not None and not back.f_code.co_filename.startswith(PACKAGE):
        back = back.f_back
    return "" if back is None else Path(back.f_code.co_filename[len(PACKAGE) :]).parts[0]


def walk_query(folder: Path) -> Walk:
    """One benign query: the listener's event loop, the ring, the detector's loop, the store."""
    from agents.runtime import bootstrap
    from agents.runtime.judging.judge import Judge
    from agents.runtime.judging.loop import DetectorLoop
    from agents.sources.listener.server import Listener
    from agents.stream.shared import SharedStream

    settings = bootstrap.load_settings(data_dir=folder, upstreams="127.0.0.1:9")
    bootstrap.make_folders(settings)
    state_dir = settings.state_dir
    stream, walk, stop = SharedStream(1, 1000, ["listener-1", "detector"], wait_s=0.0), Walk(), threading.Event()
    (ring, counters), (fast_ring, fast_counters) = stream.writers(0)
    with walk.heard():
        judge = Judge(bootstrap.judge_parts(settings))
    loop = DetectorLoop(stream, judge, [])
    with _answering() as endpoint, socket.socket(type=socket.SOCK_DGRAM) as client:
        asked = [0]

        async def ask(times: int) -> None:
            listener = Listener(
                ["127.0.0.1"], 0, [("", [endpoint])], allowed_clients=["127.0.0.0/8"], timeout_s=2.0, tcp_clients_max=4,
                tcp_idle_s=2.0, inflight_max=100, offer=ring.put_rows, ring=fast_ring,
                counters=(counters, fast_counters),
            )  # fmt: skip
            await listener.start()
            client.setblocking(False)
            client.connect(("127.0.0.1", listener.ports[0]))
            for number in range(times):
                asked[0], last = number + 1, number + 1 == times
                with walk.noted() if last else contextlib.nullcontext():
                    client.send(_question(number))
                    await asyncio.get_running_loop().sock_recv(client, 4096)
                    await _until(lambda: _stored(state_dir) == asked[0])
            await listener.stop()

        with walk.heard():
            judge.start()
            judging = threading.Thread(target=loop.run, args=(stop,))
            judging.start()
        asyncio.run(ask(3))
        stop.set()
        judging.join()
        judge.close()
    stream.close()
    return walk


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LISTENED_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("cannot walk: the query did not reach the ring, or the store")
        await asyncio.sleep(0.01)


def _stored(folder: Path) -> int:
    """Queries in the embedded database of a folder."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database, contextlib.suppress(sqlite3.Error):
        return int(database.execute("SELECT count(*) FROM queries").fetchone()[0])
    return 0


def _question(number: int) -> bytes:
    return number.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"


@contextlib.contextmanager
def _answering() -> Iterator[tuple[str, int]]:
    """An upstream that answers each question with one address."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            while True:
                message, where = server.recvfrom(4096)
                if not message:
                    return
                record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
                server.sendto(message[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + message[12:] + record, where)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            with socket.socket(type=socket.SOCK_DGRAM) as end:
                end.sendto(b"", server.getsockname())
            thread.join()


def walk_command(first: Sequence[str], again: Sequence[str]) -> Walk:
    """A command that has run before in this process. again: its arguments then."""
    from agents.cli.parser import main

    walk = Walk()
    with contextlib.redirect_stdout(io.StringIO()):
        main(list(first))
        with walk.heard(), walk.noted():
            main(list(again))
    return walk


def ways(folder: Path) -> Iterator[tuple[str, Walk]]:
    """Every way, with what was noted on it."""
    os.chdir(folder)
    yield "query", walk_query(folder / "query")
    first, again = (["--data-dir", str(folder / name)] for name in ("first", "again"))
    yield "capture", walk_command([*first, "replay", str(DEMO)], [*first, "replay", str(DEMO)])
    walk_command([*first, "replay", str(DEMO), "--store"], [*again, "replay", str(DEMO), "--store"])
    for one in (first, again):
        _as_live(Path(one[1]) / "data")
    week = ["retrain", "--days", "3650"]
    yield "retraining", walk_command([*first, *week], [*again, *week])


def _as_live(folder: Path) -> None:
    """Let the stored capture be this network's own week: a retraining learns from live queries alone."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute("UPDATE queries SET day = CAST(ts / 86400 AS INTEGER)")


def main() -> None:
    """Print a line a way; with --files what it touches."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--files", action="store_true", help="also the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, walk in ways(Path(folder)):
            print(f"{name:<12}{len(walk.files):3} files {walk.calls:7} calls   entered: {_shown(walk.entered)}")
            if options.files:
                print("".join(f"    {file}\n" for file in sorted(walk.files)), end="")


def _shown(entered: Counter[Any]) -> str:
    return ", ".join(f"{room} {times}" for room, times in entered.most_common())


if __name__ == "__main__":
    main()
