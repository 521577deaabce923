"""The GPU path of ring statistics without a GPU: csrc/cuda/rings.cu compiled as host code, one thread after another."""

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from ring_systems import bonds, random_network, supercell

import rsa_kernels as rk
from rsa_kernels import _cuda
from rsa_kernels.errors import CapacityError
from rsa_kernels.rings import kernels

CRITERIA = ("king", "guttman", "primitive")
DIAMOND = bonds((0, 1), (0, 1, -1, 0, 0), (0, 1, 0, -1, 0), (0, 1, 0, 0, -1))
compiler = shutil.which("g++") or shutil.which("c++")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if compiler is None:
        pytest.skip("no C++ compiler")
    target = tmp_path_factory.mktemp("rings") / "rings_on_host.so"
    shim = Path(__file__).with_name("cuda_on_host.hpp")
    folder = _cuda.source_folder()
    command = [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Werror", f"-I{folder}"]
    command += ["-include", str(shim), "-x", "c++", str(folder / "cuda" / "rings.cu"), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


@pytest.fixture
def launched(library, monkeypatch, one_thread):
    """Send every pass and search through the GPU's code path; returns the launches made."""
    names = []

    def launch(source, name, n_threads, *arguments, block=_cuda.BLOCK, device):
        assert source == "rings"
        names.append(name)
        plain = [_cuda._plain(name, argument, device) for argument in arguments]
        plain = [ctypes.c_double(x) if x.dtype.kind == "f" else ctypes.c_int64(int(x)) for x in plain]
        blocks = -(-n_threads // block)
        # the order of threads is not that of their numbers
        for number in random.Random(n_threads).sample(range(blocks * block), blocks * block):
            library.at_thread(number // block, number % block, block)
            getattr(library, name)(*plain)

    monkeypatch.setattr(_cuda, "launch", launch)
    monkeypatch.setattr(kernels, "on_gpu", lambda tensor: True)
    return names


def everything(edge_index, unit_shifts, n_atoms, chosen, max_size):
    """All results, as a flat list of tensors."""
    nodes = None if chosen is None else torch.tensor(chosen, dtype=torch.int64)
    found = []
    for criterion in CRITERIA:
        rings = rk.ring_statistics(edge_index, unit_shifts, n_atoms, criterion, max_size, nodes)
        found += [rings.counts, rings.per_node, *rings.links.net, rings.links.bridges]
        found += [part for size in range(2, max_size + 1) for part in (rings.members(size), rings.member_shifts(size))]
        if criterion != "primitive":
            found += [rings.shortest, rings.multiplicity, rings.shortest_counts]
    symbols = rk.rings.vertex_symbols(edge_index, unit_shifts, n_atoms, max_size, nodes)
    found += [symbols.size, symbols.count]
    found.append(rk.rings.coordination_sequence(edge_index, unit_shifts, n_atoms, 4, nodes))
    return found


def compare(request, *network):
    """The bits of the CPU's path and of the GPU's."""
    on_cpu = everything(*network)
    launched = request.getfixturevalue("launched")
    on_gpu = everything(*network)
    assert len(on_cpu) == len(on_gpu) and all(torch.equal(a, b) for a, b in zip(on_cpu, on_gpu, strict=True))
    return launched


def test_every_kernel_gives_the_bits_of_the_cpu(request):
    launched = compare(request, *supercell(*DIAMOND, 2, (2, 3, 2)), None, 8)
    source = (_cuda.source_folder() / "cuda" / "rings.cu").read_text(encoding="utf-8")
    kernels_of_source = [line for line in source.splitlines() if "__global__ void" in line]
    assert set(launched) == {line.split("(")[0].split()[-1] for line in kernels_of_source}


@pytest.mark.parametrize("seed", range(12))
def test_random_nets(request, seed):
    compare(request, *random_network(random.Random(200 + seed)))


@pytest.mark.parametrize("n_atoms", [0, 1])
def test_nothing_to_count(request, n_atoms):
    compare(request, *bonds(), n_atoms, None, 5)


def test_roots_that_lack_room_are_taken_again(request, monkeypatch):
    # A hub of 70 triangles with a tail: the balls of the tail are small, the hub's lacks nodes, ends and words in turn.
    rows = [(0, 1 + k) for k in range(140)] + [(1 + 2 * k, 2 + 2 * k) for k in range(70)] + [(140, 141), (141, 142)]
    monkeypatch.setattr(kernels, "FIRST_ROOM", kernels.Room(nodes=4, ends=8, words=2))
    launched = compare(request, *bonds(*rows), 143, None, 7)
    assert launched.count("rings_count") > 3 * 5


def test_scratch_beyond_the_limit_is_refused(launched, monkeypatch):
    monkeypatch.setattr(kernels, "SCRATCH_BYTES", 100_000)
    with pytest.raises(CapacityError, match="shells up to 200 reach over more nodes"):
        rk.rings.coordination_sequence(*DIAMOND, 2, 200)


def test_fewer_threads_than_roots(request, monkeypatch):
    monkeypatch.setattr(kernels, "SLOTS", 5)
    compare(request, *supercell(*DIAMOND, 2, (2, 2, 2)), None, 7)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_nvcc_compiles_it_too(tmp_path):
    folder = _cuda.source_folder()
    command = ["nvcc", "-std=c++17", "-arch=sm_90", "-ptx", f"-I{folder}", "-o", str(tmp_path / "rings.ptx")]
    done = subprocess.run([*command, str(folder / "cuda" / "rings.cu")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    network = supercell(*DIAMOND, 2, (4, 4, 4))
    on_cpu = everything(*network, None, 8)
    on_gpu = everything(network[0].cuda(), network[1].cuda(), network[2], None, 8)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(on_cpu, on_gpu, strict=True))
