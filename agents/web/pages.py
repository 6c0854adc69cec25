"""The console: pages rendered here, escaped by Jinja2, without scripts; a login form if there is no session."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from dns import rcode
from dns.rcode import Rcode
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from agents.alerting.messages import seen_before
from agents.core.errors import AgentsError
from agents.core.text import NETWORK, amount_text, came_in, command, counted, explanation_text, senders_text, who
from agents.core.types import DAY_S, HOUR_S, Incident, Severity
from agents.detection.incidents import attack_names
from agents.dns.message import type_name
from agents.store.console.finding import IncidentSearch
from agents.store.console.triage import Triage
from agents.store.feedback.reviews import ReviewState
from agents.store.people.roles import AccessScope
from agents.web import reports
from agents.web.api import report_answer, tested_channels
from agents.web.auth import Sent, gate_of
from agents.web.console.components import STATES_WAIT_S, component_entries, fact
from agents.web.console.notices import led_to, noticed
from agents.web.endpoints import endpoints
from agents.web.parts import Parts, parts_of

FORM_MAX = 4096
"""Longest form, bytes, unless its page says otherwise."""
FOLLOWING_MAX = 2000
"""Characters of the address to go to after login; logins that are under way hold it in memory."""
SHOWN = 50
"""Incidents, models and reports on the first page, each."""
LOUDEST = 8
"""Clients on the first page, those with most queries in the last hour, and domains, the loudest of it."""
NO_CHANNEL = "No channel is set up: see SLACK_WEBHOOK_URL, TEAMS_WEBHOOK_URL and EMAIL_… in docs/settings.md."
ID = re.compile("[0-9a-f]{16}")
OF_DOMAINS = ("blocked", "label undone", "review taken")
"""Actions of the audit log that are about a domain, besides those of labels and known services."""
_TO_DO = tuple(
    IncidentSearch(severity=(int(level),), state=(ReviewState.NEW, ReviewState.IN_WORK))
    for level in sorted(Severity, reverse=True)
)
"""What the first page lists of incidents: the gravest, and of each severity the newest."""
_FIRST = {"champion": 0, "waiting": 1}
"""States of models that stay on the page even if there are many newer models."""

router = APIRouter(include_in_schema=False)
described_router = APIRouter()


def _utc(ts: float | str | None) -> str:
    if not isinstance(ts, int | float):
        return ts or "–"
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _rcode(code: int | None) -> str:
    return "-" if code is None else rcode.to_text(Rcode.make(code))


_templates = Environment(loader=PackageLoader("agents.web"), autoescape=True, undefined=StrictUndefined)


def _iso(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _link(kind: str, name: str, shown: str, days: str) -> Markup:
    """A link to the page of a client or a domain; text alone for what is none, or what an address cannot hold."""
    if name in ("", NETWORK, ".", ".."):
        return escape(shown)
    place = f"{quote(name, safe='')}?range={quote(days)}" if days else quote(name, safe="")
    return Markup('<a href="/console/{}/{}">{}</a>').format(kind, place, shown)


def when(ts: float | str | None) -> Markup:
    """A time that the reader's browser shows in their zone, UTC without script; "–" for none, other text as it is."""
    if not isinstance(ts, int | float):
        return escape(_utc(ts))
    return Markup('<time datetime="{}">{} UTC</time>').format(_iso(ts), _utc(ts))


def client_link(client: str, days: str = "") -> Markup:
    """A client, with a link to what it did. days: as of range_of; "" = lately."""
    return _link("clients", client, who(client), days)


def domain_link(domain: str, shown: str | None = None, days: str = "") -> Markup:
    """A domain, with a link to what was asked below it. days: as of range_of; "" = lately."""
    return _link("domains", domain, domain if shown is None else shown, days)


def range_of(since: float, until: float, now: float) -> str:
    """A range of pages, of whole days (UTC), that holds a span; "" for one of the last 24 hours, which pages show."""
    first, last = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d") for at in (since, until))
    return "" if since >= now - DAY_S else first if first == last else f"{first}..{last}"


def object_link(action: str, thing: str) -> Markup:
    """What an entry of the audit log is about, with a link to its page; text alone for what has none."""
    if action.startswith(("incident", "stage: export", "model:")) and ID.fullmatch(thing):
        kind = "incidents" if action.startswith("incident") else "models"
        return Markup('<a href="/console/{}/{}">{}</a>').format(kind, thing, thing)
    about_domain = action.startswith(("labelled ", "known service")) or action in OF_DOMAINS
    return domain_link(thing) if about_domain and " " not in thing else escape(thing)


_templates.globals |= {"client_link": client_link, "domain_link": domain_link, "when": when}
_templates.globals["object_link"] = object_link
_templates.globals["fact"] = lambda key, value: fact(key, value, when)
_templates.filters |= {"iso": _iso, "amount": amount_text, "type_name": type_name, "rcode_name": _rcode}
_templates.filters |= {"utc": _utc, "pretty": lambda value: json.dumps(value, indent=2)}
_templates.filters |= {
    "without_unit": lambda key: key.removesuffix("_bytes").removesuffix("_s").replace("_", " "),
    "who": who,
    "senders": senders_text,
    "came_in": came_in,
    "explanation": explanation_text,
    "techniques": attack_names,
    "counted": counted,
    "command": command,
    "seen_before": seen_before,
}


def rendered(name: str, /, **values: Any) -> str:
    """A template with its values, as text."""
    return _templates.get_template(name).render(**values)


def page(request: Request, name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A template with its values; `person` is who looks at it, `key` what its forms hold."""
    person, gate = getattr(request.state, "person", None), gate_of(request)
    values |= {"person": person, "key": gate.form_key(request) if person else ""}
    values |= {"in_fleet": parts_of(request).in_fleet, "here": request.url.path}
    return HTMLResponse(rendered(name, **values), status)


def login_for(request: Request) -> str:
    """Where a browser logs in that wanted this page, with its filters."""
    wanted = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    return "/login?next=" + quote(wanted if len(wanted) <= FOLLOWING_MAX else request.url.path, safe="/")


def in_session(scope: AccessScope = AccessScope.READ) -> Any:
    """What a page depends on: a session, else the browser is led to the login form; and that its user may see it."""

    def needed(request: Request) -> None:
        person = gate_of(request).person_of(request)
        if person is None:
            raise HTTPException(303, "cannot show that without a session", {"Location": login_for(request)})
        request.state.person = person
        if not person.may(scope):
            raise HTTPException(403, f"cannot show that: it needs the scope {scope}")

    return Depends(needed)


InSession = in_session()
"""What every page of the console depends on."""


async def sent_form(request: Request, scope: AccessScope, most: int = FORM_MAX) -> dict[str, list[str]]:
    """Fields of a form that a page of this session sent. Raises HTTPException for any other, and without the scope."""
    gate = gate_of(request)
    person = await asyncio.to_thread(gate.person_of, request)
    form = await form_of(request, most)
    request.state.person = person
    if person is None or not gate.is_form_key(request, form.get("key", [""])[0]):
        request.state.refused_form = form
        raise HTTPException(401, "cannot take a form that is not of a page of this session")
    if not person.may(scope):
        raise HTTPException(403, f"cannot do that: it needs the scope {scope}")
    return form


@router.get("/", dependencies=[InSession])
def index(request: Request) -> Response:
    """What needs a person, what goes on, and what has been found lately."""
    parts = parts_of(request)
    values: dict[str, Any] = {}
    problems: list[str] = []
    now = time.time()
    hangs = parts.database_hangs(DATABASE_WAIT_S)
    stored = {
        "incidents": lambda: _to_do(parts),
        "waiting": parts.console.finder.waiting,
        "reviews": parts.reviews.counts,
        "clients": lambda: parts.console.hunter.clients(now - HOUR_S, now, LOUDEST),
        "domains": lambda: parts.console.hunter.loudest(now - HOUR_S, now, LOUDEST),
    }
    if hangs:  # each of them would take as long as the database may take
        problems.append(f"cannot reach the database: no answer for {parts.database.waited_s:.0f} s")
        values = dict.fromkeys(stored)
    sources: Mapping[str, Any] = {
        **({} if hangs else stored),
        "models": lambda: sorted(parts.models.list(), key=lambda row: _FIRST.get(row["state"], len(_FIRST)))[:SHOWN],
        "reports": lambda: reports.overview(parts.reports_dir, SHOWN),
        "bound": lambda: {one.name: one.value for one in parts.metrics() if one.name.startswith("limit_")},
    }
    for name, read in sources.items():
        try:
            values[name] = read()
        except AgentsError as error:  # the rest of the page is still worth seeing
            values[name] = None  # unknown: not the same as none
            if str(error) not in problems:
                problems.append(str(error))
    states = _states(parts)
    problems += [state["error"] for name in _TOLD if (state := states.get(name, {})).get("error")]
    unwell = sorted(name for name, state in states.items() if name not in _TOLD and not state.get("ok", True))
    strip = request.app.state.strip.html()
    heard = _heard(states.get("intakes", {}))
    return page(request, "index.html", problems=problems, unwell=unwell, now=now, heard=heard, strip=strip, **values)


def _to_do(parts: Parts) -> list[tuple[Incident, Triage]]:
    """Incidents that nobody has closed, the gravest first, each with its triage. Raises StoreError."""
    found: list[Incident] = []
    for search in _TO_DO:
        if len(found) < SHOWN:
            found += parts.console.finder.page(search, limit=SHOWN - len(found), counted=False).incidents
    said = parts.console.triage.of(one.incident_id for one in found)
    return [(one, said[one.incident_id]) for one in found]


@router.get("/console/health", dependencies=[InSession])
def health_page(request: Request) -> Response:
    """Every component with its state, and a sentence where it is bad."""
    return _health(request, noticed(request))


@router.post("/console/health")
async def health_form(request: Request) -> Response:
    """Send a test message over every channel, and lead to the page that says of each what came of it."""
    form = await sent_form(request, AccessScope.OPERATE)
    if form.get("do") != ["test"]:
        raise HTTPException(422, "cannot do that: the form names nothing that this page offers")
    tested = await asyncio.to_thread(tested_channels, request)
    text = "; ".join(f"{one.channel}: {'sent' if one.ok else one.error}" for one in tested) or NO_CHANNEL
    is_well = bool(tested) and all(one.ok for one in tested)
    return led_to(request, "/console/health", done=text if is_well else "", problem="" if is_well else text)


def _health(request: Request, told: Mapping[str, str]) -> Response:
    parts = parts_of(request)
    shown = {"components": [*component_entries(parts)], "settings": parts.in_force(), "cluster": parts.hosts()}
    return page(request, "health.html", version=parts.version, **shown, **told)


DATABASE_WAIT_S = 3.0
"""What the overview waits for a sign of life of the database."""
_TOLD = ("drill", "intakes")
"""Components whose faults mean that no incident does not mean that there is none."""


def _states(parts: Parts) -> Mapping[str, Mapping[str, Any]]:
    """What the processes say; nothing where they take too long."""
    try:
        return parts.processes.answer().result(STATES_WAIT_S)
    except (TimeoutError, AgentsError):
        return {}


def _heard(intakes: Mapping[str, Any]) -> str:
    """What was heard from intakes, "" where there is none."""
    if not intakes:
        return ""
    hours = " and ".join(f"{counted(intakes.get(f'queries_{one}h', 0), 'query')} in {one} h" for one in (1, 24))
    silent = intakes.get("silent_1h", 0)
    text = f"Heard from {counted(intakes.get('followed', 0), 'intake')}: {hours}"
    return f"{text}; {silent} silent for an hour." if silent else f"{text}."


@router.get("/docs", dependencies=[InSession])
def docs(request: Request) -> Response:
    base = str(request.base_url).rstrip("/")
    return page(request, "docs.html", endpoints=endpoints(request.app.openapi(), base))


@described_router.get(
    "/reports/{name}",
    summary="View a training report",
    response_class=HTMLResponse,
    responses={404: {"description": "no such report"}},
)
def report(
    request: Request,
    name: Annotated[str, Path(max_length=80, examples=["training_report_20260104_020011.html"])],
    sent: Sent = None,
) -> Response:
    """The HTML file. A browser without a session gets the login form first."""
    gate = gate_of(request)
    browser = sent is None and "text/html" in request.headers.get("accept", "")
    if browser and gate.person_of(request) is None:
        raise HTTPException(303, "cannot show that without a session", {"Location": login_for(request)})
    gate.require(request, sent, AccessScope.READ)
    return report_answer(request, name)


async def form_of(request: Request, most: int = FORM_MAX) -> dict[str, list[str]]:
    """Fields of an urlencoded body of at most `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, "cannot read a form of that size")
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
