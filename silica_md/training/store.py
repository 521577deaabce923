"""Checkpoints of a training, in the file format of `silica_md.checkpoint`: arrays and JSON, nothing to execute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import checkpoint
from .optimizer import Average, Schedule


@dataclass
class Progress:
    """Where a training is, beyond its tensors.

    Attributes
    ----------
    epoch, batch, step : int
        Epoch under way, its next batch, and steps done in all.
    stage : int
        1, or 2.
    loss_sum : float
        Of the steps of this epoch.
    best_loss : float or None
        Of the best evaluation in this stage.
    best_epoch : int
        Its epoch.
    waited : int
        Evaluations since then.
    seconds : float
        Spent before this process took over.
    log : int
        Length of the log in bytes.
    finished : bool
        Whether there is nothing left to train.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    stage: int = 1
    loss_sum: float = 0.0
    best_loss: float | None = None
    best_epoch: int = -1
    waited: int = 0
    seconds: float = 0.0
    log: int = 0
    finished: bool = False


@dataclass
class Learner:
    """Everything that changes while a model learns.

    Attributes
    ----------
    model, optimizer, schedule, average
    best : dict
        Weights of the best evaluation, by stage.
    progress : Progress
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: Average
    best: dict[int, list[Tensor]] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    @property
    def parameters(self) -> list[Tensor]:
        """Weights that are trained, in the order of the model."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def save(folder: Path, learner: Learner) -> None:
    """Write a checkpoint; the two newest are kept.

    Raises
    ------
    OSError
        It cannot be written; the older ones are untouched.
    """
    tensors = {f"weight.{k}": value for k, value in enumerate(learner.parameters)}
    tensors |= {f"average.{k}": value for k, value in enumerate(learner.average.averages)}
    for stage, weights in learner.best.items():
        tensors |= {f"best{stage}.{k}": value for k, value in enumerate(weights)}
    for k, held in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{k}.{name}": value for name, value in held.items()}
    tensors["random"] = torch.get_rng_state()
    header = {
        "step": learner.progress.step,
        "progress": asdict(learner.progress),
        "schedule": learner.schedule.state_dict(),
        "updates": learner.average.updates,
        "stages": sorted(learner.best),
    }
    checkpoint.save(folder, header, {name: value.detach().cpu().numpy() for name, value in tensors.items()})


def restore(folder: Path, learner: Learner, say: Callable[[str], None]) -> bool:
    """Take up the newest whole checkpoint; False where there is none.

    Raises
    ------
    CheckpointError
        There are some, but none can be read, or they are of another model.
    """
    saved = checkpoint.load_newest(folder, say)
    if saved is None:
        return False
    parameters, header = learner.parameters, saved.header
    device = parameters[0].device

    def tensors(prefix: str) -> list[Tensor]:
        names = [f"{prefix}.{k}" for k in range(len(parameters))]
        return [torch.from_numpy(saved.arrays[name]).to(device) for name in names]

    Average.load(parameters, tensors("weight"))
    Average.load(learner.average.averages, tensors("average") if learner.average.averages else [])
    learner.average.updates = header["updates"]
    learner.best = {stage: tensors(f"best{stage}") for stage in header["stages"]}
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in saved.arrays.items():
        if name.startswith("optimizer."):
            _, number, what = name.split(".")
            state.setdefault(int(number), {})[what] = torch.from_numpy(array)
    groups = learner.optimizer.state_dict()["param_groups"]
    learner.optimizer.load_state_dict({"state": state, "param_groups": groups})
    learner.schedule.load_state_dict(header["schedule"])
    learner.progress = Progress(**header["progress"])
    torch.set_rng_state(torch.from_numpy(saved.arrays["random"]))
    return True
