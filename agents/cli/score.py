"""`dns-tunnel score`: judges names one by one."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

from agents.cli.output import json_output, print_note
from agents.core.columns import lowered
from agents.core.errors import NameFormatError, UsageError
from agents.core.text import printable
from agents.detection.known_services import KnownServices
from agents.detection.limits import Scale
from agents.detection.reasons import name_reasons
from agents.dns.message import type_name
from agents.dns.name import from_text_folded, to_text
from agents.runtime import bootstrap, warmup
from agents.scoring.features import view_of
from agents.scoring.lexical import scored
from agents.scoring.model import Model
from agents.settings import Settings

NAMES_AT_ONCE = 4096


def score(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel score`."""
    if not options.names and options.file is None:
        raise UsageError("cannot score: give names, or --file")
    warmup.up(print_note)
    model, scale = bootstrap.registry_of(settings).current(), bootstrap.scale_of(settings)
    services = bootstrap.services_of(settings)
    bad = 0
    with json_output(options.json) as out:
        for chunk in _chunks(_names(options)):
            for row in score_rows(model, scale, services, chunk, type_name(options.qtype)):
                bad += "error" in row
                _emit_score(row, out)
    return 1 if bad else 0


def _emit_score(row: dict[str, Any], out: IO[str] | None) -> None:
    if out is not None:
        out.write(json.dumps(row) + "\n")
    elif "error" in row:
        print(f"dns-tunnel: {printable(row['error'])}", file=sys.stderr)
    else:
        why = f"  {'; '.join(row['reasons'])}" if row["reasons"] else ""
        print(f"{row['severity']:<10} {row['score']:.3f}  {printable(row['qname'], 1024)}{why}")


def score_rows(
    model: Model, scale: Scale, services: KnownServices, names: list[str], qtype: str
) -> Iterator[dict[str, Any]]:
    """One row a name: as `score --json` prints it, or {"qname", "error"} for an invalid name.

    `qtype` is repeated in the row and does not change the score: the model reads only names.
    """
    wires: list[bytes | str] = [_wire_or_error(name) for name in names]
    good = lowered([wire for wire in wires if isinstance(wire, bytes)])
    scores, cuts = scored(good, model)
    scores = scale.votes(scores, services.factors(good))
    found = zip(good, scores.tolist(), cuts.tolist(), strict=True)
    for name, error in zip(names, wires, strict=True):
        if isinstance(error, str):
            yield {"qname": name, "error": error}
            continue
        wire, value, cut = next(found)
        severity = scale.severity(value)
        yield {
            "qname": name,
            "qtype": qtype,
            "domain": to_text(wire[cut:]),
            "score": round(value, 4),
            "severity": severity.name,
            "confidence": round(scale.confidence(value), 4),
            "reasons": list(name_reasons(view_of(wire))) if severity else [],
        }


def _wire_or_error(name: str) -> bytes | str:
    try:
        return from_text_folded(name)
    except NameFormatError as error:
        return str(error)


def _names(options: argparse.Namespace) -> Iterator[str]:
    yield from options.names
    if options.file is None:
        return
    try:
        raw = options.file.read_bytes()
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {options.file}: {getattr(error, 'strerror', None) or error}") from None
    lines = text.decode("utf-8", "surrogateescape").splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise UsageError(f"cannot read {options.file}: there is no name in it")
    yield from names


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for name in names:
        chunk.append(name)
        if len(chunk) == NAMES_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
