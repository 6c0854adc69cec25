"""Files that people and learning change where `schedule` runs, on every host that judges: known services, honeytokens,
learnt models.

On the bus: a key `files`, which says what is in force, and objects with the contents. A host notes which content of
each it has taken, so that it takes each once, and what a person changes on that host holds until the next change.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from agents.core.errors import AgentsError
from agents.core.files import FILE_MODE, PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.runtime.bus.model_sharing import OnBusThread
from agents.stream.bus.jetstream import ConflictError
from agents.stream.bus.link import BusLink

FILES = "files"
"""Key of the bucket."""
TAKEN_FILE = "files_of_bus.json"
"""Digests of what was taken last, by name, in the folder of the state."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class SharedFile:
    """A file that hosts have alike. check: raises AgentsError or FormatError for contents that nobody can use."""

    name: str
    path: Path
    check: Callable[[Path], object]
    mode: int = FILE_MODE


@dataclass(frozen=True)
class FileInForce:
    """What the key `files` says of one. contents: name of the object. since: Unix seconds."""

    sha256: str
    contents: str
    since: float
    host: str


_IN_FORCE = TypeAdapter(dict[str, FileInForce])
_TAKEN = TypeAdapter(dict[str, str])


def files_in_force(data: bytes) -> dict[str, FileInForce]:
    """What the key `files` has, by name. Raises FormatError."""
    try:
        return _IN_FORCE.validate_json(data or b"{}")
    except ValidationError:
        raise FormatError("cannot read which files are in force on the bus: they are damaged") from None


def names_of_files(link: BusLink) -> list[str]:
    """Objects of the files in force. Raises BusError, FormatError."""
    return [one.contents for one in files_in_force(link.value(FILES).data).values()]


class FileSender(OnBusThread):
    """Sends the files of this host, each whenever its contents are others than those on the bus."""

    EVENT = "files_not_shared"

    def __init__(self, connect: Callable[[], BusLink], files: Sequence[SharedFile], host: str) -> None:
        super().__init__("file-sender", connect)
        self._files, self._host = files, host
        self._sent: dict[str, tuple[tuple[int, int], str]] = {}  # by name: the file's stamp and digest

    def look(self, link: BusLink) -> None:
        """Send what is new; what cannot be used is left, said, and holds up no other file."""
        found = link.value(FILES)
        known, faults = files_in_force(found.data), list[AgentsError | FormatError]()
        news: dict[str, tuple[FileInForce, bytes]] = {}
        for one in self._files:
            try:
                self._read(one, known.get(one.name), news)
            except FileNotFoundError:  # nobody has made it yet
                continue
            except (AgentsError, FormatError) as error:
                faults.append(error)
        if news:
            for file, data in news.values():
                link.put_object(file.contents, data)
            wanted = known | {name: file for name, (file, _) in news.items()}
            packed = json.dumps({name: asdict(file) for name, file in wanted.items()}).encode()
            try:
                link.put_value(FILES, packed, found.revision)
            except ConflictError:  # the next look tries again
                return
            _log.info("files_sent", files=sorted(news))
        if faults:
            raise faults[0]

    def _read(self, one: SharedFile, known: FileInForce | None, news: dict[str, tuple[FileInForce, bytes]]) -> None:
        """Add a file to the news, where the bus has another one. Raises AgentsError, FormatError, OSError."""
        at = one.path.stat()
        stamp, digest = self._sent.get(one.name, ((0, 0), ""))
        if stamp == (at.st_mtime_ns, at.st_ino) and known is not None and known.sha256 == digest:
            return
        one.check(one.path)
        data = one.path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if known is None or known.sha256 != digest:
            contents = f"file-{one.name}-{digest[:16]}-{time.time_ns()}"
            news[one.name] = FileInForce(digest, contents, time.time(), self._host), data
        self._sent[one.name] = (at.st_mtime_ns, at.st_ino), digest


class FileTaker(OnBusThread):
    """Puts the files of the bus in force here."""

    EVENT = "files_not_shared"

    def __init__(self, connect: Callable[[], BusLink], files: Sequence[SharedFile], state_dir: Path) -> None:
        super().__init__("file-taker", connect)
        self._files, self._note = files, state_dir / TAKEN_FILE
        self._refused: dict[str, str] = {}

    def look(self, link: BusLink) -> None:
        """Take what is new."""
        taken, faults = self._taken(), list[AgentsError | FormatError]()
        known = files_in_force(link.value(FILES).data)
        for one in self._files:
            found = known.get(one.name)
            if found is None or found.sha256 in (taken.get(one.name), self._refused.get(one.name)):
                continue
            try:
                self._take(link, one, found, taken.get(one.name, ""))
            except FormatError as error:
                self._refused[one.name] = found.sha256
                faults.append(error)
                continue
            taken[one.name] = found.sha256
            write_atomic(self._note, json.dumps(taken).encode(), mode=PRIVATE_MODE)
        if faults:
            raise faults[0]

    def _taken(self) -> dict[str, str]:
        """What was taken last, also by an earlier process."""
        try:
            return _TAKEN.validate_json(self._note.read_bytes())
        except (OSError, ValidationError):
            return {}

    def _take(self, link: BusLink, one: SharedFile, found: FileInForce, before: str) -> None:
        """Raises BusError, OSError, and FormatError for contents that cannot be used."""
        here, changed_at = _digest_here(one.path)
        if here == found.sha256 or (here not in ("", before) and changed_at > found.since):
            return  # two hosts may share a folder, and a person may have changed it here since
        data = link.object(found.contents)
        if hashlib.sha256(data).hexdigest() != found.sha256:
            raise FormatError(f"cannot take {one.name} from the bus: its content is another")
        part = one.path.with_name(f".{one.path.name}.bus")
        write_atomic(part, data, mode=one.mode)
        try:
            one.check(part)
        except AgentsError as error:
            part.unlink()
            raise FormatError(f"cannot take {one.name} from the bus: {error}") from None
        if here not in ("", before):
            one.path.replace(one.path.with_name(f"{one.path.name}.before_bus"))
            _log.warning("file_replaced", file=one.name, kept=f"{one.path.name}.before_bus")
        part.replace(one.path)
        _log.info("file_taken", file=one.name, host=found.host)


def _digest_here(path: Path) -> tuple[str, float]:
    """Digest of a file, "" = there is none, and when it was changed last, Unix seconds. Raises OSError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime
    except FileNotFoundError:
        return "", 0.0
