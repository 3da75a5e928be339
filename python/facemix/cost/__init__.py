"""What a partition costs on each side: parameters, multiply-adds, bytes and seconds."""

from .link import MIBIT, PAPER_4G, Exchange, Link, request_seconds, setup_seconds, transfer_seconds
from .parts import PartCost, PartitionCost, partition_cost

__all__ = [
    "MIBIT",
    "PAPER_4G",
    "Exchange",
    "Link",
    "PartCost",
    "PartitionCost",
    "partition_cost",
    "request_seconds",
    "setup_seconds",
    "transfer_seconds",
]
