"""The training loop: from labelled frames to a model in a folder. Read it from top to bottom.

A training is a pure function of its settings and data: the order of the frames comes from (seed, epoch), so one that
was killed and resumed ends in the same bits as one that was not. Under torchrun the frames of a step are shared out;
gradients are sums over all of them, whoever worked on which.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

import torch

from . import checkpoint, models
from .errors import RunAborted
from .quench import StopRequest
from .training import dataset, store
from .training.dataset import Dataset
from .training.distributed import Group, group, local_rank
from .training.evaluate import error_table, predict, total_loss
from .training.finish import Result, finish
from .training.folder import TrainingFolder
from .training.frames import order
from .training.graphs import collate
from .training.loss import loss
from .training.optimizer import Average, Schedule, make_optimizer
from .training.record import TrainingRecord
from .training.settings import Settings
from .training.store import Learner


def train(
    settings: Settings, out: str | Path, *, resume: bool = False, show: bool = True, report: bool = True
) -> Result | None:
    """Train a model.

    Parameters
    ----------
    settings : Settings
        What to do; with `resume` it must be what the folder holds (``TrainingFolder(out).read_settings()``).
    out : str or Path
        Folder for everything that comes of it; must be empty unless the training is resumed.
    resume : bool
        Go on from the newest checkpoint in the folder; from the beginning where there is none.
    show : bool
        Whether to write lines and progress on standard error; ``log.txt`` has the lines either way.
    report : bool
        Whether to draw plots and write the page at the end, which takes seconds.

    Returns
    -------
    Result or None
        None when a signal has stopped the training, with a checkpoint on disk.

    Raises
    ------
    ConfigError, DataError, ValueError
        Settings or data cannot be used.
    RunExistsError
        The folder is taken, or another process is at work in it.
    RunAborted
        The loss is not finite, or a file cannot be written; the message names the last good checkpoint.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    folder = TrainingFolder(out)
    with StopRequest() as stop, contextlib.ExitStack() as held:
        team = held.enter_context(group(device))
        if team.leads and not resume:
            folder.refuse_if_taken()
        lines: list[str] = []
        data = dataset.load(settings, lines.append)
        model = models.build(data.config, dtype=getattr(torch, settings.default_dtype), seed=settings.seed).to(device)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        average = Average(weights, settings.ema_decay if settings.ema else 0.0)
        learner = Learner(model, make_optimizer(model, settings), Schedule(settings), average)
        lines.append(f"model {settings.model}: {sum(w.numel() for w in weights):,} weights, {settings.default_dtype}")

        if team.leads:  # only now: what cannot be trained leaves no folder behind
            held.enter_context(folder.locked() if resume else folder.created(settings))
        n_batches = math.ceil(len(data.parts["train"].frames) / settings.batch_size)
        record = held.enter_context(TrainingRecord(folder, team, settings, n_batches, show))
        for line in lines:
            record.say(line)
        team.wait()  # nobody reads checkpoints while another still writes
        if resume and store.restore(folder.checkpoints, learner, record.say):
            record.say(f"resumed at epoch {learner.progress.epoch}, step {learner.progress.step}")
        record.truncate_to(learner.progress.log)
        record.open(learner.progress.epoch * n_batches + learner.progress.batch)
        try:
            if not learn(learner, data, settings, team, device, record, folder, stop):
                record.say(f"stopped; go on with: silica-md train --resume --out {folder.path}")
                return None
            return finish(learner, data, settings, team, device, record, folder, report)
        except OSError as error:
            raise aborted(folder, learner, f"a file cannot be written: {error.strerror or error}") from error


def learn(
    learner: Learner,
    data: Dataset,
    settings: Settings,
    team: Group,
    device: torch.device,
    record: TrainingRecord,
    folder: TrainingFolder,
    stop: StopRequest,
) -> bool:
    """Advance the learner through the epochs that remain: the loop itself. False if it was stopped before the end."""
    progress, graphs = learner.progress, data.parts["train"].graphs
    n_elements = len(data.config.atomic_numbers)
    n_batches = math.ceil(len(graphs) / settings.batch_size)
    since, next_checkpoint = time.monotonic() - progress.seconds, time.monotonic() + settings.checkpoint_seconds

    def save() -> None:
        nonlocal next_checkpoint
        progress.seconds = time.monotonic() - since
        if team.leads:
            progress.log = record.position()
            store.save(folder.checkpoints, learner)
        next_checkpoint = time.monotonic() + settings.checkpoint_seconds

    while progress.epoch < settings.max_num_epochs and not progress.finished:
        if progress.stage == 1 and progress.epoch >= settings.first_epoch_of_stage_two:
            enter_stage_two(learner, record)
        for options in learner.optimizer.param_groups:
            options["lr"] = learner.schedule.lr
        weights, indices = settings.weights(progress.stage), order(len(graphs), settings.seed, progress.epoch)

        while progress.batch < n_batches:
            first = progress.batch * settings.batch_size
            chosen = [graphs[k] for k in indices[first : first + settings.batch_size]]
            value, stopping = step(learner, chosen, weights, n_elements, settings, team, device, stop.requested)
            if not math.isfinite(value):
                raise aborted(folder, learner, f"the loss or its gradient is {value}; try a smaller `lr`")
            progress.batch, progress.step = progress.batch + 1, progress.step + 1
            progress.loss_sum += value
            record.step(progress.epoch, progress.batch, progress.stage, progress.loss_sum / progress.batch)
            if stopping or time.monotonic() > next_checkpoint:
                save()
            if stopping:
                return False

        row = {"epoch": progress.epoch, "step": progress.step, "stage": progress.stage, "lr": learner.schedule.lr}
        row["train_loss"] = progress.loss_sum / n_batches
        progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
        if progress.stage == 1:
            learner.schedule.after_epoch()
        row |= dict.fromkeys(ERRORS)
        if progress.epoch % settings.eval_interval == 0 or progress.epoch == settings.max_num_epochs:
            row |= judge(learner, data, weights, settings, team, device)
            if progress.stage == 1:
                learner.schedule.after_evaluation(row["valid_loss"])
        record.row(row | {"seconds": time.monotonic() - since})
        if progress.waited >= settings.patience:
            if progress.stage == 1 and settings.swa:
                progress.epoch = max(progress.epoch, settings.first_epoch_of_stage_two)
            else:
                record.say(f"no improvement in {progress.waited} evaluations; epoch {progress.epoch - 1} was the last")
                progress.finished = True
    progress.finished = True
    save()
    return True


def step(learner, graphs, weights, n_elements, settings, team, device, stop) -> tuple[float, bool]:
    """One step of the optimizer on the frames of all processes: its loss, and whether any process wants to stop."""
    learner.optimizer.zero_grad(set_to_none=True)
    told = torch.tensor([0.0, float(stop)], dtype=graphs[0].positions.dtype, device=device)
    mine = graphs[team.rank :: team.size]
    if mine:
        batch = collate(mine, n_elements, device)
        with_stress = "stress" in weights
        output = learner.model(
            batch.inputs, training=True, compute_force="forces" in weights or with_stress, compute_stress=with_stress
        )
        part = loss(output, batch, weights, len(graphs), sum(len(graph.species) for graph in graphs))
        part.backward()
        told[0] = part.detach()
    value, stopping = team.sum_gradients(learner.parameters, told).tolist()
    norm = float(torch.nn.utils.clip_grad_norm_(learner.parameters, settings.clip_grad or math.inf))
    if not math.isfinite(norm):
        return norm, stopping > 0
    learner.optimizer.step()
    learner.average.update()
    return value, stopping > 0


ERRORS = (
    "valid_loss", "rmse_e_meV_per_atom", "mae_e_meV_per_atom", "rmse_f_meV_per_A", "mae_f_meV_per_A",
    "rmse_stress_meV_per_A3", "mae_stress_meV_per_A3",
)  # fmt: skip
"""What an evaluation adds to a row of the log."""


def judge(learner, data, weights, settings, team, device) -> dict:
    """Evaluate on the validation frames, with the average of the weights; remember them if they are the best yet."""
    progress, part = learner.progress, data.parts["valid"]
    with learner.average.applied():
        predictions = predict(learner.model, part.graphs, len(data.config.atomic_numbers), settings, team, device)
    value = total_loss(predictions, part.frames, data.energies, weights)
    if progress.best_loss is None or value < progress.best_loss:
        progress.best_loss, progress.best_epoch, progress.waited = value, progress.epoch - 1, 0
        learner.best[progress.stage] = learner.average.weights()
    else:
        progress.waited += 1
    table = error_table(predictions, part.frames, data.energies, settings)[0]
    return {"valid_loss": value} | {name: table[name] for name in ERRORS[1:]}


def enter_stage_two(learner: Learner, record: TrainingRecord) -> None:
    """Change weights of the loss and learning rate; the losses of the first stage do not compare with what follows."""
    progress = learner.progress
    record.say(f"stage two begins at epoch {progress.epoch}; the best of stage one was epoch {progress.best_epoch}")
    progress.stage, progress.best_loss, progress.waited = 2, None, 0
    learner.schedule.enter_stage_two()


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; under torchrun every process has a GPU of its own."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError('`device` "cuda" cannot be used: there is no GPU that torch can use; use "cpu"')
    return torch.device("cuda", local_rank())


def aborted(folder: TrainingFolder, learner: Learner, reason: str) -> RunAborted:
    """Return the error that names the last good checkpoint."""
    newest = checkpoint.newest(folder.checkpoints)
    good = f"the last good checkpoint is {newest}, --resume goes on from it" if newest else "there is no checkpoint yet"
    where = f"epoch {learner.progress.epoch}, step {learner.progress.step}"
    return RunAborted(f"training stopped at {where}: {reason}; {good}")
