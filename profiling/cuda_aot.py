"""Compiles csrc/cuda/*.cu for GPUs that are not there and tables registers, shared memory and stack of every kernel.

`python -m profiling.cuda_aot` prints the table, `--write` keeps it in results/cuda_resources.csv. Needs CuPy, NVRTC
(`pip install cupy-cuda13x 'nvidia-cuda-nvrtc<13.2'`) and Triton, for its assembler; no GPU.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rsa_kernels import _cuda

CAPABILITIES = (80, 90, 100)
TABLE = Path(__file__).with_name("results") / "cuda_resources.csv"


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes of a GPU; shared memory as fixed in the code, spills as stores plus loads."""

    source: str
    kernel: str
    target: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spilled_bytes: int
    compiler: str


def sources() -> list[str]:
    """Names of the CUDA sources."""
    return sorted(path.stem for path in (_cuda.source_folder() / "cuda").glob("*.cu"))


def unavailable() -> str | None:
    """Why nothing can be compiled here, or None if it can."""
    for package, install in (("cupy", "cupy-cuda13x"), ("triton", "triton")):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed; pip install {install}"
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except Exception as error:  # whatever a missing shared library leads to
        return f"NVRTC does not load ({error}); pip install 'nvidia-cuda-nvrtc<13.2'"
    return None


def to_ptx(source: str, capability: int) -> bytes:
    """Compile csrc/cuda/<source>.cu to PTX with the options a launch would use."""
    from cupy.cuda import nvrtc

    folder = _cuda.source_folder()
    text = (folder / "cuda" / f"{source}.cu").read_text(encoding="utf-8")
    program = nvrtc.createProgram(text, f"{source}.cu", [], [])
    try:
        nvrtc.compileProgram(program, [*_cuda.OPTIONS, f"-I{folder}", f"-arch=compute_{capability}"])
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{source}.cu does not compile:\n{nvrtc.getProgramLog(program)}") from error
    ptx = nvrtc.getPTX(program)
    return ptx if isinstance(ptx, bytes) else ptx.encode()


def resources(source: str, capability: int) -> list[Resources]:
    """Compile to machine code and read what the assembler says about each kernel."""
    from cupy.cuda import nvrtc
    from triton import knobs

    assembler = knobs.nvidia.ptxas_blackwell  # the newest that Triton brings; it knows every target
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / f"{source}.ptx"
        ptx.write_bytes(to_ptx(source, capability).rstrip(b"\0"))
        command = [assembler.path, "-v", f"--gpu-name=sm_{capability}", "-o", f"{folder}/out.cubin", str(ptx)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{source}.cu does not assemble for sm_{capability}:\n{done.stderr}")
    compiler = f"NVRTC {'.'.join(str(part) for part in nvrtc.getVersion())}, ptxas {assembler.version}"
    found = []
    for entry in done.stderr.split("Compiling entry function '")[1:]:
        found.append(
            Resources(
                source=f"{source}.cu",
                kernel=entry.split("'", 1)[0],
                target=f"sm_{capability}",
                registers=_number(r"Used (\d+) registers", entry),
                shared_bytes=_number(r"(\d+) bytes smem", entry),
                stack_bytes=_number(r"(\d+) bytes stack frame", entry),
                spilled_bytes=_number(r"(\d+) bytes spill stores", entry) + _number(r"(\d+) bytes spill loads", entry),
                compiler=compiler,
            )
        )
    return sorted(found, key=lambda row: row.kernel)


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a kernel spills."""
    parser = argparse.ArgumentParser(prog="python -m profiling.cuda_aot", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"keep the table in profiling/results/{TABLE.name}")
    options = parser.parse_args(arguments)
    rows = [row for source in sources() for capability in CAPABILITIES for row in resources(source, capability)]
    names = [field.name for field in fields(Resources)]
    print(("{:<16} {:<36}" + " {:>12}" * 6).format(*names))
    for row in rows:
        print(("{:<16} {:<36}" + " {:>12}" * 6).format(*asdict(row).values()))
    if options.write:
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    return int(any(row.spilled_bytes for row in rows))


if __name__ == "__main__":
    sys.exit(main())
