#!/bin/sh
# What a session with a GPU for a quarter of an hour measures, in under ten minutes and one command:
# profiles: images/s of ours (b) and of the bare forward passes (c), b/c and the GPU's use;
# changes: the stages with and without each change for speed. All on full-size models with random weights.
#
#     PYTHON=.venv/bin/python sh bench/gpu_session.sh [FOLDER] ["profiles changes"]
#
# FOLDER (gpu-session by default) gets a file for each part, also if the time is over before the last one.
set -u
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${1:-gpu-session}
PARTS=${2:-profiles changes}
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$OUT/machine.txt"
# the limits add up to 590 s
profiles() {
    # the original's way (a) is measured on two images alone
    for run in "paper 170 64" "small 120 64" "modern 150 32"; do
        set -- $run
        echo "== $1"
        timeout "$2" "$PYTHON" -m bench.models --architectures "$1" --device cuda --images "$3" --original-images 2 \
            >"$OUT/$1.txt" 2>"$OUT/$1.log" || { echo "ended with $?"; tail -n 3 "$OUT/$1.log"; }
        grep -E "images/s|b/c|busy|GiB" "$OUT/$1.txt"
    done
}
changes() {
    echo "== changes"
    timeout 150 "$PYTHON" -m bench.models.changes --device cuda >"$OUT/changes.txt" 2>"$OUT/changes.log" ||
        { echo "ended with $?"; tail -n 3 "$OUT/changes.log"; }
    cat "$OUT/changes.txt"
}
for part in $PARTS; do
    "$part"
done
"$PYTHON" -m bench.roofline >"$OUT/roofline.txt" 2>/dev/null
