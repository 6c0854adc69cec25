"""Staging: a candidate with its report goes to a second installation, which validates it there, and its verdict back.

A file has two lines: a head with the hash of the second one, and with its HMAC (RFC 2104) under STAGE_KEY where that is
set; and the contents, JSON. A hash shows damage; only a key shows who made it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from agents.core.errors import ModelError, UsageError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.protocols import Field as Setting
from agents.core.protocols import Spec
from agents.core.text import printable
from agents.core.types import Gate
from agents.learning.registry import ORIGIN_REPORT, ModelRegistry
from agents.learning.release.lineage import code_version
from agents.learning.release.transitions import Author, Transition
from agents.learning.run import AlertDiff, plain
from agents.scoring.model import Model

STAGE_FORMAT = 1
STAGE_BYTES_MAX = 160 << 20
"""A larger file is none of ours: a model has 64 MB at the most, and base64 a third more."""
GATES_MAX = 100
KEY_MIN = 16
"""A shorter key can be guessed."""


def _key(key: str) -> None:
    if 0 < len(key) < KEY_MIN:
        raise ValueError(f"shorter than {KEY_MIN} characters, it can be guessed")


SPEC: Spec[str] = Spec(
    "stage",
    "staging: candidates that go to a second installation, and verdicts that come back",
    (
        Setting(
            "stage_key",
            str,
            "",
            "secret that both installations share: files are signed with it, others refused; empty = hashes alone",
            _key,
            secret=True,
        ),
    ),
    lambda values: str(values["stage_key"]),
)


class StagedHead(BaseModel):
    """The first line of a file."""

    format: int
    kind: str
    sha256: str
    hmac: str = ""


class StagedGate(BaseModel):
    """A gate of another installation."""

    name: str = Field(max_length=200)
    value: float | None
    threshold: float | None
    passed: bool
    margin: float | None


class StagedCandidate(BaseModel):
    """What `export` writes. model: base64 of its file; report: HTML."""

    model_id: str = Field(pattern="^[0-9a-f]{16}$")
    model: str
    lineage: dict[str, Any]
    report: str = ""
    site: str = Field(max_length=255)
    release: str = Field(max_length=80)
    made_at: float


class StagedVerdict(BaseModel):
    """What another installation says of a candidate: numbers, and no names of its clients or domains.

    candidate_sha256: of the exported contents that it is about.
    """

    model_id: str = Field(pattern="^[0-9a-f]{16}$")
    candidate_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    passed: bool
    gates: list[StagedGate] = Field(max_length=GATES_MAX)
    alerts: dict[str, float]
    site: str = Field(max_length=255)
    release: str = Field(max_length=80)
    made_at: float
    by: str = Field(default="", max_length=300)


LINEAGE_MAX = 1 << 20
"""Bytes of a staged lineage, as JSON, at most."""
LINEAGE_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "parent": str,
    "run_id": str,
    "trained_at": (int, float),
    "data": dict,
    "sample": dict,
    "code": dict,
    "seed": int,
    "settings": dict,
    "algorithm": str,
    "arrays_sha256": str,
}
"""What is taken over of another site's lineage. Its `reference` is not: drift is measured against this network."""


def _checked(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a staged lineage that has the right types. Raises UsageError for one that is too large."""
    found = {name: lineage[name] for name, kind in LINEAGE_KINDS.items() if isinstance(lineage.get(name), kind)}
    if len(json.dumps(found)) > LINEAGE_MAX:
        raise UsageError("cannot import a candidate: its lineage is too large")
    return found


@dataclass(frozen=True)
class Staging:
    """Exports candidates, and takes what another installation exported.

    judge: (candidate, champion) to gates and alert diff, with this installation's settings and stored traffic. key:
    STAGE_KEY; site: what this installation is called. reports_dir: of training reports.
    """

    registry: ModelRegistry[Model]
    judge: Callable[[Model, Model], tuple[Sequence[Gate], AlertDiff]]
    key: str
    site: str
    reports_dir: Path
    clock: Callable[[], float] = time.time

    def export(self, path: Path, name: str, author: Author) -> Transition:
        """Write a version, the one that waits as a rule, with lineage and report.

        Raises UsageError, ModelError, OSError.
        """
        model = self.registry.find(name)
        self.registry.save_candidate(model)
        known = self.registry.lineage(model.model_id)
        report = self.reports_dir / f"training_report_{known.get('run_id', '')}.html"
        staged = StagedCandidate(
            model_id=model.model_id,
            model=base64.b64encode(model.to_bytes()).decode(),
            lineage={key: value for key, value in known.items() if key not in ("exports", "verdicts")},
            report=report.read_text("utf-8", "replace") if report.is_file() else "",
            site=self.site,
            release=str(code_version()["release"]),
            made_at=self.clock(),
        )
        digest = self._write(path, "candidate", staged)
        exports = [*known.get("exports", []), {"sha256": digest, "at": staged.made_at, "by": author.by}]
        self.registry.note(model.model_id, {"exports": exports})
        return self.registry.record("export", model.model_id, author, f"as {path.name}")

    def take(self, path: Path, verdict_path: Path, author: Author) -> Transition:
        """Validate a candidate of another installation here, and write the verdict; or note a verdict that came back.

        A candidate that passes waits for a person; one that does not is rejected. Raises UsageError, ModelError,
        BusyError, StoreError, OSError.
        """
        head, body = self._read(path)
        if head.kind == "candidate":
            return self._take_candidate(_read_as(StagedCandidate, body, path), head.sha256, verdict_path, author)
        if head.kind == "verdict":
            return self._take_verdict(_read_as(StagedVerdict, body, path), path, author)
        raise UsageError(f"cannot import {path}: it is neither a candidate nor a verdict")

    def _take_candidate(self, staged: StagedCandidate, digest: str, verdict_path: Path, author: Author) -> Transition:
        registry = self.registry
        try:
            model = Model.from_bytes(base64.b64decode(staged.model, validate=True))
        except binascii.Error:
            raise ModelError("cannot use the staged model: it is not base64") from None
        if model.model_id != staged.model_id:
            raise ModelError(f"cannot use the staged model: its content is {model.model_id}, not {staged.model_id}")
        with registry.lock("import a candidate"):
            champion = registry.current()
            if model.model_id == champion.model_id:
                raise UsageError(f"cannot import model {model.model_id}: it is the one in use")
            gates, alerts = self.judge(model, champion)
            passed = bool(gates) and all(gate.passed for gate in gates)
            path = registry.save_candidate(model)
            origin = {"site": staged.site, "release": staged.release, "at": staged.made_at, "sha256": digest}
            registry.note(
                model.model_id, {**_checked(staged.lineage), "origin": origin, "gates": _rows(gates), "passed": passed}
            )
            if staged.report:
                write_atomic(path.with_suffix(ORIGIN_REPORT), staged.report.encode())
            self._write(verdict_path, "verdict", self._verdict(model.model_id, digest, gates, alerts, author))
            missed = ", ".join(f"{gate.name} (by {abs(gate.margin):.4g})" for gate in gates if not gate.passed)
            note = f"from {printable(staged.site)}; {f'missed {missed}' if missed else 'every gate was passed'}"
            made = registry.record("import", model.model_id, author, note)
            registry.mark(model.model_id, "waiting" if passed else "rejected", Author("staging", note))
        return made

    def _verdict(
        self, model_id: str, digest: str, gates: Sequence[Gate], alerts: AlertDiff, author: Author
    ) -> StagedVerdict:
        counted = ("queries", "days", "old_a_week", "new_a_week", "added", "lost", "changed", "tunnels_lost")
        return StagedVerdict(
            model_id=model_id,
            candidate_sha256=digest,
            passed=bool(gates) and all(gate.passed for gate in gates),
            gates=[StagedGate(**{name: row[name] for name in StagedGate.model_fields}) for row in _rows(gates)],
            alerts={name: float(getattr(alerts, name)) for name in counted},
            site=self.site,
            release=str(code_version()["release"]),
            made_at=self.clock(),
            by=author.by[:300],
        )

    def _take_verdict(self, verdict: StagedVerdict, path: Path, author: Author) -> Transition:
        registry = self.registry
        registry.get(verdict.model_id)
        known = registry.lineage(verdict.model_id)
        if verdict.candidate_sha256 not in {one.get("sha256") for one in known.get("exports", [])}:
            raise UsageError(f"cannot import {path}: it is about another file than those exported here")
        verdicts = [one for one in known.get("verdicts", []) if one.get("site") != verdict.site]
        registry.note(verdict.model_id, {"verdicts": [*verdicts, verdict.model_dump()]})
        missed = ", ".join(printable(gate.name, 60) for gate in verdict.gates if not gate.passed)
        said = "it passed every gate" if verdict.passed else f"it missed {missed or 'a gate'}"
        return registry.record("verdict", verdict.model_id, author, f"{printable(verdict.site)} says: {said}")

    def _write(self, path: Path, kind: str, staged: BaseModel) -> str:
        """Write a file; returns the sha256 of its contents."""
        body = staged.model_dump_json().encode()
        digest = hashlib.sha256(body).hexdigest()
        head = StagedHead(format=STAGE_FORMAT, kind=kind, sha256=digest, hmac=self._mac(kind, body))
        write_atomic(path, head.model_dump_json().encode() + b"\n" + body + b"\n", PRIVATE_MODE)
        return digest

    def _mac(self, kind: str, body: bytes) -> str:
        if not self.key:
            return ""
        return hmac.new(self.key.encode(), f"dns-tunnel stage {kind}\n".encode() + body, hashlib.sha256).hexdigest()

    def _read(self, path: Path) -> tuple[StagedHead, bytes]:
        """StagedHead and contents of a file that nobody has changed. Raises UsageError, ModelError."""
        try:
            if path.stat().st_size > STAGE_BYTES_MAX:
                raise ModelError(f"cannot import {path}: it has more than {STAGE_BYTES_MAX >> 20} MB")
            first, _, rest = path.read_bytes().partition(b"\n")
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        body = rest.removesuffix(b"\n")
        head = _read_as(StagedHead, first, path)
        if head.format != STAGE_FORMAT:
            raise ModelError(f"cannot import {path}: it has another format, of a later release perhaps")
        if hashlib.sha256(body).hexdigest() != head.sha256:
            raise ModelError(f"cannot import {path}: it was changed or damaged, its hash is another")
        if self.key and not hmac.compare_digest(self._mac(head.kind, body), head.hmac):
            raise ModelError(f"cannot import {path}: it is not signed with this STAGE_KEY")
        if head.hmac and not self.key:
            raise ModelError(f"cannot import {path}: it is signed with a key, and STAGE_KEY is not set here")
        return head, body


def _rows(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [plain(gate) for gate in gates]
    return [row | {"passed": gate.passed, "margin": plain(gate.margin)} for row, gate in zip(rows, gates, strict=True)]


def _read_as(kind: Any, text: bytes, path: Path) -> Any:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "contents"
        raise ModelError(
            f"cannot import {path}: it is no staged file ({printable(where, 60)}: {first['msg']})"
        ) from None
