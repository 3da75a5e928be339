#!/usr/bin/env bash
# The experiments of docs/experiments.md, audit.md, baselines.md and hardening.md that need no GPU: about three hours of
# one core.
#
#     benchmarks/experiments.sh [orl] [protections] [hardening] [orl-affine] [figure4] [synthetic] [picture]
#
# By default all. What was interrupted goes on with the same command; what hardening measures begins again. Parts can
# run at once, but for protections and hardening, which take what orl trained. Everything goes to OUT, and not into the
# tree, whose changes results tell. To publish, from a clean tree that is installed with `pip install -e`, so that
# results name the commit:
#
#     cp -r .benchmarks/experiments/results/. benchmarks/results && make bench-report
set -euo pipefail
cd "$(dirname "$0")/.."
FACEMIX="${FACEMIX:-facemix}"
OUT="${OUT:-.benchmarks/experiments}"
RESULTS="$OUT/results"
SEEDS=4
export OMP_NUM_THREADS=1 # a run repeats to the bit on as many threads

keep() { # RUN
    "$FACEMIX" report "$OUT/$1" # with what audits found since
    mkdir -p "$RESULTS/experiments/$1"
    cp "$OUT/$1/report.md" "$OUT/$1/results.json" "$RESULTS/experiments/$1"
}

audit() { # NAME RUN OPTION...
    "$FACEMIX" audit "$OUT/$2/seed-0" --out "$OUT/audit/$1" "${@:3}"
    mkdir -p "$RESULTS/audit"
    cp "$OUT/audit/$1/audit.json" "$RESULTS/audit/$1.json"
}

orl() {
    "$FACEMIX" train orl --seeds $SEEDS --out "$OUT/orl"
    audit orl orl
    local half="$OUT/orl/seed-0"
    [ -e "$OUT/blinders" ] || "$FACEMIX" blind --edge "$half/edge.safetensors" --cloud "$half/cloud.safetensors" \
        --rows 10000 --out "$OUT/blinders"
    audit orl-blinded orl --blinders "$OUT/blinders"
    keep orl
}

protected() { # NAME OPTION...
    local run="protections/$1"
    "$FACEMIX" train orl --out "$OUT/$run" "${@:2}"
    audit "$1" "$run" --quick
    keep "$run"
}

protections() {
    protected plain --protection.name plain --baselines "$OUT/orl"
    for sigma in 4 8; do
        protected noise-$sigma --protection.name noise --protection.sigma $sigma --baselines "$OUT/orl"
    done
    for size in 16 8; do
        protected blur-$size --protection.name blur --protection.size $size --baselines "$OUT/orl"
    done
    protected anonymizer-8 --seeds $SEEDS --data.task attributes --protection.name anonymizer --protection.width 8 \
        --mixed.epochs 40 # an adversary trains along, and seeds differ
}

hardening() {
    "$FACEMIX" train orl --out "$OUT/orl-patches" --mix.patches 2 --linear_control false --longer_control false
    "${PYTHON:-python}" benchmarks/hardening.py "$OUT/orl/seed-0" "$OUT/orl-patches/seed-0" --effort full \
        --json "$RESULTS/hardening.json"
}

affine() { # NAME OPTION...
    "$FACEMIX" train orl-affine --out "$OUT/orl-affine/$1" "${@:2}"
    keep "orl-affine/$1"
}

orl-affine() {
    local shared=(--baselines "$OUT/orl-affine/wide") resnet=(--mixed_model null)
    affine wide --seeds $SEEDS
    affine resnet-4 --seeds $SEEDS "${shared[@]}" "${resnet[@]}" --mix.activation prelu
    affine wide-256 --seeds $SEEDS "${shared[@]}" \
        "--mixed_model={name: wide_linear, options: {width: 0.25, image_size: [56, 46], hidden: 256}}"
    affine resnet-8 --seeds $SEEDS "${shared[@]}" "${resnet[@]}" --mix.activation prelu --mix.group_size 8
    affine linear-4 --seeds 2 "${shared[@]}" "${resnet[@]}"
    affine resnet-2 --seeds 2 "${shared[@]}" "${resnet[@]}" --mix.activation prelu --mix.group_size 2
    affine short-8 "${resnet[@]}" --mix.activation prelu --mix.group_size 8 --baseline.epochs 80 --mixed.epochs 160
}

figure4() {
    "$FACEMIX" sweep orl-affine --group-sizes 1 2 4 8 --pre 1 2 3 --seeds 1 --out "$OUT/figure4" --mixed_model null \
        --mix.activation prelu --mix.max_coeff null --baseline.epochs 200 --mixed.epochs 200
    "$FACEMIX" report "$OUT/figure4"/pre-* --out "$OUT/figure4"
    mkdir -p "$RESULTS/experiments/figure4"
    cp "$OUT/figure4"/{results.json,sweep.csv,sweep.md,figure4a.png,figure4b.png} "$RESULTS/experiments/figure4"
}

synthetic() {
    "$FACEMIX" train synthetic --seeds $SEEDS --out "$OUT/synthetic"
    keep synthetic
}

picture() { # of the README: cartoons, so that it shows nobody
    "$FACEMIX" train synthetic --data.people 40 --data.size '[112, 92]' --longer_control false --out "$OUT/picture"
    "$FACEMIX" audit "$OUT/picture/seed-0" --quick --attacks end_to_end --out "$OUT/audit/picture"
    mkdir -p "$RESULTS/audit"
    cp "$OUT/audit/picture/pictures/end_to_end.png" "$RESULTS/audit/picture.png"
}

PARTS=(orl protections hardening orl-affine figure4 synthetic picture)
for part in "${@:-${PARTS[@]}}"; do
    case " ${PARTS[*]} " in
        *" $part "*) ;;
        *) echo "experiments.sh: a part must be one of ${PARTS[*]}, got $part" >&2 && exit 2 ;;
    esac
done
for part in "${@:-${PARTS[@]}}"; do
    "$part"
done
