#!/usr/bin/env bash
# All that needs a GPU, in eight minutes and without a network:
#
#     benchmarks/gpu.sh [STAGE...]     without any: build test sanitize bench
#
# build     builds with nvcc, and installs into PYTHON's environment
# test      tests/gpu on the CUDA kernels, then its tests marked small on Triton's; a skip is a failure
# triton    all of tests/gpu on Triton's kernels, each of which has to be compiled first: it takes long
# sanitize  a few launches of every kernel under compute-sanitizer: memcheck, then racecheck
# bench     races against PyTorch eager and torch.compile: gpu.json and gpu.png
# profile   every CUDA kernel under Nsight Compute, in bfloat16 or in jobs that have ONLY in their name: profile.txt, and
#           profile.csv.gz, what each instruction waits for
#
# Everything runs from the tree. An extension that lies there already, built elsewhere for this Python, needs no build.
# A stage that fails does not stop those behind it, but for build; the last lines say what failed, and so does the exit
# status. PYTHON has PyTorch 2.10 or newer, Triton, pytest, pytest-timeout, pytest-xdist, nvidia-ml-py, matplotlib, and
# what pyproject.toml wants for a build. Results go to OUT, and what all stages print to gpu.log there. MINUTES, a whole
# number, is for all stages together: with more of them more jobs are raced with torch.compile. COMMIT is what the result
# calls its commit where the tree came without git.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
PYTHON="${PYTHON:-python3}"
OUT="${OUT:-.benchmarks/gpu}"
MINUTES="${MINUTES:-8}"
kept=0 # seconds, for the races: what runs before them leaves them these
if [[ ! "$MINUTES" =~ ^[0-9]+$ ]]; then
    echo "gpu.sh: MINUTES must be a whole number, got $MINUTES" >&2
    exit 2
fi
mkdir -p "$OUT"
[ -d /usr/local/cuda ] && export CUDA_HOME="${CUDA_HOME:-/usr/local/cuda}" # where the build looks for nvcc, too
failed=()

left() { # seconds; bash counts in SECONDS since this script began
    echo $((MINUTES * 60 - 10 - SECONDS - kept))
}

share() { # of eight minutes, in seconds: as much of MINUTES
    echo $(($1 * MINUTES / 8))
}

say() { # to the log as well
    echo "== $*" | tee -a "$OUT/gpu.log"
}

within() { # NAME SECONDS COMMAND...: runs it for so long at most, and keeps what it prints
    local name="$1" limit="$2" status
    shift 2
    ((limit > $(left))) && limit=$(left)
    if ((limit < 5)); then
        say "$name: no time left" && failed+=("$name: no time left")
        return 1
    fi
    say "$name, at most $limit s: $*"
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee -a "$OUT/gpu.log"
    status="${PIPESTATUS[0]}"
    say "$name: exit status $status, $SECONDS s since the beginning"
    ((status == 0)) || failed+=("$name: exit status $status")
    return "$status"
}

toolkit() { # STAGE TOOL: where this tool of the CUDA toolkit is, as $found
    found="$(command -v "$2" || command -v "${CUDA_HOME:-}/bin/$2")" && return
    say "$1: no $2 on the PATH or in CUDA_HOME/bin; it comes with the CUDA toolkit"
    failed+=("$1: no $2")
    return 1
}

# BACKEND SECONDS OPTION...: it stops by itself before it is stopped, so that it can say what failed. Several processes
# share the card: most of the time goes into compiling Triton's kernels, and one that breaks its context breaks no other.
# Each has one thread for what it computes on the CPU. A thread ends a process that waits for a kernel which never ends:
# a signal would wait for it as well.
suite() {
    local workers
    workers="$(nproc)"
    within "test-$1" "$2" env FACEMIX_BACKEND="$1" OMP_NUM_THREADS=1 "$PYTHON" -m pytest tests/gpu -q --timeout=60 \
        --timeout-method=thread --session-timeout=$(($2 - 20)) -n $((workers < 16 ? workers : 16)) "${@:3}"
}

stage_build() {
    within build 240 env FACEMIX_BUILD_CUDA=1 "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index . ||
        exit 1
    within info 20 "$PYTHON" -m facemix_ops.info
}

stage_test() {
    suite native "$(share 100)"
    suite triton "$(share 75)" -m small
}

stage_triton() {
    suite triton "$(left)"
}

stage_sanitize() {
    local tool seconds
    seconds="$(share 35)"
    toolkit sanitize compute-sanitizer || return
    # Each tensor in an allocation of its own, so that an access beyond it is one beyond what was allocated. Graphs
    # cannot be captured then. Only our kernels are looked at, by their namespace: PyTorch's run at their own speed.
    for tool in memcheck racecheck; do
        within "$tool" "$seconds" env FACEMIX_BACKEND=native PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$found" --tool "$tool" \
            --kernel-name kns=facemix --report-api-errors no --error-exitcode 9 \
            "$PYTHON" -m pytest tests/gpu -q -m small -k "not replays" --timeout=60 --session-timeout=$((seconds - 10))
    done
}

stage_profile() {
    toolkit profile ncu || return
    within profile 400 env FACEMIX_BACKEND=native "$found" --profile-from-start off --clock-control none --set full \
        --kernel-name-base mangled --kernel-name regex:facemix --force-overwrite --export "$OUT/profile" \
        "$PYTHON" benchmarks/gpu_profile.py --only "${ONLY:-bfloat16}" || return
    "$found" --import "$OUT/profile.ncu-rep" --page details >"$OUT/profile.txt" &&
        "$found" --import "$OUT/profile.ncu-rep" --page source --print-source sass --csv | gzip >"$OUT/profile.csv.gz" ||
        failed+=("profile: ncu cannot read what it wrote")
}

races() { # BACKEND KEPT OPTION...: leaves KEPT seconds to others; goes on where a race took its process with it
    local slack=15 resume=() _ # a race that has begun is not cut off
    for _ in {1..8}; do
        within "bench-$1" $(($(left) - $2)) env FACEMIX_BACKEND="$1" "$PYTHON" benchmarks/gpu.py \
            --json "$OUT/gpu.json" --seconds $(($(left) - $2 - slack)) "${@:3}" "${resume[@]}"
        (($? <= 2)) && return
        resume=(--resume)
    done
}

stage_bench() {
    local chart=10
    rm -f "$OUT/gpu.json"
    races native $((chart + $(share 50)))
    races triton "$chart" --who facemix eager
    within chart 20 "$PYTHON" benchmarks/gpu_table.py "$OUT/gpu.json" --chart "$OUT/gpu.png"
}

for stage in "$@"; do
    case "$stage" in build | test | triton | sanitize | bench | profile) ;; *)
        echo "gpu.sh: a stage must be build, test, triton, sanitize, bench or profile, got $stage" >&2
        exit 2
        ;;
    esac
done
if ! scripts="$("$PYTHON" -c "
import sys, sysconfig, torch, triton, pytest, pytest_timeout, xdist, pynvml, matplotlib
print(sysconfig.get_path('scripts'))
sys.exit(not torch.cuda.is_available())")"; then
    echo "gpu.sh: $PYTHON needs the packages named in this file, and PyTorch a GPU that it sees" >&2
    exit 1
fi
export PYTHONPATH="$PWD:$PWD/python${PYTHONPATH:+:$PYTHONPATH}"
PATH="${scripts:+$scripts:}$PATH" # PYTHON's cmake and ninja, not those that the system happens to have
(($#)) || set -- build test sanitize bench
for stage in "$@"; do
    [[ "$stage" != bench && " $* " == *" bench "* ]] && kept="$(share 120)" || kept=0
    "stage_$stage"
done
((${#failed[@]})) && printf '== FAILED: %s\n' "${failed[@]}" && exit 1
echo "== all passed: $OUT/gpu.json, $OUT/gpu.png"
