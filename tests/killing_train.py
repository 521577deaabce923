"""Kills trainings and resumes them; a process of its own, so that forked children share its imports but no threads.

python killing_train.py FOLDER TRIALS      prints one JSON object for each trial
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from training_frames import tiny

from silica_md import checkpoint, models
from silica_md.train import train
from silica_md.training.folder import TrainingFolder

# Everything that has a state: AMSGrad, average, plateau, stage two, batches within an epoch.
CHANGES = {
    "max_num_epochs": 12,
    "batch_size": 2,
    "ema": True,
    "swa": True,
    "start_swa": 8,
    "scheduler_patience": 0,
    "lr": 0.05,
    "checkpoint_seconds": 1e-6,
    "eval_interval": 2,
    "loss": "stress",
}


def start(path, settings):
    """Train, or resume, in a child; returns its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            resume = TrainingFolder(path).config.exists()
            train(settings, path, resume=resume, show=False, report=False)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def outcome(path):
    """Everything a finished training leaves, without the time it took."""
    saved = checkpoint.load(checkpoint.newest(path / "checkpoints"))
    arrays = {name: array.tobytes() for name, array in saved.arrays.items()}
    tensors, _ = models.load(path / "model.safetensors")
    rows = [line.rsplit(",", 1)[0] for line in (path / "epochs.csv").read_text().splitlines()]
    weights = {f"model.{name}": value.numpy().tobytes() for name, value in tensors.state_dict().items()}
    return arrays | weights | {"rows": rows, "step": saved.header["step"], "schedule": saved.header["schedule"]}


def reached(path):
    """Step of the newest checkpoint, 0 before the first."""
    newest = checkpoint.newest(path / "checkpoints")
    return int(newest.stem.split("-")[1]) if newest else 0


def main(folder, trials):
    torch.set_num_threads(1)
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    settings = tiny(folder, **CHANGES)
    whole = folder / "whole"
    assert os.waitpid(start(whole, settings), 0)[1] == 0
    expected, chance = outcome(whole), random.Random(5)
    for trial in range(trials):
        path = folder / f"trial-{trial}"
        pid = start(path, settings)
        # The last one before the first checkpoint is likely, the others anywhere; within an epoch as often as not.
        target = chance.randrange(1, expected["step"]) if trial else 1
        while reached(path) < target and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
        status, step = os.waitpid(pid, 0)[1], reached(path)
        assert os.waitpid(start(path, settings), 0)[1] == 0
        found = outcome(path)
        report = {"status": status, "step": step, "of": expected["step"]}
        report["differences"] = [name for name in expected if found.get(name) != expected[name]]
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
