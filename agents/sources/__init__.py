"""Where queries come from: listener, captures, logs, tables.

`open_source` opens files as one Source. A kind of file is one module with a SPEC (see intake.py) and one line in SPECS;
importing this room loads no reader and no compiler. `runtime` and `cli` may import it; `scoring`, `store` and
`alerting` stand beside it and may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.core.errors import CaptureError
from agents.core.protocols import Source
from agents.sources import capture, dnstap, logs, pihole, table
from agents.sources.files import open_bytes
from agents.sources.intake import HEAD_BYTES, Intake, Sources

SPECS: tuple[Intake, ...] = (capture.SPEC, dnstap.SPEC, *logs.SPECS, pihole.SPEC, table.SPEC)
"""Kinds of files, in the order in which a file's content is compared with them."""

_OTHERS = (
    ("another log of Zeek", re.compile(rb"#separator |#fields\t")),
    ("another log of JSON objects", re.compile(rb"\s*\{")),
    ("a zip archive, to be unpacked first,", re.compile(rb"PK\x03\x04")),
    ("a 7z archive, to be unpacked first,", re.compile(rb"7z\xbc\xaf\x27\x1c")),
)
"""Kinds of files that people have and that are not read, by how they begin."""

__all__ = ["SPECS", "kind_of", "losses_of", "open_source"]


def kind_of(path: Path) -> Intake:
    """The kind of a file, by its content. Raises CaptureError if the file cannot be read or is of no kind."""
    stream, _ = open_bytes(path)
    with stream:
        head = stream.read(HEAD_BYTES)
    for spec in SPECS:
        if spec.recognizes(head):
            return spec
    told = next((f"it is {name} and " for name, begins in _OTHERS if begins.match(head)), "")
    *others, last = (spec.summary for spec in SPECS)
    raise CaptureError(f"cannot read {path}: {told}neither {', '.join(others)} nor {last}; --format names one of them")


def open_source(paths: Sequence[Path], format: str = "auto", options: Mapping[str, Any] | None = None) -> Source:
    """A source over files in the order given. Raises CaptureError for any bad file before reading one.

    format: the name of a Spec, or "auto" for each file's own. options: values of the Specs' fields by name.
    """
    kinds = {spec.name: spec for spec in SPECS}
    specs = [kind_of(path) if format == "auto" else kinds[format] for path in paths]
    found = zip(specs, paths, strict=True)
    taken = [f"{path} is read as {spec.summary}, by {spec.sign}" for spec, path in found] if format == "auto" else []
    return Sources(
        [spec.factory(path, spec.values(options or {})) for spec, path in zip(specs, paths, strict=True)],
        losses_of(specs),
        taken,
    )


def losses_of(specs: Iterable[Intake], named: bool = False) -> tuple[str, ...]:
    """What kinds of sources lose of queries, a text for each loss.

    named: it names the kind, as it does where there are several.
    """
    kinds = list(dict.fromkeys(specs))
    if len(kinds) == 1 and not named:
        return kinds[0].fidelity.losses
    return tuple(f"{spec.summary}: {text}" for spec in kinds for text in spec.fidelity.losses)
