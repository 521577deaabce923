"""The pair op's Triton kernels: interpreted on a CPU, compiled ahead of time, and run where there is a GPU."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pair_triton_cases as cases
import pytest
import torch

import rsa_kernels as rk
from rsa_kernels.errors import AtomsTooCloseError, LostNeighborError, NonFiniteError

pytest.importorskip("triton", reason="the GPU kernels are written in Triton: pip install triton")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

# Float64 throughout; forces are sums of about 70 terms of which some cancel.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}
QUANTITIES = ("per-atom energy", "energy", "forces", "virial")


def reference(case):
    """The same outputs by autograd through the definition, a strain of the batch giving the virial."""
    neighbors = case.neighbors()
    n_systems = neighbors.n_systems
    system = torch.bucketize(torch.arange(len(case.numbers)), neighbors.batch_ptr[1:], right=True)
    cells = case.cell.expand(n_systems, 3, 3).clone().requires_grad_()
    positions = case.positions.clone().requires_grad_()
    strain = torch.zeros(n_systems, 3, 3, dtype=torch.float64, requires_grad=True)
    stretch = strain + torch.eye(3, dtype=torch.float64)
    moved = (positions.unsqueeze(1) @ stretch[system]).squeeze(1)
    atoms = rk.pair.reference.table_per_atom_energy(
        cases.TABLE, moved, cells @ stretch, cases.TABLE.species(case.numbers), neighbors
    )
    energy = torch.zeros(n_systems, dtype=torch.float64).index_add(0, system, atoms)
    forces, virial = (-grad for grad in torch.autograd.grad(energy.sum(), (positions, strain), retain_graph=True))
    backward = torch.autograd.grad((case.weights() * atoms).sum(), (positions, cells))
    return (atoms.detach(), energy.detach(), forces, virial), backward


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    path = tmp_path_factory.mktemp("interpreted") / "outputs.pt"
    done = subprocess.run(
        [sys.executable, cases.__file__, str(path)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(cases.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path)


def test_importing_the_package_does_not_import_triton(interpreted):
    assert not interpreted["triton imported early"]


@pytest.mark.parametrize("name", cases.CASES)
def test_interpreted_kernels_equal_reference_and_cpu(interpreted, name):
    case, outputs = cases.CASES[name], interpreted[name]
    neighbors = case.neighbors()
    arguments = cases.op._arguments(cases.TABLE, case.positions, case.cell, case.numbers, neighbors)
    native = cases.op.pair_evaluate(*arguments, True, True, True)
    defined, defined_backward = reference(case)
    for what, got, exact, cpu in zip(QUANTITIES, outputs["everything"], defined, native, strict=False):
        torch.testing.assert_close(got, cpu, **TOLERANCE, msg=lambda text, what=what: f"{what}: {text}")
        torch.testing.assert_close(got, exact, **TOLERANCE, msg=lambda text, what=what: f"{what}: {text}")
    torch.testing.assert_close(outputs["everything"][4], native[4], rtol=1e-15, atol=0)
    native_backward = cases.op.pair_energy_backward(case.weights(), *arguments)
    periodic = torch.as_tensor(case.pbc).expand(3)
    for got, exact, cpu in zip(outputs["backward"], defined_backward, native_backward, strict=True):
        torch.testing.assert_close(got, cpu, rtol=1e-11, atol=1e-11)
        if got.dim() == 2 or periodic.all():
            torch.testing.assert_close(got, exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", cases.CASES)
def test_flags_leave_out_and_change_nothing(interpreted, name):
    outputs = interpreted[name]
    full, energy, forces = (outputs[key] for key in ("everything", "energy", "forces"))
    assert torch.equal(energy[1], full[1]) and energy[0].numel() == energy[3].numel() == 0
    assert torch.equal(forces[2], full[2]) and forces[0].numel() == forces[1].numel() == forces[3].numel() == 0


def test_no_input_gives_a_number_that_looks_right(interpreted):
    for name, (_, _, closest) in cases.faults().items():
        got = interpreted[name][4]
        torch.testing.assert_close(got, torch.tensor(closest, dtype=torch.float64), equal_nan=True, rtol=0, atol=1e-12)
        with pytest.raises(NonFiniteError if math.isnan(closest) else AtomsTooCloseError):
            rk.pair.check_closest(cases.TABLE, got)
    rk.pair.check_closest(cases.TABLE, interpreted["64 atoms"]["everything"][4])


def test_closest_on_a_cpu():
    case = cases.CASES["64 atoms"]
    neighbors = case.neighbors()
    result = rk.pair.evaluate(cases.TABLE, case.positions, case.cell, case.numbers, neighbors)
    assert result.closest == neighbors.distances(case.positions, case.cell).min()


def test_second_derivatives_read_padded_columns():
    case = cases.CASES["triclinic, 61 atoms"]
    neighbors = case.neighbors()
    arguments = cases.cuda_arguments(case, neighbors)
    changes = torch.randn_like(case.positions), torch.randn(1, 3, 3, dtype=torch.float64)
    padded = cases.kernels.second_derivatives(*changes, case.weights(), *arguments)
    arguments[10] = neighbors.columns
    compact = cases.kernels.second_derivatives(*changes, case.weights(), *arguments)
    assert all(torch.equal(one, two) for one, two in zip(padded, compact, strict=True))


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_ahead_of_time_without_spills(monkeypatch, tmp_path, capability):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    import triton

    from profiling import aot

    kept = {(row.kernel, row.target): row for row in aot.read()}
    for variant in aot.VARIANTS:
        scalars = {p.name: p for p in variant.kernel.params if not p.name.endswith("_ptr")}
        for name, parameter in scalars.items():
            # Only flags and tiles may be compiled in: a kernel must not be compiled again for every system.
            assert name.isupper() or (parameter.annotation_type and parameter.do_not_specialize), name
        ptx = aot.compile_ahead(variant, capability).asm["ptx"]
        assert ".f32" not in ptx, f"{variant.name} computes in single precision"
        row = aot.resources(variant, capability)
        assert not row.spills, row
        known = kept[row.kernel, row.target]
        assert known.triton != triton.__version__ or known == row, "run `python -m profiling.aot --write`"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are launched for real where there is a GPU")
def test_launches_bind_and_compile_once_for_all_systems(monkeypatch, tmp_path):
    """Everything of a launch but the launch: arguments are bound as on a GPU and the kernels compiled for one."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    class NoGpu:
        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

    run, bound = JITFunction.run, {}

    def compile_only(self, *args, grid, warmup, **options):
        compiled = run(self, *args, grid=grid, warmup=True, **options)
        bound.setdefault(self.fn.__name__, {})[compiled.hash] = compiled.src.signature
        return compiled

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", NoGpu())
    for name in ("64 atoms", "triclinic, 61 atoms", "batch with an empty system", "one atom alone"):
        case = cases.CASES[name]
        arguments = cases.cuda_arguments(case, case.neighbors())
        cases.kernels.evaluate_cuda(*arguments, True, True, False)
        cases.kernels.backward_cuda(case.weights(), *arguments)
    variants = {name: len(compiled) for name, compiled in bound.items()}
    assert variants == {f"_pair_{kernel}_kernel": 1 for kernel in ("place", "fwd", "sum", "bwd")}
    (signature,) = bound["_pair_fwd_kernel"].values()
    assert signature["r_min"] == signature["cutoff"] == "fp64" and signature["n_rows"] == "i64"


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", cases.CASES)
def test_on_a_gpu(name):
    case = cases.CASES[name]
    neighbors, table = case.neighbors("cuda"), cases.TABLE.to("cuda")
    moved = [x.cuda() for x in (case.positions, case.cell, case.numbers)]
    got = rk.pair.evaluate(table, *moved, neighbors, per_atom_energy=True)
    again = rk.pair.evaluate(table, *moved, neighbors, per_atom_energy=True)
    assert all(torch.equal(one, two) for one, two in zip(got, again, strict=True))
    expected = rk.pair.evaluate(
        cases.TABLE, case.positions, case.cell, case.numbers, case.neighbors(), per_atom_energy=True
    )
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one.cpu(), two, **TOLERANCE)


@gpu
@pytest.mark.gpu
def test_derivatives_on_a_gpu():
    case = cases.CASES["thin cell, several images"]
    neighbors, table = case.neighbors("cuda"), cases.TABLE.to("cuda")
    numbers = case.numbers.cuda()

    def energy(positions, cell):
        return rk.pair.energy(table, positions, cell, numbers, neighbors)

    inputs = tuple(x.cuda().requires_grad_() for x in (case.positions, case.cell))
    assert torch.autograd.gradcheck(energy, inputs, atol=1e-4)
    assert torch.autograd.gradgradcheck(energy, inputs, atol=1e-4)


@gpu
@pytest.mark.gpu
def test_a_step_on_a_gpu_transfers_nothing():
    case = cases.CASES["64 atoms"]
    neighbors, table = case.neighbors("cuda"), cases.TABLE.to("cuda")
    positions, cell, numbers = (x.cuda() for x in (case.positions, case.cell, case.numbers))

    def step():
        positions.add_(1e-4)
        neighbors.update(positions, cell)
        return rk.pair.evaluate(table, positions, cell, numbers, neighbors)

    step()  # compiles the kernels and pads the rows
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            result = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    neighbors.confirm()
    rk.pair.check_closest(table, result.closest)
    assert neighbors.n_rebuilds == 0


@gpu
@pytest.mark.gpu
def test_late_skin_check_on_a_gpu():
    case = cases.CASES["64 atoms"]
    neighbors = case.neighbors("cuda")
    positions, cell = case.positions.cuda(), case.cell.cuda()
    rebuilt = []
    for _ in range(6):
        positions[0, 0] += 0.11 * cases.SKIN
        rebuilt.append(neighbors.update(positions, cell))
    assert rebuilt == [False, False, False, False, True, False]
    positions[0, 0] += cases.SKIN
    neighbors.update(positions, cell)
    with pytest.raises(LostNeighborError):
        neighbors.confirm()
