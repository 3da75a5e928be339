"""One training from beginning to end: what was finished is taken as it is, what was interrupted goes on."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from facemix.atomic import atomic_path
from facemix.damaged import read_json, undamaged
from facemix.plural import plural
from facemix.storage import load_tensors, save_tensors

from .deciding import difference, plain
from .learner import Learner
from .processes import new_trainer
from .stopping import Best, Patience

__all__ = ["CURVES", "WEIGHTS", "WEIGHTS_KIND", "is_first_process", "train_stage"]

WEIGHTS, CURVES, RECIPE = "weights.safetensors", "curves.json", "recipe.json"
#: What the config of a file of weights says that it is.
WEIGHTS_KIND = "facemix-weights-1"
LAST, BEST = "last", "best"


def is_first_process() -> bool:
    """Of those that train together: the one that writes."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or absent, whenever the process ends."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write it beside `path` first."""
        data = io.BytesIO()  # where the disk is full, PyTorch's own writer raises an error that is no OSError
        torch.save(checkpoint, data)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(data.getbuffer())

    def load_checkpoint(self, path: Any, *arguments: Any, **more: Any) -> dict[str, Any]:
        """Read one of ours."""
        with undamaged(f"train: {path} must be a checkpoint", _again(Path(path).parent)):
            checkpoint: dict[str, Any] = super().load_checkpoint(path, *arguments, **more)
            _ = checkpoint["state_dict"], checkpoint["curves"]
        return checkpoint


def train_stage(
    name: str,
    learner: Learner,
    options: Mapping[str, Any],
    folder: Path,
    recipe: Mapping[str, Any],
    config: Mapping[str, Any],
) -> tuple[dict[str, Tensor], bool]:
    """Train, or take what was trained before.

    Args:
        name: what is printed.
        learner: see there.
        options: keyword arguments of `lightning.Trainer`, which win over ours.
        folder: of this stage alone.
        recipe: JSON values that decide the outcome. What lies in the folder must have been made by the same.
        config: JSON values to keep with the weights.

    Returns:
        The weights by their names in the plain network, which are in `folder` too, and whether they had been there.

    Raises:
        ValueError: if the folder holds another training, or a damaged file.
    """
    _check_recipe(folder, recipe)
    if (folder / WEIGHTS).exists():
        learner.curves = read_json("train", folder / CURVES, list, _again(folder))
        return _finished(folder, recipe), True
    last, best = folder / f"{LAST}.ckpt", folder / f"{BEST}.ckpt"
    if is_first_process() and not last.exists():
        best.unlink(missing_ok=True)  # of a training that ended in its first epoch, and may have been another
    trainer = _trainer(learner, folder, options)
    if trainer.is_global_zero:  # the progress bar shows on a terminal only
        data, epochs = plural(learner.photographs, "photograph"), plural(learner.settings.epochs, "epoch")
        print(f"facemix train: {name}: {data}, {epochs}", flush=True)
    with torch.random.fork_rng(), warnings.catch_warnings():
        # About workers that nobody asked for.
        warnings.filterwarnings("ignore", module="lightning")
        learner.train()  # Lightning leaves the modes of layers as they are
        try:
            trainer.fit(learner, ckpt_path=str(last) if last.exists() else None, weights_only=True)
        except SystemExit:  # so Lightning answers Ctrl-C
            raise KeyboardInterrupt from None
    if best.exists():
        learner.load_state_dict(WholeFiles().load_checkpoint(best, weights_only=True)["state_dict"])
    trainer.strategy.barrier()  # all have read what the first removes now
    result = {name: tensor.detach().cpu() for name, tensor in learner.network.network.state_dict().items()}
    _finish(folder, result, {"kind": WEIGHTS_KIND, **config, "recipe": dict(recipe)}, learner.curves)
    trainer.strategy.barrier()
    return result, False


def _trainer(learner: Learner, folder: Path, options: Mapping[str, Any]) -> L.Trainer:
    fit = learner.settings
    callbacks: list[Callback] = []
    if fit.early_stopping is not None:
        callbacks.append(Patience("validation_loss", patience=fit.early_stopping))
        callbacks.append(Best(folder, BEST, monitor="validation_loss", enable_version_counter=False))
    # The last of them, for it holds what the others know of the epoch.
    callbacks.append(ModelCheckpoint(folder, LAST, save_on_train_epoch_end=True, enable_version_counter=False))
    ours: dict[str, Any] = {
        "max_epochs": fit.epochs,
        "gradient_clip_val": fit.clip,
        "callbacks": callbacks,
        "logger": TensorBoardLogger(folder, name="", version=""),
        "plugins": [WholeFiles()],
        "deterministic": "warn",
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "enable_model_summary": False,
        "enable_progress_bar": sys.stderr.isatty(),
    }
    return new_trainer(options, **ours)


def _check_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """What was trained in the folder must be of the same recipe; where nothing was yet, it is written down."""
    path = folder / RECIPE
    if any((folder / name).exists() for name in (WEIGHTS, f"{LAST}.ckpt")):
        found = read_json("train", path, dict, _again(folder))
        if different := difference(found, plain(recipe)):
            raise ValueError(
                f"train: {folder} must hold nothing, or the same training; it holds one whose {different}: take "
                "another folder, or remove it"
            )
    elif is_first_process():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(plain(recipe), indent=2) + "\n")


def _finished(folder: Path, recipe: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in the folder, which must be of the recipe, too: files may have been mixed up."""
    rule, advice = f"train: {folder / WEIGHTS} must be of this training", _again(folder)
    with undamaged(rule, advice):
        weights, config = load_tensors(folder / WEIGHTS)
        different = difference(config["recipe"], plain(recipe))
    if different:
        raise ValueError(f"{rule}, got one whose {different}: {advice}")
    return weights


def _again(folder: Path) -> str:
    return f"remove {folder}, and it is trained again"


@rank_zero_only
def _finish(folder: Path, weights: dict[str, Tensor], config: dict[str, Any], curves: list[dict[str, Any]]) -> None:
    with atomic_path(folder / CURVES) as temporary:
        temporary.write_text(json.dumps(curves) + "\n")
    save_tensors(folder / WEIGHTS, weights, config)
    for name in (LAST, BEST):
        (folder / f"{name}.ckpt").unlink(missing_ok=True)
