"""The shapes of answers, for the OpenAPI document and for readers of the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from agents.core.types import Incident
from agents.web.console.words import claim, decoded

SeverityName = Literal["NORMAL", "SUSPICIOUS", "HIGH", "CRITICAL"]


class Problem(BaseModel):
    error: str = Field(examples=["cannot read queries: connection refused"])


class Health(BaseModel):
    status: Literal["ok", "degraded"] = Field(description="degraded: it serves, but a component is not ok")
    components: dict[str, dict[str, Any]] = Field(
        examples=[{"database": {"ok": True}, "queue": {"ok": True, "waiting": 0, "dropped": 0}}]
    )


class HostOnBus(BaseModel):
    name: str = Field(examples=["detector-1"])
    model_id: str = Field(description="the model that it runs", examples=["0123456789abcdef"])
    since: float = Field(description="since when, Unix seconds")
    at: float = Field(description="when it said so last")
    slots: int = Field(description="parts of the clients that it judges", examples=[32])
    lag: int = Field(description="messages of these that no saved state has", examples=[60])
    candidate: str = Field("", description="the model of a canary that judges there beside it; empty = none does")
    candidate_since: float = Field(0.0, description="since when, Unix seconds")
    behind: bool = Field(description="it runs another model than the one in force")
    silent: bool = Field(description="it has said nothing for a while")


class HostsOnBus(BaseModel):
    model_id: str = Field(description='the model in force on the bus; "" = none, or there is no bus')
    hosts: list[HostOnBus]


class StoredQuery(BaseModel):
    ts: float = Field(examples=[1767225600.25])
    client: str = Field(examples=["192.0.2.7"])
    qname: str = Field(examples=["mzxw6ytboi.t.evil.example"])
    qtype: int = Field(examples=[16])
    domain: str = Field(examples=["evil.example"])
    score: float = Field(examples=[0.83], description="0..1, high = anomalous")
    severity: SeverityName = Field(examples=["HIGH"])
    reasons: list[str] = Field(examples=[["41 unique names below evil.example in 60 s"]])
    rcode: int | None = Field(examples=[0])
    ancount: int | None = Field(examples=[1])
    qlen: int | None = Field(examples=[54], description="bytes of the query message")
    rlen: int | None = Field(examples=[190], description="bytes of the answer message")
    ttl_min: int | None = Field(examples=[0], description="lowest TTL of the answer, seconds")
    rtt_ms: float | None = Field(examples=[12.5])
    ans_types: str = Field(examples=["TXT"])
    cached: Literal["no", "yes", "stale"] | None = Field(
        examples=["no"],
        description="whether the listener's cache answered; stale = with what had expired; null = unknown",
    )
    model_id: str = Field(examples=["3f9a2c1177d0e4b5"])
    source: str | None = Field(examples=[None], description="mark of the stored replay; null = seen live")
    imported_at: float | None = Field(examples=[None], description="when that replay was begun, Unix seconds")


class QueryList(BaseModel):
    queries: list[StoredQuery]
    cursor: str | None = Field(
        examples=["1767225600.25_812"],
        description="give it back as `cursor` for the next page; null = the end",
    )


class TriageItem(BaseModel):
    """What people said of an incident last."""

    state: Literal["new", "in work", "closed"]
    label: Literal["tunnel", "benign", "ignore"] | None
    assignee: str = Field(examples=["ann"])
    reason: str = Field(examples=["a scanner of ours"])
    changed_at: float | None = Field(examples=[1767225700.0])
    changed_by: str = Field(examples=["ann"])


class IncidentItem(BaseModel):
    incident_id: str = Field(examples=["9c1f0a7be2d34455"])
    client: str = Field(examples=["192.0.2.7"])
    domain: str = Field(examples=["evil.example"])
    severity: SeverityName = Field(examples=["CRITICAL"])
    score: float = Field(examples=[0.97], description="0..1, how sure we are that data leaves")
    reasons: Sequence[str] = Field(examples=[["912 bytes of information in 60 s"]])
    tool: str | None = Field(examples=["iodine"])
    first_seen: float = Field(examples=[1767225590.0])
    last_seen: float = Field(examples=[1767225900.0])
    detected_at: float = Field(examples=[1767225600.25])
    closed_at: float | None = Field(examples=[None])
    queries: int = Field(examples=[412])
    unique_names: int = Field(examples=[410])
    leaked_bytes: float = Field(examples=[31250.0])
    queries_before_detection: int = Field(examples=[23])
    bytes_before_detection: float = Field(examples=[812.0])
    sample_names: Sequence[str] = Field(examples=[["mzxw6ytboi.t.evil.example"]])
    evidence: dict[str, Any] = Field(
        examples=[{"attack": ["T1071.004"], "preview": "user=ann", "qtypes": {"TXT": 412}, "bytes_in": 900}],
        description="techniques, what names decode to, types, rate, bytes in, timeline, incidents before; or nothing",
    )
    source: str | None = Field(examples=[None], description="mark of the stored replay; null = seen live")
    imported_at: float | None = Field(examples=[None], description="when that replay was begun, Unix seconds")
    triage: TriageItem
    claim: str = Field(
        examples=["192.0.2.7 sent at least 31.2 kB to evil.example through TXT names of iodine within 5 minutes."],
        description="what is claimed, in one sentence",
    )


class DecodedName(BaseModel):
    name: str = Field(examples=["6e616d653d616e6e.evil.example"])
    text: str = Field(examples=["hex: name=ann"], description="what its labels decode to; empty: they give no text")


class IncidentDetail(IncidentItem):
    decoded: list[DecodedName] = Field(description="the first sample names beside what they decode to")


class IncidentBrief(BaseModel):
    incident_id: str = Field(examples=["9c1f0a7be2d34455"])
    client: str = Field(examples=["192.0.2.7"])
    domain: str = Field(examples=["evil.example"])
    severity: SeverityName = Field(examples=["CRITICAL"])
    last_seen: float = Field(examples=[1767225900.0])


class IncidentList(BaseModel):
    incidents: list[IncidentItem]
    cursor: str | None = Field(
        examples=["1767225900.0_9c1f0a7be2d34455"],
        description="give it back as `cursor` for the next page; null = the end",
    )
    count: int = Field(description="of all pages", examples=[12])
    facets: dict[str, list[tuple[str, int]]] = Field(
        description="of severity, state, label, assignee, tool, kind, model, day, client and domain: values and how "
        "many incidents have each, under all conditions but those of that facet",
        examples=[{"severity": [("CRITICAL", 7), ("HIGH", 5)]}],
    )
    counted_at: float = Field(
        description="when they were counted, Unix seconds: counts over 20,000 incidents are used again for 10 s",
        examples=[1767225901.5],
    )
    understood: list[str] = Field(examples=[["network 10.0.0.0/8"]], description="what `q` and the times ask for")
    not_understood: list[str] = Field(
        examples=[["severity:hihg (there is no such severity: nothing can be found)"]],
        description="words of `q` that are probably not what somebody meant",
    )


class ModelItem(BaseModel):
    model_id: str = Field(examples=["3f9a2c1177d0e4b5"])
    path: str = Field(examples=["models/isolation_forest.npz"])
    kind: str = Field(examples=["current"])
    state: str = Field(examples=["champion"], description="champion, waiting, rejected, replaced, candidate, backup …")
    created: float = Field(examples=[1767492011.0], description="Unix seconds; of a backup, when it was taken")
    aliases: list[str] = Field([], examples=[["champion", "anchor"]])
    manifest: dict[str, Any]


class ModelsAnswer(BaseModel):
    models: list[ModelItem]


class ReportItem(BaseModel):
    name: str = Field(examples=["training_report_20260104_020011.html"])
    kind: Literal["query", "flow", "sequences", "images"] = Field(examples=["query"], description="of which model")
    state: str | None = Field(examples=["DEPLOYED"], description="how the run ended; null = not known")
    created: float = Field(examples=[1767492011.0])
    bytes: int = Field(examples=[48213])


class ReportList(BaseModel):
    reports: list[ReportItem]


AUTHOR = "who decides: needed with the API token, else it is the user whose token it is"
LabelName = Literal["tunnel", "benign", "ignore"]
ReviewStateName = Literal["new", "in work", "closed"]


class ReviewEntry(BaseModel):
    domain: str = Field(examples=["evil.example"])
    state: ReviewStateName = Field(examples=["new"])
    informativeness: float = Field(examples=[0.71], description="0..1, how much would be learnt of a label")
    why: str = Field(examples=["0.83 times a limit, 2 clients"])
    clients: int = Field(examples=[2])
    names: Sequence[str] = Field(examples=[["mzxw6.evil.example"]])
    queued_at: float = Field(examples=[1767225600.25])
    taken_by: str = Field(examples=["ann"])


class ReviewQueue(BaseModel):
    reviews: list[ReviewEntry]
    counts: dict[str, int] = Field(examples=[{"new": 3, "in work": 1, "closed": 12}])


class DecisionEntry(BaseModel):
    decision_id: int = Field(examples=[7])
    at: float = Field(examples=[1767225700.0])
    domain: str = Field(examples=["evil.example"])
    label: LabelName = Field(examples=["tunnel"])
    reason: str = Field(examples=["iodine on a test machine"])
    author: str = Field(examples=["ann"])
    undone_at: float | None = Field(examples=[None])
    undone_by: str = Field(examples=[""])
    undone_why: str = Field(examples=[""])


class DecisionList(BaseModel):
    decisions: list[DecisionEntry]


class ReviewDecide(BaseModel):
    domains: list[str] = Field(examples=[["evil.example"]], min_length=1, max_length=500)
    label: LabelName = Field(examples=["tunnel"])
    reason: str = Field(examples=["iodine on a test machine"], max_length=500)
    author: str = Field("", examples=["ann"], max_length=80, description=AUTHOR)


class ReviewTake(BaseModel):
    domain: str = Field(examples=["evil.example"])
    author: str = Field("", examples=["ann"], max_length=80, description=AUTHOR)


class ReviewUndo(ReviewTake):
    reason: str = Field(examples=["it was a test"], max_length=500)


ActionName = Literal["nxdomain", "refused", "sinkhole", "slow"]


class BlockEntry(BaseModel):
    block_id: str = Field(examples=["3f9a2c1177d0"])
    domain: str = Field(examples=["evil.example"])
    client: str = Field(examples=["192.0.2.7"], description="address or network; * = all clients")
    action: ActionName = Field(examples=["nxdomain"])
    reason: str = Field(examples=["found iodine"])
    author: str = Field(examples=["ann"], description="dns-tunnel = no person")
    began_at: float = Field(examples=[1767225700.0])
    until: float = Field(examples=[1767312100.0], description="when it ends by itself, Unix seconds")
    dry: bool = Field(description="counted, and in force nowhere")
    incident_id: str = Field(examples=["9c1f0a7be2d34455"])
    ended_at: float | None = Field(examples=[None])
    ended_by: str = Field(examples=[""])
    hits: int = Field(examples=[120], description="queries that met it")


class BlocksAnswer(BaseModel):
    mode: Literal["off", "dry-run", "on"] = Field(description="setting ENFORCE")
    counts_alone: bool = Field(description="whether a block that no person makes would only be counted")
    paused: str = Field(examples=[""], description="why no block is made without a person; empty = they are made")
    blocks: list[BlockEntry]


class BlockAdd(BaseModel):
    domain: str = Field(examples=["evil.example"], max_length=1024)
    client: str = Field("*", examples=["192.0.2.7"], max_length=64, description="address or network; * = all clients")
    action: ActionName | None = Field(None, description="default: ENFORCE_ACTION")
    reason: str = Field(examples=["found iodine"], max_length=500)
    author: str = Field("", examples=["ann"], max_length=80, description=AUTHOR)
    hours: float | None = Field(None, gt=0, le=8760, allow_inf_nan=False, description="default: ENFORCE_HOURS")
    anyway: bool = Field(False, description="also a known service, and what is popular here")


class BlockAuthor(BaseModel):
    author: str = Field("", examples=["ann"], max_length=80, description=AUTHOR)


class BlockRemove(BlockAuthor):
    which: str = Field(examples=["evil.example"], max_length=1024, description="id or domain")


class StoredWeek(BaseModel):
    begin: float = Field(examples=[1767225600.0], description="Unix seconds")
    flow_hours: int = Field(examples=[4000])


class StoredLabels(BaseModel):
    label: str = Field(examples=["tunnel"])
    origin: str = Field(examples=["tool fingerprint"])
    flow_hours: int = Field(examples=[120])


class FeatureStoreAnswer(BaseModel):
    flow_hours: int = Field(examples=[48_000], description="of this network, with today's numbers")
    flow_hours_max: int = Field(examples=[200_000], description="beyond it the fullest weeks give")
    shipped: int = Field(examples=[154], description="golden flow-hours, which no limit and no time ends")
    bytes: int = Field(examples=[12_500_000], description="of their contents, without what the database adds")
    weeks: list[StoredWeek] = Field(description="that are represented, oldest first")
    labels: list[StoredLabels] = Field(description="of this network's flow-hours; a person's decision wins")


class LearningStatus(BaseModel):
    enabled: bool = Field(description="whether cycles begin by themselves")
    is_training: bool
    last_training_time: float | None = Field(examples=[1767225600.25], description="Unix seconds")
    last_processed_id: int = Field(examples=[1543], description="last labelled flow-hour that a cycle read")
    total_training_cycles: int = Field(examples=[12])
    progress: float | None = Field(examples=[None], description="share of a running cycle; null = none runs")
    labels: dict[str, int] = Field(
        examples=[{"tunnel (golden session)": 58, "benign (a person)": 12}],
        description="labelled flow-hours by label and origin",
    )
    model_versions: int = Field(examples=[12], description="flow models that are kept")


class LearningHistory(BaseModel):
    total_cycles: int
    history: list[dict[str, Any]] = Field(
        examples=[[{"cycle_id": 12, "state": "deployed", "new_labels": 142, "metrics": {"accuracy": 0.98}}]]
    )


class LearningStarted(BaseModel):
    message: str = Field(examples=["Training cycle started"])
    status: Literal["in_progress"]


class LearningBack(BaseModel):
    model: Literal["flow", "sequences", "images"] = "flow"
    reason: str = Field(examples=["it learnt a backup of ours"], min_length=1, max_length=500)


class LearningTakenBack(BaseModel):
    model_id: str = Field(examples=["3f9a2c1177d0a4be"], description="in use now")


class CycleStart(BaseModel):
    minutes: float = Field(10, ge=1, le=60, description="for how long queries are collected")
    length: int = Field(10, ge=5, le=50, description="steps of a window")
    epochs: int = Field(10, ge=5, le=50, description="passes of the training")
    again: bool = Field(False, description="begin anew after each end")


class CycleStatus(BaseModel):
    phase: Literal["idle", "collecting", "training", "deployed", "canary", "waiting", "rejected", "failed", "stopped"]
    minutes: float
    length: int
    epochs: int
    again: bool
    began_at: float | None = Field(description="Unix seconds")
    remaining_s: float
    collected: int = Field(description="queries")
    clients: int
    windows: int
    cycles: int = Field(description="that came to their end since the process began")
    model_id: str
    text: str = Field(description="why a cycle was rejected or failed")


class CycleHistory(BaseModel):
    history: list[dict[str, Any]] = Field(
        examples=[[{"number": 3, "began_at": 1767492011.0, "seconds": 640.2, "decision": "deployed", "loss": 2.9}]],
        description="began_at, seconds, source, collected, clients, trained (windows), loss, decision, reason, by, "
        "model_id, parent, data_sha256, gates",
    )


class CycleAsked(BaseModel):
    message: str = Field(examples=["start: asked for"])


class ChannelTested(BaseModel):
    channel: str = Field(examples=["slack"])
    ok: bool
    error: str = Field(examples=[""], description="why it was not sent")


class ChannelsTested(BaseModel):
    channels: list[ChannelTested]


class RetrainStarted(BaseModel):
    run_id: str = Field(examples=["20260104_020011"])


def incident_item(incident: Incident, triage: TriageItem) -> IncidentItem:
    """An incident in the shape of the JSON API."""
    made = {"triage": triage, "claim": claim(incident)}
    values = {name: getattr(incident, name) for name in IncidentItem.model_fields if name not in made} | made
    values |= {"severity": incident.severity.name, "evidence": dict(incident.evidence)}
    values["source"] = incident.source or None
    return IncidentItem.model_validate(values)


def incident_detail(incident: Incident, triage: TriageItem) -> IncidentDetail:
    """The same with what its names decode to."""
    names = [DecodedName(name=name, text=text) for name, text in decoded(incident)]
    return IncidentDetail(**dict(incident_item(incident, triage)), decoded=names)


def incident_brief(incident: Incident) -> IncidentBrief:
    """What a list of other incidents says of one."""
    values = {name: getattr(incident, name) for name in IncidentBrief.model_fields}
    return IncidentBrief.model_validate(values | {"severity": incident.severity.name})
