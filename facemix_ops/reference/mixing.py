"""A key's coefficients times rows."""

from torch import Tensor


def product(coeffs: Tensor, rows: Tensor) -> Tensor:
    """coeffs [G, S, S] @ rows [G, S, N], in the dtype of rows. A copy of the coefficients is zeroed, unless a gradient
    needs it: who closes the key does not know of it."""
    copy = coeffs.to(rows.dtype)
    out = copy @ rows
    if copy is not coeffs and not out.requires_grad:
        copy.zero_()
    return out
