"""The API and the console over a real SQLite store, by ASGI and once over a real socket."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from agents.core.errors import BusyError, ModelError
from agents.core.protocols import FleetAnswer
from agents.core.text import NETWORK
from agents.core.types import ChannelResult, Message, Metric, Severity, marked
from agents.detection.explanations.known_desk import KnownDesk
from agents.detection.limits import Scale
from agents.dns.name import wire_of
from agents.enforcement.keeper import BlockKeeper
from agents.enforcement.options import EnforceMode, EnforceOptions
from agents.learning.baseline import model_bytes
from agents.learning.loop.looking import FlowLook
from agents.learning.loop.online import OnlineLearner
from agents.learning.loop.options import SPEC as LEARNING
from agents.learning.registry import ModelRegistry
from agents.learning.release.desk import ModelDesk
from agents.learning.release.learnt_desk import LearntDesk
from agents.learning.sequences.cycle import CycleRequests
from agents.learning.sequences.learning import SequenceModels
from agents.runtime.jobs import PAUSED_JOBS, JobDesk
from agents.scoring.model import Model
from agents.store import Store, open_store
from agents.store.console import ConsoleStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.people.people import PeopleStore
from agents.store.people.sessions import SESSION_S
from agents.web import Parts, create_app
from agents.web.app import attach
from agents.web.auth import ATTEMPTS_MAX, Gatekeeper
from agents.web.connections import LimitedProtocol
from tests.support.patience import patient
from tests.support.verdicts import START, incident, verdicts

pytestmark = pytest.mark.integration

TOKEN = "correct horse battery staple"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
HTML = {"Accept": "text/html"}
HOSTILE = wire_of([b"<script>alert(1)</script>", b"\x00\x1b[31m\r\n\xff", b"evil", b"example"])
HOSTILE_TEXT = "<script>alert(1)</script>.\\000\\027[31m\\013\\010\\255.evil.example"
REPORT = "training_report_20260104_020011.html"


class Models:
    """A registry that holds what the test says."""

    broken = False

    def list(self) -> list[dict[str, Any]]:
        if self.broken:
            raise ModelError("cannot read model current.npz: its hash is another")
        return [
            {
                "model_id": "m<b>1",
                "path": "models/x",
                "kind": "current",
                "state": "champion",
                "created": START,
                "manifest": {"seed": 42},
            },
            {
                "model_id": "00aa",
                "path": "models/y",
                "kind": "candidate",
                "state": "waiting",
                "created": START,
                "manifest": {},
            },
        ]


_SHARED: list[FastAPI] = []


def shared_app(parts: Parts) -> FastAPI:
    """An application with these collaborators, for one test at a time: making one takes longer than most tests."""
    if not _SHARED:
        _SHARED.append(create_app(parts))
    attach(_SHARED[0], parts)
    return _SHARED[0]


class World:
    """The application and everything around it."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = open_store(f"sqlite:///{folder / 'queries.db'}")
        self.store.migrate()
        self.reports = folder / "training_reports"
        self.reports.mkdir()
        self.models = Models()
        self.busy = False
        self.runs = 0
        self.components: dict[str, dict[str, Any]] = {"queue": {"ok": True, "waiting": 0}}
        sequences = SequenceModels(folder / "models" / "sequences")
        learner = OnlineLearner(self.store, folder / "flow", LEARNING.factory(LEARNING.values({})))
        self.parts = Parts(
            store=self.store,
            models=self.models,
            reports_dir=self.reports,
            token=TOKEN,
            retrain=self.retrain,
            reviews=ReviewStore(self.store),
            console=ConsoleStore(self.store),
            flows=FlowLook(self.store),
            people=PeopleStore(self.store),
            known=KnownDesk(folder / "known_services.csv", Scale, self.store),
            cycles=CycleRequests(folder, sequences),
            learner=learner,
            learnt=LearntDesk(learner, sequences),
            desk=self.desk(folder),
            blocks=BlockKeeper(folder, EnforceOptions(EnforceMode.ON, dry_days=0)),
            jobs=JobDesk(self.store, folder / PAUSED_JOBS),
            health=lambda: self.components,
            metrics=self.metrics,
        )
        self.app = shared_app(self.parts)

    def desk(self, folder: Path) -> ModelDesk:
        """A real one, in a folder of its own; `told` has its messages."""
        self.told: list[Message] = []
        self.registry = ModelRegistry(folder / "models", Model.from_bytes, model_bytes())

        def tell(message: Message) -> list[ChannelResult]:
            self.told.append(message)
            return []

        return ModelDesk(
            self.registry, self.store, Scale(), lambda model: None, tell, canary_path=folder / "canary.json"
        )

    def retrain(self) -> str:
        if self.busy:
            raise BusyError("cannot retrain: another retraining holds the lock")
        self.runs += 1
        return f"run-{self.runs}"

    def metrics(self) -> list[Metric]:
        return [Metric("queries_stored_total", "queries stored", 12), Metric("queue_waiting", "queries that wait", 3)]

    def call(self, method: str, url: str, app: Any = None, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app or self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
                return await client.request(method, url, **more)

        return asyncio.run(ask())

    def get(self, url: str, **more: Any) -> httpx.Response:
        return self.call("GET", url, headers=more.pop("headers", AUTH), **more)

    def login(self, token: str = TOKEN, app: Any = None, **more: str) -> httpx.Response:
        return self.call("POST", "/login", app, data={"password": token, **more})

    def cookie(self, app: Any = None, name: str = "") -> str:
        """What a browser sends that has logged in with the API token."""
        return self.login(app=app, name=name).headers["set-cookie"].split(";")[0]

    def page(self, url: str) -> httpx.Response:
        return self.call("GET", url, headers=HTML | {"Cookie": self.cookie()})

    def submit(self, url: str, cookie: str, form: Mapping[str, Any]) -> httpx.Response:
        """What a browser shows after a form: it follows, with GET, where a 303 leads to."""
        answer = self.call("POST", url, headers={"Cookie": cookie}, data=dict(form))
        if answer.status_code != 303:
            return answer
        return self.call("GET", answer.headers["location"], headers=HTML | {"Cookie": cookie})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def kept_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For tests of which none may change anything: making a world costs more than asking it."""
    made = World(tmp_path_factory.mktemp("world"))
    made.app = create_app(made.parts)
    yield made
    made.store.close()


@pytest.fixture
def untouched_world(kept_world: World) -> World:
    """Whose gate has counted no attempt yet."""
    kept_world.app.state.gate = Gatekeeper(kept_world.parts)
    return kept_world


def vars_of(parts: Parts) -> dict[str, Any]:
    return {field.name: getattr(parts, field.name) for field in dataclasses.fields(parts)}


def _away(world: World) -> Any:
    """The same application on a database that nobody serves."""
    store = open_store("postgresql://who:pa55word@127.0.0.1:1/none")
    away = {"store": store, "console": ConsoleStore(store), "people": PeopleStore(store)}
    return create_app(Parts(**(vars_of(world.parts) | away)))


def test_a_test_tunnel_that_was_not_seen_is_red_on_the_overview(world: World) -> None:
    seen = {"drill": {"ok": True}}
    unseen = {"drill": {"ok": False, "error": "cannot see a test tunnel: see dns-tunnel doctor"}}
    for components, expected in ((seen, False), (unseen, True)):
        world.components = components
        app = create_app(Parts(**vars_of(world.parts)))
        text = world.call("GET", "/", app, headers=HTML | {"Cookie": world.cookie(app)}).text
        assert ('role="alert">cannot see a test tunnel' in text) == expected


@pytest.mark.slow
def test_the_overview_says_what_was_heard_from_intakes_and_what_they_lose(world: World) -> None:
    intakes = {
        "ok": False,
        "followed": 2,
        "silent_1h": 1,
        "queries_1h": 0,
        "queries_24h": 71,
        "error": "1 lose queries",
    }
    for components in ({"intakes": intakes}, {}):
        world.components = components
        app = create_app(Parts(**vars_of(world.parts)))
        text = world.call("GET", "/", app, headers=HTML | {"Cookie": world.cookie(app)}).text
        said = "Heard from 2 intakes: 0 queries in 1 h and 71 queries in 24 h; 1 silent for an hour."
        assert (said in text) == bool(components)
        assert ('role="alert">1 lose queries' in text) == bool(components)


PROTECTED = [
    ("GET", "/queries"),
    ("GET", "/incidents"),
    ("GET", "/incidents/0123456789abcdef"),
    ("GET", "/models"),
    ("GET", "/reports"),
    ("GET", f"/reports/{REPORT}"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("POST", "/retrain"),
    ("GET", "/reviews"),
    ("GET", "/reviews/decisions"),
    ("POST", "/reviews/decide"),
    ("POST", "/reviews/take"),
    ("POST", "/reviews/undo"),
    ("GET", "/learning/status"),
    ("GET", "/learning/history"),
    ("GET", "/learning/store"),
    ("POST", "/learning/train-now"),
    ("POST", "/learning/rollback"),
    ("POST", "/learning/start"),
    ("POST", "/learning/stop"),
    ("GET", "/blocks"),
    ("POST", "/blocks"),
    ("POST", "/blocks/remove"),
    ("POST", "/blocks/undo-all"),
    ("POST", "/blocks/pause"),
    ("POST", "/blocks/resume"),
    ("GET", "/jobs"),
    ("POST", "/jobs/pause"),
    ("POST", "/jobs/resume"),
    ("GET", "/models/staging"),
    ("GET", "/models/staging/a.stage"),
    ("POST", "/models/staging/export"),
    ("POST", "/models/staging/import"),
    ("GET", "/models/history"),
    ("GET", "/models/log"),
    ("GET", "/models/canary"),
    ("GET", "/models/diff"),
    ("GET", "/models/champion"),
    ("POST", "/models/approve"),
    ("POST", "/models/reject"),
    ("POST", "/models/canary"),
    ("POST", "/models/anchor"),
    ("POST", "/models/rollback"),
    ("POST", "/models/pin"),
    ("POST", "/models/unpin"),
    ("GET", "/learning/cycle"),
    ("GET", "/learning/cycle/history"),
    ("GET", "/learning/models/flow"),
    ("GET", "/learning/models/flow/diff"),
    ("GET", "/learning/models/flow/champion"),
    ("GET", "/learning/models/flow/history"),
    ("GET", "/learning/models/flow/log"),
    ("POST", "/learning/models/flow/approve"),
    ("POST", "/learning/models/flow/reject"),
    ("POST", "/learning/models/flow/rollback"),
    ("POST", "/learning/models/flow/anchor"),
    ("POST", "/learning/models/flow/pin"),
    ("POST", "/learning/models/flow/unpin"),
    ("POST", "/learning/cycle/start"),
    ("POST", "/learning/cycle/train-now"),
    ("POST", "/learning/cycle/stop"),
    ("GET", "/incidents/export"),
    ("GET", "/incidents/0123456789abcdef/history"),
    ("GET", "/incidents/0123456789abcdef/context"),
    ("POST", "/incidents/change"),
    ("POST", "/incidents/change-found"),
    ("POST", "/incidents/undo"),
    ("GET", "/views"),
    ("POST", "/views"),
    ("POST", "/views/remove"),
    ("GET", "/hunt"),
    ("GET", "/hunt/export"),
    ("GET", "/hunts"),
    ("GET", "/hunts/sql"),
    ("GET", "/hunts/sql/export"),
    ("GET", "/hunts/most-names"),
    ("GET", "/hunts/most-names/export"),
    ("GET", "/clients"),
    ("GET", "/flow-hours"),
    ("GET", "/clients/192.0.2.7"),
    ("GET", "/domains/evil.example"),
    ("GET", "/questions/rarest-domains"),
    ("GET", "/questions/rarest-domains/export"),
    ("GET", "/audit"),
    ("GET", "/audit/export"),
    ("GET", "/services"),
    ("POST", "/services"),
    ("POST", "/services/preview"),
    ("POST", "/services/remove"),
    ("POST", "/services/undo"),
    ("GET", "/weekly"),
    ("GET", "/weekly/export"),
    ("POST", "/channels/test"),
    ("GET", "/hosts"),
    ("GET", "/components"),
    ("GET", "/settings"),
    ("GET", "/rates"),
    ("GET", "/fleet/status"),
    ("GET", "/fleet/contribution"),
    ("GET", "/whoami"),
    ("GET", "/tokens"),
    ("POST", "/tokens"),
    ("POST", "/tokens/revoke"),
    ("GET", "/users"),
    ("POST", "/users"),
    ("POST", "/users/link"),
    ("POST", "/users/change"),
    ("POST", "/users/remove"),
]


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic Zm9v"},
        {"Cookie": "dns_tunnel_session=9999999999.00"},
    ],
)
@pytest.mark.parametrize("first", range(0, len(PROTECTED), ATTEMPTS_MAX))
def test_without_the_token_nothing_is_answered(untouched_world: World, first: int, sent: dict[str, str]) -> None:
    for method, path in PROTECTED[first : first + ATTEMPTS_MAX]:
        answer = untouched_world.call(method, path, headers=sent)
        said = answer.status_code, answer.headers.get("www-authenticate"), answer.json()
        assert said == (401, "Bearer", {"error": "cannot answer without a valid token"}), f"{method} {path}"
    assert untouched_world.runs == 0


def test_every_route_that_is_not_public_is_in_that_list(world: World) -> None:
    described = {(m.upper(), p) for p, methods in world.app.openapi()["paths"].items() for m in methods}
    listed = {
        (
            method,
            re.sub(
                r"/[0-9a-f]{16}(/history|/context)?$",
                r"/{incident_id}\1",
                path.replace(REPORT, "{name}")
                .replace("/champion", "/{name}")
                .replace("/a.stage", "/{name}")
                .replace("/192.0.2.7", "/{client}")
                .replace("/evil.example", "/{domain}")
                .replace("/rarest-domains", "/{question}")
                .replace("/most-names", "/{hunt}")
                .replace("/learning/models/flow", "/learning/models/{kind}"),
            ),
        )
        for method, path in PROTECTED
    }
    assert described - {("GET", "/health")} == listed - {("GET", "/openapi.json")}


def test_health_needs_no_token_and_names_what_is_degraded(world: World) -> None:
    assert world.get("/health", headers={}).json() == {
        "status": "ok",
        "components": {"database": {"ok": True}, "queue": {"ok": True, "waiting": 0}},
    }
    world.components["model"] = {"ok": False, "error": "collecting only"}
    assert world.get("/health", headers={}).json()["status"] == "degraded"


def test_a_component_with_an_error_is_not_ok_though_its_process_lives(world: World) -> None:
    world.components["scheduler"] = {"ok": True, "error": "cannot read the schedule from the database"}
    told = world.get("/health", headers={}).json()
    assert (told["status"], told["components"]["scheduler"]["ok"]) == ("degraded", False)


def test_health_with_a_dead_database_is_degraded_and_tells_strangers_no_address(world: World) -> None:
    answer = world.call("GET", "/health", app=_away(world))
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["components"]["database"] == {"ok": False, "error": "cannot reach the database"}


def test_health_does_not_wait_for_a_database_that_hangs(world: World) -> None:
    asked, answered = threading.Event(), threading.Event()

    class Hanging:
        def ping(self) -> None:
            asked.set()
            assert answered.wait(patient(10))

    app = create_app(Parts(**(vars_of(world.parts) | {"store": Hanging()})))
    first = threading.Thread(target=world.call, args=("GET", "/health", app))
    first.start()
    assert asked.wait(patient(10))
    assert world.call("GET", "/health", app=app).status_code == 200
    answered.set()
    first.join(patient(10))


def test_the_overview_does_not_wait_for_a_database_that_hangs(world: World) -> None:
    answered = threading.Event()

    class Hanging:
        def ping(self) -> None:
            assert answered.wait(patient(10))

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *_: object, **__: object) -> Any:
            raise AssertionError("it would hang")

    hung = {name: Hanging() for name in ("store", "console", "reviews", "people")}
    app = create_app(Parts(**(vars_of(world.parts) | hung)))
    page = world.call("GET", "/", app, headers=HTML | {"Cookie": world.cookie(app)})
    answered.set()
    assert "cannot reach the database: no answer for" in page.text
    assert "Unknown: they cannot be read now." in page.text
    assert "incidents cannot be counted" in page.text


@pytest.mark.parametrize("path", ["/queries", "/incidents"])
def test_a_dead_database_is_503(world: World, path: str) -> None:
    answer = world.call("GET", path, app=_away(world), headers=AUTH)
    assert answer.status_code == 503
    assert answer.json()["error"].startswith(f"cannot read {path[1:]}")
    assert "pa55word" not in answer.text


def test_queries_with_filters_and_pages(world: World) -> None:
    world.store.write(verdicts([f"h{i}.example.com" for i in range(5)]), "b1")
    world.store.write(verdicts(["x.evil.example"], severity=Severity.HIGH, client="2001:db8::1"), "b2")
    first = world.get("/queries", params={"domain": "example.com", "limit": 3}).json()
    second = world.get("/queries", params={"domain": "example.com", "limit": 3, "cursor": first["cursor"]}).json()
    assert [len(first["queries"]), len(second["queries"]), second["cursor"]] == [3, 2, None]
    high = world.get("/queries?severity=HIGH&severity=CRITICAL").json()["queries"]
    assert [(query["client"], query["severity"]) for query in high] == [("2001:db8::1", "HIGH")]
    assert len(world.get("/queries", params={"since": START + 1, "until": START + 3}).json()["queries"]) == 2
    assert len(world.get("/queries", params={"client": "192.0.2.7"}).json()["queries"]) == 5


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/queries?limit=0", "limit"),
        ("/queries?limit=1001", "limit"),
        ("/queries?limit=many", "limit"),
        ("/queries?since=nan", "since"),
        ("/queries?until=-1", "until"),
        ("/queries?severity=BAD", "severity"),
        ("/queries?client=" + "x" * 65, "client"),
        ("/queries?cursor=forged", "cursor"),
        ("/incidents?open=perhaps", "open"),
        ("/incidents/../../etc/passwd%00", "find"),
        ("/incidents/xyz", "incident_id"),
    ],
)
def test_bad_parameters_are_named(world: World, path: str, named: str) -> None:
    answer = world.get(path)
    assert answer.status_code in {404, 422}
    assert answer.json()["error"].startswith("cannot ")
    assert named in answer.json()["error"]


@pytest.mark.parametrize("value", ["\0", "' OR 1=1 --", "\ud800".encode("utf-8", "surrogatepass"), "%", "Ω"])
def test_hostile_filters_match_nothing(world: World, value: str | bytes) -> None:
    world.store.write(verdicts(["a.example.com"]), "b1")
    assert world.get("/queries", params={"client": value}).json() == {"queries": [], "cursor": None}


def test_hostile_names_are_presentation_text_in_json_and_escaped_in_html(world: World) -> None:
    found = incident(
        domain=HOSTILE_TEXT,
        reasons=(f"names like {HOSTILE_TEXT}",),
        sample_names=(HOSTILE_TEXT,),
        tool="<i>x</i>",
    )
    world.store.write(verdicts([HOSTILE], incidents=(found,)), "b1")
    assert world.get("/queries").json()["queries"][0]["qname"] == HOSTILE_TEXT
    assert world.get("/incidents").json()["incidents"][0]["domain"] == HOSTILE_TEXT
    assert world.get(f"/incidents/{found.incident_id}").json()["sample_names"] == [HOSTILE_TEXT]
    for path in ("/", f"/console/incidents/{found.incident_id}"):
        page = world.page(path)
        assert page.status_code == 200
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
        assert "<script>" not in page.text
        assert "<i>x" not in page.text
        assert not re.search("[\x00-\x08\x0b-\x1f]", page.text)


def test_pages_have_a_policy_that_allows_no_foreign_and_no_inline_script(world: World) -> None:
    page = world.page("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "style=" not in page.text
    assert "m&lt;b&gt;1" in page.text
    style = world.call("GET", "/static/style.css")
    assert style.status_code == 200
    assert "url(" not in style.text


def test_a_page_shows_what_it_can_when_a_part_fails(world: World) -> None:
    world.store.write(verdicts([], incidents=(incident(),)), "b1")
    world.models.broken = True
    page = world.page("/")
    assert page.status_code == 200
    assert "cannot read model current.npz" in page.text
    assert "evil.example" in page.text
    assert world.get("/models").status_code == 500
    assert world.get("/models").json() == {"error": "cannot read model current.npz: its hash is another"}


def test_what_cannot_be_read_is_unknown_and_not_none(world: World) -> None:
    app = _away(world)
    page = world.call("GET", "/", app, headers=HTML | {"Cookie": world.cookie(app)}).text
    assert "cannot read incidents" in page
    assert "None that is new" not in page
    assert "Unknown: they cannot be read now." in page
    assert "No reports yet" in page


def test_a_waiting_candidate_is_shown_with_what_to_type(world: World) -> None:
    assert [row["state"] for row in world.get("/models").json()["models"]] == ["champion", "waiting"]
    page = world.page("/").text
    assert "<strong>champion</strong>" in page
    assert "dns-tunnel models approve 00aa" in page


def test_a_waiting_candidate_is_shown_however_many_models_are_newer(world: World) -> None:
    champion, waiting = world.models.list()
    newer = [waiting | {"model_id": f"{number:016x}", "state": "rejected"} for number in range(60)]
    world.models.list = lambda: [champion, *newer, waiting]  # type: ignore[method-assign]
    assert "dns-tunnel models approve 00aa" in world.page("/").text


def test_without_a_champion_the_shipped_model_is_named(world: World) -> None:
    said = "The shipped model is in use until a retraining deploys another."
    assert said not in world.page("/").text
    _, waiting = world.models.list()
    for models, count in (([waiting], "1"), ([], "shipped")):
        world.models.list = models.copy  # type: ignore[method-assign]
        page = world.page("/").text
        assert said in page
        assert f'Models <span class="count">{count}</span>' in page


def test_a_client_that_nobody_named_is_unknown_and_bytes_are_rounded(world: World) -> None:
    one = incident(client="", leaked_bytes=20_199.7, bytes_before_detection=99.6, queries_before_detection=1)
    world.store.write(verdicts([], incidents=(one,)), "b1")
    for path, shown in (
        ("/", [">20.2 kB<"]),
        (f"/console/incidents/{one.incident_id}", [">20,200 bytes<", ">1 query, 100 bytes<"]),
    ):
        page = world.page(path).text
        assert re.search(r'class="name(?: client)?">unknown(?: &#8594;|<)', page)
        assert all(text in page for text in shown)


def test_evidence_is_told_and_escaped(world: World) -> None:
    evidence = {
        "attack": ["T1071.004"],
        "preview": "<script>alert(2)</script>",
        "qtypes": {"TXT": 40},
        "queries_per_minute": 12.5,
        "bytes_in": 900,
        "benign_if": "It would be benign if <b> ran a service.",
        "timeline": [{"at": START, "queries": 41.0, "bytes": 912.0}],
        "step_s": 60.0,
        "before": {"first_seen": START, "incidents": 2},
    }
    one = incident(evidence=evidence, tool="iodine")
    world.store.write(verdicts([HOSTILE], incidents=(one,)), "batch")
    assert world.get("/incidents").json()["incidents"][0]["evidence"] == evidence
    page = world.page(f"/console/incidents/{one.incident_id}").text
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "<script>" not in page and "<b> ran" not in page
    for text in (
        "T1071.004 (DNS as channel)",
        "TXT 40",
        "12.5 queries a minute",
        "900 bytes",
        ">912<",
        "iodine",
        "2 incidents since 20",
    ):
        assert text in page, text


def test_an_incident_that_is_not_one_clients_says_who_sent_it(world: World) -> None:
    sent = {"count": 7, "loudest": ["192.0.2.7", "2001:db8::1"]}
    one = incident(client=NETWORK, evidence={"clients": sent})
    world.store.write(verdicts([], incidents=(one,)), "b1")
    assert 'class="name client">several clients<' in world.page("/").text
    page = world.page(f"/console/incidents/{one.incident_id}").text
    assert "<dt>Sent by</dt><dd>7 clients: 192.0.2.7, 2001:db8::1 …</dd>" in page


def test_reports_are_listed_and_shown_with_their_own_policy(world: World) -> None:
    (world.reports / REPORT).write_text("<style>p{}</style><p>ok")
    (world.reports / "training_report_20260105_020011.html").write_text("newer")
    (world.reports / "secret.html").write_text("no")
    (world.reports / "training_report_20260106_020011.json").write_text("{}")
    (world.reports / REPORT).with_suffix(".json").write_text('{\n "run_id": "x",\n "state": "REJECTED"}')
    listed = world.get("/reports").json()["reports"]
    assert [entry["name"] for entry in listed] == ["training_report_20260105_020011.html", REPORT]
    assert [entry["state"] for entry in listed] == [None, "REJECTED"]
    page = world.page("/").text
    assert "<td>REJECTED</td>" in page
    assert "<td>unknown</td>" in page
    shown = world.get(f"/reports/{REPORT}")
    assert shown.text == "<style>p{}</style><p>ok"
    policy = shown.headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(b"p{}").digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:")
    assert (
        "style-src 'none';"
        in world.get("/reports/training_report_20260105_020011.html").headers["content-security-policy"]
    )
    assert world.page(f"/reports/{REPORT}").status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "secret.html",
        "../queries.db",
        "..%2fqueries.db",
        "%2e%2e/queries.db",
        REPORT + "%00",
        REPORT + "%0a",
        "x" * 200,
        "training_report_99999999_999999.html",
    ],
)
def test_nothing_but_reports_is_shown(world: World, name: str) -> None:
    (world.reports / "secret.html").write_text("no")
    answer = world.get(f"/reports/{name}")
    assert answer.status_code in {404, 422}
    assert answer.json()["error"].startswith("cannot ")


def test_a_link_in_the_folder_is_not_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (world.reports / REPORT).symlink_to(tmp_path / "outside")
    assert world.get(f"/reports/{REPORT}").status_code == 404
    assert world.get("/reports").json() == {"reports": []}


def test_retraining_is_started_once_at_a_time_and_not_by_a_cookie(world: World) -> None:
    answer = world.call("POST", "/retrain", headers=AUTH)
    assert (answer.status_code, answer.json()) == (202, {"run_id": "run-1"})
    world.busy = True
    answer = world.call("POST", "/retrain", headers=AUTH)
    assert (answer.status_code, answer.json()["error"]) == (
        409,
        "cannot retrain: another retraining holds the lock",
    )
    cookie = world.cookie()
    assert world.call("POST", "/retrain", headers={"Cookie": cookie}).status_code == 401
    assert world.runs == 1


def test_metrics(world: World) -> None:
    answer = world.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    stored, waiting = "dns_tunnel_queries_stored_total", "dns_tunnel_queue_waiting"
    assert f"# HELP {stored} queries stored\n# TYPE {stored} counter\n{stored} 12.0\n" in answer.text
    assert f"# TYPE {waiting} gauge\n{waiting} 3.0\n" in answer.text


def test_a_browser_is_led_to_the_login_and_back(world: World) -> None:
    (world.reports / REPORT).write_text("report")
    for path in ("/", "/docs", f"/reports/{REPORT}"):
        answer = world.call("GET", path, headers=HTML)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
    welcome = world.login(next=f"/reports/{REPORT}")
    assert (welcome.status_code, welcome.headers["location"]) == (303, f"/reports/{REPORT}")
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert "Max-Age=0" in world.call("POST", "/logout").headers["set-cookie"]


@pytest.mark.parametrize(
    "following", ["//evil.example", "https://evil.example", "/\\evil.example", "/\r\nX: y", "Ω", ""]
)
def test_login_leads_nowhere_else(world: World, following: str) -> None:
    assert world.login(next=following).headers["location"] == "/"


def test_an_old_or_changed_session_is_no_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = world.cookie()
    assert world.get("/models", headers={"Cookie": cookie}).status_code == 200
    changed = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
    assert world.get("/models", headers={"Cookie": changed}).status_code == 401
    ends = time.time() + SESSION_S
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: ends + 1.0)
        assert world.get("/models", headers={"Cookie": cookie}).status_code == 401


@pytest.mark.slow
def test_wrong_tokens_are_limited(world: World) -> None:
    assert [world.login("wrong").status_code for _ in range(6)] == [401] * 5 + [429]
    answer = world.login()
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert "set-cookie" not in answer.headers


def test_wrong_bearer_tokens_are_limited_like_logins(world: World) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    assert [world.get("/models", headers=wrong).status_code for _ in range(6)] == [401] * 5 + [429]
    answer = world.get("/models", headers=AUTH)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert world.login().status_code == 429


@pytest.mark.slow
def test_hostile_login_forms(world: World) -> None:
    for body in (b"\xff\xfe=&&;;token", b"token=%ff%00", b"token=" + b"\xff" * 50, b""):
        assert world.call("POST", "/login", content=body).status_code in {401, 429}
    assert world.call("POST", "/login", content=b"x" * 65_600).status_code == 413
    assert "&#34;&gt;&lt;b&gt;" in world.call("GET", "/login?next=/%22%3E%3Cb%3E").text


def test_unknown_paths_and_methods_are_json_errors(world: World) -> None:
    assert world.get("/nowhere").json() == {"error": "cannot find /nowhere"}
    assert world.call("DELETE", "/queries", headers=AUTH).json() == {"error": "cannot DELETE /queries"}


def test_a_programmers_error_shows_nothing_of_the_inside(world: World) -> None:
    def broken() -> str:
        raise RuntimeError("secret inside")

    app = create_app(Parts(**(vars_of(world.parts) | {"retrain": broken})))
    answer = world.call("POST", "/retrain", app=app, headers=AUTH)
    assert (answer.status_code, answer.json()) == (500, {"error": "cannot answer: internal error"})


def test_openapi_has_examples_and_docs_has_commands(world: World) -> None:
    document = world.get("/openapi.json").json()
    assert "HTTPBearer" in document["components"]["securitySchemes"]
    assert "security" not in document["paths"]["/health"]["get"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and operation["description"], path
            assert path == "/health" or operation["security"] == [{"HTTPBearer": []}], path
    for name, fact in document["components"]["schemas"]["StoredQuery"]["properties"].items():
        assert "examples" in fact, name
    docs = world.page("/docs").text
    assert "curl -X POST -H &#34;Authorization: Bearer $API_TOKEN&#34; http://console/retrain" in docs
    assert f"http://console/reports/{REPORT}" in docs
    assert "https://" not in docs


def test_an_empty_token_opens_nothing(world: World) -> None:
    with pytest.raises(ValueError, match="cannot serve without a token"):
        create_app(Parts(**(vars_of(world.parts) | {"token": ""})))
    assert TOKEN not in repr(world.parts)


def test_what_a_site_of_a_fleet_sends_may_be_large_and_nothing_else(world: World) -> None:
    class Desk:
        body_max = 2 << 20

        def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> FleetAnswer:
            return FleetAnswer(200, json.dumps({"bytes": len(body)}).encode(), {})

    app = create_app(Parts(**(vars_of(world.parts) | {"fleet": Desk()})))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=LimitedProtocol, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            listening.listen()
            with httpx.Client(base_url=base, timeout=patient(10)) as client:
                assert client.post("/fleet/round", content=bytes(500_000)).json() == {"bytes": 500_000}
                assert client.post("/fleet/round", content=bytes(2_100_000)).status_code == 413
            with pytest.raises(httpx.TransportError):
                httpx.post(f"{base}/retrain", content=bytes(500_000), headers=AUTH, timeout=patient(10))
        finally:
            server.should_exit = True
            thread.join(patient(10))


def test_over_a_real_socket(world: World) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(world.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            listening.listen()
            with httpx.Client(base_url=base, timeout=patient(10)) as client:
                assert client.get("/health").json()["status"] == "ok"
                assert client.get("/queries").status_code == 401
                assert client.get("/queries", headers=AUTH).json() == {"queries": [], "cursor": None}
                assert client.post("/login", data={"password": TOKEN}).status_code == 303
                assert "None that is new or in work." in client.get("/").text
                assert json.loads(client.get("/openapi.json").text)["info"]["title"] == "DNS tunnel detector"
        finally:
            server.should_exit = True
            thread.join(patient(10))


def test_what_was_replayed_is_marked_and_filtered(world: World) -> None:
    hostile = '<b>"x".pcap'
    world.store.write(verdicts(["www.example.com"], incidents=(incident(client="192.0.2.1"),)), "live")
    replayed = marked(verdicts(["www.example.com"], incidents=(incident(client="192.0.2.2"),)), hostile, START + 90)
    world.store.write(replayed, "replayed")
    for path, name in (("/queries", "queries"), ("/incidents", "incidents")):
        marks = {(one["source"], one["imported_at"]) for one in world.get(path).json()[name]}
        assert marks == {(None, None), (hostile, START + 90)}
        (live,) = world.get(path, params={"source": ""}).json()[name]
        assert live["source"] is None
        (one,) = world.get(path, params={"source": hostile}).json()[name]
        assert (one["source"], one["imported_at"]) == (hostile, START + 90)
        assert world.get(path, params={"source": "y"}).json()[name] == []
        assert world.get(path, params={"source": "y" * 65}).status_code == 422
        assert world.get(path, params={"sources": "y"}).status_code == 422
    page = world.page("/").text
    assert page.count("replayed: &lt;b&gt;&#34;x&#34;.pcap</span>") == 1
    stored = replayed.incidents[0].incident_id
    for incident_id in (stored, incident(client="192.0.2.2").incident_id):
        assert world.get(f"/incidents/{incident_id}").json()["incident_id"] == stored
        page = world.page(f"/console/incidents/{incident_id}").text
        assert "<dd>&lt;b&gt;&#34;x&#34;.pcap, at <time" in page and "UTC</time>: not seen live</dd>" in page
    live_id = incident(client="192.0.2.1").incident_id
    assert "not seen live" not in world.page(f"/console/incidents/{live_id}").text
