"""The compiled library: bound on first use; where it is missing, everything imports and says how to mend it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from native_settings import ISAS, available_isas, isa

from rsa_kernels import _native
from rsa_kernels.errors import NativeLibraryError

ROOT = Path(__file__).resolve().parent.parent


def run(code: str, **environment: str) -> str:
    """Run code in a fresh Python; returns what it prints."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT = """
    import importlib.util, sys
    from pathlib import Path

    class Refuse:  # no Triton, no CuPy
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("triton", "cupy"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Refuse())
    for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
        del sys.modules[name]
    # The library's path is patched before anything of the package can have looked at it.
    import torch
    import rsa_kernels._native as native
    native.LIBRARY_PATH = Path("/nowhere/librsa_kernels.so")
    import rsa_kernels as rk
"""


def test_without_library_triton_and_compiler_all_imports_and_use_says_how_to_mend():
    out = run(
        WITHOUT
        + """
    assert native.load_error() is not None and native.isa() == "none" and native.compiler() == "none"
    positions = torch.zeros(2, 3, dtype=torch.float64)
    table = rk.pair.PairTable.from_functions((8,), {(8, 8): lambda r: torch.exp(-r)}, 0.5, 2.0)
    import rsa_kernels.doctor, rsa_kernels.random
    print(rsa_kernels.doctor.report())
    try:
        rk.neighbor_list(positions, torch.eye(3, dtype=torch.float64), True, 1.0)
    except rk.errors.BackendUnavailableError as error:
        print("OP:", error)
    try:
        native.bind("rk_neighbors_build", "i")(0)
    except rk.errors.NativeLibraryError as error:
        print("FUNCTION:", error)
    assert "triton" not in sys.modules
    """,
        PATH="/nowhere",
    )
    lines = {line.split(":")[0]: line for line in out.splitlines()}
    assert "`rsa_kernels.neighbor_rows` cannot run on cpu" in lines["OP"]
    assert "`rk_neighbors_build`" in lines["FUNCTION"]
    for line in (lines["OP"], lines["FUNCTION"], lines["compiled library"]):
        assert "pip install ." in line and "g++" in line
        assert "No such file" in line
        assert line.count("pip install .") == 1


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_damaged_library_is_an_error_not_a_crash(tmp_path, monkeypatch, content):
    broken = tmp_path / "librsa_kernels.so"
    broken.write_bytes(content)
    assert "pip install ." in error_with(broken, monkeypatch)


def test_a_library_of_something_else_is_refused(monkeypatch):
    import ctypes.util

    other = ctypes.util.find_library("m")
    assert "rk_abi_version" in error_with(other, monkeypatch)


def test_a_library_of_other_sources_is_refused(monkeypatch):
    monkeypatch.setattr(_native, "ABI_VERSION", _native.ABI_VERSION + 1)
    message = error_with(_native.LIBRARY_PATH, monkeypatch)
    assert "other sources" in message and "pip install ." in message


def error_with(path, monkeypatch) -> str:
    monkeypatch.setattr(_native, "LIBRARY_PATH", Path(path))
    _native._load.cache_clear()
    try:
        with pytest.raises(NativeLibraryError, match="`rk_abi_version`"):
            _native.bind("rk_abi_version", "")()
        return _native.load_error()
    finally:
        monkeypatch.undo()
        _native._load.cache_clear()


def test_a_function_that_is_missing_is_named_with_the_mend():
    with pytest.raises(NativeLibraryError, match=r"`rk_not_there`.*pip install"):
        _native.bind("rk_not_there", "i")(1)


def test_what_was_built_and_what_runs():
    assert _native.load_error() is None
    assert _native.isa() in ISAS
    assert _native.compiler().split()[0] in ("g++", "clang")
    assert _native.isa() == available_isas()[-1]  # the best there is, unless a test says otherwise
    for name in available_isas():
        with isa(name):
            assert _native.isa() == name
    for wrong in (-1, len(available_isas()), 99):
        assert _native.bind("rk_set_isa", "i")(wrong) == -1
    assert _native.isa() == available_isas()[-1]


def test_the_library_needs_neither_torch_nor_python():
    """Plain C: nothing of torch's or Python's ABI, so one wheel serves all versions."""
    symbols = _native.LIBRARY_PATH.read_bytes()
    for foreign in (b"libtorch", b"libc10", b"libpython", b"PyInit_"):
        assert foreign not in symbols


def test_importing_touches_no_device_and_changes_no_setting():
    run(
        """
        import sys, torch
        torch.cuda.init = torch.cuda._lazy_init = None  # calling either would fail
        torch.set_num_threads(3)
        import rsa_kernels
        assert not torch.cuda.is_initialized() and "triton" not in sys.modules
        assert torch.get_default_dtype() == torch.float32 and torch.get_num_threads() == 3
        """
    )
