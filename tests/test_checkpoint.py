"""Checkpoints: every bit back, two kept, damage noticed; runs killed at random times end as if nothing had happened."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from silica_md import checkpoint
from silica_md.errors import CheckpointError

ARRAYS = {"positions": np.random.default_rng(0).normal(size=(5, 3)), "ids": np.arange(5)}


def header(step):
    return {"step": step, "odd": 0.1 + 0.2, "tiny": 5e-324, "none": None, "nested": {"list": [1, 2.5]}}


def test_every_bit_comes_back(tmp_path):
    path = checkpoint.save(tmp_path, header(7), ARRAYS)
    saved = checkpoint.load(path)
    assert saved.header == header(7)
    assert saved.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert saved.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(saved.arrays[name], array)


def test_two_are_kept(tmp_path):
    for step in (9, 10, 100, 1000):
        checkpoint.save(tmp_path, header(step), ARRAYS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000000100.ckpt", "step-000000001000.ckpt"]
    assert checkpoint.load_newest(tmp_path, print).header["step"] == 1000


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, shorten, empty])
def test_damaged_newest_falls_back_and_says_so(tmp_path, damage):
    checkpoint.save(tmp_path, header(1), ARRAYS)
    damage(checkpoint.save(tmp_path, header(2), ARRAYS))
    said = []
    assert checkpoint.load_newest(tmp_path, said.append).header["step"] == 1
    assert len(said) == 1
    assert "step-000000000002.ckpt is damaged" in said[0]
    assert "falling back to step-000000000001.ckpt" in said[0]
    # It is out of the way of the next ones, and is not complained about twice.
    checkpoint.save(tmp_path, header(2), ARRAYS)
    assert checkpoint.load_newest(tmp_path, said.append).header["step"] == 2
    assert len(said) == 1


def test_all_damaged_is_an_error(tmp_path):
    for step in (1, 2):
        flip(checkpoint.save(tmp_path, header(step), ARRAYS))
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        checkpoint.load_newest(tmp_path, print)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_one_that_cannot_be_read_is_not_taken_for_damaged(tmp_path, monkeypatch, number):
    for step in (1, 2):
        checkpoint.save(tmp_path, header(step), ARRAYS)
    original = Path.read_bytes

    def refused(path):
        if "2" in path.name:
            raise OSError(number, os.strerror(number))
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(CheckpointError, match=rf"step-0*2\.ckpt cannot be read \({os.strerror(number)}"):
        checkpoint.load_newest(tmp_path, print)
    monkeypatch.undo()
    assert checkpoint.load_newest(tmp_path, print).header["step"] == 2


def test_none_is_no_error(tmp_path):
    assert checkpoint.load_newest(tmp_path / "nothing", print) is None


def test_nothing_in_it_is_executed(tmp_path):
    with pytest.raises(ValueError, match=r"allow_pickle|Object arrays"):
        checkpoint.save(tmp_path, header(1), {"bad": np.array([object()])})
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path, header(1) | {"bad": float("nan")}, ARRAYS)
    assert not list(tmp_path.iterdir())


def killed(folder, trials, signal):
    script = Path(__file__).with_name("killing.py")
    command = [sys.executable, script, folder, str(trials), signal]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_twenty_kills_and_twenty_equal_resumes(tmp_path):
    reports = killed(tmp_path / "runs", 20, "SIGKILL")
    assert len(reports) == 20
    assert all(report["status"] == 9 for report in reports)
    assert [report["differences"] for report in reports] == [[]] * 20
    assert len({report["step"] for report in reports}) > 10, "the kills were spread over the run"


def test_sigterm_writes_and_leaves_in_peace(tmp_path):
    reports = killed(tmp_path / "runs", 2, "SIGTERM")
    assert all(report["status"] == 0 for report in reports)
    assert all(report["step"] > 0 for report in reports)
    assert [report["differences"] for report in reports] == [[]] * 2
