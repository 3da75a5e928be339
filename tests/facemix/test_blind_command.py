"""`facemix blind`, and what `facemix infer` does with what it makes, through a cloud that is a process."""

from __future__ import annotations

import json

import numpy as np
import pytest
from facemix.cli import main
from facemix.data import MEAN, STD
from facemix.demo.cloud_process import cloud_process
from facemix.edge import Blinders
from facemix.edge.blinding import SEED_BYTES
from facemix.export import export_cloud, export_edge
from facemix.export_torch import export_edge_torch
from PIL import Image

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}  # linear, as PReLU begins
SHAPE, GROUP = (1, 32, 32), 4
SETTINGS = {"name": "middle", "group_size": GROUP, "mean": [MEAN], "std": [STD], "wire_dtype": "float16"}


@pytest.fixture(scope="module", params=["numpy", "torch"])
def files(request, network, faces, tmp_path_factory):
    """photos/, an edge half of either kind, and the address of its cloud."""
    folder = tmp_path_factory.mktemp("blind")
    (folder / "photos").mkdir()
    for n in range(10):
        Image.fromarray(faces.images[n, 0]).save(folder / "photos" / f"{n}.png")
    public = np.ascontiguousarray(faces.images[30:40].transpose(0, 2, 3, 1))
    if request.param == "numpy":
        export_edge(folder / "edge", network, SHAPE, decoys=public, **SETTINGS)
    else:
        export_edge_torch(folder / "edge", network, "resnet18", OPTIONS, SHAPE, pre=2, decoys=public, **SETTINGS)
    export_cloud(
        folder / "cloud", network, "resnet18", OPTIONS, SHAPE, name="middle", pre=1 if request.param == "numpy" else 2
    )
    with cloud_process(folder / "cloud") as address:
        yield folder, address


@pytest.fixture
def blind(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files[0])

    def command(*options):
        return main(["blind", "--edge", "edge", "--cloud", "cloud", "--out", str(tmp_path / "pool"), *options])

    return command


def infer(capsys, *options):
    """Exit status, scores [images, classes], errors."""
    status = main(["infer", "photos", "--edge", "edge", "--top", "6", "--format", "json", *options])
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["images"] if captured.out else []
    scores = [[guess["score"] for guess in sorted(row["guesses"], key=lambda guess: guess["label"])] for row in rows]
    return status, np.array(scores), captured.err


def test_a_blinded_network_says_what_it_says_at_home(files, blind, capsys, tmp_path):
    assert blind("--rows", "12") == 0
    printed = capsys.readouterr().out
    assert "12 rows for middle" in printed
    assert "beforehand" in printed
    _, home, _ = infer(capsys, "--local", "cloud")
    status, away, _ = infer(capsys, "--server", files[1], "--blinders", str(tmp_path / "pool"))
    assert status == 0
    assert Blinders(tmp_path / "pool").left == 0
    offset = (home - away).mean(0)  # of the cloud's constant, which blinding takes out
    np.testing.assert_allclose(away + offset, home, atol=2e-3 * np.abs(home).max())


def test_a_pool_that_runs_out_ends_the_run_and_says_so(files, blind, capsys, tmp_path):
    blind("--rows", "11")
    capsys.readouterr()
    status, _, errors = infer(capsys, "--server", files[1], "--blinders", str(tmp_path / "pool"))
    assert status == 1
    assert "there must be a row for each that is sent, 12, got 11" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--rows", "0"], "--rows must be at least 1, got 0"),
        (["--rows", "4", "--share", "1.5"], "share must be above 0 and below 1, got 1.5"),
        (["--rows", "4", "--decoys", "."], "error: blind: --decoys must be a folder of 4 public images, a group,"),
    ],
)
def test_what_will_not_do_is_refused_and_leaves_no_file(blind, capsys, tmp_path, options, problem):
    (tmp_path / "empty").mkdir()
    assert blind(*[str(tmp_path / "empty") if option == "." else option for option in options]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "pool").exists()


def test_halves_of_two_networks_are_refused(files, blind, capsys, tmp_path, network):
    export_cloud(tmp_path / "other", network, "resnet18", OPTIONS, SHAPE, name="middle", pre=3)
    assert blind("--rows", "4", "--cloud", str(tmp_path / "other")) == 1
    assert "cloud must be the middle of network" in capsys.readouterr().err


def test_no_row_is_blinded_as_another(blind, tmp_path):
    """Of a pool that is made in several goes, and of two pools."""
    seeds, outputs = set(), set()
    for name in ("one", "other"):
        assert blind("--rows", "150", "--out", str(tmp_path / name)) == 0
        pool = Blinders(tmp_path / name)
        drawn, answers = pool.take(150)
        rows = pool.blinding.rows(drawn[:3], pool.features_shape)
        assert abs(rows.std() / pool.blinding.level - 1) < 0.05  # they are noise
        seeds |= set(drawn)
        outputs |= {answer.tobytes() for answer in answers}
    assert len(seeds) == len(outputs) == 300
    assert all(len(seed) == SEED_BYTES for seed in seeds)
