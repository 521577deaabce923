"""Builds csrc/ into one shared library with a plain C interface (no torch headers, no Python ABI).

Metadata lives in pyproject.toml. The library is compiled as ``rsa_kernels/librsa_kernels.so`` and loaded
with ctypes, so one wheel serves every Python and every torch version.
"""

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-psabi",  # vectors are passed inside a translation unit only
]
# A file named *_<isa>.cpp is the same source compiled for one instruction set; the choice is made at run time.
# GCC 12 calls operands inside its own AVX-512 intrinsics uninitialized.
ISA_FLAGS = {
    "avx512": [
        "-mavx512f",
        "-mavx512dq",
        "-mavx512vl",
        "-mfma",
        "-mprefer-vector-width=512",
        "-Wno-maybe-uninitialized",
    ],
    "avx2": ["-mavx2", "-mfma"],
}


def find_compiler():
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    raise SystemExit(
        "error: no C++ compiler found. Install one (Debian/Ubuntu: apt install g++) or name it in the variable CXX."
    )


def package_cuda_sources(folder):
    """Copy what GPUs compile at run time into the package; a checkout uses csrc/ itself."""
    for path in [*(ROOT / "csrc").glob("*.hpp"), *(ROOT / "csrc" / "cuda").glob("*.cu")]:
        copy = folder / path.relative_to(ROOT / "csrc")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


class BuildNative(build_ext):
    """Compile csrc/cpu/*.cpp and link librsa_kernels.so."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext):
        compiler = find_compiler()
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        sources = [
            source
            for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))
            if x86 or not source.stem.endswith(tuple(ISA_FLAGS))
        ]
        objects_dir = Path(self.build_temp)
        objects_dir.mkdir(parents=True, exist_ok=True)

        def compile_one(source):
            isa = source.stem.rsplit("_", 1)[-1]
            target = objects_dir / (source.stem + ".o")
            newest = max(path.stat().st_mtime for path in (source, Path(__file__), *(ROOT / "csrc").glob("*.hpp")))
            if target.exists() and target.stat().st_mtime > newest and not self.force:
                return str(target)
            command = [
                *compiler,
                *FLAGS,
                *ISA_FLAGS.get(isa, []),
                f"-I{ROOT / 'csrc'}",
                "-c",
                str(source),
                "-o",
                str(target),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"error: compiling {source.name} failed:\n{' '.join(command)}\n{done.stderr}")
            if done.stderr:
                sys.stderr.write(done.stderr)
            return str(target)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            objects = list(pool.map(compile_one, sources))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Linked under a temporary name and renamed: a running process keeps the library it has mapped.
        scratch = target.with_suffix(".so.new")
        done = subprocess.run(
            [*compiler, "-shared", "-fopenmp", *objects, "-o", str(scratch)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"error: linking {target.name} failed:\n{done.stderr}")
        scratch.replace(target)
        if not self.inplace:
            package_cuda_sources(target.parent / "_csrc")


class PlatformWheel(bdist_wheel):
    """The wheel depends on the platform, not on a Python or torch version."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("rsa_kernels.librsa_kernels", sources=[])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel},
)
