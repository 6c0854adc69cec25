"""Training in a process of its own: scikit-learn, and what it learns from, take memory that goes when it ends."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

from agents.core.errors import AgentsError
from agents.core.types import Sample
from agents.learning.retraining import CALCULATION
from agents.learning.run import TrainRequest
from agents.runtime import bootstrap
from agents.scoring.model import Model
from agents.settings import Settings


def train_apart(settings: Settings, sample: Sample, request: TrainRequest) -> Model:
    """As bootstrap.train_model, and raises what that raises; AgentsError where the process comes to no end of its own.

    Ctrl-C in a terminal does not reach it: who waits for the retraining decides.
    """
    done = subprocess.run(
        [sys.executable, "-m", "agents.runtime.trainer"],
        input=pickle.dumps((settings, sample, request)),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise AgentsError(f"cannot train: the process that trains ended with {done.returncode}; see the log")
    found: bytes | Exception = pickle.loads(done.stdout)  # noqa: S301 - from our own child
    if isinstance(found, Exception):
        raise found
    return Model.from_bytes(found)


def _main() -> None:
    settings, sample, request = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    try:
        found: bytes | Exception = bootstrap.train_model(settings, sample, request).to_bytes()
    except (AgentsError, OSError, MemoryError, *CALCULATION) as error:  # what the run would record
        found = error
    sys.stdout.buffer.write(pickle.dumps(found))


if __name__ == "__main__":
    _main()
