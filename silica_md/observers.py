"""What a run shows while it goes: the thermodynamic log, the progress bar, and the table at the end."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from silica_md.files import AppendFile

__all__ = ["THERMO_COLUMNS", "ProgressBar", "ThermoLog", "format_duration", "print_summary", "stages_shown"]

THERMO_COLUMNS = (
    "step",
    "time_ps",
    "segment",
    "target_K",
    "temperature_K",
    "pressure_GPa",
    "density_g_cm3",
    "potential_eV_per_atom",
    "kinetic_eV_per_atom",
    "conserved_eV_per_atom",
    "ns_per_day",
)


class ThermoLog:
    """CSV table of a run, one row per report, units in the column names.

    Each row is one write, and `position` / `truncate_to` carry the file through a restart (see
    `silica_md.files.AppendFile`), so that rows of a lost stretch do not stand twice.

    Parameters
    ----------
    path : str or Path
        Nothing is touched before the first `write` or `truncate_to`.
    columns : sequence of str
        Column names with their units.
    """

    def __init__(self, path: str | Path, columns: Iterable[str] = THERMO_COLUMNS):
        self.columns = tuple(columns)
        self._file = AppendFile(path)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    def write(self, row: Mapping) -> None:
        """Append one row, a dict with exactly the names in `columns`; None leaves a cell empty.

        Raises
        ------
        ValueError
            Names are missing or unknown.
        """
        if set(row) != set(self.columns):
            missing, unknown = set(self.columns) - set(row), set(row) - set(self.columns)
            raise ValueError(
                f"`row` must have the columns of the log; missing {sorted(missing)}, unknown {sorted(unknown)}"
            )
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        if self._file.size == 0:
            table.writerow(self.columns)
        table.writerow([_cell(row[name]) for name in self.columns])
        self._file.append(text.getvalue().encode())

    def position(self) -> int:
        """Length of the file in bytes after its last row, after forcing it to the disk."""
        self._file.sync()
        return self._file.size

    def truncate_to(self, position: int) -> None:
        """Drop the rows written after `position` was taken, and go on from there."""
        self._file.cut(position)

    def close(self) -> None:
        """Force the log to the disk and close it."""
        self._file.close()


class ProgressBar:
    """Progress of a run in the terminal, or in a log file.

    On a terminal one line is redrawn in place and fits its width; elsewhere a line is written when the
    segment changes and otherwise at most every `interval` seconds, without control characters.

    Parameters
    ----------
    total_steps : int
        Step at which the run ends.
    stream : text stream, optional
        Default: standard error.
    start_step : int
        Step at which this process takes up the run; it does not count for the time left.
    interval : float
        Seconds between lines when `stream` is not a terminal.
    clock : callable
        Time in seconds; for tests.
    unit : str
        What is counted, for the lines of a stream that is no terminal; "" leaves the numbers out.
    forms : mapping, optional
        What is shown of a row and how, {key: format}; default: temperature, density, pace, and the segment.
    """

    def __init__(
        self,
        total_steps: int,
        stream: TextIO | None = None,
        *,
        start_step: int = 0,
        interval: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "step",
        forms: Mapping[str, str] | None = None,
    ):
        self.total_steps, self._unit, self._forms = total_steps, unit, forms
        self.stream = sys.stderr if stream is None else stream
        self._terminal = self.stream.isatty()
        self._unicode = _encodes(self.stream, "━╸─³·")
        self._interval = interval if not self._terminal else 0.1
        self._clock = clock
        self._history = deque([(clock(), start_step)], maxlen=64)  # (s, step); recent, the pace changes
        self._last_shown = -math.inf
        self._segment = None
        self._line = ""

    def update(self, row: Mapping) -> None:
        """Show the state of the run.

        Parameters
        ----------
        row : dict
            As for `ThermoLog.write`; used are `step`, `segment`, `temperature_K`, `density_g_cm3`,
            `ns_per_day`. All but `step` may be missing or None.
        """
        now = self._clock()
        self._history.append((now, row["step"]))
        fresh = row.get("segment") != self._segment
        if not fresh and now - self._last_shown < self._interval and row["step"] < self.total_steps:
            return
        self._segment, self._last_shown = row.get("segment"), now
        if self._terminal:
            self._redraw(self._fitted(row, _terminal_width(self.stream) - 1))
        else:
            counted = [f"{self._unit} {row['step']}/{self.total_steps}"] if self._unit else []
            self._put("  ".join(counted + self._fields(row)) + "\n")

    def note(self, text: str) -> None:
        """Write a line of its own above the bar."""
        self._redraw("")
        self._put(text + "\n")

    def close(self) -> None:
        """Leave the last line standing and go to the next."""
        if self._line:
            self._put("\n")
            self._line = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _fields(self, row):
        """The parts of the line, most important first."""
        unit = "g/cm³" if self._unicode else "g/cm3"
        forms = self._forms or {
            "temperature_K": "{:5.0f} K",
            "density_g_cm3": "{:.3f} " + unit,
            "ns_per_day": "{:.2f} ns/day",
            "segment": "{}",
        }
        fields = [f"{100 * self._fraction(row['step']):3.0f} %", self._time_left(row["step"])]
        return fields + [form.format(row[name]) for name, form in forms.items() if row.get(name) is not None]

    def _fraction(self, step):
        return min(step / self.total_steps, 1) if self.total_steps else 1

    def _fitted(self, row, width):
        """As many fields as fit, and a bar in what is left."""
        gap, fields = "  ", self._fields(row)
        while len(fields) > 1 and len(gap.join(fields)) > width:
            fields.pop()
        room = width - len(gap.join(fields)) - len(gap)
        bar = [self._bar(row["step"], min(room, 40))] if room >= 8 else []
        return gap.join(bar + fields)[: max(width, 0)]

    def _bar(self, step, length):
        done, half, rest = "━╸─" if self._unicode else "#--"
        halves = int(2 * length * self._fraction(step))
        return (done * (halves // 2) + half * (halves % 2)).ljust(length, rest)

    def _time_left(self, step):
        (then, first), (now, last) = self._history[0], self._history[-1]
        if last <= first:
            return "-:-- left"
        seconds = max(self.total_steps - step, 0) * (now - then) / (last - first)
        return f"{format_duration(seconds)} left"

    def _redraw(self, line):
        if self._line or line:
            self._put("\r" + line.ljust(len(self._line)) + ("" if line else "\r"))
        self._line = line

    def _put(self, text):
        self.stream.write(text)
        self.stream.flush()


def format_duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def stages_shown(stream: TextIO | None = None) -> Iterator[Callable[[str, float], None]]:
    """Give a function that shows a named stage and the fraction done as a `ProgressBar`, with the time left."""
    with ProgressBar(1000, stream, unit="") as bar:
        yield lambda stage, fraction: bar.update({"step": round(1000 * fraction), "segment": stage or None})


def print_summary(rows: Iterable[tuple], stream: TextIO | None = None) -> None:
    """Print the table measured | simulated.

    Parameters
    ----------
    rows : list of (quantity, unit, measured, simulated)
        As `Analysis.summary_rows` gives them: all text.
    stream : text stream, optional
        Default: standard output.
    """
    stream = sys.stdout if stream is None else stream
    table = [("quantity", "unit", "measured", "simulated")]
    table += [tuple(row) for row in rows]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    rule = "-" * (sum(widths) + 6)
    lines = ["  ".join(f"{cell:{'<<>>'[i]}{widths[i]}}" for i, cell in enumerate(row)) for row in table]
    text = "\n".join([lines[0], rule, *lines[1:]]) + "\n"
    if not _encodes(stream, text):
        text = text.encode("ascii", "replace").decode()
    stream.write(text)
    stream.flush()


def _cell(value):
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else value


def _encodes(stream, text):
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _terminal_width(stream):
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):  # no size, or no descriptor
        return 80
