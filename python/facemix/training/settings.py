"""Everything that decides the figures of an experiment. `facemix train` reads it from YAML and from its options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from facemix_ops.rules import MAX_GROUP, check_max_coeff

__all__ = [
    "Changes",
    "DataSettings",
    "Experiment",
    "FitSettings",
    "MixSettings",
    "ModelSettings",
    "ProtectionSettings",
]


@dataclass(frozen=True)
class Changes:
    """How far a photograph is changed at random; each limit is drawn from evenly, on both sides.

    Attributes:
        rotation: largest angle, radians.
        scale: largest change of size, as a share: 0.25 is from 75 % to 125 %.
        shift: largest move, as a share of the side.
        mirror: left and right swapped, every second time.
        contrast: largest change, as a share.
        brightness: largest change, as a share of the range from black to white.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    mirror: bool = False
    contrast: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotation", "scale", "shift", "contrast", "brightness"):
            if getattr(self, name) < 0:
                raise ValueError(f"Changes: {name} must not be negative, got {getattr(self, name)}")
        if self.scale >= 1:
            raise ValueError(f"Changes: scale must be below 1, got {self.scale}")


@dataclass(frozen=True)
class DataSettings:
    """Which faces, and what is asked of them.

    Attributes:
        source: "orl", "synthetic", "celeba", "lfwa", or "folder" (a CSV file and the images that it names).
        root: folder of the data, for celeba, lfwa and folder.
        labels: CSV file, for folder.
        task: "identity": who it is; "attributes": yes or no for each attribute, a two-way head each.
        attributes: names of those to train; default: all.
        size: (height, width) of the network's images. Photographs are cropped around the centre to these proportions,
            and resized, as at the edge; those of lfwa are squeezed.
        channels: 1 (grey) or 3.
        people: for synthetic: number of people.
        photos: for synthetic: photographs of each.
        test_share: share of the photographs to test on, for synthetic and folder; the other sources have a split.
        validation_share: share of each person's training photographs to hold out; celeba has a validation set.
        split_seed: seed of these splits. It does not change with the seed of the training.
        augment: random changes in training.
        distort: random changes that belong to the task, drawn anew for each epoch in training and each round in tests.
        cache: where decoded photographs are kept.
        workers: processes that load batches; 0: the training's own.
    """

    source: Literal["orl", "synthetic", "celeba", "lfwa", "folder"] = "orl"
    root: Path | None = None
    labels: Path | None = None
    task: Literal["identity", "attributes"] = "identity"
    attributes: list[str] | None = None
    size: tuple[int, int] = (56, 46)
    channels: Literal[1, 3] = 1
    people: int = 40
    photos: int = 10
    test_share: float = 0.3
    validation_share: float = 0.0
    split_seed: int = 0
    augment: Changes = field(default_factory=Changes)
    distort: Changes = field(default_factory=Changes)
    cache: Path = Path("~/.cache/facemix")
    workers: int = 0

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"DataSettings: size must be a height and a width, got {list(self.size)}")
        if not -(1 << 63) <= self.split_seed < 1 << 63:
            raise ValueError(f"DataSettings: split_seed must be a number of 64 bits, got {self.split_seed}")
        if self.workers < 0:
            raise ValueError(f"DataSettings: workers must not be negative, got {self.workers}")


#: Options of networks that follow from settings of another name.
FOLLOW = {
    "num_classes": "data.task",
    "in_channels": "data.channels",
    "activation": "mix.activation",
    "patches": "mix.patches",
    "pre": "model.pre",
    "post": "model.post",
}


@dataclass(frozen=True)
class ModelSettings:
    """The network, and where it is cut.

    Attributes:
        name: name of the network, one of `facemix.models.names()`.
        options: options of its constructor; those that follow from other settings are refused (number of classes,
            channels, activation, patches, and where it is cut).
        pre: blocks in the edge's first part (the paper's N_pre), see `facemix.partition`.
        post: layers, or blocks, in the edge's last part.
    """

    name: str = "resnet18"
    options: dict[str, Any] = field(default_factory=dict)
    pre: int = 1
    post: int = 1

    def __post_init__(self) -> None:
        for option, setting in FOLLOW.items():
            if option in self.options:
                rule = f"must not have {option}, which follows from {setting}"
                raise ValueError(f"ModelSettings: options {rule}, got {self.options[option]!r}")


@dataclass(frozen=True)
class MixSettings:
    """The mix, and what mixing-aware training does beyond training.

    Attributes:
        group_size: images in a group (the paper's S_G), 2 to 64; 1: no mix.
        max_coeff: bound on the coefficients, see `facemix_ops.MixKey.sample`.
        patches: parts into which each side of the features is cut; each patch is mixed as a row of its own. For
            networks that end in a global average: resnet18.
        activation: activation in the cloud part: "prelu", which begins as the identity, "relu", or "identity".
        warm_up: group sizes to train with first, each for an equal part of the first half of the epochs; each a divisor
            of group_size, 1 for no mix.
        distillation: weight of the cross entropy with the baseline's softened scores, 0 to 1; the labels have the rest.
        temperature: temperature that softens those scores.
    """

    group_size: int = 8
    max_coeff: float | None = None
    patches: int = 1
    activation: Literal["prelu", "relu", "identity"] = "prelu"
    warm_up: list[int] = field(default_factory=list)
    distillation: float = 0.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        size = self.group_size
        if not 1 <= size <= MAX_GROUP:
            raise ValueError(f"MixSettings: group_size must be between 1 and {MAX_GROUP}, got {size}")
        if self.patches < 1:
            raise ValueError(f"MixSettings: patches must be at least 1, got {self.patches}")
        if strange := [warm for warm in self.warm_up if warm < 1 or size % warm]:
            raise ValueError(f"MixSettings: warm_up must be divisors of the group size {size}, got {strange[0]}")
        for mixed in (size, *self.warm_up):
            if mixed > 1:
                check_max_coeff("MixSettings", self.max_coeff, mixed)
        if not 0 <= self.distillation <= 1:
            raise ValueError(f"MixSettings: distillation must be between 0 and 1, got {self.distillation}")
        if not self.temperature > 0:
            raise ValueError(f"MixSettings: temperature must be positive, got {self.temperature}")


MAX_NAME = 100

#: Options of Lightning that are settings here: reports and caches go by those.
ELSEWHERE = {"max_epochs": "epochs", "gradient_clip_val": "clip"}

#: With 0 Lightning would train nothing, or divide by it.
NOT_ZERO = ("accumulate_grad_batches", "limit_train_batches", "max_steps", "val_check_interval")

#: Whose setting each is.
OWNERS = {"sigma": "noise", "size": "blur", "width": "anonymizer"}


@dataclass(frozen=True)
class ProtectionSettings:
    """What hides the images from the cloud: the mix, or one of the paper's baselines in its place.

    A baseline changes each image on the edge, and the whole network is in the cloud; nothing is mixed. It has one
    setting, named after it below, which must be given. See `facemix.protections`.

    Attributes:
        name: "mix"; "plain": nothing, images are sent as they are (the paper's "all on Cloud"); "noise" (`sigma`);
            "blur" (`size`); "anonymizer" (`width`): that of Ren et al., which learns from the photographs' people to
            hide who it is: for the task "attributes".
        sigma: for noise: standard deviation, for pixels from 0 to 255.
        size: for blur: values on each side that are left of an image; 16 and 8 in the paper's rows, of 218 x 178.
        width: for the anonymizer: channels of its generator; 64 in the paper's row.
        hiding: for the anonymizer: weight of hiding in its loss, beside the task. On ORL, 1 lost the task.
    """

    name: Literal["mix", "plain", "noise", "blur", "anonymizer"] = "mix"
    sigma: float | None = None
    size: int | None = None
    width: int | None = None
    hiding: float = 0.6

    def __post_init__(self) -> None:
        for setting, owner in OWNERS.items():
            value = getattr(self, setting)
            if value is not None and owner != self.name:
                raise ValueError(f"ProtectionSettings: {setting} must be given for {owner} only, got {self.name}")
            if owner == self.name and (value is None or not 0 < value < math.inf):
                raise ValueError(f"ProtectionSettings: {setting} of {owner} must be a positive number, got {value}")
        if self.hiding < 0:
            raise ValueError(f"ProtectionSettings: hiding must not be negative, got {self.hiding}")


@dataclass(frozen=True)
class FitSettings:
    """How to train: baseline.* the baseline, mixed.* what is trained from it.

    Attributes:
        epochs: passes over the data.
        batch_size: images in a step, of all processes together, two or more; it is rounded up to whole groups.
        optimizer: "adamw", or "adam" (whose weight decay is part of the gradient).
        lr: peak learning rate.
        schedule: "onecycle" or "constant".
        weight_decay: see `optimizer`.
        clip: largest norm of the gradient; None: no limit.
        early_stopping: epochs without a better loss on the validation set after which training ends; None: never.
    """

    epochs: int = 80
    batch_size: int = 40
    optimizer: Literal["adamw", "adam"] = "adamw"
    lr: float = 2e-3
    schedule: Literal["onecycle", "constant"] = "onecycle"
    weight_decay: float = 1e-2
    clip: float | None = 1.0
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "clip", "early_stopping"):
            value = getattr(self, name)
            if value is not None and not value > 0:  # nor is NaN
                raise ValueError(f"FitSettings: {name} must be positive, got {value}")
        if self.batch_size < 2:
            raise ValueError(f"FitSettings: batch_size must be at least 2, for batch norms, got {self.batch_size}")
        if not self.weight_decay >= 0:
            raise ValueError(f"FitSettings: weight_decay must not be negative, got {self.weight_decay}")

    def whole_groups(self, size: int, processes: int = 1) -> int:
        """`batch_size`, rounded up to whole groups of `size` images.

        Raises:
            ValueError: these do not divide among `processes`.
        """
        images = -(-self.batch_size // size) * size
        if images % (size * processes):
            raise ValueError(
                f"batch_size must divide into whole groups for each process, got {images} images for groups of {size} "
                f"in {processes} processes"
            )
        return images


@dataclass(frozen=True)
class Experiment:
    """A baseline, the mixing-aware network that starts from it, and the controls.

    Attributes:
        name: title of the report, and name of the folder and of the model that is served.
        data, model, mix: see there. `model.pre` and `model.post` are for the mix.
        protection: the mix, or a baseline of the paper in its place; then the settings of the mix have no effect.
        mixed_model: the network that is trained through the mix, if it is not the baseline's; weights of the same name
            and shape begin as the baseline's.
        baseline, mixed: how to train each; the controls, and the network behind another protection, are trained like
            the second.
        evaluate: photographs on which figures are measured. Choose settings on "validation", never on "test".
        rounds: how often these go through the mix, each time with fresh keys and groups.
        linear_control: also train a network whose cloud part is linear.
        longer_control: also train the baseline on by itself, for as many epochs as what is compared with it.
        trainer: keyword arguments of `lightning.Trainer`: precision, devices, strategy, accumulate_grad_batches...
            For max_epochs and gradient_clip_val there are `epochs` and `clip`.
    """

    name: str = "experiment"
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    mixed_model: ModelSettings | None = None
    mix: MixSettings = field(default_factory=MixSettings)
    protection: ProtectionSettings = field(default_factory=ProtectionSettings)
    baseline: FitSettings = field(default_factory=FitSettings)
    mixed: FitSettings = field(default_factory=lambda: FitSettings(epochs=160))
    evaluate: Literal["test", "validation"] = "test"
    rounds: int = 5
    linear_control: bool = True
    longer_control: bool = True
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fits = self.name.strip(".") and len(self.name) <= MAX_NAME  # "." and ".." are folders that are there
        if not fits or not self.name.isprintable() or "/" in self.name:
            rule = f"1 to {MAX_NAME} printable characters without a slash"
            raise ValueError(f"Experiment: name must have {rule}, got {self.name[: MAX_NAME + 1]!r}")
        if self.rounds < 1:
            raise ValueError(f"Experiment: rounds must be at least 1, got {self.rounds}")
        for option, name in ELSEWHERE.items():
            if option in self.trainer:
                rule = f"must be given as baseline.{name} and mixed.{name}"
                raise ValueError(f"Experiment: trainer.{option} {rule}, got {self.trainer[option]}")
        for option in NOT_ZERO:
            if option in self.trainer and self.trainer[option] == 0:
                raise ValueError(f"Experiment: trainer.{option} must not be 0, got {self.trainer[option]}")
        size = list(self.data.size)
        for model in (self.model, self.mixing_model):
            if (own := list(model.options.get("image_size", size))) != size:
                raise ValueError(f"Experiment: image_size of {model.name} must be data.size, {size}, got {own}")
        if self.protection.name == "anonymizer" and self.data.task != "attributes":
            raise ValueError(
                f"Experiment: data.task must be 'attributes' for the anonymizer, which hides who it is, got "
                f"{self.data.task!r}"
            )

    @property
    def group_size(self) -> int:
        """Of what is deployed; 1: nothing is mixed."""
        return self.mix.group_size if self.protection.name == "mix" else 1

    @property
    def mixing_model(self) -> ModelSettings:
        """What trains through the mix."""
        return self.mixed_model or self.model
