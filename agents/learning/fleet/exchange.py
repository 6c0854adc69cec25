"""What goes between a site and the coordinator: numbers, keyed hashes and signatures, and no text of anybody's choice.

A request is signed with the site's key (HMAC-SHA256, RFC 2104) over method, path, time and the hash of its body; the
answer is signed over the request's signature and the hash of its own body, so that it belongs to that request alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agents.core.errors import UsageError
from agents.detection.explanations.network_profile import HABITS_KEPT, FleetHabit
from agents.learning.fleet.habits import HABITS_SENT, HabitPart
from agents.learning.loop.flow_hours import NUMBERS
from agents.scoring.features import FEATURES
from agents.scoring.types.forest import DEPTH, INNER, LEAVES, average_path

FLEET_FORMAT = 1
ROUND_PATH = "/fleet/round"
SITE_HEADER, TIME_HEADER, SIGNATURE_HEADER = "X-Fleet-Site", "X-Fleet-Time", "X-Fleet-Signature"
AGE_MAX_S = 300
"""How far the clocks of a site and the coordinator may differ, and how long a signed request is good for."""
CONTRIBUTION_BYTES_MAX, STATE_BYTES_MAX = 2 << 20, 8 << 20
WEIGHTS = len(NUMBERS) + 1
"""Numbers of a flow model that are learnt: its weights, and its bias last."""
BINS = 24
"""Of the counts: clients by the power of two of what they carry."""
HASHES_MAX = 20_000
TREES_SENT, TREES_JOINED, TREE_SAMPLES = 64, 200, 256
PATH_MAX = DEPTH + average_path(TREE_SAMPLES)
"""No path through a tree of such a sample is longer (Liu, Ting, Zhou 2008)."""
Number = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Exact(BaseModel):
    """Nothing beside the fields, no infinities, no conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ForestPart(_Exact):
    """Trees of an Isolation Forest: base64 of uint8, float32, float32 (scoring/types/forest.py)."""

    trees: Annotated[int, Field(ge=1, le=TREES_JOINED)]
    feature: Annotated[str, Field(max_length=TREES_JOINED * INNER * 2)]
    threshold: Annotated[str, Field(max_length=TREES_JOINED * INNER * 8)]
    path: Annotated[str, Field(max_length=TREES_JOINED * LEAVES * 8)]

    @model_validator(mode="after")
    def _sound(self) -> ForestPart:
        self.arrays()
        return self

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays. Raises ValueError for trees that no training makes."""
        kinds = {"feature": ("<u1", INNER), "threshold": ("<f4", INNER), "path": ("<f4", LEAVES)}
        found = {}
        for name, (kind, width) in kinds.items():
            try:
                data = base64.b64decode(getattr(self, name), validate=True)
            except binascii.Error:
                raise ValueError(f"{name} is no base64") from None
            if len(data) != self.trees * width * np.dtype(kind).itemsize:
                raise ValueError(f"{name} has another size")
            found[name] = np.frombuffer(data, kind).reshape(self.trees, width).copy()
        if found["feature"].max() >= len(FEATURES) or np.isnan(found["threshold"]).any():
            raise ValueError("a tree points outside the features")
        if not ((found["path"] >= 0) & (found["path"] <= PATH_MAX)).all():
            raise ValueError("a path is none of a tree")
        return found


def forest_part(arrays: dict[str, NDArray[Any]]) -> ForestPart:
    """Trees as they are sent."""
    kinds = {"feature": "<u1", "threshold": "<f4", "path": "<f4"}
    texts = {name: base64.b64encode(arrays[name].astype(kind).tobytes()).decode() for name, kind in kinds.items()}
    return ForestPart(trees=len(arrays["feature"]), **texts)


class Contribution(_Exact):
    """What one site sends for one round.

    delta: what its labels change of the round's flow model; counts: clients by what they carry, with noise; domains:
    keyed hashes of those that five of its clients or more ask below; habits: what is usual below some of them, each
    domain once.
    """

    format: Annotated[int, Field(ge=FLEET_FORMAT, le=FLEET_FORMAT)]
    round: Annotated[int, Field(ge=1, le=1_000_000)]
    flow_schema: Annotated[int, Field(ge=0, le=1_000_000)]
    name_schema: Annotated[str, Field(pattern="^[0-9a-f]{1,64}$")]
    delta: Annotated[list[Number], Field(min_length=WEIGHTS, max_length=WEIGHTS)]
    counts: Annotated[list[Annotated[int, Field(ge=0, le=10_000_000)]], Field(min_length=BINS, max_length=BINS)]
    domains: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]], Field(max_length=HASHES_MAX)]
    habits: Annotated[list[HabitPart], Field(max_length=HABITS_SENT)]
    forest: ForestPart | None


class FleetState(_Exact):
    """The coordinator's open round, and what came of the last one.

    joined: sites in the last one, 0 = there was none; weights: of the flow model that this round begins with;
    shares: of the fleet's clients by bin; domains: hashes that several sites sent; habits: what is usual below them.
    """

    format: Annotated[int, Field(ge=FLEET_FORMAT, le=FLEET_FORMAT)]
    round: Annotated[int, Field(ge=1)]
    ends_at: float
    sent: bool
    joined: Annotated[int, Field(ge=0)]
    mean: Annotated[list[Number], Field(min_length=len(NUMBERS), max_length=len(NUMBERS))]
    scale: Annotated[list[Number], Field(min_length=len(NUMBERS), max_length=len(NUMBERS))]
    weights: Annotated[list[Number], Field(min_length=WEIGHTS, max_length=WEIGHTS)]
    shares: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=BINS, max_length=BINS)]
    domains: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]], Field(max_length=10 * HASHES_MAX)]
    habits: Annotated[list[FleetHabit], Field(max_length=HABITS_KEPT)]
    forest: ForestPart | None


def made_contribution(**values: Any) -> Contribution:
    """A contribution of this site's own. Raises UsageError for numbers that no site may send."""
    try:
        return Contribution(format=FLEET_FORMAT, **values)
    except ValidationError as error:
        raise UsageError(f"cannot send a contribution: {_fault(error)}") from None


def contribution_of(data: bytes) -> Contribution:
    """A contribution in a request's body. Raises UsageError that shows nothing of it."""
    try:
        return Contribution.model_validate_json(data)
    except ValidationError as error:
        raise UsageError(f"cannot take the contribution: {_fault(error)}") from None


def state_of(data: bytes) -> FleetState:
    """The state in an answer's body. Raises UsageError."""
    try:
        return FleetState.model_validate_json(data)
    except ValidationError as error:
        raise UsageError(f"cannot read the coordinator's answer: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    """Where and of which kind, without what was sent."""
    first = error.errors(include_input=False, include_context=False)[0]
    names = [str(part) for part in first["loc"] if isinstance(part, int) or part in _FIELDS]
    return f"{'.'.join(names) or 'it'} is wrong ({first['type']})"


_FIELDS = {
    *Contribution.model_fields,
    *FleetState.model_fields,
    *ForestPart.model_fields,
    *HabitPart.model_fields,
}


def signature_of(key: str, method: str, path: str, at: str, body: bytes) -> str:
    """What signs a request."""
    text = "\n".join(("dns-tunnel fleet", method, path, at, hashlib.sha256(body).hexdigest()))
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def answer_signature(key: str, request_signature: str, body: bytes) -> str:
    """What signs the answer to a request."""
    text = "\n".join(("dns-tunnel fleet answer", request_signature, hashlib.sha256(body).hexdigest()))
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
