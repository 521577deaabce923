#!/bin/sh
# BKS–Ewald silica from liquid to glass as a training set, out of melt–quenches of 96 and of 648 atoms, half of them at
# fixed densities from 2.07 to 2.53 g/cm3, half at zero pressure:
#
#   96 atoms: 400 train, 50 valid, 50 test configurations of eight runs (six, one and one), and 40 strained and rattled
#   648 atoms: 24, 4 and 12 of three faster ones, for the long waves that the small cells have not
#
# Into FOLDER and FOLDER_large (default profiling/.cache/bks), which must be new; after an interruption:
# silica-md sample --resume --out FOLDER.
#
# sh profiling/studies/bks_data.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../.cache/bks}

sample() {
    "${PYTHON:-python}" -m silica_md.cli sample --config "$here/bks_data.toml" \
        --density 2.3 --density-spread 0.1 --ensemble both --threads 1 "$@"
}

sample --out "$folder" --atoms 96 --runs 8 --seed 100 --train 400 --valid 50 --test 50 --copies 40 \
    --melt 5000 --melt-time 4 --cool 200 --equilibrate 10 --rate 50 --hold 4 --frame 0.2
sample --out "${folder}_large" --atoms 648 --runs 3 --seed 200 --train 24 --valid 4 --test 12 --copies 0 \
    --melt 5000 --melt-time 2 --cool 1000 --equilibrate 2 --rate 300 --hold 1 --frame 0.1
