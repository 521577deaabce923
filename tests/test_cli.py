"""The command line: a glass from one command, and wrong input answered in one line with the mend."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from silica_md.cli import main

SHORT = """
atoms = 240
log_every = 10
frame_ps = 0.02
[[segment]]
name = "melt"
temperature_K = 3600
duration_ps = 0.1
[[segment]]
name = "hold"
temperature_K = 300
duration_ps = 0.1
ensemble = "npt"
"""


@pytest.fixture
def short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.toml").write_text(SHORT)
    return tmp_path


def failing(capsys, *arguments, status=1):
    """Run a command that must fail; returns the one line it says."""
    assert main(arguments) == status
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_one_command_makes_and_judges_a_glass(short, capsys):
    assert main(["quench", "--config", "short.toml", "--out", "glass", "--threads", "1"]) == 0
    shown = capsys.readouterr()
    assert "measured" in shown.out
    assert "density" in shown.out
    assert "report.html written" in shown.err
    for name in (
        "config.json",
        "thermo.csv",
        "trajectory.xyz",
        "trajectory.nc",
        "structure.h5",
        "final.xyz",
        "summary.json",
        "log.txt",
    ):
        assert (short / "glass" / name).stat().st_size > 0, name
    assert "<html" in (short / "glass" / "report.html").read_text(encoding="utf-8")
    assert list((short / "glass" / "report").glob("*.png"))
    schedule = json.loads((short / "glass" / "config.json").read_text())["schedule"]
    assert [stage["steps"] for stage in schedule] == [100, 100]

    # Again: nothing is overwritten, and the ways on are named.
    assert "--out" in failing(capsys, "quench", "--config", "short.toml", "--out", "glass")
    for again in (["--resume"], ["--if-finished", "show"]):
        begun = time.monotonic()
        assert main(["quench", "--out", "glass", *again]) == 0
        assert time.monotonic() - begun < 2.0
        shown = capsys.readouterr()
        assert "density" in shown.out
        assert "is finished" in shown.err

    # Analysed once more by itself.
    assert main(["analyze", "glass/final.xyz", "--q-max", "10", "--out", "again"]) == 0
    assert (short / "again" / "report.html").exists()
    assert "1 frames" in capsys.readouterr().err
    assert "not empty" in failing(capsys, "analyze", "glass/final.xyz", "--out", "again")

    # The run's own report is that of its last segment; another analysis goes elsewhere.
    own = (short / "glass" / "summary.json").read_bytes()
    for options, name, count in (
        (["--segment", "melt"], "analysis-segment-melt", 6),
        (["--index", "-1"], "analysis-index--1", 1),
        (["--index", "0"], "analysis-index-0", 1),
        (["--index=-2:", "--q-max", "10"], "analysis-index--2to-q_max-10.0", 2),
    ):
        assert main(["analyze", "glass", *options]) == 0
        said = capsys.readouterr().err
        assert f"{count} frames; glass/{name}/report.html written" in said
        assert "not empty" in failing(capsys, "analyze", "glass", *options, "--out", "glass")
    assert (short / "glass" / "summary.json").read_bytes() == own
    assert main(["analyze", "glass"]) == 0
    assert "5 frames; glass/report.html written" in capsys.readouterr().err


def test_sodium_silicate(short, capsys):
    assert main(["quench", "--config", "short.toml", "--out", "soda", "--na2o", "0.2", "--threads", "1"]) == 0
    first = (short / "soda" / "thermo.csv").read_text().splitlines()[1].split(",")
    assert float(first[6]) == pytest.approx(2.385, abs=1e-3)
    assert (short / "soda" / "final.xyz").read_text().count("\nNa") == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--atoms", "1000"], "multiple of 3.*try 999"),
        (["--potential", "shick"], "did you mean 'shik'"),
        (["--na2o", "20"], "mole fraction between 0 and 0.5"),
        (["--rate", "-40"], "`rate_K_per_ps` must be positive"),
        (["--timestep", "nan"], "`timestep_fs` must be positive"),
        (["--device", "gpu"], "auto, cpu or cuda"),
        (["--config", "none.toml"], "cannot read none.toml"),
        (["--start", "none.xyz"], "none.xyz"),
        (["--density", "9"], "do not fit"),
        (["--resume"], "no run in"),
        (["--threads", "-1"], "`threads`"),
        (["--out", "short.toml"], "short.toml"),
        (["--ensemble", "nve"], "`ensemble` must be nvt or npt"),
    ],
)
def test_wrong_input_is_answered_in_one_line(short, capsys, arguments, message):
    line = failing(capsys, "quench", "--out", "glass", *arguments)
    assert not (short / "glass").exists()
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quench", "--atom", "300"], "did you mean --atoms"),
        (["quench", "--melt-temperature", "4000"], "unknown argument --melt-temperature"),
        (["analyze", "x", "--qmax", "3"], "did you mean --q-max"),
        (["quenh"], "invalid choice"),
        (["quench", "--atoms", "many"], "invalid int value"),
    ],
)
def test_wrong_flags_are_refused_with_the_nearest_right_one(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_analyze_names_what_it_cannot_read(short, capsys):
    assert "does not exist" in failing(capsys, "analyze", "none.xyz")
    assert "short.toml" in failing(capsys, "analyze", "short.toml")


def test_help_does_not_wait_for_the_plots():
    code = "import sys, silica_md.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for expected in ("torch", "compiled library", "GPU", "random_normal", "pair_evaluate"):
        assert expected in text


def test_interrupted_run_is_resumed(short, capsys):
    long = SHORT.replace("duration_ps = 0.1", "duration_ps = 50.0", 1)
    (short / "long.toml").write_text(long)
    command = [sys.executable, "-m", "silica_md.cli", "quench", "--config", "long.toml", "--out", "glass"]
    process = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE, text=True)
    while not (short / "glass" / "thermo.csv").exists():
        time.sleep(0.05)
        assert process.poll() is None
    assert "another process" in failing(capsys, "quench", "--out", "glass", "--resume")
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert "go on with: silica-md quench --resume --out glass (or make quench RUN=glass QUENCH=--resume)" in said
    taken = failing(capsys, "quench", "--config", "long.toml", "--out", "glass")
    assert "continue it with --resume (make quench RUN=glass QUENCH=--resume)" in taken
    os.rename("glass", "silica")
    os.mkdir("runs")
    os.rename("silica", "runs/silica")
    assert "--resume (make quench QUENCH=--resume)" in failing(capsys, "quench", "--if-finished", "show")
    os.rename("runs/silica", "glass")
    assert "--seed cannot be changed" in failing(capsys, "quench", "--out", "glass", "--resume", "--seed", "3")
