#!/bin/sh
# Larger cells of the teacher of bks_data.sh: 24 train, 4 valid and 12 test configurations of 648 atoms out of three
# melt–quenches. They hold the long waves that cells of 96 atoms have not. Into FOLDER (default
# profiling/.cache/bks_large), which must be new.
#
# sh profiling/studies/bks_large.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python}" -m silica_md.cli sample \
    --out "${1:-$here/../.cache/bks_large}" --config "$here/bks_data.toml" \
    --atoms 648 --density 2.3 --density-spread 0.1 --ensemble both --runs 3 --seed 200 \
    --melt 5000 --melt-time 2 --cool 1000 --equilibrate 2 --rate 300 --hold 1 --frame 0.1 \
    --train 24 --valid 4 --test 12 --copies 0 --threads 1
