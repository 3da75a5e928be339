"""The attacker's networks, and how it trains them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from facemix.models import ResNet18

from .attack import Progress

__all__ = ["answers", "classifier", "fit", "steps"]

WIDTH, RATE, DECAY = 0.25, 2e-3, 0.01
COLOURS = 3
QUICK, FULL = 40, 200
ANSWERED = 256  # rows at once

Loss = Callable[[Tensor, Tensor], Tensor]


def classifier(shape: torch.Size, outputs: int, seed: int) -> nn.Module:
    """ResNet-18, a quarter as wide, for rows of `shape` [c, h, w]: as the paper's attacker has it, "with similar
    architecture as the baseline"."""
    channels = shape[0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResNet18(outputs, channels, WIDTH)
        if channels > COLOURS:  # the rows have been through a stem already
            network.conv1 = nn.Conv2d(channels, network.conv1.out_channels, 3, padding=1, bias=False)
            network.maxpool = nn.MaxPool2d(1)
    return network


def steps(effort: str, requests: int) -> int:
    """For how many requests an attacker trains: in full, at least two passes over the `requests` that hold all."""
    return QUICK if effort == "quick" else max(FULL, 2 * requests)


def fit(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], count: int, loss: Loss, progress: Progress
) -> None:
    """Train `network`, where it is, with AdamW and one cycle of the learning rate; leave it in eval mode.

    Args:
        batches: pairs of inputs [b, ...] and targets [b, ...], `count` of them.
        loss: of outputs and targets.
        progress: see `Attack.run`.
    """
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=count)
    network.train()
    for step, (inputs, targets) in enumerate(batches):
        optimiser.zero_grad()
        loss(network(inputs.to(device)), targets.to(device)).backward()
        optimiser.step()
        schedule.step()
        progress((step + 1) / count)
    network.eval()


def answers(network: nn.Module, rows: Tensor) -> Tensor:
    """What `network` says of rows [b, ...]: [b, ...], on the CPU."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        return torch.cat([network(part.to(device)).cpu() for part in rows.split(ANSWERED)])
