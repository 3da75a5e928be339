#!/usr/bin/env bash
# The experiments that wait for a machine with a GPU, in one go: the full ResNet-18 on 218 x 178 pixels, group sizes 1, 2,
# 4 and 8, one to three blocks on the edge, SEEDS of each, and what an audit recovers of each; on all GPUs at once. It
# needs no network.
#
#     benchmarks/gpu_experiments.sh [OPTION OF facemix train]...
#
# What was interrupted goes on with the same command. Everything goes to OUT; tables, plots and results, which are what to
# commit, are copied to benchmarks/results/experiments at the end, under the name of the device.
set -euo pipefail
cd "$(dirname "$0")/.."
FACEMIX="${FACEMIX:-facemix}"
OUT="${OUT:-.benchmarks/experiments}"
SEEDS="${SEEDS:-4}"
DEVICE="${DEVICE:-$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | tr ' ' '-')}"
FULL=(--data.size '[218,178]' --model.options '{}' --trainer.precision bf16-mixed --data.workers 4)

trained() { # NAME RECIPE OPTION...
    "$FACEMIX" sweep "$2" --group-sizes 1 2 4 8 --pre 1 2 3 --seeds "$SEEDS" --out "$OUT/$1" "${FULL[@]}" "${@:3}"
}

sweep() { # NAME RECIPE OPTION...
    trained "$@"
    for edge in "$OUT/$1"/pre-*/seed-*/edge.safetensors; do
        "$FACEMIX" audit "$(dirname "$edge")"
    done
    trained "$@" # trains nothing again, and draws privacy into its plots
}

sweep orl orl "$@"
# The network of the recipe has a cloud that is linear, for which groups of any size are the same: here it is ResNet-18.
sweep orl-affine orl-affine --mixed_model null --mix.activation prelu --linear_control true "$@"
sweep synthetic synthetic "$@"

for name in orl orl-affine synthetic; do
    kept="benchmarks/results/experiments/$DEVICE/$name"
    mkdir -p "$kept"
    cp "$OUT/$name"/sweep.csv "$OUT/$name"/sweep.md "$OUT/$name"/figure4*.png "$kept"
    "$FACEMIX" report "$OUT/$name"/pre-* --out "$kept"
done
echo "results: benchmarks/results/experiments/$DEVICE"
