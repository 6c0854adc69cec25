"""The shapes of the console's answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from agents.store.console.triage import AT_ONCE_MAX
from agents.web.schemas import IncidentBrief, LabelName, ReviewStateName, SeverityName, StoredQuery

IDS = ["9c1f0a7be2d34455"]


class TriageSaid(BaseModel):
    state: ReviewStateName | None = Field(None, description="without it: as it is, or closed by a label")
    label: LabelName | None = Field(None, description="told to the learning loop, too, for the domain")
    unlabel: bool = Field(False, description="take a label away")
    assignee: str | None = Field(None, max_length=80, description="empty = nobody")
    comment: str = Field("", max_length=4_000)
    reason: str = Field("", max_length=500)
    author: str = Field(
        "", examples=["ann"], max_length=80, description="of programs; people are known by their session"
    )


class TriageChange(TriageSaid):
    incidents: list[str] = Field(examples=[IDS], min_length=1, max_length=AT_ONCE_MAX)


class TriageOfFound(TriageSaid):
    detected_until: float | None = Field(
        None, examples=[1767225901.5], description="leave out what was detected after you looked, Unix seconds"
    )


class TriageUndo(BaseModel):
    action_id: str = Field(examples=["5e1b04c2aa90d1f7"], max_length=40)
    author: str = Field("", examples=["ann"], max_length=80)


class TriageDone(BaseModel):
    action_id: str = Field(examples=["5e1b04c2aa90d1f7"], description="for /incidents/undo")
    incidents: list[str] = Field(examples=[IDS])


class TriageEntry(BaseModel):
    action_id: str
    at: float = Field(examples=[1767225700.0])
    author: str = Field(examples=["ann"])
    before: dict[str, Any]
    after: dict[str, Any]
    comment: str
    undone_at: float | None
    undone_by: str


class TriageHistory(BaseModel):
    history: list[TriageEntry]


class SavedViewEntry(BaseModel):
    name: str = Field(examples=["open and loud"])
    address: str = Field(examples=["/console/incidents?severity=CRITICAL&state=new"])
    author: str = Field(examples=["ann"])
    saved_at: float = Field(examples=[1767225700.0])


class SavedViewList(BaseModel):
    views: list[SavedViewEntry]


class SavedViewKeep(BaseModel):
    name: str = Field(examples=["open and loud"], max_length=60)
    address: str = Field(examples=["/console/incidents?severity=CRITICAL&state=new"], max_length=2_000)
    author: str = Field("", examples=["ann"], max_length=80)


class SavedViewRemove(BaseModel):
    name: str = Field(examples=["open and loud"], max_length=60)
    author: str = Field("", examples=["ann"], max_length=80)


class HuntAnswer(BaseModel):
    queries: list[StoredQuery]
    cursor: str | None = Field(description="give it back as `cursor` to look further back; null = the end")
    looked_back_to: float | None = Field(
        description="when the search stopped for time, Unix seconds; null = it did not"
    )
    understood: list[str] = Field(examples=[["domain evil.example"]], description="what `q` and the times ask for")
    not_understood: list[str] = Field(
        examples=[["10.0.0.300 (no address; taken as a name)"]],
        description="words of `q` that are probably not what somebody meant",
    )


class OthersEntry(BaseModel):
    other: str = Field(description="a domain of a client, or a client of a domain", examples=["evil.example"])
    queries: int = Field(examples=[412])
    severity: SeverityName


class Summary(BaseModel):
    queries: int
    others_count: int = Field(description="domains of a client, or clients of a domain")
    names_count: int
    failed: int = Field(description="answered NXDOMAIN")
    first_seen: float | None
    last_seen: float | None
    hours: list[tuple[int, int, int]] = Field(description="hour (Unix seconds), queries, loudest severity 0..3")
    others: list[OthersEntry] = Field(description="the loudest first")
    others_cursor: str | None = Field(None, description="give it back as `cursor` for further others; null = the end")
    types: list[tuple[int, int]] = Field(description="query type, queries: the 20 most frequent")
    severities: dict[str, int]
    names: list[str] = Field([], description="of a domain: names asked for lately")
    new_domains: list[str] = Field([], description="of a client: domains that nobody had asked for before")
    first_ever: float | None = Field(None, description="of a domain: the oldest stored query below it, Unix seconds")


class IncidentContext(BaseModel):
    """What cannot be read, or what an incident of many clients or without a domain has none of, is null."""

    near: Summary | None = Field(description="what else the client did; `others` leaves the incident's domain out")
    near_span: tuple[float, float] = Field(description="an hour before and after it was detected, Unix seconds")
    others: Summary | None = Field(
        description="what was asked below the domain; `others` are further clients, without the incident's"
    )
    others_span: tuple[float, float] = Field(description="seven days until it was last seen, Unix seconds")
    first_seen: float | None = Field(description="the oldest stored query below the domain, Unix seconds")
    earlier: list[IncidentBrief] | None = Field(description="other incidents of the client or domain, last seen first")


class ClientEntry(BaseModel):
    client: str = Field(examples=["192.0.2.7"])
    queries: int
    domains: int
    severity: SeverityName = Field(description="the loudest")
    last_seen: float


FURTHER = Field(description="give it back as `cursor` for the next page, of the same span; null = the end")


class ClientList(BaseModel):
    clients: list[ClientEntry]
    cursor: str | None = FURTHER


class FlowHourList(BaseModel):
    flow_hours: list[dict[str, Any]] = Field(
        examples=[[{"at": 1767225600, "client": "192.0.2.7", "domain": "evil.example", "information_bytes": 912.0}]],
        description="at, client, domain, sample_names, nearest (times a limit), and each number of the flow-hour",
    )
    cursor: str | None = FURTHER


class QuestionAnswer(BaseModel):
    question: str
    rows: list[dict[str, Any]]
    cursor: str | None = FURTHER


class AuditItem(BaseModel):
    audit_id: int
    at: float
    author: str = Field(examples=["ann"])
    way: str = Field(examples=["console"])
    action: str = Field(examples=["incident changed"])
    object: str
    detail: str


class AuditList(BaseModel):
    entries: list[AuditItem]


class ServiceEntry(BaseModel):
    suffix: str = Field(examples=["telemetry.vendor.example"])
    factor: float | None = Field(description="how many times more bytes; null = a zone of this network's own")
    reason: str
    author: str = Field(examples=["ann"])
    added: str = Field(examples=["2026-01-04"])
    expires: str = Field(examples=["2026-04-04"], description="last day, UTC")
    holds: bool = Field(description="whether it is not over")
    client: str = Field(examples=["10.0.0.25"], description="address or network that it is for alone; empty: all")


class ServiceList(BaseModel):
    services: list[ServiceEntry]


class ServiceKeep(BaseModel):
    suffix: str = Field(examples=["telemetry.vendor.example"], max_length=1024)
    factor: float = Field(10, gt=0, allow_inf_nan=False, description="how many times more bytes its names may carry")
    own: bool = Field(False, description="it is a zone of this network's own")
    reason: str = Field(examples=["the vendor's telemetry"], max_length=500)
    author: str = Field("", examples=["ann"], max_length=80)
    expires: str | None = Field(None, examples=["2026-04-04"], max_length=10, description="default: in 90 days")
    client: str = Field(
        "",
        examples=["10.0.0.25"],
        max_length=64,
        description="address or network that it is for alone; the suffix may be . then",
    )
    weeks: Literal[1, 2, 4] = Field(1, description="of which incidents are looked at, and closed when it is kept")


class ServiceRemove(BaseModel):
    suffix: str = Field(examples=["telemetry.vendor.example"], max_length=1024)
    client: str = Field("", examples=["10.0.0.25"], max_length=64, description="that of this address or network")
    author: str = Field("", examples=["ann"], max_length=80)


class ServicePreview(BaseModel):
    silenced: list[str] = Field(description="ids of incidents that are, or would be, silent", examples=[IDS])
    stay: dict[str, int] = Field(description="ids of those that stay, with the factor that would do")
    looked_at: int = Field(description="live incidents of these weeks")
    weeks: int = Field(1, examples=[4])
    oldest: float | None = Field(
        None, description="when the oldest of them was last seen, Unix seconds: how much history there is"
    )
    is_cut: bool = Field(False, description="whether older ones of these weeks were too many to be looked at")
    undo: str = Field("", description="of an entry that was kept: give it to /services/undo to take that back")


class ServiceUndo(BaseModel):
    undo: str = Field(examples=['{"entry": {…}, "before": null, "at": 1767492011.0}'], max_length=8192)
    author: str = Field("", examples=["ann"], max_length=80)


class ServiceUndone(BaseModel):
    suffix: str = Field(examples=["telemetry.vendor.example"])
    reopened: list[str] = Field(examples=[IDS], description="ids of incidents that are as before")


class ComponentEntry(BaseModel):
    name: str = Field(examples=["queue"])
    ok: bool
    sentence: str = Field(
        examples=["3 files of verdicts on disk for the database."], description="what is bad; empty: it is well"
    )
    advice: str = Field(examples=["See Database."], description="what to do about it")
    facts: dict[str, Any] = Field(examples=[{"waiting": 3}])


class SettingItem(BaseModel):
    name: str = Field(examples=["FORWARD"])
    value: str = Field(examples=["normalised"], description="secrets are hidden")
    origin: str = Field(examples=["default"], description="where it came from")


class SettingList(BaseModel):
    settings: list[SettingItem]


class RateItem(BaseModel):
    seconds: float = Field(examples=[30.0], description="for which it is known")
    latency_ms: float | None = Field(examples=[4.2], description="to an answer, on average; null: of none")
    counts: dict[str, float] = Field(
        examples=[{"queries": 90.0, "high": 1.0, "answered": 90.0, "shed": 0.0}],
        description="queries judged, of them suspicious, high and critical; answered, failed, shed, spooled",
    )


class RateList(BaseModel):
    as_of: float = Field(examples=[1767225600.0], description="Unix seconds")
    slot_s: int = Field(examples=[30], description="seconds of a slot; the last one is that of now")
    now: RateItem | None = Field(description="of the last seconds; null: no detector says how it is")
    slots: list[RateItem | None] = Field(description="the last hour, oldest first; null: it is not known")


class ComponentList(BaseModel):
    components: list[ComponentEntry] = Field(description="the bad ones first")


class WeekDomain(BaseModel):
    domain: str = Field(examples=["evil.example"])
    severity: str = Field(examples=["CRITICAL"], description="of the loudest")
    incidents: int = Field(examples=[2])
    clients: int = Field(examples=[1])
    leaked_bytes: float = Field(examples=[1234.0])
    tools: list[str] = Field(examples=[["dnscat2"]])
    may_be: list[str] = Field(examples=[[]], description="kinds of benign service that may explain them")
    labels: list[str] = Field(examples=[["tunnel"]])
    incident_id: str = Field(examples=["9c1f0a7be2d34455"], description="the one last seen")


class WeekAnswer(BaseModel):
    since: float = Field(examples=[1767225600.0], description="Unix seconds")
    until: float = Field(examples=[1767830400.0])
    told: list[WeekDomain] = Field(description="that somebody was paged for, by domain: the 50 through which most left")
    listed: list[WeekDomain] = Field(description="that nobody was paged for")
    severities: dict[str, int] = Field(examples=[{"CRITICAL": 1}])
    labels: dict[str, int] = Field(examples=[{"tunnel": 1}])
    paged: int = Field(examples=[3], description="incidents that somebody was paged for")
    unpaged: int = Field(examples=[5], description="incidents that were listed alone")
    unanswered: int = Field(description="incidents that somebody was paged for and nobody has looked at")
    silenced: list[dict[str, Any]] = Field(description="known services that were kept")
    runs: list[dict[str, Any]] = Field(description="retrainings, as /reports lists them")
    heard: dict[str, int] = Field(examples=[{"listener": 120000}], description="queries by intake, of the present week")
    left_out: int = Field(description="queries that were not judged or not stored under load, or lost")
    drills: int = Field(description="test tunnels")
    missed: int = Field(description="test tunnels that were not seen")
