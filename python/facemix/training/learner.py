"""One training as Lightning runs it. All that is random is a function of seed, stage, epoch and step: a run that was
interrupted, or is spread over processes, is the same run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

import facemix_ops as fo
from facemix.data import Labelled, change, normalise
from facemix.device import fastest_layout
from facemix.protections import repeatable

from .batches import FaceBatches, loader, seed_of
from .mixed_network import MixedNetwork
from .settings import DataSettings, FitSettings, MixSettings
from .task import Task

__all__ = ["Learner", "inputs", "share_of_key"]

OPTIMIZERS: dict[str, type[Adam] | type[AdamW]] = {"adam": Adam, "adamw": AdamW}


class Learner(L.LightningModule):
    """A network, and how it learns.

    Args:
        network: as it is when training begins.
        task: what its scores mean.
        train, validation: photographs to learn from, and, if there are any, to look at after each epoch.
        data, fit, mix: see `settings`; with `mix.group_size` 1 nothing is mixed.
        seed: a number for this very training.
        teacher: in eval mode, whose scores are learned too, where `mix.distillation` says so.

    Attributes:
        curves: for each epoch a dict with "epoch", "loss", "validation_loss" (None without such a set) and "lr".
    """

    def __init__(
        self,
        network: MixedNetwork,
        task: Task,
        train: Labelled,
        validation: Labelled,
        data: DataSettings,
        fit: FitSettings,
        mix: MixSettings,
        seed: int,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.data, self.settings, self.mix, self.seed = data, fit, mix, seed
        self._faces, self._held_out, self._first_epoch = train, validation, 0
        self.curves: list[dict[str, Any]] = []
        self._teacher = (teacher,)  # a tuple: it is not trained, nor saved with the rest
        self._key: fo.MixKey | None = None
        self._losses: list[Tensor] = []
        self._validation: list[Tensor] = []

    @property
    def photographs(self) -> int:
        """To learn from."""
        return len(self._faces)

    def group_size(self, epoch: int) -> int:
        """The group size of an epoch: `mix.group_size`, or one of the warm-up's, which share the first half."""
        warm_up = self.mix.warm_up
        place = epoch * 2 * len(warm_up) // max(self.settings.epochs, 1)
        return warm_up[place] if place < len(warm_up) else self.mix.group_size

    def configure_model(self) -> None:
        """Weights of convolutions lie as images do, see `inputs`: before there is anything that depends on it."""
        layout = fastest_layout(self.trainer.strategy.root_device)
        for weight in self.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=layout)

    def configure_optimizers(self) -> Any:
        """AdamW or Adam, and the one-cycle schedule where it is asked for."""
        return self.optimizer(self.network.parameters())

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Any:
        """What `configure_optimizers` returns, of `parameters`."""
        settings = self.settings
        optimizer = OPTIMIZERS[settings.optimizer](parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        if settings.schedule == "constant":
            return optimizer
        schedule = OneCycleLR(optimizer, settings.lr, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """This process's part of each batch."""
        size, processes = self.mix.group_size, self.trainer.world_size
        batch_size = self.settings.whole_groups(size, processes)
        batches = FaceBatches(
            self._faces, self.task.name, batch_size, size, self.seed,
            process=self.global_rank, processes=processes,
        )  # fmt: skip
        return loader(batches, self.data.workers, epoch=self._first_epoch)

    def val_dataloader(self) -> Any:
        """All of the photographs that were held out, in every process."""
        size = self.mix.group_size
        if not len(self._held_out):
            return []
        batch_size = self.settings.whole_groups(size)
        return loader(
            FaceBatches(self._held_out, self.task.name, batch_size, size, self.seed, tests=True), self.data.workers
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch, through the mix with a fresh key."""
        torch.manual_seed(seed_of(self.seed, "layers", self.current_epoch, batch_idx, self.global_rank))
        loss = self.loss(inputs(batch, self.data, augment=True), batch, batch_idx)
        self._losses.append(loss.detach())
        return loss

    def loss(self, images: Tensor, batch: dict[str, Tensor], step: int) -> Tensor:
        """Of images as the network takes them, [B, C, H, W]."""
        self._key = self._sample(len(images), self.group_size(self.current_epoch), self.current_epoch, step)
        scores = self.network(images, self._key)
        loss = self.task.loss(scores, batch[self.task.name])
        if self.mix.distillation and self._teacher[0] is not None:
            with torch.no_grad():
                expected = self._teacher[0].to(self.device)(images)
            share = self.mix.distillation
            loss = (1 - share) * loss + share * self.task.distillation(scores, expected, self.mix.temperature)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The backward pass is over: the key is zeroed."""
        if self._key is not None:
            self._key.close()
            self._key = None

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The loss of photographs that were held out, through the mix; every process sees all of them."""
        images = inputs(batch, self.data, augment=False)
        size = self.mix.group_size
        generator = torch.Generator().manual_seed(seed_of(self.seed, "validation key", self.current_epoch, batch_idx))
        key = None
        if size > 1:
            rows = len(images) * self.network.rows_per_image
            key = fo.MixKey.sample(rows, size, max_coeff=self.mix.max_coeff, generator=generator).to(self.device)
        with repeatable(generator):
            scores = self.network(images, key)
        real = batch["real"]
        self._validation.append(self.task.loss(scores[real], batch[self.task.name][real]) * real.sum())
        self._validation.append(real.sum().float())

    def on_validation_epoch_end(self) -> None:
        """Log the mean, for early stopping."""
        if self._validation:
            sums, counts = torch.stack(self._validation[::2]).sum(), torch.stack(self._validation[1::2]).sum()
            self.log("validation_loss", sums / counts, prog_bar=True)
            self._validation.clear()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, over all processes, and keep it."""
        loss = self.trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")
        self._losses.clear()
        if not loss.isfinite():
            raise ValueError(
                f"train: the loss must stay finite, got {loss.item()} in epoch {self.current_epoch + 1}: take a lower "
                "lr, or a trainer.precision of more bits"
            )
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict({"loss": loss, "lr": lr}, prog_bar=True)
        validation = self.trainer.callback_metrics.get("validation_loss")
        self.curves.append({
            "epoch": self.current_epoch + 1,
            "loss": loss.item(),
            "validation_loss": None if validation is None else validation.item(),
            "lr": lr,
        })  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The curves go along."""
        checkpoint["curves"] = self.curves

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.curves, self._first_epoch = checkpoint["curves"], checkpoint["epoch"] + 1

    def _sample(self, rows: int, size: int, epoch: int, step: int) -> fo.MixKey | None:
        """This process's part of the step's key. Seeded, which is for training alone: the photographs are ours."""
        if size == 1:
            return None
        generator = torch.Generator(self.device).manual_seed(seed_of(self.seed, "key", epoch, step))
        processes = self.trainer.world_size
        rows *= self.network.rows_per_image
        whole = fo.MixKey.sample(rows * processes, size, max_coeff=self.mix.max_coeff, generator=generator)
        if processes == 1:
            return whole
        with whole:
            return share_of_key(whole, self.global_rank, processes)


def share_of_key(key: fo.MixKey, rank: int, processes: int) -> fo.MixKey:
    """The key for one of several equal parts of a batch: its groups' coefficients, and the order of its rows among each
    other.
    """
    groups, rows = key.groups // processes, key.batch // processes
    order = key.order[rank * rows : (rank + 1) * rows]
    return fo.MixKey(key.coeffs[rank * groups : (rank + 1) * groups], order.argsort().argsort())


def inputs(batch: dict[str, Tensor], data: DataSettings, *, augment: bool) -> Tensor:
    """Bytes to what the network takes, in the device's fastest layout: changed by the task's distortion, in training
    also by augmentation.
    """
    images = batch["images"].to(batch["distort"].dtype) / 255  # float64, where Lightning is told so
    images = change(images, batch["distort"], data.distort)
    if augment:
        images = change(images, batch["augment"], data.augment)
    return normalise(images).contiguous(memory_format=fastest_layout(images.device))
