"""What a bundle holds: ``python -m facemix_ops.edge BUNDLE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..table import print_table
from . import Bundle

KIB = 1024


def describe(bundle: Bundle) -> dict[str, str]:
    """Name and value of everything of interest."""
    oc, c, kh, kw = bundle.weight.shape
    channels, height, width = bundle.features_shape
    values = bundle.group_size * channels * height * width / KIB
    scales = bundle.group_size * channels * 4 / KIB  # sent along with int8
    what, names = ("classes", bundle.classes) if bundle.attributes is None else ("attributes", bundle.attributes)
    told = f"{len(bundle.last_weight if names is None else names)}"
    if names is not None:
        told += f": {', '.join(names[:5])}{', ...' * (len(names) > 5)}"
    return {
        "model": f"{bundle.name}, version {bundle.version}",
        "network": bundle.network,
        "image": f"uint8, height x width x channels {' x '.join(map(str, bundle.image_shape))}",
        "mean, std": f"{', '.join(f'{m:g}' for m in bundle.mean)}; {', '.join(f'{s:g}' for s in bundle.std)}",
        "convolution": f"{c} -> {oc}, {kh} x {kw}, stride {bundle.stride}, padding {bundle.padding}, "
        f"dilation {bundle.dilation}",
        "activation": str(bundle.activation),
        "pool": "none" if bundle.pool is None else "{}, stride {}, padding {}".format(*bundle.pool),
        "sent for an image": f"{channels} x {height} x {width}",
        "sent for a group": f"{4 * values:.1f} KiB in float32, {2 * values:.1f} KiB in float16 or bfloat16, "
        f"{values + scales:.1f} KiB in int8",
        "group size": str(bundle.group_size),
        "largest coefficient": "any" if bundle.max_coeff is None else f"{bundle.max_coeff:g}",
        "wire dtype": bundle.wire_dtype,
        "int8 scales": "none" if bundle.scales is None else f"{bundle.scales.min():g} to {bundle.scales.max():g}",
        "decoys": "none" if bundle.decoys is None else str(len(bundle.decoys)),
        "reply for an image": str(bundle.last_weight.shape[1]),
        what: told,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return `print_table`'s exit status, or 1 after a line about what is wrong with the file."""
    parser = argparse.ArgumentParser(
        prog="python -m facemix_ops.edge", description="Check an edge bundle, and say what it holds."
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .safetensors file that facemix.export.export_edge wrote")
    try:
        rows = describe(Bundle.load(parser.parse_args(argv).bundle))
    except (OSError, ValueError) as error:
        print(f"facemix_ops.edge: error: {error}", file=sys.stderr)
        return 1
    return print_table(rows)


if __name__ == "__main__":
    sys.exit(main())
