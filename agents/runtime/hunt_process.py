"""A hunt in a process of its own: its memory ends with it, and so does its work when nobody waits for it any more.

`python -m agents.runtime.hunt_process` reads one line of JSON, and writes its answer as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from agents.core.errors import AgentsError, BusyError, StoreError, UsageError
from agents.store.hunting.answers import HuntFound, plain_value
from agents.store.hunting.days import remove_work
from agents.store.hunting.hunts import HuntQuestion
from agents.store.hunting.place import HuntPlace
from agents.store.opening import open_store

HUNTS_AT_ONCE = 2
"""Hunts that run at once; each has threads and memory of its own."""
BEGIN_S = 10.0
"""Seconds beside those of the question: the process starts, and copies what is in no file yet."""
LOOK_S = 0.1
"""Whether somebody still waits for the answer is looked at as often."""
NICE = 10
"""What answers DNS and judges goes first."""
ANSWER_MAX = 32 << 20
"""Characters of the rows of an answer, at most."""
REST_MB = 1024
"""Memory of the process beside the engine's, megabytes: Python, and rows on their way."""
NOT_SET_UP = (
    "cannot hunt: no queries are kept for months; HUNT_DAYS=365 has them kept in files"
    " (pip install -r requirements-hunt.txt), with HUNT_URL in ClickHouse"
)
USER = "hunts over months"
"""What needs DuckDB, for people."""


class HuntDesk:
    """Answers hunts, two at once. Threads may share it."""

    def __init__(self, place: HuntPlace, at_once: int = HUNTS_AT_ONCE) -> None:
        self._place, self._at_once = place, at_once
        self._free = threading.BoundedSemaphore(at_once)

    @property
    def engine(self) -> str:
        """DuckDB or ClickHouse; "" = neither is set up."""
        return self._place.engine

    def ask(self, question: HuntQuestion, stopped: Callable[[], bool]) -> HuntFound:
        """The answer; with `stopped` nobody waits for it any more.

        Raises UsageError for SQL that is not answered, BusyError where too many run, StoreError for no answer.
        """
        if not self.engine:
            raise StoreError(NOT_SET_UP)
        if not self._free.acquire(blocking=False):
            raise BusyError(f"cannot hunt: {self._at_once} hunts are running; wait until one is done")
        try:
            return self._asked(question, stopped)
        finally:
            self._free.release()

    def _asked(self, question: HuntQuestion, stopped: Callable[[], bool]) -> HuntFound:
        mark, begun = f"{secrets.token_hex(8)}-", time.monotonic()
        said = json.dumps({"place": asdict(self._place), "question": asdict(question), "mark": mark})
        process = _started()
        assert process.stdin is not None and process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(said.encode() + b"\n")
                process.stdin.flush()
            data = _read(process.stdout, begun + BEGIN_S + question.seconds, stopped, question.seconds)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(BrokenPipeError):
                process.stdin.close()
            if not self._place.url:
                remove_work(Path(self._place.folder), mark)
        return _found(data, time.monotonic() - begun)


def _started() -> subprocess.Popen[bytes]:
    """The process, which a Ctrl-C in a terminal does not reach; it has no use for the compiler."""
    path = os.pathsep.join(str(Path(one).absolute()) for one in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "agents.runtime.hunt_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "COMPILED": "off", "PYTHONPATH": path},
    )


def _read(stream: IO[bytes], deadline: float, stopped: Callable[[], bool], seconds: float) -> bytes:
    """All that comes. Raises StoreError where time is over, or nobody waits for it."""
    data = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if selector.select(LOOK_S):
                part = os.read(stream.fileno(), 1 << 16)
                if not part:
                    return bytes(data)
                data += part
            elif stopped():
                raise StoreError("cannot hunt: nobody waits for the answer")
            elif time.monotonic() > deadline:
                raise StoreError(f"cannot hunt: no answer within {seconds:g} s")


def _found(data: bytes, seconds: float) -> HuntFound:
    """What the process wrote. Raises what it says."""
    try:
        said = json.loads(data)
    except ValueError:  # it died in the middle, or before
        raise StoreError("cannot hunt: the process that does it died, perhaps for want of memory") from None
    if "error" in said:
        raise (UsageError if said["is_usage"] else StoreError)(said["error"])
    return HuntFound(**said, seconds=seconds)


def main() -> int:
    """Answer the question on standard input; who asked holds that open for as long as there is interest."""
    said = json.loads(sys.stdin.buffer.readline())
    place, question = HuntPlace(**said["place"]), HuntQuestion(**said["question"])
    threading.Thread(target=_end_with_parent, args=(place, said["mark"]), name="parent", daemon=True).start()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed is no part of the answer
    os.nice(NICE)
    most = (place.memory_mb + REST_MB) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with out:
        out.write(json.dumps(_answered(place, question, said["mark"])).encode())
    return 0


def _end_with_parent(place: HuntPlace, mark: str) -> None:
    """End when who asked is gone; what lies on the disk goes now, since nobody else knows the mark."""
    sys.stdin.buffer.read()
    remove_work(Path(place.folder), mark)
    os._exit(1)


def _answered(place: HuntPlace, question: HuntQuestion, mark: str) -> dict[str, Any]:
    """The answer, or why there is none."""
    try:
        hunter = place.hunter(open_store(place.database), question.closed, mark, USER)
        sql = question.sql_of(hunter.dialect)
        names, found, cut = hunter.ask(sql, question.limit, question.seconds)
        days = hunter.covered()
    except AgentsError as error:
        return {"error": str(error), "is_usage": isinstance(error, UsageError)}
    except MemoryError:
        return {"error": "cannot hunt: the answer does not fit into HUNT_MEMORY_MB", "is_usage": False}
    rows, size = list[Any](), 0
    for row in found:
        rows.append([plain_value(value) for value in row])
        size += len(json.dumps(rows[-1]))
        if size > ANSWER_MAX:
            rows.pop()
            cut = True
            break
    return {"names": names, "rows": rows, "cut": cut, "days": days, "sql": sql}


if __name__ == "__main__":
    sys.exit(main())
