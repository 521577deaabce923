"""Constants of the particle mesh's cost model: ``python -m profiling.grid_costs [n_atoms] [mesh]``.

Times spreading and interpolation with its pull for several orders, and the Fourier transforms both ways, each in
nanoseconds an atom (a mesh point) and channel, and fits what `rsa_kernels.reciprocal.grid_plan` keeps as its table:
atom + touch · order³ an atom, point a mesh point; means of accumulate and gather.
"""

import sys
import time

import numpy as np
import torch

from rsa_kernels.reciprocal.grid import GridPlan, GridTransform
from rsa_kernels.reciprocal.grid_window import kaiser_beta

ORDERS = (4, 6, 8, 10, 12, 16)


def nanoseconds(run, items: int, repeats: int = 3) -> float:
    """Best of some runs after one that warms up."""
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best / items * 1e9


def main(n_atoms: int = 500_000, mesh: int = 160) -> None:
    """Print the measured table and the fit, for few and for many channels."""
    generator = torch.Generator().manual_seed(0)
    fractional = torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64)
    edge = torch.arange(-mesh // 3, mesh // 3 + 1)
    miller = torch.cartesian_prod(edge, edge, edge[edge > 0])
    miller = miller[miller.pow(2).sum(1) <= (mesh // 3) ** 2].to(torch.int32)
    print(f"{n_atoms} atoms, mesh {mesh}³, {torch.get_num_threads()} threads; ns an atom and channel")
    for dtype in (torch.float32, torch.float64):
        for channels in (1, 16):
            x = torch.randn(n_atoms, channels, generator=generator, dtype=dtype)
            rows, atoms = [], n_atoms * channels
            for order in ORDERS:
                plan = GridPlan(order, (mesh,) * 3, "kaiser", kaiser_beta(order, 1 / 3), 1e-7)
                transform = GridTransform(fractional, miller, dtype, plan)
                rho = transform.mesh_functions.spread(x, transform.sites)
                spread = nanoseconds(lambda t=transform, x=x: t.mesh_functions.spread(x, t.sites), atoms)
                pull = nanoseconds(lambda t=transform, x=x, rho=rho: t.gather(rho, x), atoms)
                rows.append((spread, pull))
                print(f"{dtype} C={channels:2d} order {order:2d}: spread {spread:6.1f}  interpolate, pull {pull:6.1f}")
            z = transform._waves(rho)
            forward = nanoseconds(lambda t=transform, rho=rho: t._waves(rho), rho.numel())
            backward = nanoseconds(lambda t=transform, z=z: t.field(z), rho.numel())
            design = np.stack((np.ones(len(ORDERS)), np.array(ORDERS, dtype=float) ** 3), axis=1)
            times = np.array(rows).mean(axis=1)
            atom, touch = np.linalg.lstsq(design / times[:, None], np.ones(len(ORDERS)), rcond=None)[0]  # relative
            print(f"{dtype} C={channels:2d} waves {forward:.2f}  field {backward:.2f} ns a mesh point")
            print(f"    atom {atom:.1f}  touch {touch:.3f}  point {(forward + backward) / 2:.1f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
