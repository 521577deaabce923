"""The bench harness: a registry that holds together, figures that are withheld on red tests, one CSV schema."""

import csv
from pathlib import Path

import pytest

from profiling import __main__ as cli
from profiling import harness, machine
from profiling.cases import CASES

ROOT = Path(__file__).resolve().parent.parent


def toy(**options):
    """A workload of two made-up implementations, ours twice as fast."""
    return harness.Workload(
        variant="toy",
        size=10,
        device="cpu",
        unit="atom",
        work=10.0,
        implementations={"ours": lambda: 0.5, "theirs": lambda: 1.0},
        versions={"theirs": "1.0"},
        flops=1e9,
        bytes=1e9,
        remarks=lambda: ["answers agree"],
        **options,
    )


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(machine, "limits", lambda threads: machine.Limits(4e9, 8e9, 1e9))
    return tmp_path


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_every_case_names_tests_that_exist(case):
    assert case.tests
    for path in case.tests:
        assert (ROOT / path).is_file(), path
    assert set(case.unavailable) <= set(case.rivals)


def test_rows_follow_one_schema(results):
    rows = harness.measure("toy-case", toy(), repeats=3)
    path = harness.save(rows)
    assert harness.save(rows) == path
    assert path == results / machine.name() / "toy-case.csv"
    with path.open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert len(kept) == 4
    ours, theirs = kept[:2]
    assert float(ours["rate"]) == 20.0
    assert float(theirs["ratio"]) == 2.0
    assert float(ours["flops_of_limit"]) == 0.5
    assert float(ours["bandwidth_of_limit"]) == 0.25
    assert theirs["version"] == "1.0"
    assert all(ours[key] for key in ("date", "commit", "python", "torch", "threads"))
    shown = harness.show(rows)
    assert "ours is 2.00 times as fast" in shown and "answers agree" in shown


def test_no_figures_on_red_tests(results, tmp_path, monkeypatch, capsys):
    red = tmp_path / "test_red.py"
    red.write_text("def test_red():\n    raise AssertionError\n")
    prepared = []
    case = harness.Case("toy", "nothing", (str(red),), (10,), (), lambda *_: prepared.append(1) or [toy()])
    monkeypatch.setitem(CASES, "toy", case)
    assert cli.main(["bench", "toy"]) == 1
    shown = capsys.readouterr()
    assert "tests of toy are red" in shown.err
    assert "atoms/s" not in shown.out
    assert not prepared and not list(results.glob("**/*.csv"))
    red.write_text("def test_green():\n    pass\n")
    assert cli.main(["bench", "toy", "--repeats", "1"]) == 0
    assert "ours is 2.00 times as fast" in capsys.readouterr().out


def test_wrong_names_are_refused(capsys):
    assert cli.main(["bench", "md_step"]) == 1
    assert "did you mean 'md-step'" in capsys.readouterr().err
    assert cli.main(["bench", "pair", "--rival", "lammps"]) == 1
    assert "has no rival 'lammps', it has reference" in capsys.readouterr().err


def test_limits_are_plausible():
    limits = machine.limits(1)
    assert 1e8 < limits.flops < 1e13
    assert 1e8 < limits.bandwidth < 1e13
    assert 1e7 < limits.lookups < 1e11
