"""The bounds of gates: how good a candidate must be, and how much worse than the model in use, or than the anchor."""

from __future__ import annotations

from dataclasses import dataclass

from agents.core.protocols import Field, Spec, Within

ANCHOR_TUNNEL_DROP, SCORE_DRIFT = 0.05, 0.1


@dataclass(frozen=True, slots=True)
class GateBounds:
    """See the settings GATE_…; shares are 0..1."""

    false_alarm_rise: float = 0.001
    tunnel_drop: float = ANCHOR_TUNNEL_DROP
    score_drift: float = SCORE_DRIFT
    alert_rise: float = 0.5
    tunnels_lost: int = 0
    benign_alarms: int = 0
    feature_drift: float = 0.5
    creep: float = 1.5
    replayed_max: int = 300_000
    budget_per_week: float = 3.0
    golden_above_normal: float = 0.002  # twice what calibration aims at, which saw none of the golden names
    false_incidents: int = 0
    sessions_found: float = 1.0
    bytes_before: float = 500.0
    drift_max: float = 0.0  # 0 = no gate


USUAL_BOUNDS = GateBounds()

SPEC: Spec[GateBounds] = Spec(
    "gates",
    "gates of a retraining: of the candidate itself, and beside the model in use and the anchor",
    (
        Field(
            "gate_golden_above_normal",
            float,
            USUAL_BOUNDS.golden_above_normal,
            "share of golden names that a candidate may have above NORMAL",
            Within(0, 1),
        ),
        Field(
            "gate_false_incidents",
            int,
            USUAL_BOUNDS.false_incidents,
            "incidents that a candidate may find in the golden traffic, which has none",
            Within(0, 1_000_000),
        ),
        Field(
            "gate_sessions_found",
            float,
            USUAL_BOUNDS.sessions_found,
            "share of the golden tunnel sessions that a candidate must find",
            Within(0, 1),
        ),
        Field(
            "gate_bytes_before",
            float,
            USUAL_BOUNDS.bytes_before,
            "bytes that may leave in a golden tunnel session before a candidate finds it",
            Within(1, 1_000_000),
        ),
        Field(
            "gate_false_alarm_rise",
            float,
            0.001,
            "share of golden names that a candidate may have above NORMAL beyond those of the model in use",
            Within(0, 1),
        ),
        Field(
            "gate_tunnel_drop",
            float,
            ANCHOR_TUNNEL_DROP,
            "share of golden tunnel names by which a candidate may find fewer than model in use and anchor",
            Within(0, 1),
        ),
        Field(
            "gate_score_drift",
            float,
            SCORE_DRIFT,
            "mean difference of a candidate's scores of golden names to the shipped model's, and to the anchor's",
            Within(0, 1),
        ),
        Field(
            "gate_alert_rise",
            float,
            0.5,
            "alerts a week beyond the model in use's, as a share; up to ALERT_BUDGET_PER_WEEK is allowed anyway",
            Within(0, 1000),
        ),
        Field(
            "gate_tunnels_lost",
            int,
            0,
            "alerts of the last week, tunnels for certain by a rule or a person, that a candidate may miss",
            Within(0, 1_000_000),
        ),
        Field(
            "gate_benign_alarms",
            int,
            0,
            "alerts of the last week that only the candidate raises, below domains that people called benign",
            Within(0, 1_000_000),
        ),
        Field(
            "gate_feature_drift",
            float,
            0.5,
            "mean population stability index of the features between this sample and the last training's; "
            "0.25 is usually called a large shift",
            Within(0, 100),
        ),
        Field(
            "gate_drift_max",
            float,
            USUAL_BOUNDS.drift_max,
            "population stability index that no single feature may exceed, of query, flow, image and sequence models, "
            "since the last training and since the anchor's; 0 = no gate",
            Within(0, 1000),
        ),
        Field(
            "gate_creep",
            float,
            1.5,
            "how many times as much the largest tenth of normal names may carry as in the anchor's sample",
            Within(1, 100),
        ),
        Field(
            "replay_queries_max",
            int,
            300_000,
            "stored queries of the last week that candidate and model in use both judge, of whole clients; 0 = none",
            Within(0, 50_000_000),
        ),
    ),
    lambda values, budget=3.0: GateBounds(
        values["gate_false_alarm_rise"],
        values["gate_tunnel_drop"],
        values["gate_score_drift"],
        values["gate_alert_rise"],
        values["gate_tunnels_lost"],
        values["gate_benign_alarms"],
        values["gate_feature_drift"],
        values["gate_creep"],
        values["replay_queries_max"],
        budget,
        values["gate_golden_above_normal"],
        values["gate_false_incidents"],
        values["gate_sessions_found"],
        values["gate_bytes_before"],
        values["gate_drift_max"],
    ),
)
