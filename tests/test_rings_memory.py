"""Ring statistics of many nodes: memory stays under what the README states, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import sys, torch
import rsa_kernels as rk

cells, criterion = int(sys.argv[1]), sys.argv[2]
grid = torch.cartesian_prod(*[torch.arange(cells)] * 3)
number = torch.arange(cells**3)
edges, shifts = [], []
for step in ((0, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, -1)):  # diamond
    moved = grid + torch.tensor(step)
    inside = moved % cells
    other = (inside[:, 0] * cells + inside[:, 1]) * cells + inside[:, 2]
    edges.append(torch.stack((2 * number, 2 * other + 1)))
    shifts.append((moved - inside) // cells)
network = torch.cat(edges, 1), torch.cat(shifts).int()

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

torch.set_num_threads(2)
rk.ring_statistics(network[0][:, :10], network[1][:10], 2 * cells**3, criterion, 6)  # whatever the first call loads
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
rings = rk.ring_statistics(*network, 2 * cells**3, criterion, 6)
assert rings.counts.tolist() == [0, 0, 0, 0, 0, 0, 4 * cells**3], rings
print(1024 * (status("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads memory as Linux tells it")
@pytest.mark.parametrize("criterion", ["king", "guttman", "primitive"])
def test_memory_is_as_stated(criterion):
    cells = 40
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(cells), criterion], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    nodes = 2 * cells**3
    ends, angles = 4 * nodes, 6 * nodes
    links = 20 * ends + 44 * ends  # every atom a node: bond ends are link ends
    found = {"king": 8 * angles + 4 * ends, "guttman": 4 * angles + 8 * ends, "primitive": 0}[criterion]
    search = 24 * ends + 4 * 7 * nodes + found
    overhead = 24 * nodes + (8 << 20)  # rows, and what allocators keep
    assert int(done.stdout) < max(links, search) + overhead
