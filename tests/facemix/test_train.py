"""Experiments: what they leave behind, that they repeat to the bit, and that neither an end at any moment nor several
processes change what comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from facemix.cli import main
from facemix.cost import partition_cost
from facemix.models import build
from facemix.storage import load_tensors
from facemix.training import experiment, learner
from facemix.training.deciding import deciding, difference
from facemix.training.mixed_network import MixedNetwork
from tiny_experiment import OPTIONS

import facemix_ops as fo

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # other numbers of threads round otherwise
STAGES = ("baseline", "baseline_longer", "mixing_aware", "linear_cloud")


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "facemix", "train", *OPTIONS, *more, "--out", str(out)]


def train(out: Path, *more: str) -> dict[str, Any]:
    """In this process; the results of seed 0."""
    assert main(["train", *OPTIONS, *more, "--out", str(out)]) == 0
    return results(out)


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "seed-0" / "results.json").read_text())


def folder(out: Path, stage: str) -> Path:
    """Of a stage; the name of the longer baseline's says more."""
    (found,) = (path for path in (out / "seed-0").iterdir() if path.name.partition("-")[0] == stage)
    return found


def weights(out: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_tensors(folder(out, stage) / "weights.safetensors")[0]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """All that does not depend on the clock."""
    return all(one[name] == other[name] for name in ("settings", "scores", "collapse", "curves", "cost"))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that ran from beginning to end."""
    out = tmp_path_factory.mktemp("once")
    torch.set_num_threads(1)
    train(out)
    return out


def test_results_hold_networks_and_controls(once: Path) -> None:
    found = results(once)
    assert set(found["scores"]) == {
        "baseline", "baseline_longer", "baseline_mixed", "mixing_aware", "mixing_aware_plain", "linear_cloud"
    }  # fmt: skip
    for score in found["scores"].values():
        assert len(score["rounds"]) == 2  # the distortion is drawn anew for each
        assert 0 <= score["accuracy"] <= 1
        assert sum(map(sum, score["confusion"])) == 2 * found["data"]["test"] != 2 * found["data"]["train"]
    assert found["data"]["train"] + found["data"]["validation"] + found["data"]["test"] == 40
    assert [len(found["curves"][stage]) for stage in STAGES] == [3, 4, 4, 4]
    assert found["curves"]["baseline"][-1]["loss"] < found["curves"]["baseline"][0]["loss"]
    assert all(point["validation_loss"] > 0 for point in found["curves"]["mixing_aware"])
    cost = found["cost"]
    network = build("resnet18", {"num_classes": 4, "in_channels": 1, "width": 0.0625})
    expected = partition_cost(network, (1, 24, 24), group_size=found["settings"]["mix"]["group_size"])
    assert cost["edge_multiply_adds"] == expected.edge_multiply_adds  # those of the mix, too
    assert cost["edge_share"] == expected.edge_multiply_adds / expected.whole_multiply_adds
    assert found["collapse"]["verdict"]
    for name in ("cloud.safetensors", "edge.safetensors", "examples.png"):
        assert (once / "seed-0" / name).stat().st_size
    assert (once / "report.html").stat().st_size
    recipes = {stage: json.loads((folder(once, stage) / "recipe.json").read_text()) for stage in STAGES[2:]}
    activations = {stage: recipe["options"]["activation"] for stage, recipe in recipes.items()}
    assert activations == {"mixing_aware": "prelu", "linear_cloud": "identity"}
    for stage in STAGES:
        files = {path.name for path in folder(once, stage).iterdir()}
        assert {"weights.safetensors", "curves.json", "recipe.json"} <= files
        assert not {name for name in files if name.endswith(".ckpt")}
        assert any(name.startswith("events.out.tfevents") for name in files)


def test_results_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "results.json").write_text("{}")
    assert main(["train", *OPTIONS, "--out", str(tmp_path)]) == 1
    assert "seed-0/results.json must be of kind 'facemix-experiment-1', got None" in capsys.readouterr().err


def test_every_norm_learns_through_the_mix(once: Path) -> None:
    """The one that is fused with the mix, too."""
    before = weights(once, "baseline")
    norms = [name for name in before if name.endswith("num_batches_tracked")]
    assert norms
    for stage in STAGES[1:]:
        after = weights(once, stage)
        assert all(after[name] == 3 * (3 + 4) for name in norms), stage  # 24 photographs in batches of 8


def test_the_same_seed_gives_the_same_bits(once: Path, tmp_path: Path) -> None:
    assert same(results(once), train(tmp_path))
    for stage in STAGES:
        one, other = weights(once, stage), weights(tmp_path, stage)
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_in_a_gpus_layout_it_learns_the_same(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding."""
    forward, seen = MixedNetwork.forward, set()

    def watched(network: MixedNetwork, x: torch.Tensor, key: fo.MixKey | None = None) -> torch.Tensor:
        tensors = (x, *(weight for weight in network.parameters() if weight.dim() == 4 and network.training))
        seen.update(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)
        return forward(network, x, key)

    monkeypatch.setattr(MixedNetwork, "forward", watched)
    monkeypatch.setattr(learner, "fastest_layout", lambda _: torch.channels_last)
    found = train(tmp_path)
    assert seen == {True}
    for stage, curve in results(once)["curves"].items():
        losses = [point["loss"] for point in found["curves"][stage]]
        assert losses == pytest.approx([point["loss"] for point in curve], rel=1e-2), stage


def test_what_is_done_is_not_done_again_and_another_experiment_is_refused(
    once: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (once / "seed-0" / "results.json").stat().st_mtime_ns
    assert main(["train", *OPTIONS, "--out", str(once)]) == 0
    assert (once / "seed-0" / "results.json").stat().st_mtime_ns == before
    assert main(["train", *OPTIONS, "--data.workers=1", "--out", str(once)]) == 0  # which decides nothing
    capsys.readouterr()
    assert main(["train", *OPTIONS, "--mixed.epochs=5", "--out", str(once)]) == 1
    assert (
        "must be of the same experiment, got one whose mixed.epochs differ (mixed.epochs: " in capsys.readouterr().err
    )


def test_seeds_of_another_experiment_are_seen_before_anything_trains(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that this one does not train: its report would refuse them in the end."""
    shutil.copytree(once, tmp_path / "again")
    (tmp_path / "again" / "seed-0").rename(tmp_path / "again" / "seed-5")
    monkeypatch.setattr(experiment, "prepared", lambda *_: pytest.fail("it began"))
    assert main(["train", *OPTIONS, "--mixed.epochs=5", "--out", str(tmp_path / "again")]) == 1
    error = capsys.readouterr().err
    assert "seed-5/results.json must be of the same experiment, got one whose mixed.epochs differ " in error


def test_what_differs_is_named_as_an_option_has_it() -> None:
    found = {"a": 1, "b": {"c": [1], "d": {"e": None}}, "f": {"g": 1}}
    assert difference(found, json.loads(json.dumps(found))) == ""
    now = {"a": 1, "b": {"c": [2], "d": {"e": 3}}, "f": 4, "h": 5}
    assert difference(found, now) == "b.c, b.d.e, f, h differ (b.c: [1], then [2])"


def test_another_network_may_train_through_the_mix(once: Path, tmp_path: Path) -> None:
    wide = "{name: wide_linear, options: {width: 0.0625, image_size: [24, 24], hidden: 30}}"
    more = [f"--mixed_model={wide}", "--mix.activation=identity", "--mixed.epochs=1", "--linear_control=false"]
    found = train(tmp_path, *more, "--longer_control=false", "--baselines", str(once))
    assert found["scores"]["baseline"] == results(once)["scores"]["baseline"]
    assert found["scores"]["mixing_aware"]["accuracy"] == found["scores"]["mixing_aware_plain"]["accuracy"]
    assert not {"linear_cloud", "baseline_longer"} & set(found["scores"])
    assert found["collapse"]["shape"] == [30, 4 * 6 * 6]
    assert found["cost"]["whole_multiply_adds"] == results(once)["cost"]["whole_multiply_adds"]
    assert weights(tmp_path, "mixing_aware")["bn1.num_batches_tracked"] == 3 * (3 + 1)  # it began as the baseline's


def test_the_longer_baseline_is_shared_by_those_that_train_for_as_long(once: Path, tmp_path: Path) -> None:
    """Also with what mixes nothing by itself, as the baselines of a sweep do; and nothing of the mix decides it."""
    shared = ["--linear_control=false", "--mix.group_size=1", "--baselines"]
    longer = folder(once, "baseline_longer") / "weights.safetensors"
    before = longer.stat().st_mtime_ns
    found = train(tmp_path / "same", *shared, str(once), "--model.pre=2")
    assert longer.stat().st_mtime_ns == before
    assert found["scores"] == {name: results(once)["scores"][name] for name in ("baseline", "baseline_longer")}
    baselines = tmp_path / "baselines"
    (baselines / "seed-0").mkdir(parents=True)
    for stage in STAGES[:2]:
        shutil.copytree(folder(once, stage), baselines / "seed-0" / folder(once, stage).name)
    found = train(tmp_path / "shorter", *shared, str(baselines), "--mixed.epochs=1")
    assert len(found["curves"]["baseline_longer"]) == 1
    assert len(list((baselines / "seed-0").glob("baseline_longer-*"))) == 2
    alone = train(tmp_path / "alone", "--mix.group_size=1", "--baseline.epochs=1")  # nothing is compared
    assert set(alone["scores"]) == {"baseline"}


def test_killed_at_any_moment_it_goes_on_to_the_same_end(once: Path, tmp_path: Path) -> None:
    """Killed while it trains through the mix, and once more while results are measured."""
    seed = tmp_path / "seed-0"
    for moment in (seed / "mixing_aware" / "last.ckpt", seed / "cloud.safetensors"):
        process = subprocess.Popen(
            command(tmp_path), env=ONE_THREAD, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not moment.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (seed / "results.json").exists()
    assert same(results(once), train(tmp_path))


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """In double precision: in single, Adam makes much of a rounding error where a gradient is nearly zero."""
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, "--trainer.precision=64-true")
    several = [
        "--trainer.precision=64-true",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.accelerator=cpu",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, *command(two, *several)[1:]],
        env=ONE_THREAD, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in STAGES:
        found, expected = weights(two, stage), weights(one, stage)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
    assert same(results(one), {**results(two), "settings": results(one)["settings"], "curves": results(one)["curves"]})


def test_each_network_is_measured_with_the_mix_or_without(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(once, tmp_path / "again")
    (tmp_path / "again" / "seed-0" / "results.json").unlink()
    asked, measure = [], experiment.measure
    monkeypatch.setattr(experiment, "measure", lambda *args, mixed: asked.append(mixed) or measure(*args, mixed=mixed))
    found = train(tmp_path / "again")["scores"]
    through_it = {"baseline_mixed", "mixing_aware", "linear_cloud"}
    assert dict(zip(found, asked, strict=True)) == {name: name in through_it for name in found}


def test_results_of_other_photographs_are_refused(
    once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copytree(once, tmp_path / "again")) / "seed-0" / "results.json"
    found = json.loads(path.read_text())
    found["data"]["digests"][0] = "0" * 16
    path.write_text(json.dumps(found))
    assert main(["train", *OPTIONS, "--out", str(tmp_path / "again")]) == 1
    assert "got one whose photographs differ" in capsys.readouterr().err


def test_what_shares_the_work_decides_nothing_and_precision_does() -> None:
    kept = deciding({"trainer": {"precision": "64-true", "devices": 2}, "data": {"workers": 3, "size": [24, 24]}})
    assert kept == {"trainer": {"precision": "64-true"}, "data": {"size": [24, 24]}}
