"""Settings of the compiled library that tests change and put back: number of threads, instruction set."""

from contextlib import contextmanager

import torch

from rsa_kernels import _native

ISAS = ("baseline", "avx2", "avx512")
_set_isa = _native.bind("rk_set_isa", "i")


def available_isas() -> list[str]:
    """Return the instruction sets this processor runs, smallest first."""
    active = ISAS.index(_native.isa())
    found = [name for number, name in enumerate(ISAS) if _set_isa(number) == 0]
    _set_isa(active)
    return found


@contextmanager
def isa(name: str):
    """Run the compiled kernels with one instruction set."""
    active = ISAS.index(_native.isa())
    if _set_isa(ISAS.index(name)) != 0:
        raise ValueError(f"this processor does not run {name}")
    try:
        yield
    finally:
        _set_isa(active)


@contextmanager
def threads(count: int):
    """Run with a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
