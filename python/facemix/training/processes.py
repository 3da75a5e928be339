"""Where a training runs, and how many processes share it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from facemix.device import best_device

__all__ = ["new_trainer", "processes"]

WHERE = ("accelerator", "devices", "num_nodes", "strategy")


def new_trainer(options: Mapping[str, Any], **ours: Any) -> L.Trainer:
    """A `lightning.Trainer` with `options`, and with ours where these do not say otherwise. It takes one device, unless
    they, or who launched this process (torchrun, SLURM), want more: Lightning would take all GPUs, and run this command
    again for each.

    Raises:
        ValueError: for options that it does not take.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # else it advertises, and lists devices, for each stage
    # Apple's accelerator has no double precision, for keys.
    where: dict[str, Any] = {"accelerator": best_device().type}
    if not (TorchElasticEnvironment.detect() or SLURMEnvironment.detect()):
        where["devices"] = 1
    try:
        return L.Trainer(**{**where, **ours, **options})
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"train: trainer must suit lightning.Trainer, got {dict(options)}: {error}") from error


def processes(options: Mapping[str, Any]) -> int:
    """How many there will be, as Lightning counts them.

    Raises:
        ValueError: see `new_trainer`.
    """
    where = {name: value for name, value in options.items() if name in WHERE}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return new_trainer(where, **quiet).world_size
