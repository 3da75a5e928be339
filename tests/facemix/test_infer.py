"""The command `facemix infer`, through a real cloud and with the whole network here."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facemix.cli import main
from facemix.commands.infer import SENDING
from facemix.data import MEAN, STD, Labelled, normalise
from facemix.demo.cloud_process import cloud_process
from facemix.export import export_cloud, export_edge
from facemix.export_torch import export_edge_torch
from numpy.typing import NDArray
from PIL import Image

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
SHAPE, GROUP = (1, 32, 32), 8
CLASSES = ["ann", "ben", "cid", "dot", "eve", "fay"]
SETTINGS: dict[str, Any] = {"name": "middle", "group_size": GROUP, "mean": [MEAN], "std": [STD], "classes": CLASSES}


def pixels(faces: Labelled) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 1]."""
    return np.ascontiguousarray(faces.images.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def files(network: torch.nn.Module, faces: Labelled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/: 20 pictures; public/: 10 others; the edge half, and one that is cut a block deeper, with its cloud."""
    folder = tmp_path_factory.mktemp("infer")
    for name, chosen in (("photos", range(20)), ("public", range(30, 40))):
        (folder / name).mkdir()
        for n in chosen:
            Image.fromarray(pixels(faces)[n, ..., 0]).save(folder / name / f"{n:02}.png")
    public = pixels(faces)[30:40]
    export_edge(folder / "edge.safetensors", network, SHAPE, calibration=public, decoys=public, **SETTINGS)
    export_edge_torch(
        folder / "deep.safetensors",
        network,
        "resnet18",
        OPTIONS,
        SHAPE,
        pre=2,
        decoys=public,
        calibration=pixels(faces)[30:],
        **SETTINGS,
    )
    export_cloud(folder / "deep-cloud.safetensors", network, "resnet18", OPTIONS, SHAPE, name="middle", pre=2)
    return folder


@pytest.fixture
def folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`files`, as the working directory."""
    monkeypatch.chdir(files)
    return files


@pytest.fixture(scope="module")
def deep_cloud(files: Path) -> Iterator[str]:
    with cloud_process(files / "deep-cloud.safetensors") as address:
        yield address


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, output, errors."""
    status = main(["infer", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def in_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("options", [("--decoys", "public"), (), ("--wire-dtype", "int8")])
def test_through_the_cloud(
    options: tuple[str, ...], cloud: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With decoys from a folder, and with those in the edge half."""
    arguments = ("photos", "--server", cloud, "--edge", "edge.safetensors", "--format", "json", *options)
    status, out, err = run(capsys, *arguments, "--top", "3", "--request-groups", "1")
    document = json.loads(out)
    assert status == 0
    assert document["complete"]
    assert document["model"]["name"] == "middle"
    assert [entry["image"] for entry in document["images"]] == [f"photos/{n:02}.png" for n in range(20)]
    assert document["cost"]["requests"] == 3
    assert document["cost"]["rows"] == 24
    assert "20 images classified, 0 refused" in err
    for entry in document["images"]:
        scores = [guess["score"] for guess in entry["guesses"]]
        assert scores == sorted(scores, reverse=True)
        assert all(guess["name"] == CLASSES[guess["label"]] for guess in entry["guesses"])


@pytest.mark.parametrize("edge", ["edge", "deep"])
def test_local_is_the_network_in_one_piece(
    edge: str,
    cloud_file: Path,
    folder: Path,
    network: torch.nn.Module,
    faces: Labelled,
    capsys: pytest.CaptureFixture[str],
) -> None:
    middle = str(cloud_file) if edge == "edge" else "deep-cloud.safetensors"
    status, out, err = run(
        capsys, "photos", "--local", middle, "--edge", f"{edge}.safetensors", "--format", "csv", "--top", "6"
    )
    rows = in_csv(out)
    assert status == 0
    assert "nothing was mixed or sent" in err
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(pixels(faces)[:20]).permute(0, 3, 1, 2) / 255))
    found = torch.zeros(20, 6)
    for row in rows:
        found[int(Path(row["image"]).stem), int(row["label"])] = float(row["score"])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert [row["label"] for row in rows if row["rank"] == "1"] == [str(label) for label in expected.argmax(1).tolist()]


@pytest.mark.parametrize("deep", [False, True])
def test_attributes(
    deep: bool,
    cloud_file: Path,
    cloud: str,
    folder: Path,
    tmp_path: Path,
    network: torch.nn.Module,
    faces: Labelled,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The six scores are those of three attributes, of either kind of edge half."""
    edge, names = str(tmp_path / "edge.safetensors"), ["hat", "tie", "bow"]
    settings = {**SETTINGS, "classes": None, "attributes": names}
    if deep:
        export_edge_torch(Path(edge), network, "resnet18", OPTIONS, SHAPE, pre=2, **settings)
    else:
        export_edge(Path(edge), network, SHAPE, **settings)
        status, out, _ = run(
            capsys, "photos", "--edge", edge, "--server", cloud, "--decoys", "public", "--format", "csv"
        )
        assert status == 0
        assert [row["attribute"] for row in in_csv(out)] == 20 * names
    middle = "deep-cloud.safetensors" if deep else str(cloud_file)
    status, out, err = run(capsys, "photos", "--edge", edge, "--local", middle, "--format", "json")
    assert status == 0, err
    document = json.loads(out)
    assert document["model"]["attributes"] == names
    with torch.no_grad():
        scores = network(normalise(torch.from_numpy(pixels(faces)[:20]).permute(0, 3, 1, 2) / 255))
    expected = scores.view(20, 3, 2).softmax(2)[..., 1]
    found = [[entry["attributes"][name]["probability"] for name in names] for entry in document["images"]]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-3, atol=1e-4)
    assert all(of["yes"] == (of["probability"] > 0.5) for e in document["images"] for of in e["attributes"].values())


@pytest.mark.parametrize("wire_dtype", ["bfloat16", "int8"])
def test_a_deeper_first_part(
    wire_dtype: str, deep_cloud: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch on the edge, with the decoys in its file, through the cloud of the same cut and not through another."""
    status, out, err = run(
        capsys, "photos", "--server", deep_cloud, "--edge", "deep.safetensors", "--wire-dtype", wire_dtype
    )
    assert status == 0, err
    assert len(out.strip().splitlines()) == 2 + 20
    status, out, err = run(capsys, "photos", "--server", deep_cloud, "--edge", "edge.safetensors", "--decoys", "public")
    assert (status, out) == (1, "")
    assert err.startswith("facemix: error: ")
    assert err.count("\n") == 1


def test_bad_images_among_good_ones(
    cloud: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, output = tmp_path / "broken.png", tmp_path / "out.csv"
    broken.write_text("no image")
    arguments = ("--server", cloud, "--edge", "edge.safetensors", "--decoys", "public")
    results = ("--format", "csv", "--output", str(output), "--quiet")
    status, out, err = run(capsys, str(broken), "photos/03.png", "nowhere.png", *arguments, *results)
    assert (status, out, err) == (3, "", "")
    rows = in_csv(output.read_text())
    assert [row["image"] for row in rows] == [str(broken), "photos/03.png", "nowhere.png"]
    assert [bool(row["error"]) for row in rows] == [True, False, True]
    status, out, err = run(capsys, str(broken), *arguments, "--quiet")
    assert status == 1
    assert "must be an image" in out
    assert err.startswith(f"facemix: error: infer: IMAGES must hold one that can be used, got {broken}: must be an")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], "infer: --top must be at least 1, got 0"),
        (["--request-groups", "0"], "infer: --request-groups must be at least 1, got 0"),
        (["--edge", "nowhere"], "No such file or directory: 'nowhere'"),
        (["--edge", "photos/00.png"], "photos/00.png: the header must have"),
        (["--decoys", "nowhere"], "No such file or directory: 'nowhere'"),
        (["--ca", "nowhere"], "No such file or directory: 'nowhere'"),
        (["--cert", "photos/00.png"], "certificate and key must be given together"),
        (["--server", "127.0.0.1"], "127.0.0.1"),
        (["--server", "127.0.0.1:1", "--attempts", "1"], "127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--server", "127.0.0.1:1", "--edge", "edge.safetensors", "--decoys", "public"]
    status, out, err = run(capsys, "photos", *given, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("facemix: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_no_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, str(tmp_path), "--server", "127.0.0.1:1", "--edge", "edge.safetensors")
    assert status == 1
    assert err == f"facemix: error: infer: the folders must hold images, got none in {tmp_path}\n"


def test_no_paths(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        status, _, err = run(capsys, "-", "--server", "127.0.0.1:1", "--edge", "edge.safetensors", "--quiet")
    assert status == 1
    assert err == "facemix: error: infer: IMAGES must hold one that can be used, got none\n"


@pytest.mark.parametrize("arguments", [[], ["--server", "a:1", "--local", "b"]])
def test_either_a_server_or_local(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["infer", "photos", "--edge", "e", *arguments])
    assert ended.value.code == 2


@pytest.mark.parametrize("name", SENDING)
def test_options_of_sending_are_refused_where_nothing_is_sent(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    option = f"--{name.replace('_', '-')}"
    value = {"wire_dtype": ["int8"], "insecure": []}.get(name, ["9"])
    status, _, err = run(capsys, "photos", "--edge", "e", "--local", "c", option, *value)
    assert status == 1
    assert err == f"facemix: error: infer: {option} must be given with --server, got --local, which sends nothing\n"


def test_a_token_is_text(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_bytes(b"\x89secret")
    options = ("--server", "localhost:1", "--token-file", str(tmp_path / "token"))
    status, _, err = run(capsys, "photos", "--edge", "edge.safetensors", *options)
    assert status == 1
    assert err == "facemix: error: Security: token must be printable ASCII without blanks, got something else\n"


def test_without_pytorch_and_interrupted(cloud: str, folder: Path) -> None:
    """On a device without PyTorch, fed through a pipe: rows come while it runs, and Ctrl-C leaves them whole."""
    code = 'import sys; sys.modules["torch"] = None; from facemix.cli import main; sys.exit(main(sys.argv[1:]))'
    options = ["--edge", "edge.safetensors", "--decoys", "public", "--request-groups", "1", "--format", "json"]
    with subprocess.Popen(
        [sys.executable, "-c", code, "infer", "-", "--server", cloud, *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("".join(f"photos/{n:02}.png\n" for n in range(20)))
        process.stdin.flush()
        # All of the first request but the end of its last line; then it waits for more paths.
        lines = [process.stdout.readline() for _ in range(2 + GROUP - 1)]
        process.send_signal(signal.SIGINT)
        rest, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130, err
    document = json.loads("".join(lines) + rest)
    assert document["complete"] is False
    assert [entry["image"] for entry in document["images"]] == [f"photos/{n:02}.png" for n in range(8)]
    assert err.endswith("facemix: interrupted\n")
