"""Each job of benchmarks/gpu.py once, for a profiler: it sees our op alone, after one call that warms up.

    ncu --profile-from-start off ... python benchmarks/gpu_profile.py --only "conv_mix resnet-stem 256x224x224 bfloat16"

``benchmarks/gpu.sh profile`` does so, with what else Nsight Compute should be told.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import torch
from gpu_contestants import runs
from gpu_workloads import JOBS, TINY_JOBS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", metavar="TEXT", default="", help="jobs whose name has this in it")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no GPU; to try the harness itself: --device cpu")
    jobs = [job for job in (JOBS if on_gpu else TINY_JOBS) if options.only in job.key]
    if not jobs:
        parser.error(f"argument --only: must be in the name of a job, got {options.only!r}")
    for job in jobs:
        run = runs(job, torch.device(options.device), {"facemix"})["facemix"]
        run()
        print(job.key, flush=True)  # the profiler says the rest
        with torch.cuda.profiler.profile() if on_gpu else nullcontext():
            run()
            if on_gpu:
                torch.cuda.synchronize()


if __name__ == "__main__":
    main()
