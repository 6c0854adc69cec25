"""The flow model's weights over Flower (extra `flower`), instead of our own HTTPS: same clipping, joining and gates.

The coordinator's Flower server joins with joining.joined_delta, not with an average; a site signs what it sends with
the key that the coordinator knows it by. Both stay on this machine: others come through a tunnel of yours, or use
HTTPS. Flower's `start_server` and `start_client` are used: its newer way needs processes of its own.
"""

from __future__ import annotations

import hmac
import importlib
import importlib.util
import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.alerting.delivery import is_loopback
from agents.core.errors import AgentsError, UsageError
from agents.core.text import printable
from agents.learning.fleet.coordinator import Coordinator
from agents.learning.fleet.exchange import WEIGHTS, signature_of
from agents.learning.fleet.joining import clipped, joined_delta
from agents.learning.fleet.site import FleetSite
from agents.learning.loop.flow_hours import NUMBERS
from agents.learning.loop.flow_model import SCALE_MIN, FlowModel

WAIT_S, LOOK_S = 120.0, 0.5
"""How long a site waits for the server to listen, and how often it looks."""
ROUND_S = 600.0
"""A round goes on without the sites that have not answered by then."""
NUMBER_MAX = 1e6
Arrays = Sequence[NDArray[np.float64]]
Answer = tuple[list[NDArray[np.float64]], int, dict[str, Any]]
_log = structlog.get_logger()


def must_have_flower(address: str) -> tuple[str, int]:
    """Host and port of an address. Raises UsageError for another machine's, or without the extra."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise UsageError(f"cannot use address {printable(address, 60)}: it is HOST:PORT")
    if not is_loopback(host):
        raise UsageError("cannot run Flower beyond this machine: lead a tunnel to a port here, or leave --engine https")
    if importlib.util.find_spec("flwr") is None:
        raise UsageError("cannot run Flower: the extra flower is missing (pip install 'dns-tunnel-detector[flower]')")
    return host.strip("[]"), int(port)


def _flower(name: str) -> ModuleType:
    """A module of Flower's, which tells its makers nothing and leaves the log to us."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    return importlib.import_module(name)


def _signature(key: str, run: str, number: int, weights: NDArray[np.float64]) -> str:
    return signature_of(key, "FLOWER", f"/{run}/{number}", "", weights.astype("<f8").tobytes())


def _model_of(arrays: Arrays) -> FlowModel:
    """The flow model in parameters: mean, scale, and weights with the bias last. Raises UsageError for what is none."""
    shapes = [(len(NUMBERS),), (len(NUMBERS),), (WEIGHTS,)]
    found = [np.asarray(one) for one in arrays]
    sound = [one.shape for one in found] == shapes and all(one.dtype.kind == "f" for one in found)
    if not sound or not all((np.abs(one) <= NUMBER_MAX).all() for one in found) or (found[1] < SCALE_MIN).any():
        raise UsageError("cannot use the flow model of the Flower server: it is none")
    mean, scale, weights = (one.astype(np.float64) for one in found)
    return FlowModel(mean, scale, weights[:-1].copy(), float(weights[-1]), {})


@dataclass(frozen=True)
class FlowerSite:
    """One site as a Flower client. told: a line for each round."""

    site: FleetSite
    told: list[str] = field(default_factory=list)

    def fit(self, parameters: Arrays, config: Mapping[str, Any]) -> Answer:
        """The round's weights with what the labels here change of them; the count of examples tells nothing."""
        base = _model_of(parameters)
        made = self.site.learner.trained_from(base)
        delta = clipped(np.array([*(made.weights - base.weights), made.bias - base.bias]))
        weights = np.array([*base.weights, base.bias]) + delta
        options, number = self.site.options, int(config["round"])
        signature = _signature(options.key, str(config["run"]), number, weights)
        return [weights], 1, {"site": options.site, "signature": signature}

    def evaluate(self, parameters: Arrays, config: Mapping[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Take what came of a round through this site's own gates."""
        cycle = self.site.learner.adopt(_model_of(parameters), f"round {config['round']} of Flower")
        missed = ", ".join(gate["name"] for gate in cycle["gates"] if not gate["passed"])
        line = f"round {config['round']}: flow model {cycle['state']}{f', missed: {missed}' if missed else ''}"
        _log.info("flower_step", done=line)
        self.told.append(line)
        return float(cycle["metrics"]["loss"]), 1, {}

    def take_part(self, address: str) -> list[str]:
        """All rounds of the server at this address; a line each. Raises AgentsError."""
        host, port = must_have_flower(address)
        _wait_for(host, port)
        client = _flower("flwr.client")
        methods = {
            "fit": lambda _, parameters, config: self.fit(parameters, config),
            "evaluate": lambda _, parameters, config: self.evaluate(parameters, config),
        }
        made = type("SiteClient", (client.NumPyClient,), methods)()
        try:
            client.start_client(server_address=address, client=made.to_client(), insecure=True, max_retries=3)
        except importlib.import_module("grpc").RpcError as error:
            raise AgentsError(f"cannot go on with the Flower server: {type(error).__name__}") from None
        return self.told


def _wait_for(host: str, port: int) -> None:
    """Wait until somebody listens there: Flower's client gives up at once. Raises AgentsError."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection((host, port), LOOK_S):
            return
        time.sleep(LOOK_S)
    raise AgentsError(f"cannot reach the Flower server: nobody listens on port {port}")


class FlowerRounds:
    """What the coordinator's Flower server does with what sites send: who it is, and how it is joined."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.run, self.lines = secrets.token_hex(8), list[str]()
        self._coordinator = coordinator
        base = coordinator.flow_model()
        self.fixed = [base.mean, base.scale]
        self.weights = np.array([*base.weights, base.bias])

    def parameters(self) -> list[NDArray[np.float64]]:
        """The model that the next round begins with."""
        return [*self.fixed, self.weights]

    def join_round(self, number: int, sent: Sequence[tuple[Arrays, Mapping[str, Any]]]) -> None:
        """Join the weights of a round; too few sites, and those of the last one stay."""
        deltas: dict[str, NDArray[np.float64]] = {}
        keys = self._coordinator.site_keys()
        for arrays, said in sent:
            site = str(said.get("site", ""))
            if site in deltas or (delta := self._checked(arrays, said, keys.get(site, ""), number)) is None:
                _log.warning("flower_contribution_refused", site=printable(site, 40))
                continue
            deltas[site] = delta
        if len(deltas) < self._coordinator.options.sites_min:
            self.lines.append(f"round {number}: nothing joined, {len(deltas)} sites sent")
            return
        self.weights = self.weights + joined_delta(list(deltas.values()))
        self._coordinator.go_on_from(self.weights)
        self.lines.append(f"round {number}: joined {', '.join(sorted(deltas))}")

    def _checked(self, arrays: Arrays, said: Mapping[str, Any], key: str, number: int) -> NDArray[np.float64] | None:
        """What a site changes of the weights; None where it is none of this fleet, or they are none."""
        if len(arrays) != 1 or arrays[0].shape != (WEIGHTS,) or arrays[0].dtype != np.float64:
            return None
        weights, signature = arrays[0], str(said.get("signature", ""))
        wanted = _signature(key or secrets.token_urlsafe(32), self.run, number, weights)
        if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "surrogatepass")):
            return None
        return weights - self.weights if (np.abs(weights) <= NUMBER_MAX).all() else None

    def serve(self, address: str, rounds: int, sites: int) -> list[str]:
        """Serve so many rounds to so many sites; a line each. Raises AgentsError."""
        must_have_flower(address)
        server, common, strategy = (_flower(f"flwr.{one}") for one in ("server", "common", "server.strategy"))

        def aggregate_fit(_: Any, number: int, results: Sequence[Any], failures: Sequence[Any]) -> tuple[Any, Any]:
            self.join_round(
                number, [(common.parameters_to_ndarrays(one.parameters), one.metrics) for _, one in results]
            )
            return common.ndarrays_to_parameters(self.parameters()), {}

        config = {"on_fit_config_fn": self._config, "on_evaluate_config_fn": self._config}
        least = dict.fromkeys(("min_fit_clients", "min_evaluate_clients", "min_available_clients"), sites)
        joining = type("Joining", (strategy.FedAvg,), {"aggregate_fit": aggregate_fit})(
            initial_parameters=common.ndarrays_to_parameters(self.parameters()), **config, **least
        )
        try:
            terms = server.ServerConfig(num_rounds=rounds, round_timeout=ROUND_S)
            server.start_server(server_address=address, config=terms, strategy=joining)
        except RuntimeError as error:
            if "bind" not in str(error):  # gRPC's word for a port that is taken; anything else is our own fault
                raise
            raise AgentsError(f"cannot serve Flower on {address}: {printable(str(error), 120)}") from None
        return self.lines

    def _config(self, number: int) -> dict[str, Any]:
        return {"round": number, "run": self.run}
