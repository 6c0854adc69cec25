"""From settings to models: the registry, detector types, what a candidate is made of."""

from __future__ import annotations

from dataclasses import asdict

from agents.core.errors import SettingsError
from agents.core.npz import FormatError
from agents.core.protocols import Spec
from agents.detection.detector import PEAKS_FILE
from agents.detection.limits import BudgetChoice, Peaks, choose, load_peaks
from agents.learning.baseline import model_bytes
from agents.learning.fleet import options as fleet_options
from agents.learning.fleet.options import FleetOptions
from agents.learning.registry import ModelRegistry
from agents.learning.type_comparison import TypeParams
from agents.runtime.trainer import Training
from agents.scoring import MODEL_TYPES
from agents.scoring.model import Model
from agents.scoring.training import DetectorType, TrainConfig
from agents.scoring.types.base import OutlierScorer
from agents.settings import Settings


def registry_of(settings: Settings) -> ModelRegistry[Model]:
    """The folder of models, with the shipped one to fall back to."""
    load, secret = model_type_of(settings).load, fleet_options_of(settings).secret
    return ModelRegistry(settings.models_dir, load, model_bytes(), settings.approvals, secret)


def fleet_options_of(settings: Settings) -> FleetOptions:
    """The settings FLEET…."""
    return fleet_options.SPEC.factory(settings.of(fleet_options.SPEC))


def training_of(settings: Settings) -> Training:
    """How candidates are made now: the limits come from the network's history up to this moment."""
    return Training(model_type_of(settings), budget_choice_of(settings).to_json())


def model_type_of(settings: Settings) -> DetectorType:
    """The detector type that is trained; files of all types are read. Raises SettingsError."""
    spec = type_named(settings.model_type, "MODEL_TYPE")
    return DetectorType(spec, train_config(settings), settings.of(spec))


def train_config(settings: Settings) -> TrainConfig:
    return TrainConfig(
        benign_above_suspicious=settings.target_fpr_suspicious,
        benign_above_high=settings.target_fpr_high,
        score_suspicious=settings.score_suspicious,
        score_high=settings.score_high,
    )


def type_named(name: str, setting: str) -> Spec[OutlierScorer]:
    for spec in MODEL_TYPES:
        if spec.name == name:
            return spec
    names = ", ".join(spec.name for spec in MODEL_TYPES)
    raise SettingsError(f"cannot use setting {setting}={name}: it is one of {names}")


def compared_types(settings: Settings) -> list[TypeParams]:
    """The detector types that a report compares, each with its params. Raises SettingsError."""
    named = [name for name in map(str.strip, settings.compare_types.split(",")) if name]
    if named == ["none"]:
        return []
    specs = MODEL_TYPES if named == ["all"] else [type_named(name, "COMPARE_TYPES") for name in named]
    return [(spec, asdict(train_config(settings)) | settings.of(spec)) for spec in specs]


def budget_choice_of(settings: Settings) -> BudgetChoice:
    """The limits that the network's own history and ALERT_BUDGET_PER_WEEK ask for."""
    try:
        peaks = load_peaks((settings.state_dir / PEAKS_FILE).read_bytes())
    except (OSError, FormatError):
        peaks = Peaks()
    return choose(peaks, settings.alert_budget_per_week)
