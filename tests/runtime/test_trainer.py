"""Training in a process of its own gives what training here gives, and its errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agents.core.errors import TrainingError
from agents.core.types import Sample
from agents.learning.baseline import benign_sample
from agents.learning.run import TrainRequest
from agents.runtime import trainer
from agents.runtime.trainer import Training, train_here, train_spawned
from agents.scoring.training import DetectorType, TrainConfig
from agents.scoring.types.pair import SPEC
from tests.support.patience import patient

pytestmark = pytest.mark.integration

REQUEST = TrainRequest(seed=7, since=0.0, until=86_400.0, parent="0" * 16, live=300, topped_up=0)
TRAINING = Training(DetectorType(SPEC, TrainConfig(n_estimators=20)), {"factor": 1.0})
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_model_is_the_same() -> None:
    here = train_here(TRAINING, benign_sample(300, 1), REQUEST)
    assert here.manifest["seed"] == 7
    assert train_spawned(TRAINING, benign_sample(300, 1), REQUEST).to_bytes() == here.to_bytes()


@pytest.mark.slow
def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(TrainingError, match="fewer than 2"):
        train_spawned(TRAINING, benign_sample(1, 1), REQUEST)


def dies(*_: object) -> bytes:
    os._exit(3)


def ignores_signals(*_: object) -> bytes:
    """Signals go to the whole group of the test that waits for it; this one is in none."""
    os.kill(os.getpid(), signal.SIGINT)
    raise TrainingError(f"{os.getsid(0) == os.getpid()} {signal.getsignal(signal.SIGINT) is signal.SIG_IGN}")


def slow(*_: object) -> bytes:
    time.sleep(60)
    return b""


@pytest.mark.slow
def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_trained", dies)
    with pytest.raises(TrainingError, match="cannot train: the process that does it died"):
        train_spawned(TRAINING, Sample([], [], [], [], []), REQUEST)  # type: ignore[arg-type]


@pytest.mark.slow
def test_ctrl_c_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_trained", ignores_signals)
    with pytest.raises(TrainingError, match="True True"):
        train_spawned(TRAINING, Sample([], [], [], [], []), REQUEST)  # type: ignore[arg-type]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.slow
def test_scikit_learn_stays_out_of_this_process_and_the_other_ends_with_it(tmp_path: Path) -> None:
    script = """
import sys
from tests.runtime.test_trainer import *
if __name__ == "__main__":
    train_spawned(TRAINING, benign_sample(300, 1), REQUEST)
    print("sklearn" in sys.modules)
    trainer._trained = slow
    threading.Thread(target=train_spawned, args=(TRAINING, None, REQUEST), daemon=True).start()
    import multiprocessing
    while not multiprocessing.active_children():
        time.sleep(0.05)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(3)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "main.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=patient(60),
        check=False,
    )
    loaded, pid = done.stdout.split()
    assert loaded == "False"
    deadline = time.monotonic() + patient(20)
    while Path(f"/proc/{pid}").exists() and "Z (" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
