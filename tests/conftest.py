"""Fixtures shared by all tests: the reference data beside the checkout, and one thread for small systems."""

import os
from pathlib import Path

import pytest
from native_settings import threads

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(config, items):
    """Leave out tests marked `fuzz` unless the expression of -m speaks of them."""
    if "fuzz" in (config.getoption("markexpr") or ""):
        return
    long = [item for item in items if item.get_closest_marker("fuzz")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data used for development; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("SILICA_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"reference data not found at {folder}; set SILICA_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def one_thread():
    """Run torch and the kernels on one thread: for small systems, where waking others is most of the time."""
    with threads(1):
        yield
