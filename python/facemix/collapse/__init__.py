"""Whether one matrix does what the cloud does: if so, the edge needs neither cloud nor mix."""

from .collapsed import Collapse, LowRank, collapse

__all__ = ["Collapse", "LowRank", "collapse"]
