"""What a run writes down as it goes: rows of the log, frames, samples, checkpoints; and the watch over all of it."""

from __future__ import annotations

import time

from rsa_kernels._nvtx import annotated
from rsa_kernels.units import EV_PER_A3_IN_GPA

from . import checkpoint
from .folder import RunFolder
from .forcefield import ForceField
from .integrators import Integrator
from .observers import ProgressBar, ThermoLog
from .potentials import Evaluation
from .schedule import Schedule, Stage
from .state import State
from .structure_log import StructureLog
from .structure_sample import StructureSampler
from .trajectory import TrajectoryWriter
from .watch import Watch


class Recorder:
    """Log, trajectories, samples of the structure, checkpoints and progress bar of a run, and the watch over them.

    Parameters
    ----------
    folder : RunFolder
        Where the files are.
    schedule : Schedule
        For the length of the run.
    state : State
        Where the run is taken up.
    observed : bool
        Whether there are samples of the structure.
    """

    def __init__(self, folder: RunFolder, schedule: Schedule, state: State, observed: bool = True):
        self._folder = folder
        self._thermo = ThermoLog(folder.thermo)
        self._trajectories = [TrajectoryWriter(path) for path in folder.trajectories]
        self._sampler = StructureSampler(state.atomic_numbers) if observed else None
        self._structure = _structure_log(folder, self._sampler) if observed else None
        self._progress = ProgressBar(schedule.steps, start_step=state.step)
        self.watch = Watch()
        # eV at the last row: kinetic and potential energy; the conserved quantity; what makes it continuous.
        self._mechanical = self._conserved = self._offset = 0.0
        self._clock = (time.perf_counter(), state.time)

    def clear(self) -> None:
        """Begin with empty files: what a run killed before its first checkpoint has left goes."""
        self._thermo.truncate_to(0)
        for trajectory in self._trajectories:
            trajectory.truncate({"bytes": 0, "frames": 0})
        if self._structure:
            self._structure.truncate_to(0)

    def enter(self, state: State, integrator: Integrator, removed: float = 0.0) -> None:
        """Begin a segment: its baths are empty, the conserved quantity goes on from where it was.

        `removed` is the kinetic energy (eV) that was taken from the atoms since the last row.
        """
        self._mechanical -= removed
        self._offset = self._conserved - self._mechanical - integrator.reservoir(state)
        temperature = float(state.temperature(integrator.degrees_of_freedom(state)))
        self.watch.begin(self._conserved / state.n_atoms, state.time / 1000.0, temperature)

    @annotated("log")
    def row(self, state: State, stage: Stage, integrator: Integrator, evaluation: Evaluation) -> None:
        """Write a row of the log, judge it, and show it.

        Raises
        ------
        UnsoundError
            The numbers cannot be right; the row stands in the log all the same.
        """
        n_atoms, kinetic = state.n_atoms, float(state.kinetic_energy())
        self._mechanical = kinetic + float(evaluation.energy)
        self._conserved = self._mechanical + integrator.reservoir(state) + self._offset
        degrees = integrator.degrees_of_freedom(state)
        row = {
            "step": state.step,
            "time_ps": state.time / 1000.0,
            "segment": stage.segment.name,
            "target_K": integrator.temperature,
            "temperature_K": float(state.temperature(degrees)),
            "pressure_GPa": float(state.pressure(evaluation.virial).trace()) / 3.0 * EV_PER_A3_IN_GPA,
            "density_g_cm3": float(state.density()),
            "potential_eV_per_atom": float(evaluation.energy) / n_atoms,
            "kinetic_eV_per_atom": kinetic / n_atoms,
            "conserved_eV_per_atom": self._conserved / n_atoms,
            "ns_per_day": self._pace(state),
        }
        self._thermo.write(row)
        self._progress.update(row)
        self.watch.check_row(row)

    @annotated("frame")
    def frame(self, state: State, stage: Stage) -> None:
        """Append a frame to the trajectories."""
        for trajectory in self._trajectories:
            trajectory.write(state, stage.segment.name)

    def sample(self, state: State, stage: Stage, integrator: Integrator) -> None:
        """Measure the structure and add it to the samples."""
        target = stage.temperature(state.step)
        when = {
            "step": state.step,
            "time": state.time / 1000.0,
            "segment": stage.segment.name.encode(),
            "target": float("nan") if target is None else target,
            "temperature": float(state.temperature(integrator.degrees_of_freedom(state))),
        }
        self._structure.write(when | self._sampler.take(state))

    @annotated("checkpoint")
    def checkpoint(self, state: State, field: ForceField, integrator: Integrator) -> None:
        """Write a checkpoint, once the state has been found sound.

        Raises
        ------
        UnsoundError
            The state cannot be right.
        OSError
            It cannot be written.
        """
        field.confirm()
        self.watch.check_state(state, integrator.temperature, integrator.degrees_of_freedom(state))
        header, arrays = checkpoint.contents(state, field)
        header |= {"integrator": integrator.state_dict(), "recorder": self.state_dict()}
        checkpoint.save(self._folder.checkpoints, header, arrays)

    def state_dict(self) -> dict:
        """Lengths of the files, forced to the disk, and the energies the next row builds on."""
        return {
            "thermo": self._thermo.position(),
            "trajectories": [trajectory.position() for trajectory in self._trajectories],
            "structure": self._structure.position() if self._structure else 0,
            "energies": [self._mechanical, self._conserved, self._offset],
            "watch": self.watch.reference,
        }

    def load_state_dict(self, saved: dict) -> None:
        """Go on from `state_dict`; what was written after it is cut off."""
        self._thermo.truncate_to(saved["thermo"])
        for trajectory, position in zip(self._trajectories, saved["trajectories"], strict=True):
            trajectory.truncate(position)
        if self._structure:
            self._structure.truncate_to(saved.get("structure", 0))  # runs of version 0.1 took no samples
        self._mechanical, self._conserved, self._offset = saved["energies"]
        self.watch.reference = saved["watch"]

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        """Close the files and leave the last line of the progress bar standing."""
        self._progress.close()
        for file in (self._thermo, *self._trajectories):
            file.close()

    def _pace(self, state: State) -> float | None:
        """Simulated ns per day of wall time since the last row."""
        now, before = (time.perf_counter(), state.time), self._clock
        self._clock = now
        return None if now[1] == before[1] else (now[1] - before[1]) * 1e-6 / (now[0] - before[0]) * 86400.0


def _structure_log(folder: RunFolder, sampler: StructureSampler) -> StructureLog:
    composition = sampler.composition
    attributes = {
        "n_atoms": composition.n_atoms,
        "species": list(composition.species),
        "atoms_of_species": list(composition.counts.values()),
        "bonds": list(sampler.cutoffs),
        "bond_cutoffs_angstrom": list(sampler.cutoffs.values()),
    }
    return StructureLog(folder.structure, sampler.columns, sampler.axes, attributes)
