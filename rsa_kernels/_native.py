"""Loads the compiled csrc library (plain C interface) on first use and binds its functions."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch  # noqa: F401  (loaded first, so that its OpenMP runtime, hence one thread pool, serves both)

from .errors import NativeLibraryError

LIBRARY_PATH = Path(__file__).with_name("librsa_kernels.so")
ABI_VERSION = 1

_CODES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_double}


@functools.cache
def _load() -> ctypes.CDLL | Exception:
    try:
        library = ctypes.CDLL(str(LIBRARY_PATH))
    except OSError as error:
        return error
    library.rk_abi_version.restype = ctypes.c_int64
    if library.rk_abi_version() != ABI_VERSION:
        return OSError(f"{LIBRARY_PATH.name} was built from other sources (ABI {library.rk_abi_version()}, want {ABI_VERSION})")
    library.rk_isa.restype = ctypes.c_char_p
    library.rk_compiler.restype = ctypes.c_char_p
    return library


def load_error() -> str | None:
    """Why the compiled library cannot be used, or None if it can."""
    loaded = _load()
    return str(loaded) if isinstance(loaded, Exception) else None


def bind(name: str, codes: str):
    """Bind one C function; the library is loaded on its first call, not on import.

    Parameters
    ----------
    name : str
        Exported symbol; it returns an int64 status or count.
    codes : str
        One letter an argument: ``p`` pointer (``tensor.data_ptr()`` or None), ``i`` int64, ``f`` double.

    Returns
    -------
    callable
        Raises NativeLibraryError, naming the function and the mend, where the library does not load.
    """

    @functools.cache
    def resolve():
        library = _load()
        if isinstance(library, Exception):
            raise NativeLibraryError(
                f"`{name}` needs the compiled library, which does not load: {library}. "
                "Build it with `pip install .` (a C++ compiler is needed: apt install g++)."
            )
        function = getattr(library, name)
        function.argtypes = [_CODES[code] for code in codes]
        function.restype = ctypes.c_int64
        return function

    def call(*arguments):
        return resolve()(*arguments)

    call.__name__ = name
    return call


def isa() -> str:
    """Instruction set the run-time dispatch has chosen: ``avx512``, ``avx2`` or ``baseline``."""
    library = _load()
    return "none" if isinstance(library, Exception) else library.rk_isa().decode()


def compiler() -> str:
    """Name and version of the compiler that built the library."""
    library = _load()
    return "none" if isinstance(library, Exception) else library.rk_compiler().decode()
