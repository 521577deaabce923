#!/bin/sh
# BKS–Ewald silica from liquid to glass as a training set: 400 train, 50 valid, 50 test configurations of 96 atoms
# out of eight melt–quenches (six, one and one), half of them at fixed densities from 2.07 to 2.53 g/cm3, half at
# zero pressure, and 40 strained and rattled copies. Into FOLDER (default profiling/.cache/bks), which must be new;
# after an interruption: silica-md sample --resume --out FOLDER.
#
# sh profiling/studies/bks_data.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python}" -m silica_md.cli sample \
    --out "${1:-$here/../.cache/bks}" --config "$here/bks_data.toml" \
    --atoms 96 --density 2.3 --density-spread 0.1 --ensemble both --runs 8 --seed 100 \
    --melt 5000 --melt-time 4 --cool 200 --equilibrate 10 --rate 50 --hold 4 --frame 0.2 \
    --train 400 --valid 50 --test 50 --copies 40 --threads 1
