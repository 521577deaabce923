"""Loads the compiled csrc library (plain C interface) on first use and binds its functions."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch  # noqa: F401  (loaded first, so that its OpenMP runtime, hence one thread pool, serves both)

from .errors import NativeLibraryError

LIBRARY_PATH = Path(__file__).with_name("librsa_kernels.so")
ABI_VERSION = 1

_MEND = "build it with `pip install .` (a C++ compiler is needed: apt install g++)"
_CODES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_double}


@functools.cache
def _load() -> ctypes.CDLL | Exception:
    try:
        library = ctypes.CDLL(str(LIBRARY_PATH))
        library.rk_abi_version.restype = ctypes.c_int64
        version = library.rk_abi_version()
    except (OSError, AttributeError) as error:
        return OSError(f"the compiled library does not load: {error}; {_MEND}")
    if version != ABI_VERSION:
        return OSError(f"{LIBRARY_PATH.name} was built from other sources (ABI {version}, want {ABI_VERSION}); {_MEND}")
    library.rk_isa.restype = ctypes.c_char_p
    library.rk_compiler.restype = ctypes.c_char_p
    return library


def load_error() -> str | None:
    """Why the compiled library cannot be used, with the mend, or None if it can."""
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
            raise NativeLibraryError(f"`{name}` cannot run: {library}")
        try:
            function = getattr(library, name)
        except AttributeError:
            raise NativeLibraryError(
                f"`{name}` is not in {LIBRARY_PATH.name}: built from other sources; {_MEND}"
            ) from None
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
