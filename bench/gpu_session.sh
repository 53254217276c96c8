#!/bin/sh
# What a session with a GPU for a quarter of an hour measures, in under ten minutes and one command: for each profile
# images/s of ours (b) and of the bare forward passes (c), b/c and the GPU's use, on full-size models with random weights.
#
#     PYTHON=.venv/bin/python sh bench/gpu_session.sh [FOLDER]
#
# FOLDER (gpu-session by default) gets a file for each profile, also if the time is over before the last one.
set -u
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${1:-gpu-session}
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$OUT/machine.txt"
# the limits add up to 570 s; the original's way (a) is measured on two images alone
for run in "paper 210 96" "small 160 96" "modern 200 48"; do
    set -- $run
    echo "== $1"
    timeout "$2" "$PYTHON" -m bench.models --architectures "$1" --device cuda --images "$3" --original-images 2 \
        >"$OUT/$1.txt" 2>"$OUT/$1.log" || { echo "ended with $?"; tail -n 3 "$OUT/$1.log"; }
    grep -E "images/s|b/c|busy|GiB" "$OUT/$1.txt"
done
"$PYTHON" -m bench.roofline >"$OUT/roofline.txt" 2>/dev/null
