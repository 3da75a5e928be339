"""Early stopping that an interruption does not change. Lightning's forgets which epoch was the best once the folder is
moved, and that it had stopped.
"""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

__all__ = ["Best", "Patience"]


class Patience(EarlyStopping):
    """Ends a training after epochs without a better loss on the validation set."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A training that goes on may have come to its end before."""
        if self.stopped_epoch or self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True


class Best(ModelCheckpoint):
    """Keeps the epoch with the best such loss, in one file."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The file is in this folder, wherever it was written: a moved one takes it along."""
        scores = {self.format_checkpoint_name({}): score for score in state_dict["best_k_models"].values()}
        path = next(iter(scores), "")
        here = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path, "best_k_models": scores}
        super().load_state_dict({**state_dict, **here})
