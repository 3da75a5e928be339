"""What a collapse means for whoever runs the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .collapsed import Collapse

__all__ = ["AFFORDABLE", "verdict"]

#: How many times its multiply-adds the edge may do with the matrix for that to be called cheap.
AFFORDABLE = 2.0


def verdict(found: Collapse) -> str:
    """Say in plain words whether the network needs its cloud."""
    if not found.learned:
        return (
            f"There is nothing to match: {found.accuracy:.1%} of the network's decisions are right, and "
            f"{found.chance:.1%} of who always decides for the commonest."
        )
    shares = f"{found.collapsed_accuracy:.1%} of the decisions are right with it, {found.accuracy:.1%} with the network"
    if not found.matched:
        return (
            f"The cloud part is not matched by one matrix, its mean derivative: {shares}, so that it loses "
            f"{found.lost:.1f} points."
        )
    return f"The cloud part is matched by one matrix: {shares}. {_advice(found)}{_reduced(found)}"


def _advice(found: Collapse) -> str:
    matrix, cloud = found.matrix_multiply_adds, found.cost.cloud.multiply_adds
    edge, collapsed = found.cost.edge_multiply_adds, found.collapsed_multiply_adds
    if matrix >= cloud:
        return (
            f"The matrix takes {_count(matrix)} multiply-adds an image, not less than the cloud part, {_count(cloud)}: "
            "that may as well run on the edge itself, and leak nothing."
        )
    instead = f"{_count(collapsed)} multiply-adds an image instead of {_count(edge)}"
    if collapsed > AFFORDABLE * edge:
        return (
            f"Running it on the edge leaks nothing and needs no cloud, but is {collapsed / edge:.1f} times the work "
            f"there: {instead}; the cloud part's {_count(cloud)} fall away."
        )
    return (
        f"Running it on the edge is cheaper in all, and leaks nothing: the edge would compute {instead}, the "
        f"cloud none instead of {_count(cloud)}, and {found.bytes_saved} bytes an image need not be sent."
    )


def _reduced(found: Collapse) -> str:
    low = found.low_rank
    if low is None:
        return ""
    sizes = f"{_count(low.multiply_adds)} multiply-adds instead of {_count(found.matrix_multiply_adds)}"
    return f" At rank {low.rank} the matrix takes {sizes}, and {low.accuracy:.1%} are right."


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e4 else str(number)
