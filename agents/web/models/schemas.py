"""The shapes of answers about versions of models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from agents.web.schemas import AUTHOR

_ID = "3f9a2c1177d0e4b5"


class TransitionEntry(BaseModel):
    number: int = Field(examples=[12])
    at: float = Field(examples=[1767492011.0], description="Unix seconds")
    action: str = Field(examples=["approve"])
    model_id: str = Field(examples=[_ID])
    replaced: str = Field(examples=["77aa2c1177d0e4b5"], description="model in use before; empty = none was replaced")
    by: str = Field(examples=["ann"])
    by_person: bool = Field(description="a person decided it, else the program")
    reason: str = Field(examples=["gates look well"])
    note: str = Field(examples=[""])
    text: str = Field(examples=[f"deployed {_ID}"])


class TransitionList(BaseModel):
    transitions: list[TransitionEntry]


class PeriodEntry(BaseModel):
    model_id: str = Field(examples=[_ID])
    since: float | None = Field(examples=[1767492011.0], description="Unix seconds; null = before this registry began")
    until: float | None = Field(examples=[None], description="null = it still is")
    how: str = Field(examples=["approve"])
    by: str = Field(examples=["ann"])
    reason: str = Field(examples=["gates look well"])


class ProductionHistory(BaseModel):
    history: list[PeriodEntry]


class VersionAnswer(BaseModel):
    model_id: str = Field(examples=[_ID])
    state: str = Field(examples=["champion"])
    aliases: list[str] = Field(examples=[["champion", "anchor"]])
    path: str = Field(examples=["models/isolation_forest.npz"], description="empty: the shipped model, never deployed")
    created: float | None = Field(examples=[1767492011.0])
    report: str | None = Field(
        examples=["training_report_20260104_020011.html"], description="to view at /reports/{name}"
    )
    manifest: dict[str, Any]
    lineage: dict[str, Any] = Field(
        examples=[{"parent": "77aa2c1177d0e4b5", "run_id": "20260104_020011", "gates": []}],
        description="parent, data window and hash, code version, seed, settings, gates, drift, approvals, canary, "
        "verdicts",
    )
    budget: str = Field(
        "",
        description="what can leave unseen with its limits, and how many investigations a week they cost",
    )
    approvals: list[dict[str, Any]] = Field(examples=[[{"by": "ann", "reason": "", "at": 1767492011.0}]])
    transitions: list[dict[str, Any]]


class JobPause(BaseModel):
    at: float = Field(examples=[1767492011.0])
    by: str = Field(examples=["ann"])
    reason: str = Field(examples=["a move of the data centre"])


class JobEntry(BaseModel):
    name: str = Field(examples=["retrain"])
    schedule: str = Field(examples=["0 2 * * 0 UTC"], description="cron expression and time zone")
    last_run: float | None = Field(examples=[1767492011.0], description="Unix seconds")
    next_run: float = Field(examples=[1768096800.0], description="Unix seconds; passed over while it is paused")
    paused: JobPause | None = Field(description="null = it runs")


class JobList(BaseModel):
    jobs: list[JobEntry]


class JobDecision(BaseModel):
    job: str = Field(examples=["retrain"], max_length=40)
    reason: str = Field(examples=["a move of the data centre"], max_length=500)
    author: str = Field("", examples=["ann"], max_length=80)


class DifferenceAnswer(BaseModel):
    old: dict[str, Any]
    new: dict[str, Any]
    settings: list[dict[str, str]]
    lineage: list[dict[str, str]]
    gates: list[dict[str, str]]
    limits: dict[str, dict[str, float]]
    profile: list[dict[str, str]] = Field(
        examples=[
            [
                {
                    "what": "looser",
                    "domain": "vendor.example",
                    "text": "would now allow 3 kB a day to vendor.example: 41 clients, since March 2026, as reputation",
                }
            ]
        ],
        description="what the network profiles say otherwise: looser, tighter, fleet, known, forgotten, elsewhere, "
        "proposal, kind",
    )
    scores: dict[str, Any] = Field(
        examples=[{"names": 9000, "changed": 12, "groups": [], "changes": []}],
        description="what both say of the shipped names, and which of them change severity",
    )


class LearntSummary(BaseModel):
    kind: Literal["flow", "sequences", "images"]
    model_id: str = Field(examples=[_ID])
    state: Literal["champion", "canary", "waiting", "earlier", "unreadable"]
    aliases: list[str] = Field(
        examples=[["champion"]],
        description="champion = in use, candidate = waits for a person, previous = the one before, "
        "anchor = the first one that passed its gates",
    )
    path: str = Field(examples=["models/flow/current.npz"])
    created: float | None = Field(examples=[1767492011.0], description="Unix seconds")
    parent: str = Field(examples=["77aa2c1177d0e4b5"])
    data: str = Field(examples=["labels of 2026-01-03 … to 2026-01-04 …: 120 a person"])
    data_sha256: str = Field(examples=["ab" * 32], description="of what was learnt; empty: golden flow-hours alone")
    decided_by: str = Field(examples=["the program"])
    reason: str = Field(examples=["passed 5 gates"])
    measures: dict[str, float] = Field(examples=[{"loss": 0.07}])
    gates: list[dict[str, Any]]
    listed: dict[str, Any] = Field(
        examples=[{"rows": 5210, "of": "flow-hours", "days": 7.0, "old_a_week": 2.0, "new_a_week": 3.0}],
        description="what it and the model before it would have listed of the last week; empty: not compared",
    )
    settings: dict[str, Any]
    report: str | None = Field(
        examples=["training_report_20260104_020011_flow.html"],
        description="of the cycle that learnt it, to view at /reports/{name}; null: none was written",
    )


class LearntVersionList(BaseModel):
    versions: list[LearntSummary]


class LearntVersion(LearntSummary):
    manifest: dict[str, Any]
    transitions: list[dict[str, Any]]
    approvals: list[dict[str, Any]] = Field(examples=[[{"by": "ann", "reason": "", "at": 1767492011.0}]])
    drift: list[dict[str, Any]] = Field(
        examples=[[{"name": "queries", "psi": 0.04, "jensen_shannon": 0.08, "wasserstein": 0.1, "psi_anchor": 0.06}]],
        description="how far flow-hours have moved since this flow model was learnt, number by number: the last week "
        "beside the week before; empty of other kinds, and where a week has too few",
    )
    pinned: str = Field(examples=[""], description="who pinned the model of this kind that is in use; empty: nobody")
    canary: dict[str, Any] | None = Field(
        examples=[{"model_id": _ID, "begun_at": 1767492011.0, "seen": {"queries": 1200}}],
        description="its trial beside the one in use; null: it is on none",
    )


class LearntDifference(BaseModel):
    kind: Literal["flow", "sequences", "images"]
    old: LearntSummary
    new: LearntSummary
    settings: list[dict[str, str]]
    lineage: list[dict[str, str]]
    measures: list[dict[str, str]]
    gates: list[dict[str, str]]
    weights: list[dict[str, str]]
    golden: dict[str, Any] = Field(
        description="what both flow or image models say of golden flow-hours; empty of sequence models"
    )
    listed: dict[str, Any] = Field(
        examples=[{"rows": 5210, "of": "flow-hours", "added": 1, "lost": 0, "changed": 0, "changes": []}],
        description="what both would have listed of this network's own last week, per domain with sample names",
    )


class CanaryAnswer(BaseModel):
    canary: dict[str, Any] | None = Field(
        examples=[{"model_id": _ID, "begun_at": 1767492011.0, "ends_at": 1767664811.0, "seen": {"queries": 1200}}],
        description="the canary that runs, its terms and what was seen, on a bus `hosts` where it judges, since when;"
        " null = none runs",
    )


class ModelDecision(BaseModel):
    author: str = Field("", examples=["ann"], max_length=80, description=AUTHOR)
    reason: str = Field(examples=["gates look well"], min_length=1, max_length=300)


class VersionDecision(ModelDecision):
    model_id: str = Field(examples=[_ID], pattern="^[0-9a-f]{16}$")


class StageImport(ModelDecision):
    name: str = Field(examples=[f"{_ID}.stage"], max_length=130, description="a file in DATA_DIR/staging")


class StagedFile(BaseModel):
    name: str = Field(examples=[f"{_ID}.stage"])
    kind: Literal["candidate", "verdict"]
    bytes: int = Field(examples=[1_843_200])
    at: float = Field(examples=[1767492011.0], description="when it was written, Unix seconds")


class StagedFiles(BaseModel):
    files: list[StagedFile]


class DecisionAnswer(BaseModel):
    made: TransitionEntry
    problems: list[str] = Field(examples=[[]], description="what did not follow: a channel, the database")
