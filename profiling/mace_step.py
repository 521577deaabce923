"""The case mace-step: steps of MD with a learned potential, beside the network alone and what others wrap around it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import ase
import torch
from torch import Tensor

import rsa_kernels as rk
from silica_md.forcefield import ForceField
from silica_md.integrators import VelocityVerlet
from silica_md.potentials import LearnedPotential
from silica_md.state import State

from .harness import Workload
from .start import TEMPERATURE, cristobalite

TIMESTEP, SKIN = 1.0, 1.0
ATOM_STEPS = 3000
"""Atoms times steps of one measurement, at least five steps."""
KINDS = {"sr": {}, "rsa": {"kind": "rsa"}}
PACKAGES = {"ase": "mace", "torch-sim": "torch_sim"}


def prepare(size: int, rivals: Sequence[str], device: str, start: str | None) -> list[Workload]:
    """Set up steps of NVE with a short-range and a long-range model, in float32 and float64.

    The network has random weights and the default architecture (32x0e, degree 3, two interactions, 5 Å); the atoms are
    cristobalite at the density of the glass, shaken. Rivals step the same network in the same dtype: mace-torch's
    `MACECalculator` under ASE's velocity Verlet, TorchSim's `MaceModel` under its NVE.
    """
    from silica_md import models

    found = []
    for kind, long_range in KINDS.items():
        for dtype in (torch.float32, torch.float64):
            config = models.ModelConfig(
                atomic_numbers=(8, 14), atomic_energies=(-3.0, -1.5), avg_num_neighbors=35.0, long_range=long_range
            )
            network = models.build(config, dtype=dtype).to(device)
            found.append(_workload(f"{kind} {str(dtype).removeprefix('torch.')}", size, network, rivals, device))
    return found


def unavailable(rival: str) -> str | None:
    """Why a rival cannot run here, None when it can."""
    return None if importlib.util.find_spec(PACKAGES[rival]) else f"{PACKAGES[rival]} is not installed"


def _workload(variant: str, size: int, network, rivals: Sequence[str], device: str) -> Workload:
    state = _shaken(size, device)
    steps = max(5, ATOM_STEPS // size)
    potential = LearnedPotential(network)
    implementations = {
        "silica_md": partial(_ours, state, potential, steps),
        "the network alone": partial(_alone, state, potential, steps),
        "the loop alone": partial(_ours, state, _without_network(potential), steps),
    }
    if "ase" in rivals:
        implementations["ASE, MACECalculator"] = partial(_ase, state, network, steps)
    if "torch-sim" in rivals:
        implementations["torch_sim, MaceModel"] = partial(_torch_sim, state, network, steps)
    best: dict[str, float] = {}

    def kept(name: str, run: Callable[[], float]) -> float:
        seconds = run()
        best[name] = min(seconds, best.get(name, seconds))
        return seconds

    def remarks() -> list[str]:
        step, loop = best["silica_md"] / steps, best["the loop alone"] / steps
        best.clear()
        return [f"the loop without the network takes {1e3 * loop:.2f} ms, {loop / step:.2%} of a step"]

    versions = {"ASE, MACECalculator": f"ase {ase.__version__}, mace-torch {_version('mace-torch')}"}
    versions["torch_sim, MaceModel"] = _version("torch-sim-atomistic")
    return Workload(
        variant=variant,
        size=size,
        device=device,
        unit="atom-step",
        work=size * steps,
        implementations={name: partial(kept, name, run) for name, run in implementations.items()},
        versions={name: versions[name] for name in implementations if name in versions},
        remarks=remarks,
    )


def _ours(state: State, potential, steps: int) -> float:
    """Seconds of `steps` of our loop, energies and virial every ten; the first list and forces are not timed."""
    state = state.clone()
    field, integrator = ForceField(potential, skin=SKIN), VelocityVerlet(TIMESTEP)
    field.evaluate(state)
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        logged = step % 10 == 0
        integrator.step(state, field, energy=logged, virial=logged)
    _wait(state.positions)
    return time.perf_counter() - begin


def _alone(state: State, potential: LearnedPotential, steps: int) -> float:
    """Seconds of the network's energies and their gradients on a graph that is given: what no loop can do without."""
    from silica_md.models import Graph

    evaluator = potential.evaluator
    ends = torch.tensor([0, state.n_atoms], device=state.positions.device)
    atoms = evaluator.atoms(state.atomic_numbers, ends)
    pairs = rk.neighbor_list(state.positions, state.cell, state.pbc, potential.cutoff)
    vectors = pairs.vectors(state.positions, state.cell).to(evaluator.dtype)
    cells = state.cell.unsqueeze(0)

    def once() -> None:
        leaves = [vectors.clone().requires_grad_()]
        if evaluator.long_range:
            leaves.append(state.positions.clone().requires_grad_())
        graph = Graph(
            leaves[-1] if evaluator.long_range else state.positions,
            cells,
            pairs.edge_index,
            leaves[0],
            atoms.node_attrs,
            atoms.batch,
            atoms.batch_ptr,
            atoms.heads,
        )
        torch.autograd.grad(evaluator.network.node_energies(graph).interaction.sum(), leaves)

    once()
    begin = time.perf_counter()
    for _ in range(steps):
        once()
    _wait(state.positions)
    return time.perf_counter() - begin


def _without_network(potential: LearnedPotential) -> LearnedPotential:
    """The same potential with a network that costs nothing: its energies are sums of its inputs."""
    empty = LearnedPotential.__new__(LearnedPotential)
    empty.__dict__.update(potential.__dict__)
    empty._atoms = empty._short = None
    evaluator = type(potential.evaluator).__new__(type(potential.evaluator))
    evaluator.__dict__.update(potential.evaluator.__dict__)

    def node_energies(graph):
        inputs = [graph.vectors, *([graph.positions.to(graph.vectors.dtype)] if evaluator.long_range else [])]
        return SimpleNamespace(interaction=sum(1e-6 * one.sum() for one in inputs).expand(graph.batch.numel()))

    real = potential.evaluator.network
    evaluator.network = SimpleNamespace(node_energies=node_energies, config=real.config, to=lambda device: None)
    empty.evaluator = evaluator
    return empty


def _ase(state: State, network, steps: int) -> float:
    """Seconds of ASE's velocity Verlet with mace-torch's calculator."""
    from ase.md.verlet import VelocityVerlet as Verlet
    from mace.calculators import MACECalculator

    atoms = state.to_ase()
    dtype = str(network.dtype).removeprefix("torch.")
    atoms.calc = MACECalculator(models=[network], device=state.positions.device.type, default_dtype=dtype)
    run = Verlet(atoms, TIMESTEP * ase.units.fs)
    run.run(1)
    begin = time.perf_counter()
    run.run(steps)
    return time.perf_counter() - begin


def _torch_sim(state: State, network, steps: int) -> float:
    """Seconds of TorchSim's NVE with its own wrapper of MACE."""
    import torch_sim
    from torch_sim.models.mace import MaceModel

    device = state.positions.device
    model = MaceModel(network, device=device, dtype=network.dtype, compute_stress=False)
    begun = torch_sim.io.atoms_to_state([state.to_ase()], device, network.dtype)
    dt = torch.tensor(1e-3 * TIMESTEP * torch_sim.units.MetalUnits.time, dtype=network.dtype, device=device)
    kT = torch.tensor(8.617e-5 * TEMPERATURE, dtype=network.dtype, device=device)
    init, step = torch_sim.nve(model, dt=dt, kT=kT)
    now = step(init(begun))
    begin = time.perf_counter()
    for _ in range(steps):
        now = step(now)
    _wait(state.positions)
    return time.perf_counter() - begin


def _shaken(size: int, device: str) -> State:
    repeat = round((size / 24) ** (1 / 3))
    if 24 * repeat**3 != size:
        raise ValueError(f"`size` must be 24 times a cube (24, 648, 3000, ...), got {size}")
    state = State.from_ase(cristobalite().repeat(repeat))
    generator = torch.Generator().manual_seed(0)
    state.positions.add_(0.1 * torch.randn(state.positions.shape, generator=generator, dtype=torch.float64))
    state.thermalize(TEMPERATURE, seed=1)
    return state.to(device)


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
