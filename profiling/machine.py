"""The machine: a neutral name for it, and its measured limits."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import re
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent

# (vendor, family): first model number -> micro-architecture, for processors met so far
_MICROARCHITECTURES = {
    ("AuthenticAMD", 23): {0: "zen", 0x31: "zen2"},
    ("AuthenticAMD", 25): {0: "zen3", 0x10: "zen4", 0x20: "zen3", 0x60: "zen4"},
    ("AuthenticAMD", 26): {0: "zen5"},
    ("GenuineIntel", 6): {0x55: "skylake-server", 0x6A: "icelake-server", 0x8F: "sapphire-rapids"},
}


@dataclass(frozen=True)
class Limits:
    """What the machine does at best, measured over all threads.

    `flops` float64 operations a second in fused multiply-adds, `bandwidth` bytes a second of a triad in memory,
    `lookups` records of 64 bytes a second, at random from a table of 100 kB.
    """

    flops: float
    bandwidth: float
    lookups: float


def name() -> str:
    """Return a name that says what the machine is and not which, for instance "2-core-x86_64-zen5"."""
    gpu = f"-{torch.cuda.get_device_name().lower().replace(' ', '-')}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()}-core-{platform.machine()}-{microarchitecture()}{gpu}"


def microarchitecture() -> str:
    """Return the processor's micro-architecture, or its family and model where that is not known here."""
    facts = _cpuinfo()
    family, model = int(facts.get("cpu family", -1)), int(facts.get("model", -1))
    named = _MICROARCHITECTURES.get((facts.get("vendor_id", ""), family), {})
    since = [first for first in named if first <= model]
    if since:
        return named[max(since)]
    return f"family{family}-model{model}" if family >= 0 else platform.processor() or "unknown"


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    return dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", text.split("\n\n")[0], flags=re.MULTILINE))


class Others:
    """How much of the processors other processes used since this was made (0 to 1; 0 where it cannot be known)."""

    def __init__(self):
        self._start = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float]:
        path = Path("/proc/stat")
        if not path.exists():
            return 0.0, 0.0, 0.0
        counters = [int(x) for x in path.read_text().split("\n", 1)[0].split()[1:]]
        tick = os.sysconf("SC_CLK_TCK")
        own = sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        return sum(counters[:8]) / tick, (counters[3] + counters[4]) / tick, own

    def share(self) -> float:
        """Return the share."""
        total, idle, own = (after - before for before, after in zip(self._start, self._read(), strict=True))
        return max(0.0, (total - idle - own) / total) if total > 0 else 0.0


@contextlib.contextmanager
def alone(wanted: bool):
    """Run this process and those it starts before all others, so that they do not disturb; needs root.

    Raises
    ------
    RuntimeError
        The system does not allow it.
    """
    if not wanted:
        yield
        return
    threads = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError as error:
        raise RuntimeError("--alone needs root: leave it out and measure on a quiet machine") from error
    try:
        yield
    finally:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


@functools.cache
def limits(threads: int) -> Limits:
    """Measure the limits with `threads` threads; takes about three seconds.

    Raises
    ------
    RuntimeError
        There is no C++ compiler, or it fails.
    """
    library = _compiled()
    return Limits(
        flops=max(library.limit_fma(threads, ctypes.c_double(0.2)) for _ in range(5)),
        bandwidth=library.limit_stream(threads, ctypes.c_int64(20_000_000), 20),
        lookups=max(library.limit_lookup(threads, ctypes.c_int64(1600), ctypes.c_double(0.2)) for _ in range(5)),
    )


def _compiled() -> ctypes.CDLL:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise RuntimeError("measuring the limits needs a C++ compiler (Debian/Ubuntu: apt install g++)")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "limits.so"
        flags = ["-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared"]
        done = subprocess.run(
            [*compiler.split(), *flags, str(HERE / "limits.cpp"), "-o", str(target)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"compiling profiling/limits.cpp failed: {done.stderr[-2000:]}")
        library = ctypes.CDLL(str(target))
    for function in (library.limit_fma, library.limit_stream, library.limit_lookup):
        function.restype = ctypes.c_double
    return library
