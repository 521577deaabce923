#!/usr/bin/env bash
# GPU tests, benches and profiles in one call, for a machine that is lent for minutes. Not yet run on a GPU.
#
#   profiling/gpu.sh [tests|bench|profile|all] [folder for logs and results]
#
# PYTHON names an interpreter with torch built for CUDA (default: .venv/bin/python, else python3). The package is
# built in place; nothing is downloaded.
set -uo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
out=${2:-profiling/results/gpu-logs}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
mkdir -p "$out"
status=0

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo "error: $python sees no GPU (torch built for CUDA, and a driver, are needed)"; exit 1; }
"$python" setup.py -q build_ext --inplace || exit 1
"$python" -m rsa_kernels.doctor | tee "$out/doctor.txt"

if [ "$what" = tests ] || [ "$what" = all ]; then
  "$python" -m pytest -m gpu -q 2>&1 | tee "$out/tests.txt" || status=1
fi
if [ "$what" = bench ] || [ "$what" = all ]; then
  for case in neighbor-list structure-factor rings; do
    "$python" -m profiling bench "$case" --device cuda 2>&1 | tee "$out/bench-$case.txt" || status=1
  done
  for case in random-normal pair md-step; do
    "$python" -m profiling bench "$case" --device cuda --size 3000 --size 24000 --size 192000 2>&1 |
      tee "$out/bench-$case.txt" || status=1
  done
  for case in attention attention-growth attention-methods; do
    "$python" -m profiling bench "$case" --device cuda 2>&1 | tee "$out/bench-$case.txt" || status=1
  done
  for case in mace-step dispersion dispersion-step; do
    "$python" -m profiling bench "$case" --device cuda 2>&1 | tee "$out/bench-$case.txt" || status=1
  done
  cp -r profiling/results "$out/results" 2>/dev/null
fi
if [ "$what" = profile ] || [ "$what" = all ]; then
  for case in neighbor-list structure-factor rings pair attention attention-growth md-step; do
    if command -v nsys >/dev/null; then
      nsys profile --trace=cuda,nvtx --force-overwrite=true -o "$out/$case" \
        "$python" -m profiling replay "$case" --device cuda --size 24000 --seconds 3 || status=1
    else
      "$python" -m profiling replay "$case" --device cuda --size 24000 --seconds 3 --trace "$out/$case.json" || status=1
    fi
  done
fi
exit $status
