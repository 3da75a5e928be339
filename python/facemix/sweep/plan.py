"""What a sweep trains, and where it leaves that."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facemix.atomic import atomic_path
from facemix.damaged import read_json, undamaged
from facemix.report.results import RESULTS
from facemix.training.deciding import deciding, difference, plain
from facemix_ops.rules import MAX_GROUP

if TYPE_CHECKING:
    from facemix.training.settings import Experiment

__all__ = ["Job", "Plan"]

KIND, NOTE = "facemix-sweep-1", "sweep.json"
#: Settings that the rows differ in.
SWEPT = ("--mix.group_size", "--model.pre", "--mixed_model.pre")


@dataclass(frozen=True)
class Job:
    """One seed of one row.

    Attributes:
        pre: blocks of the edge's first part; None without the mix, where nothing is cut.
        group_size: images in a group; 1: no mix.
        seed: of the training.
    """

    pre: int | None
    group_size: int
    seed: int

    @property
    def row(self) -> str:
        """The name of the row, and of its folder."""
        return "group-1" if self.pre is None else f"pre-{self.pre}-group-{self.group_size}"

    @property
    def name(self) -> str:
        """The name of the job."""
        return f"{self.row}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        recipe: of `facemix train`.
        options: more options for `facemix train`.
        experiment: what these two make.
        group_sizes, pre: every pair is a row; the baseline, which has no mix, is one in any case.
        seeds: of each row: 0, 1, ...
        out: folder of everything.
    """

    recipe: str
    options: tuple[str, ...]
    experiment: Experiment
    group_sizes: tuple[int, ...]
    pre: tuple[int, ...]
    seeds: int
    out: Path

    def __post_init__(self) -> None:
        for name, values in (("group-sizes", self.group_sizes), ("pre", self.pre), ("seeds", (self.seeds,))):
            if min(values) < 1:
                raise ValueError(f"sweep: --{name} must be at least 1, got {min(values)}")
        if (largest := max(self.group_sizes)) > MAX_GROUP:
            raise ValueError(f"sweep: --group-sizes must be at most {MAX_GROUP}, got {largest}")
        if (name := self.experiment.protection.name) != "mix":
            raise ValueError(
                f"sweep: protection.name must be mix, whose group sizes and cuts are swept over, got {name}"
            )
        for option in self.options:
            if option.partition("=")[0] in SWEPT:
                raise ValueError(f"sweep: --group-sizes and --pre must say what to sweep over, got {option}")

    @property
    def baselines(self) -> list[Job]:
        """They come first: every other job starts from that of its seed."""
        return [Job(None, 1, seed) for seed in range(self.seeds)]

    @property
    def mixed(self) -> list[Job]:
        """The other jobs: seed after seed, so that an interrupted sweep has whole figures of the first ones."""
        sizes = sorted({size for size in self.group_sizes if size > 1})
        return [Job(pre, size, seed) for seed in range(self.seeds) for pre in sorted({*self.pre}) for size in sizes]

    def command(self, job: Job) -> list[str]:
        """The command line of a job."""
        seed = ["--first-seed", str(job.seed), "--seeds", "1"]
        folders = ["--out", str(self.out / job.row), "--baselines", str(self.out / "baselines")]
        train = [sys.executable, "-m", "facemix", "train", self.recipe]
        return [*train, *folders, *seed, *self.options, *self.settings(job)]

    def settings(self, job: Job) -> list[str]:
        """The options of a job that are its row's."""
        cut = [] if job.pre is None else [f"--{self._mixing}.pre", str(job.pre)]
        return [*self._mix(job.group_size), *cut]

    @property
    def _mixing(self) -> str:
        """The section of the network that trains through the mix."""
        return "model" if self.experiment.mixed_model is None else "mixed_model"

    def _mix(self, group_size: int) -> list[str]:
        """The size, and what of the recipe's mix suits smaller groups than its own.

        A bound on the coefficients of large groups may be too low for small ones, or leave them no choice; and a
        warm-up goes through divisors of the group size.
        """
        mix = self.experiment.mix
        options = ["--mix.group_size", str(group_size)]
        if group_size < mix.group_size and mix.max_coeff is not None:
            options += ["--mix.max_coeff", "null"]
        warm_up = [size for size in mix.warm_up if group_size % size == 0]
        if warm_up != mix.warm_up:
            options += ["--mix.warm_up", json.dumps(warm_up)]
        return options

    def log(self, job: Job) -> Path:
        """Where a job's output goes."""
        return self.out / job.row / f"seed-{job.seed}.log"

    def done(self, job: Job) -> bool:
        """Whether a job left its results, which it does last."""
        return (self.out / job.row / f"seed-{job.seed}" / RESULTS).is_file()

    def claim(self) -> None:
        """Note the settings in the folder, for later sweeps to compare with; rows and seeds may be added.

        Raises:
            ValueError: the folder is that of another sweep, whose results would be taken for this one's.
        """
        settings, noted = asdict(self.experiment), self.out / NOTE
        if not noted.is_file():
            text = json.dumps({"kind": KIND, "settings": plain(settings)}, indent=1)
            with atomic_path(noted) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
            return
        advice = f"take another --out, or remove {noted}"
        note = read_json("sweep", noted, dict, advice)
        with undamaged(f"sweep: {noted} must be a sweep's", advice):
            found = {"kind": note["kind"], **deciding(note["settings"])}
        if different := difference(found, {"kind": KIND, **deciding(settings)}):
            raise ValueError(
                f"sweep: --out must be new, or of a sweep with the same settings, got {self.out}, whose {different} "
                f"(see {noted})"
            )
