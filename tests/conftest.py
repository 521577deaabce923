"""Fixtures shared by all tests: the reference data beside the checkout, and one thread for small systems."""

import os
from pathlib import Path

import pytest
from native_settings import threads

ROOT = Path(__file__).resolve().parent.parent


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
