"""A file that a log shipper follows: a record a line, appended whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.core.errors import NotifyError
from agents.core.protocols import Field
from agents.export.formats import BY_NAME
from agents.export.outputs.base import Output, format_field
from agents.export.record import Record

MODE = 0o640
"""Its group may read it: a log shipper's."""


class FileOutput:
    """Appends to one file, opened anew each time: logrotate may move it away."""

    name = "file"

    def __init__(self, path: Path, form: str) -> None:
        self._path, self._form = path, form

    async def send(self, message: Record) -> None:
        """Append a record, or raise NotifyError."""
        try:
            await asyncio.to_thread(self._append, BY_NAME[self._form].render(message).encode() + b"\n")
        except OSError as error:
            raise NotifyError(f"cannot write {self._path}: {error.strerror}") from None

    def _append(self, data: bytes) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":  # a process was killed, or a disk full, within a line
                data = b"\n" + data
            while data:
                data = data[os.write(handle, data) :]
        finally:
            os.close(handle)


def _probe(values: Mapping[str, Any]) -> str:
    folder = Path(values["export_file"]).parent
    if not os.access(folder, os.W_OK):
        raise NotifyError(f"cannot write into {folder}")
    return f"set up, as {values['export_file_format']}"


SPEC = Output(
    name="file",
    summary="a file for a log shipper, a record a line",
    fields=(
        Field("export_file", str, "", "file to which incidents are appended, a line each"),
        format_field("file", "ecs"),
    ),
    factory=lambda values, retry=None: FileOutput(Path(values["export_file"]), values["export_file_format"]),
    probe=_probe,
)
