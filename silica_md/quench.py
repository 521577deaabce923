"""The molecular-dynamics loop: from a configuration to a glass in a run folder. Read it from top to bottom.

A run is a pure function of its configuration: all noise comes from (seed, step, atom), so a run that was killed
and resumed ends in the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from rsa_kernels import _library
from rsa_kernels.errors import BackendUnavailableError, RsaKernelsError

from . import checkpoint, potentials, start
from .config import Config
from .errors import ConfigError, RunAborted
from .folder import RunFolder
from .forcefield import ForceField
from .models.store import files_of
from .record import Recorder
from .schedule import Schedule
from .state import State
from .structure_sample import why_on_host
from .trajectory import write_structure
from .watch import UnsoundError

SODIUM = 11
SETTLED = ("ewald", "sha256", "architecture")
"""Options of potentials that a run writes into its own configuration and keeps."""


def run(config: Config, folder: RunFolder, say: Callable[[str], None], resume: bool = False) -> bool:
    """Do the molecular dynamics of a run.

    Parameters
    ----------
    config : Config
        What to do.
    folder : RunFolder
        Where its files go; made here unless the run is resumed.
    say : callable
        Takes lines meant for people.
    resume : bool
        Go on from the newest checkpoint in the folder; from the beginning where it was killed before the first.

    Returns
    -------
    bool
        True when the schedule is done; False when a signal has stopped the run, with a checkpoint on disk.

    Raises
    ------
    ConfigError, ValueError
        The configuration cannot be run; no folder is made.
    RunExistsError
        The folder is taken, or another process is at work in it.
    RunAborted
        The run cannot go on; the message names the last good checkpoint.
    CheckpointError
        Every checkpoint is damaged.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    schedule, device = config.schedule(), choose_device(config.device)
    with StopRequest() as stop, contextlib.ExitStack() as held:
        if resume:
            held.enter_context(folder.locked())  # before anything in it is read
        saved = checkpoint.load_newest(folder.checkpoints, say) if resume else None
        state = checkpoint.state_of(saved, device) if saved else first_state(config, schedule, device)
        if resume:
            config = with_model_at_hand(config, folder, say)
        config = settled(config, state, folder.read_config() if resume and folder.config.exists() else config)
        field = force_field(config, state)
        if not saved:
            for part in getattr(field.potential, "potentials", (field.potential,)):
                if hasattr(part, "check_start"):
                    part.check_start(state.cell, state.pbc)
        if not resume:
            held.enter_context(folder.created(config))
            if potentials.learned.is_learned(config.potential):
                potentials.learned.copy_model(potentials.learned.path_of(config.potential), folder.model)
        if not saved:
            for line in remarks(field.potential, schedule):
                say(line)
        if config.observe_ps and (reason := why_on_host("structure_sums", device)):
            say(f"S(Q) of the samples is summed on the host: {reason}")
        recorder = held.enter_context(Recorder(folder, schedule, state, observed=config.observe_ps > 0.0))
        try:
            if saved:
                field.load_state_dict(checkpoint.field_of(saved, device), state)
                recorder.load_state_dict(saved.header["recorder"])
            else:
                recorder.clear()
                if not config.start:
                    start.push_apart(state, field)
            memory = saved.header["integrator"] if saved else None
            done = follow(schedule, config, state, field, recorder, memory, stop)
            if done:
                write_structure(folder.final, state)
            return done
        except (RsaKernelsError, UnsoundError, ValueError) as error:
            raise aborted(folder, state, str(error)) from error
        except OSError as error:
            raise aborted(folder, state, f"a file cannot be written: {error.strerror or error}") from error


def follow(
    schedule: Schedule,
    config: Config,
    state: State,
    field: ForceField,
    recorder: Recorder,
    memory: dict | None,
    stop: StopRequest,
) -> bool:
    """Advance `state` through what remains of the schedule: the loop itself.

    `memory` is what the integrator remembered at the checkpoint, None at the beginning of a run. Returns False if
    it was stopped before the end.
    """
    next_checkpoint = time.monotonic() + config.checkpoint_seconds
    for stage in schedule.remaining(state.step):
        integrator = stage.integrator(config.timestep_fs, config.seed)
        removed = 0.0
        if state.step == stage.first_step and integrator.momentum_conserved:
            removed = float(state.remove_momentum())  # it would stay, and count as heat
        if memory is None and state.step == 0:
            removed = 0.0
            recorder.row(state, stage, integrator, field.evaluate(state, energy=True, virial=True))
            recorder.frame(state, stage)
            if config.observe_ps:
                recorder.sample(state, stage, integrator)
        if state.step == stage.first_step:
            recorder.enter(state, integrator, removed)
        else:
            integrator.load_state_dict(memory)
        frame_every = steps_in(stage.segment.frame_ps or config.frame_ps, config)
        sample_every = steps_in(config.observe_ps, config)

        while state.step < stage.last_step:
            step = state.step + 1
            integrator.temperature = stage.temperature(step)
            logged = step % config.log_every == 0 or step == stage.last_step
            evaluation = integrator.step(state, field, energy=logged, virial=logged)
            if logged:
                recorder.row(state, stage, integrator, evaluation)
            if (step - stage.first_step) % frame_every == 0 or step == stage.last_step:
                recorder.frame(state, stage)
            if config.observe_ps and ((step - stage.first_step) % sample_every == 0 or step == stage.last_step):
                recorder.sample(state, stage, integrator)
            if stop.requested or step == schedule.steps or (logged and time.monotonic() > next_checkpoint):
                recorder.checkpoint(state, field, integrator)
                next_checkpoint = time.monotonic() + config.checkpoint_seconds
            if stop.requested and step < schedule.steps:
                return False
    return True


def steps_in(ps: float, config: Config) -> int:
    """Steps that come closest to a time in ps, at least one."""
    return max(1, round(1000.0 * ps / config.timestep_fs))


def first_state(config: Config, schedule: Schedule, device: torch.device) -> State:
    """Atoms at random, or those of a file; velocities of the first temperature unless the file has some."""
    if config.start:
        state = start.structure_start(config.start, device)
        if not config.segment and not config.ensemble and bool((state.atomic_numbers == SODIUM).any()):
            raise ConfigError(
                f"{config.start} holds sodium: say whether it keeps its density (--ensemble nvt, usual for sodium "
                "silicates) or not (--ensemble npt)"
            )
    else:
        density = config.density_g_cm3 or start.measured_density(config.na2o)
        state = start.random_start(config.atoms, config.na2o, density, config.seed, device)
    if schedule.first_temperature is not None and not bool(state.velocities.any()):
        state.thermalize(schedule.first_temperature, config.seed)
    return state


def settled(config: Config, state: State, kept: Config) -> Config:
    """Return the configuration with what follows from the start written out: settings of sums, marks of a model.

    The folder of a run holds this one. A run that is resumed, in another cell by then, takes them from there (`kept`).
    """
    if config.d3:
        config = replace(config, d3_options=potentials.settled_dispersion(config.d3, config.d3_options))
    options = config.options_of_potential()
    options |= {name: value for name, value in kept.potential_options.items() if name in SETTLED}
    options = potentials.settled(config.potential, state.atomic_numbers, state.cell, options)
    found = {name: value for name, value in options.items() if name in SETTLED}
    return replace(config, potential_options=config.potential_options | found) if found else config


def with_model_at_hand(config: Config, folder: RunFolder, say: Callable[[str], None]) -> Config:
    """Return the configuration of a resumed run with the model of its own folder, if the file it began with is gone.

    A file that is there is taken, and refused later if it is not the one the run began with.
    """
    if not potentials.learned.is_learned(config.potential):
        return config
    path = potentials.learned.path_of(config.potential)
    if files_of(path)[1].exists() or not files_of(folder.model)[1].exists():
        return config
    say(f"{path} is gone; going on with the copy in {folder.path}")
    return replace(config, potential=f"{potentials.learned.PREFIX}{folder.model}")


def remarks(potential: potentials.Potential, schedule: Schedule) -> list[str]:
    """Lines about the potential of a run that begins: how it sums, what to be wary of."""
    free = any(stage.segment.ensemble.startswith("npt") for stage in schedule.stages)
    lines = []
    for part in [potential, *getattr(potential, "potentials", ())]:
        if isinstance(part, potentials.EwaldPotential | potentials.Dispersion):
            lines.append(part.description)
        if isinstance(part, potentials.LearnedPotential):
            lines += part.remarks(constant_pressure=free)
    return lines


def force_field(config: Config, state: State) -> ForceField:
    """Return the potential of the configuration for the atoms of `state`, with a neighbour list."""
    potential = potentials.build(config.potential, state.atomic_numbers, **config.options_of_potential())
    if config.d3:
        potential = potentials.with_dispersion(potential, config.d3, state.atomic_numbers, **config.d3_options)
    return ForceField(potential, config.skin)


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; "auto" is a GPU where there is one with the kernels for it.

    Raises
    ------
    BackendUnavailableError
        "cuda" was asked for and cannot be had.
    """
    missing = None if torch.cuda.is_available() else "there is no GPU that torch can use"
    for op in ("pair_evaluate", "neighbor_rows"):
        missing = missing or _library.REGISTRY[op].kernels["cuda"].missing()
    if name == "cuda" and missing:
        raise BackendUnavailableError(f"`device` cuda cannot be used: {missing}; use --device cpu")
    return torch.device("cpu" if missing or name == "cpu" else "cuda")


def aborted(folder: RunFolder, state: State, reason: str) -> RunAborted:
    """Return the error that names the last good checkpoint."""
    newest = checkpoint.newest(folder.checkpoints)
    good = "there is no checkpoint yet"
    if newest:
        good = f"the last good checkpoint is {newest}, --resume ({folder.resume_by_make}) goes on from it"
    return RunAborted(f"run stopped at step {state.step} ({state.time / 1000.0:.3f} ps): {reason}; {good}")


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a wish the loop grants at the end of its step; a second one is not waited for."""

    def __init__(self):
        self.requested = False
        self._before: dict = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _frame) -> None:
        self.requested = True
        signal.signal(number, self._before[number])
