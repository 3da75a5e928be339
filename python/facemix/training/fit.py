"""The training loop: seeded, and able to go on where an interruption left it, with the same bits as without
one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from facemix.data import Faces, augment, normalise
from facemix.storage import load_tensors, save_tensors

__all__ = ["TrainConfig", "fit"]

SAVE_EVERY = 5  # epochs: often enough to lose little, seldom enough to cost little


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    The defaults suit the demo (ORL faces, ResNet-18 of width 0.25 at 56 x 46). Size, width, epochs and batch were
    chosen among five settings on a validation split of the 280 training photographs (five of each person to train
    on, two to validate, two seeds; the test photographs were never looked at). A network twice as wide did as well
    and took longer; twice the resolution did worse through the mix. Learning rate, clipping and twice the epochs for
    the mixing-aware training are those of the project's design, and were not searched.

    Attributes:
        epochs: passes over the data.
        batch_size: images in a step. It must be a multiple of the group size where the model mixes.
        max_lr: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        seed: of batches, augmentation, dropout and, where the model mixes, keys.
    """

    epochs: int = 80
    batch_size: int = 40
    max_lr: float = 2e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_lr", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"TrainConfig: {name} must be positive, got {getattr(self, name)}")


def fit(
    model: nn.Module,
    faces: Faces,
    config: TrainConfig,
    checkpoint: Path,
    *,
    label: str = "training",
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train `model` in place to tell the identities of `faces`; leaves it in eval mode.

    Args:
        model: images [B, C, H, W] -> scores [B, people]; a plain or a converted one.
        faces: images from 0 to 1; they are augmented and normalised here.
        config: see `TrainConfig`.
        checkpoint: file to keep the progress in. If it exists, training goes on from there: the result has
            the same bits as without the interruption (same machine, same number of threads). Removed at the
            end.
        label: of the progress bar.
        on_epoch: called with the number of epochs done and the mean loss, after each epoch (and each save).

    Raises:
        ValueError: if the checkpoint belongs to another config.
    """
    steps = -(-len(faces) // config.batch_size)
    optimizer = AdamW(model.parameters(), lr=config.max_lr, weight_decay=config.weight_decay)
    schedule = OneCycleLR(optimizer, config.max_lr, total_steps=config.epochs * steps)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        start = _resume(checkpoint, config, model, optimizer, schedule) if checkpoint.exists() else 0
        bar = tqdm(
            range(start, config.epochs),
            desc=label,
            initial=start,
            total=config.epochs,
            unit="epoch",
            disable=None,
        )
        for epoch in bar:
            loss_sum = 0.0
            for rows in _batches(len(faces), config.batch_size):
                scores = model(normalise(augment(faces.images[rows])))
                loss = F.cross_entropy(scores, faces.identity[rows])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimizer.step()
                schedule.step()
                loss_sum += loss.item()
            bar.set_postfix(loss=f"{loss_sum / steps:.3f}")
            done = epoch + 1
            if done % SAVE_EVERY == 0 and done < config.epochs:
                _save(checkpoint, config, model, optimizer, schedule, done)
            if on_epoch is not None:
                on_epoch(done, loss_sum / steps)
    model.eval()
    checkpoint.unlink(missing_ok=True)


def _batches(count: int, batch_size: int) -> Tensor:
    """Return one epoch of rows, int64 [steps, batch_size]: every row once, and as many again as fill the last
    batch.

    A last batch that is short would not divide into groups.
    """
    missing = -count % batch_size
    rows = [torch.randperm(count)]
    while missing > 0:
        rows.append(torch.randperm(count)[:missing])
        missing -= len(rows[-1])
    return torch.cat(rows).view(-1, batch_size)


def _save(
    path: Path,
    config: TrainConfig,
    model: nn.Module,
    optimizer: AdamW,
    schedule: OneCycleLR,
    epochs_done: int,
) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    state = optimizer.state_dict()
    for number, moments in state["state"].items():
        tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in moments.items()}
    tensors["random"] = torch.get_rng_state()
    rest = {
        "config": asdict(config),
        "epochs_done": epochs_done,
        "param_groups": state["param_groups"],
        "schedule": schedule.state_dict(),
    }
    save_tensors(path, tensors, rest)


def _resume(path: Path, config: TrainConfig, model: nn.Module, optimizer: AdamW, schedule: OneCycleLR) -> int:
    tensors, rest = load_tensors(path)
    if rest["config"] != json.loads(json.dumps(asdict(config))):
        raise ValueError(f"fit: {path} must be a checkpoint of {asdict(config)}, got {rest['config']}")
    model.load_state_dict({name[len("model/") :]: t for name, t in tensors.items() if name.startswith("model/")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, number, key = name.split("/")
            moments.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": rest["param_groups"]})
    schedule.load_state_dict(rest["schedule"])
    torch.set_rng_state(tensors["random"])
    return int(rest["epochs_done"])
