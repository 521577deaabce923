"""What a model begins with: energies of isolated atoms, mean number of neighbours, scale and shift of its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols

from ..errors import DataError
from .frames import Frame
from .graphs import Graph
from .settings import Settings


def elements_of(frames: Sequence[Frame], settings: Settings) -> tuple[int, ...]:
    """Elements of the model: those asked for, or those of the training frames."""
    return tuple(sorted(set(settings.atomic_numbers))) or tuple(
        sorted({int(z) for frame in frames for z in np.unique(frame.atomic_numbers)})
    )


def isolated_energies(
    frames: Sequence[Frame], elements: Sequence[int], settings: Settings, say: Callable[[str], None]
) -> dict[int, float]:
    """Energies of the isolated atoms, eV: those given, or the least-squares fit

        min_ε Σ_frames (E − Σ_z n_z ε_z)² ,

    with n_z the number of atoms of element z. Where the compositions do not tell the elements apart, as in pure SiO2,
    it is the solution of the smallest norm, and `say` is told.

    Raises
    ------
    DataError
        An element has no energy in the table given.
    """
    given = settings.isolated_energies()
    if given is not None:
        missing = [chemical_symbols[z] for z in elements if z not in given]
        if missing:
            raise DataError(f"`E0s` has no energy for {', '.join(missing)}")
        return {z: given[z] for z in elements}
    if not settings.needs("energy"):
        say("E0s: 0, as there are no energies to fit them to")
        return dict.fromkeys(elements, 0.0)
    counts = np.array([[np.count_nonzero(frame.atomic_numbers == z) for z in elements] for frame in frames], float)
    energies = np.array([frame.energy for frame in frames])
    found, _, rank, _ = np.linalg.lstsq(counts, energies, rcond=None)
    if rank < len(elements):
        say(
            f"E0s: the compositions of the training frames do not tell {len(elements)} elements apart; of "
            "all fits the one with the smallest energies is taken, which is as good for such compositions"
        )
    return dict(zip(elements, found.tolist(), strict=True))


def scale_and_shift(frames: Sequence[Frame], energies: Mapping[int, float], settings: Settings) -> tuple[float, float]:
    """Scale and shift of the network's output: E_atom = scale · output + shift, eV.

    "rms_forces_scaling": scale = rms of the force components, shift = mean energy an atom beyond the isolated
    atoms; "std_scaling": scale = its standard deviation; "no_scaling": 1 and 0. A scale of 0 becomes 1.
    """
    if settings.scaling == "no_scaling":
        return 1.0, 0.0
    shift, spread = 0.0, 1.0
    if settings.needs("energy"):
        bound = [
            (frame.energy - sum(energies[z] for z in frame.atomic_numbers.tolist())) / len(frame) for frame in frames
        ]
        shift, spread = float(np.mean(bound)), float(np.std(bound))
    if settings.scaling == "rms_forces_scaling":
        spread = float(np.sqrt(np.mean(np.concatenate([frame.forces for frame in frames]) ** 2)))
    return spread or 1.0, shift


def mean_neighbors(graphs: Sequence[Graph]) -> float:
    """Mean number of neighbours of the atoms that have any; 1 where none has."""
    pairs = sum(graph.edge_index.shape[1] for graph in graphs)
    atoms = sum(len(graph.edge_index[1].unique()) for graph in graphs)
    return pairs / atoms if atoms else 1.0


def check_long_range(name: str, frames: Sequence[Frame], settings: Settings) -> None:
    """Refuse frames that a long-range layer cannot take.

    Raises
    ------
    DataError
        A frame is not periodic in all three directions.
    """
    if settings.model == "sr":
        return
    for frame in frames:
        if not frame.pbc.all():
            directions = "".join(axis for axis, on in zip("abc", frame.pbc, strict=True) if on) or "no direction"
            raise DataError(
                f'{frame.where} ({name}) is periodic along {directions}; model = "{settings.model}" sums over waves of '
                'the cell and takes only frames that are periodic in all three directions (pbc="T T T")'
            )
