"""The coordinator: knows sites by their keys, takes one contribution a site and round, and joins what has come.

data/fleet/sites.json                 names and keys of sites
data/fleet/round.json                 the open round, the flow model it begins with, and what came of the last one
data/fleet/sent/<round>/<site>.json   contributions of the open round
data/fleet/seen.json                  when each site sent last
data/fleet/last.json                  what the last round took of each site
data/fleet/.lock                      held while any of them changes

It learns nothing itself and has no data of its own in it. A round ends when every site has sent, or at its deadline
with the sites that have; with fewer than FLEET_SITES_MIN it waits on.
"""

from __future__ import annotations

import hmac
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.errors import BusyError, UsageError
from agents.core.files import PRIVATE_MODE, json_state, locked_within, make_private_folder, write_atomic
from agents.core.protocols import FleetAnswer
from agents.core.text import printable
from agents.detection.explanations.network_profile import FleetHabit
from agents.learning.fleet.exchange import (
    AGE_MAX_S,
    BINS,
    CONTRIBUTION_BYTES_MAX,
    FLEET_FORMAT,
    ROUND_PATH,
    SIGNATURE_HEADER,
    SITE_HEADER,
    TIME_HEADER,
    Contribution,
    FleetState,
    answer_signature,
    contribution_of,
    signature_of,
    state_of,
)
from agents.learning.fleet.habits import kinds_seen
from agents.learning.fleet.joining import joined_contributions, joining_facts
from agents.learning.fleet.options import SITE, FleetOptions
from agents.learning.loop.flow_hours import SCHEMA as FLOW_SCHEMA
from agents.learning.loop.flow_model import FlowModel
from agents.scoring.features import SCHEMA as NAME_SCHEMA

FLEET_LOCK_S = 5.0
SITES_MAX = 1_000
_log = structlog.get_logger()


@dataclass(frozen=True)
class Coordinator:
    """A core.protocols.FleetDesk. first: the flow model that the first round begins with; clock: Unix seconds."""

    folder: Path
    options: FleetOptions
    first: Callable[[], FlowModel]
    clock: Callable[[], float] = time.time
    body_max: int = CONTRIBUTION_BYTES_MAX

    def add(self, site: str) -> str:
        """Let a site take part; its key, which is shown once. Raises UsageError, BusyError, OSError."""
        if not SITE.fullmatch(site):
            raise UsageError("cannot add a site: its name has at most 40 lower-case letters, digits and hyphens")
        with self._locked():
            known = self._keys()
            if site in known:
                raise UsageError(f"cannot add {site}: it takes part already; `fleet remove` ends that")
            if len(known) >= SITES_MAX:
                raise UsageError(f"cannot add {site}: there are {SITES_MAX} sites")
            if not (self.folder / "round.json").exists():
                self._begin_first(self.clock())  # here, and not while a site waits: its model takes seconds
            key = secrets.token_urlsafe(32)
            self._write("sites.json", {**known, site: key})
        return key

    def remove(self, site: str) -> None:
        """Let a site take part no more; what it sent in the open round goes. Raises UsageError, BusyError, OSError."""
        with self._locked():
            known = self._keys()
            if site not in known:
                raise UsageError(f"cannot remove {printable(site, 40)}: no site is called so")
            del known[site]
            self._write("sites.json", known)
            self._write(
                "seen.json", {one: at for one, at in json_state(self.folder / "seen.json").items() if one in known}
            )
            self._sent(site).unlink(missing_ok=True)

    def sites(self) -> dict[str, bool]:
        """The sites, and whether each has sent in the open round."""
        return {site: self._sent(site).exists() for site in sorted(self._keys())}

    def site_keys(self) -> dict[str, str]:
        """Keys of sites, by which they are known. Raises UsageError."""
        return self._keys()

    def flow_model(self) -> FlowModel:
        """The flow model that the open round begins with. Raises UsageError where no site takes part."""
        if not self._keys():
            raise UsageError("cannot begin a round: no site takes part; `fleet add` names one")
        opened = self._round()
        mean, scale, weights = (np.array(opened[name]) for name in ("mean", "scale", "weights"))
        return FlowModel(mean, scale, weights[:-1], float(weights[-1]), {})

    def go_on_from(self, weights: NDArray[np.float64]) -> None:
        """Let the open round begin with these weights; what has come to it adds to them. Raises BusyError, OSError."""
        with self._locked():
            self._write("round.json", self._round() | {"weights": weights.tolist()})

    def is_set_up(self) -> bool:
        """See core.protocols.FleetDesk."""
        try:
            return bool(self._keys())
        except (UsageError, OSError):
            return True  # the page says what is wrong with it

    def overview(self) -> dict[str, Any] | None:
        """See core.protocols.FleetDesk."""
        sites = self.sites()
        if not sites:
            return None
        opened, seen, last = (
            self._round(),
            json_state(self.folder / "seen.json"),
            json_state(self.folder / "last.json"),
        )
        return {
            "round": opened["round"],
            "ends_at": opened["ends_at"],
            "sites_min": self.options.sites_min,
            "sites": [{"site": one, "sent": sent, "sent_at": seen.get(one)} for one, sent in sites.items()],
            "domains": len(opened["domains"]),
            "kinds": kinds_seen([FleetHabit.model_validate(one) for one in opened["habits"]]),
            "last": last or None,
        }

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> FleetAnswer:
        """Answer one request below /fleet/. What is wrong with it is the answer; raises where this
        installation's own files cannot be read."""
        known = {name.lower(): value for name, value in headers.items()}
        site, sent = known.get(SITE_HEADER.lower(), ""), known.get(SIGNATURE_HEADER.lower(), "")
        keys = self._keys()
        if not keys:
            return _refused(404, "cannot answer: this installation coordinates no fleet")
        at = known.get(TIME_HEADER.lower(), "")
        key = keys.get(site, secrets.token_urlsafe(32))  # of a site that is not known: nothing it sends can be right
        wanted = signature_of(key, method, path, at, body)
        if not hmac.compare_digest(wanted.encode(), sent.encode("utf-8", "surrogatepass")):
            return _refused(401, "cannot answer: the signature is not that of a site of this fleet")
        if not (at.isascii() and at.isdigit() and len(at) < 16) or abs(int(at) - self.clock()) > AGE_MAX_S:
            return _refused(
                401, f"cannot answer: the clocks differ by more than {AGE_MAX_S} seconds, or it was sent before"
            )
        with self._locked():
            found = self._answer_site(method, path, site, body)
        return FleetAnswer(found.status, found.body, {SIGNATURE_HEADER: answer_signature(key, sent, found.body)})

    def _answer_site(self, method: str, path: str, site: str, body: bytes) -> FleetAnswer:
        self._turn()
        if (method, path) == ("GET", ROUND_PATH):
            return FleetAnswer(200, self._state(site).model_dump_json().encode(), {})
        if method != "POST" or path != ROUND_PATH:
            return _refused(404, "cannot answer: a fleet has nothing else to offer")
        try:
            contribution = self._checked(contribution_of(body))
        except UsageError as error:
            _log.warning("fleet_contribution_refused", site=site, error=str(error))
            return _refused(422, str(error))
        number = self._round()["round"]
        if contribution.round != number:
            return _refused(409, f"cannot take a contribution to round {contribution.round}: round {number} is open")
        kept = self._sent(site)
        if kept.exists() and kept.read_bytes() != body:
            return _refused(409, "cannot take two contributions of a site to one round")
        write_atomic(kept, body, PRIVATE_MODE)
        self._write("seen.json", json_state(self.folder / "seen.json") | {site: self.clock()})
        _log.info("fleet_contribution_taken", site=site, round=number)
        self._turn()
        return FleetAnswer(200, self._state(site).model_dump_json().encode(), {})

    @staticmethod
    def _checked(sent: Contribution) -> Contribution:
        if sent.flow_schema != FLOW_SCHEMA or sent.name_schema != NAME_SCHEMA:
            raise UsageError("cannot take the contribution: the site runs another release")
        return sent

    def _turn(self) -> None:
        """Begin the first round, or end the open one where that is due."""
        now, keys = self.clock(), self._keys()
        if not (self.folder / "round.json").exists():
            self._begin_first(now)
        opened = self._round()
        sent = {site: one for site in sorted(keys) if (one := self._contribution(self._sent(site))) is not None}
        everybody, late = len(sent) == len(keys), now >= opened["ends_at"]
        if len(sent) >= self.options.sites_min and (everybody or late):
            self._end(opened, sent, now)

    def _contribution(self, path: Path) -> Contribution | None:
        """What a site sent; what cannot be read, as after another release, is as if it had not come."""
        try:
            return contribution_of(path.read_bytes())
        except FileNotFoundError:
            return None
        except UsageError as error:
            _log.warning("fleet_contribution_left_out", file=path.name, error=str(error))
            path.unlink(missing_ok=True)
            return None

    def _begin_first(self, now: float) -> None:
        model = self.first()
        self._write(
            "round.json",
            {
                "round": 1,
                "ends_at": now + self.options.round_s,
                "joined": 0,
                "mean": model.mean.tolist(),
                "scale": model.scale.tolist(),
                "weights": [*model.weights.tolist(), model.bias],
                "shares": [0.0] * BINS,
                "domains": [],
                "habits": [],
                "forest": None,
            },
        )

    def _end(self, opened: dict[str, Any], sent: dict[str, Contribution], now: float) -> None:
        """Join what has come, and open the next round; first its file, so that a killed process ends no round twice."""
        joined = joined_contributions(list(sent.values()))
        weights = np.array(opened["weights"]) + joined.delta
        found = {
            "round": opened["round"] + 1,
            "ends_at": now + self.options.round_s,
            "joined": len(sent),
            "weights": weights.tolist(),
            "shares": np.clip(joined.shares, 0, 1).tolist(),
            "domains": joined.domains,
            "habits": [one.model_dump() for one in joined.habits],
            "forest": joined.forest.model_dump() if joined.forest is not None else None,
        }
        self._write("round.json", opened | found)
        self._write("last.json", {"round": opened["round"], "at": now, "sites": joining_facts(sent, joined)})
        shutil.rmtree(self.folder / "sent" / str(opened["round"]), ignore_errors=True)
        _log.info("fleet_round_ended", round=opened["round"], sites=len(sent))

    def _state(self, site: str) -> FleetState:
        values = self._round() | {"format": FLEET_FORMAT, "sent": self._sent(site).exists()}
        return state_of(json.dumps(values).encode())

    def _round(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "round.json").read_bytes())
        return found

    def _keys(self) -> dict[str, str]:
        try:
            found = json.loads((self.folder / "sites.json").read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise UsageError(f"cannot read {self.folder / 'sites.json'}: it is damaged") from None
        return {str(site): str(key) for site, key in found.items()} if isinstance(found, dict) else {}

    def _sent(self, site: str) -> Path:
        number = self._round()["round"] if (self.folder / "round.json").exists() else 0
        return self.folder / "sent" / str(number) / f"{site}.json"

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        write_atomic(self.folder / name, json.dumps(values).encode(), PRIVATE_MODE)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_folder(self.folder)
        try:
            lock = locked_within(self.folder / ".lock", FLEET_LOCK_S)
        except BlockingIOError:
            raise BusyError("cannot change the fleet: another process holds it") from None
        with lock:
            yield


def _refused(status: int, why: str) -> FleetAnswer:
    return FleetAnswer(status, json.dumps({"error": why}).encode(), {})
