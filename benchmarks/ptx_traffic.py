"""How many instructions the kernels take, and how much of the memories, counted on their PTX: no GPU, no time measured.

    FACEMIX_PTX_BUILD=build/cmake-cpython-311 python benchmarks/ptx_traffic.py [NAME]

Of each op and kind of access: the sectors of 32 bytes of global memory that warps touch, and the rounds that the banks
of shared memory take, divided by the least that would hold as many bytes. Instructions are those of warps times 32, for
one value of the result, each as often as it runs; of PTX and without moves, so that they are the same for all kernels,
but not what ptxas makes of them. bfloat16, a group of 8; 32 rows of unmix_linear. NAME: a part of the names of what is
counted, if not all is. The build folder is one that `make check-cuda` leaves. nvcc must be there, and cuobjdump on the
PATH. FACEMIX_BACKEND=triton takes Triton's kernels instead, and no folder; for sm_80, or for sm_90 with
FACEMIX_PTX_CAPABILITY=90, whose products of warpgroups read shared memory uncounted. A minute and a half.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from marked_pages import markdown_table

LAYOUTS = {"channels last": torch.channels_last, "NCHW": torch.contiguous_format}
SIZE, POOL = 8, (3, 2, 1)
KINDS = ("global reads", "global writes", "shared reads", "shared writes", "copies to shared")
Work = Callable[[], torch.Tensor]


def works() -> dict[str, Work]:
    """What is counted, by name. Imports the ops, which must not happen before on_ptx."""
    from facemix_ops import MixKey, act_mix, conv_mix, group_mix, unmix_linear

    key = MixKey.sample(SIZE, SIZE)
    weight = torch.randn(64, 3, 7, 7, dtype=torch.bfloat16)
    found: dict[str, Work] = {}
    for layout, memory_format in LAYOUTS.items():
        x = torch.randn(SIZE, 3, 32, 112).to(torch.bfloat16).contiguous(memory_format=memory_format)
        z = torch.randn(SIZE, 64, 16, 56).to(torch.bfloat16).contiguous(memory_format=memory_format)
        for pool in (None, POOL):
            end = f"{', pool' if pool else ''}, {layout}"

            def stem(
                x: torch.Tensor = x, pool: tuple[int, int, int] | None = pool, train: bool = False
            ) -> torch.Tensor:
                of = weight.clone().requires_grad_(train)
                return conv_mix(x, of, None, key, stride=2, padding=3, activation="relu", pool=pool)

            found[f"conv_mix{end}"] = stem
            found[f"conv_mix, with codes{end}"] = lambda stem=stem: stem(train=True)
            found[f"act_mix{end}"] = lambda z=z, pool=pool: act_mix(z, key, activation="relu", pool=pool)
        wide = torch.randn(64, 64, 3, 3).to(torch.bfloat16)
        found[f"conv_mix of 64 channels, {layout}"] = lambda z=z, of=wide: conv_mix(z, of, None, key, padding=1)
        found[f"group_mix, {layout}"] = lambda z=z: group_mix(z, key)
    rows, of_rows = torch.randn(32, 512, dtype=torch.bfloat16), MixKey.sample(32, SIZE)
    last, bias = torch.randn(80, 512, dtype=torch.bfloat16), torch.randn(80, dtype=torch.bfloat16)
    found["unmix_linear, 512 -> 80"] = lambda: unmix_linear(rows, of_rows, last, bias)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", nargs="?", default="")
    part = parser.parse_args().name
    if os.environ.setdefault("FACEMIX_BACKEND", "native") == "native" and not os.environ.get("FACEMIX_PTX_BUILD"):
        parser.error("FACEMIX_PTX_BUILD must name the build folder that `make check-cuda` leaves, got nothing")
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
    import on_ptx
    from ptx import Traffic

    rows = []
    for name, work in works().items():
        if part not in name:
            continue
        on_ptx.traffic = Traffic()
        values = work().numel()
        each = on_ptx.traffic.instructions * 32 / values
        ratios = on_ptx.traffic.ratios()
        rows.append([name, f"{each:.0f}", *(f"{ratios[kind]:.2f}" if kind in ratios else "-" for kind in KINDS)])
    print(markdown_table(["bfloat16, S = 8", "instructions", *KINDS], rows))


if __name__ == "__main__":
    main()
