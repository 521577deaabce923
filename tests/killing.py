"""Kills runs and resumes them; a process of its own, so that forked children share its imports but no threads.

python killing.py FOLDER TRIALS SIGNAL      prints one JSON object for each trial
"""

import io
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

import silica_md.analysis  # noqa: F401  (imported once here, not in every child)
from silica_md import checkpoint, config
from silica_md.folder import RunFolder
from silica_md.quench import run

# All integrators, ramps, both trajectories, samples of the structure; checkpoints as often as the clock allows.
CONFIG = config.from_dict(
    {
        "atoms": 96,
        "seed": 11,
        "threads": 1,
        "device": "cpu",
        "log_every": 10,
        "frame_ps": 0.05,
        "observe_ps": 0.08,
        "checkpoint_seconds": 0.03,
        "segment": [
            {"name": "melt", "temperature_K": 4000.0, "duration_ps": 0.3, "relaxation_fs": 50.0},
            {"name": "quench", "ramp_to_K": 300.0, "duration_ps": 0.5, "ensemble": "npt"},
            {"name": "chain", "temperature_K": 300.0, "duration_ps": 0.2, "thermostat": "nose-hoover"},
            {
                "name": "flexible",
                "temperature_K": 300.0,
                "duration_ps": 0.2,
                "thermostat": "nose-hoover",
                "ensemble": "npt-flexible",
            },
            {"name": "free", "ensemble": "nve", "duration_ps": 0.1},
        ],
    }
)


def start(path):
    """Run, or resume, in a child; returns its process id."""
    pid = os.fork()
    if pid == 0:
        progress, sys.stderr = sys.stderr, io.StringIO()
        try:
            run(CONFIG, RunFolder(path), lambda text: None, resume=RunFolder(path).taken)
        except BaseException:
            traceback.print_exc(file=progress)
            os._exit(1)
        os._exit(0)
    return pid


def outcome(path):
    """Everything a finished run leaves, without the pace of this machine."""
    saved = checkpoint.load(checkpoint.newest(path / "checkpoints"))
    rows = [line.rsplit(",", 1)[0] for line in (path / "thermo.csv").read_text().splitlines()]
    names = ("trajectory.xyz", "trajectory.nc", "structure.h5", "final.xyz")
    files = {name: (path / name).read_bytes() for name in names}
    header = {key: saved.header[key] for key in ("step", "time", "integrator")}
    return {"arrays": saved.arrays, "rows": rows, "files": files, "header": header}


def reached(path):
    """Step of the newest checkpoint, 0 before the first."""
    newest = checkpoint.newest(path / "checkpoints")
    return int(newest.stem.split("-")[1]) if newest else 0


def differences(one, other):
    found = [name for name in one["arrays"] if not np.array_equal(one["arrays"][name], other["arrays"][name])]
    found += [name for name in one["files"] if one["files"][name] != other["files"][name]]
    return found + [name for name in ("rows", "header") if one[name] != other[name]]


def main(folder, trials, number):
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    whole = folder / "whole"
    assert os.waitpid(start(whole), 0)[1] == 0
    expected = outcome(whole)
    chance = random.Random(4)
    done = 0
    while done < trials:
        path = folder / f"trial-{done}-{time.monotonic_ns()}"
        pid = start(path)
        # Two kills before the first checkpoint; the others a moment after a checkpoint anywhere in the run, so that
        # they are spread over it however busy the machine is.
        target = 0 if done < 2 and number == signal.SIGKILL else chance.randrange(1, expected["header"]["step"])
        while reached(path) < target and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.03))
        os.kill(pid, number)
        status = os.waitpid(pid, 0)[1]
        if status != number and reached(path) == expected["header"]["step"]:
            continue  # it was faster than the signal
        step = reached(path)
        assert os.waitpid(start(path), 0)[1] == 0
        report = {"status": status, "step": step, "differences": differences(expected, outcome(path))}
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        done += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), getattr(signal, sys.argv[3]))
