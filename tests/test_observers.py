"""The log, the progress bar on a terminal and in a pipe, and the table at the end."""

import csv
import io
import os
import pty
import re

import pytest

from silica_md.observers import THERMO_COLUMNS, ProgressBar, ThermoLog, format_duration, print_summary


def make_row(step, segment="quench"):
    return {
        "step": step, "time_ps": 1e-3 * step, "segment": segment, "target_K": 300.0, "temperature_K": 301.25,
        "pressure_GPa": -0.5, "density_g_cm3": 2.2034567, "potential_eV_per_atom": -9.123456789,
        "kinetic_eV_per_atom": 0.0387, "conserved_eV_per_atom": -9.08, "ns_per_day": 12.5,
    }  # fmt: skip


def test_log_has_units_in_its_header(tmp_path):
    log = ThermoLog(tmp_path / "thermo.csv")
    log.write(make_row(0))
    log.write(make_row(100, "hold, 300 K") | {"target_K": None})
    log.close()
    with open(tmp_path / "thermo.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == THERMO_COLUMNS
    dimensionless = {"step", "segment"}
    units = ("_ps", "_K", "_GPa", "_g_cm3", "_eV_per_atom", "_per_day")
    assert all(name in dimensionless or name.endswith(units) for name in header)
    assert len(rows) == 2
    assert rows[1][header.index("segment")] == "hold, 300 K"
    assert rows[1][header.index("target_K")] == ""
    assert float(rows[0][header.index("potential_eV_per_atom")]) == -9.123456789


def test_log_is_cut_back_on_resume(tmp_path):
    whole = ThermoLog(tmp_path / "whole.csv")
    for step in range(5):
        whole.write(make_row(step))
    log = ThermoLog(tmp_path / "thermo.csv")
    log.write(make_row(0))
    log.write(make_row(1))
    position = log.position()
    log.write(make_row(2))
    with open(tmp_path / "thermo.csv", "a") as file:
        file.write("3,0.003,que")  # killed here
    resumed = ThermoLog(tmp_path / "thermo.csv")
    resumed.truncate_to(position)
    for step in range(2, 5):
        resumed.write(make_row(step))
    assert (tmp_path / "thermo.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_log_refuses_other_columns(tmp_path):
    row = make_row(0)
    row["temperature"] = row.pop("temperature_K")
    with pytest.raises(ValueError, match=r"missing \['temperature_K'\], unknown \['temperature'\]"):
        ThermoLog(tmp_path / "thermo.csv").write(row)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def play(stream, steps=20, interval=20.0, per_step=5.0):
    clock = Clock()
    with ProgressBar(1000, stream, interval=interval, clock=clock) as bar:
        for k in range(1, steps + 1):
            clock.now += per_step
            bar.update(make_row(1000 * k // steps, "melt" if k <= 3 else "quench"))


def test_progress_in_a_pipe_has_lines_and_no_control_characters():
    stream = io.StringIO()
    play(stream)
    text = stream.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    lines = text.splitlines()
    assert 4 <= len(lines) <= 9  # 100 s, a line every 20, one for each new segment, one at the end
    assert lines[0].startswith("step 50/1000")
    assert lines[-1].startswith("step 1000/1000")
    for field in ("100 %", "0:00 left", "301 K", "2.203 g/cm³", "12.50 ns/day", "quench"):
        assert field in lines[-1]


def through_terminal(columns, **options):
    """What a terminal of this width is sent."""
    import fcntl
    import select
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(slave, "w", encoding=options.pop("encoding", "utf-8")) as stream:
        play(stream, **options)
        sent = b""
        while select.select([master], [], [], 0.2)[0]:  # the terminal hands on in pieces
            sent += os.read(master, 1 << 20)
        sent = sent.decode()
    os.close(master)
    return sent.replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_progress_on_a_terminal_is_one_line_that_fits(columns):
    sent = through_terminal(columns)
    assert sent.count("\n") == 1
    assert sent.endswith("\n")
    redrawn = sent.rstrip("\n").split("\r")
    assert len(redrawn) > 15
    assert max(len(line) for line in redrawn) < columns
    assert "100 %" in redrawn[-1]
    if columns >= 80:
        assert "━" in redrawn[-1]
        for field in ("left", "301 K", "2.203 g/cm³", "12.50 ns/day"):
            assert field in redrawn[-1]


def test_progress_on_an_ascii_terminal():
    sent = through_terminal(80, encoding="ascii")
    assert sent.isascii()
    assert "#" in sent
    assert "g/cm3" in sent


def test_time_left_follows_the_pace_of_this_process():
    clock, stream = Clock(), io.StringIO()
    bar = ProgressBar(1000, stream, start_step=500, clock=clock)  # resumed half way
    clock.now = 10.0
    bar.update(make_row(600))
    assert " 60 %  0:40 left" in stream.getvalue()


def test_a_note_stands_on_its_own_line():
    stream = io.StringIO()
    bar = ProgressBar(10, stream)
    bar.update(make_row(1))
    bar.note("checkpoint 3 is damaged; using checkpoint 2")
    bar.close()
    assert stream.getvalue().splitlines()[-1] == "checkpoint 3 is damaged; using checkpoint 2"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (83, "1:23"), (3725, "1:02:05")])
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_summary_table_is_aligned():
    stream = io.StringIO()
    print_summary([("density", "g/cm³", "2.200", "2.214"), ("fourfold Si", "%", "–", "100.0")], stream)
    head, rule, *rows = stream.getvalue().splitlines()
    assert re.split(r"\s{2,}", head) == ["quantity", "unit", "measured", "simulated"]
    assert set(rule) == {"-"}
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    assert "2.214" in rows[0]


def test_summary_table_on_an_ascii_terminal():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_summary([("density", "g/cm³", "2.200", "2.214")], stream)
    stream.seek(0)
    assert "2.214" in stream.read()
