"""The paper's baselines from end to end: trained, written, served and asked, each by the same commands as the mix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facemix.cli import main
from facemix.cloud.model import CloudModel
from facemix.data import Labelled, synthetic_faces
from facemix.demo.cloud_process import cloud_process
from facemix.edge import Client, load_half
from facemix.edge.torch_half import TorchHalf, TorchRequest
from facemix.models import build
from facemix.storage import load_tensors
from facemix.training.anonymizing import LIKENESS, Anonymizing, reversed_gradient
from facemix.training.mixed_network import MixedNetwork
from facemix.training.protecting import protected_weights
from facemix.training.settings import DataSettings, Experiment, FitSettings, MixSettings, ProtectionSettings
from facemix.training.stages import Stages
from facemix.training.task import AttributeTask
from numpy.typing import NDArray
from PIL import Image
from tiny_experiment import OPTIONS

SIZE = (24, 24)
ATTRIBUTES = ("--data.task=attributes", "--data.attributes=[eyeglasses,smiling]")
ASKED = {
    "plain": (),
    "noise": ("--protection.sigma=8",),
    "blur": ("--protection.size=8",),
    "anonymizer": ("--protection.width=4", *ATTRIBUTES),
}
OF_RESNET = {"num_classes": 4, "in_channels": 1, "width": 0.0625}


def train(out: Path, name: str, *more: str) -> dict[str, Any]:
    options = [f"--name={name}", f"--protection.name={name}", *ASKED[name], *more]
    assert main(["train", *OPTIONS, *options, "--baseline.epochs=1", "--mixed.epochs=2", "--out", str(out / name)]) == 0
    return results(out, name)


def results(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / name / "seed-0" / "results.json").read_text())


def pixels(count: int) -> NDArray[np.uint8]:
    """Photographs that nobody trained with."""
    faces = synthetic_faces(4, -(-count // 4), SIZE, 1, seed=9).images[:count]
    return np.ascontiguousarray(faces.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with each protection; those that ask who it is share a baseline."""
    out = tmp_path_factory.mktemp("protected")
    torch.set_num_threads(1)
    for name in ASKED:
        train(out, name, f"--baselines={out / ('attributes' if name == 'anonymizer' else 'identity')}")
    return out


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[str]:
    """The address of one cloud for all of them."""
    with cloud_process(*(trained / name / "seed-0" / "cloud.safetensors" for name in ASKED)) as address:
        yield address


def half_of(trained: Path, name: str) -> TorchHalf:
    half = load_half(trained / name / "seed-0" / "edge.safetensors")
    assert isinstance(half, TorchHalf)
    return half


def in_process(trained: Path, name: str) -> torch.nn.Module:
    """The whole network, put together of its weights by hand."""
    config, seed = half_of(trained, name).bundle, trained / name / "seed-0"
    network = build(config.builder, config.options)
    if name == "plain":
        weights = protected_weights(load_tensors(trained / "identity/seed-0/baseline/weights.safetensors")[0])
    else:
        weights = load_tensors(seed / "protected" / "weights.safetensors")[0]
    network.load_state_dict(weights)
    return network.eval()


@pytest.mark.parametrize("name", ASKED)
def test_results_hold_the_baseline_the_network_behind_it_and_its_cost(trained: Path, name: str) -> None:
    found = results(trained, name)
    longer = set() if name == "plain" else {"baseline_longer"}
    assert set(found["scores"]) == {"baseline", "protected"} | longer
    assert len(found["scores"]["protected"]["rounds"]) == 2  # the distortion is drawn anew, and noise
    assert "collapse" not in found
    cost = found["cost"]
    assert cost["bytes_up"] == 4 * 24 * 24
    assert (cost["edge_multiply_adds"] > 0) == (cost["edge_parameters"] > 0) == (name == "anonymizer")
    assert cost["cloud_multiply_adds"] == cost["whole_multiply_adds"]
    assert cost["cloud_parameters"] == cost["whole_parameters"]
    for file in ("cloud.safetensors", "edge.safetensors", "examples.png"):
        assert (trained / name / "seed-0" / file).stat().st_size
    assert (trained / name / "report.html").stat().st_size


def test_plain_is_the_baseline_and_the_others_go_on_from_it(trained: Path) -> None:
    scores = results(trained, "plain")["scores"]
    assert scores["protected"] == scores["baseline"]
    for name in ("noise", "blur"):
        weights = load_tensors(trained / name / "seed-0" / "protected" / "weights.safetensors")[0]
        assert weights["network.bn1.num_batches_tracked"] == 3 * (1 + 2)  # 24 photographs in batches of 8


def test_what_is_done_is_not_done_again_and_the_same_seed_gives_the_same(trained: Path, tmp_path: Path) -> None:
    before = results(trained, "noise")
    again = train(trained, "noise", f"--baselines={trained / 'identity'}")
    assert again == before
    afresh = train(tmp_path, "noise")
    assert afresh["scores"] == before["scores"]
    assert afresh["curves"] == before["curves"]


@pytest.mark.parametrize("name", ASKED)
def test_the_cloud_sees_the_changed_image_and_answers_as_in_one_process(
    trained: Path, server: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, half, network = pixels(12), half_of(trained, name), in_process(trained, name)
    sent: dict[bytes, NDArray[np.float32]] = {}
    mix = half.mix

    def recorded(batch: NDArray[np.uint8], **options: Any) -> TorchRequest:
        request = mix(batch, **options)
        sent.update(zip((image.tobytes() for image in batch), request.payload, strict=True))
        return request

    monkeypatch.setattr(half, "mix", recorded)
    with Client(half, server) as client:
        answer = client.classify(images)
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number:02}.png")
    edge = str(trained / name / "seed-0" / "edge.safetensors")
    arguments = ["infer", str(tmp_path), "--edge", edge, "--server", server, "--format", "json"]
    assert main([*arguments, "--output", str(tmp_path / "answers.json")]) == 0
    received = torch.from_numpy(np.stack([sent[image.tobytes()] for image in images]))
    x = half.inputs(images)
    with torch.inference_mode():
        expected = network.get_submodule("network")(received).numpy()
        if name == "noise":
            assert ((received - x) * 0.25 * 255).std().item() == pytest.approx(8, rel=0.05)
        else:
            torch.testing.assert_close(received, network.get_submodule("protect")(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.scores, expected, rtol=1e-3, atol=1e-4)
    if name in ("plain", "blur"):  # noise is drawn anew
        rows = json.loads((tmp_path / "answers.json").read_text())["images"]
        assert [row["guesses"][0]["label"] for row in rows] == expected.argmax(1).tolist()


def test_infer_says_that_nothing_is_mixed(
    trained: Path, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(pixels(1)[0, ..., 0]).save(tmp_path / "a.png")
    seed = trained / "blur" / "seed-0"
    files = [str(tmp_path / "a.png"), "--quiet", "--edge", str(seed / "edge.safetensors")]
    assert main(["infer", *files, "--server", server]) == 0
    assert "this edge half mixes nothing (groups of 1): the cloud sees every image by itself" in capsys.readouterr().err
    assert main(["infer", *files, "--local", str(seed / "cloud.safetensors")]) == 0  # where nothing is sent
    assert capsys.readouterr().err == ""


def test_a_request_of_unmixed_images_has_no_key_and_is_used_once(trained: Path) -> None:
    half, images = half_of(trained, "plain"), pixels(5)  # no whole groups of anything
    with half.mix(images) as request:
        assert np.array_equal(request.payload, half.inputs(images).numpy())
        scores = torch.randn(5, 4)
        np.testing.assert_array_equal(request.classify(scores.numpy()).scores, scores.numpy())
        with pytest.raises(ValueError, match="the request must be open"):
            request.classify(scores.numpy())


def test_the_cloud_is_the_network_and_never_the_generator(trained: Path) -> None:
    weights, config = load_tensors(trained / "anonymizer" / "seed-0" / "cloud.safetensors")
    assert all(name.startswith("network.") for name in weights)
    assert config["pre"] == 1
    assert CloudModel(trained / "anonymizer" / "seed-0" / "cloud.safetensors").input_shape == (1, *SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--protection.name=noise",), "sigma of noise must be a positive number, got None"),
        (("--protection.name=noise", "--protection.sigma=.inf"), "sigma of noise must be a positive number, got inf"),
        (("--protection.name=noise", "--protection.sigma=.nan"), "sigma of noise must be a positive number, got nan"),
        (("--protection.sigma=8",), "sigma must be given for noise only, got mix"),
        (("--protection.name=blur", "--protection.size=0"), "size of blur must be a positive number, got 0"),
        (("--protection.name=blur", "--protection.size=24"), "images must be larger than 24 x 24, got 24 x 24"),
        (("--protection.name=anonymizer", "--protection.width=4"), "data.task must be 'attributes' for the anonymizer"),
        (("--protection.hiding=-1",), "hiding must not be negative, got -1"),
    ],
)
def test_refused_at_the_door(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status: object
    try:
        status = main(["train", *OPTIONS, *options, "--out", str(tmp_path)])
    except SystemExit as exit:  # what the parser refuses
        status = exit.code
    assert status != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert not any(tmp_path.rglob("*.safetensors"))


def test_a_reversed_gradient_is_the_gradient_with_its_sign_changed() -> None:
    x = torch.randn(5, requires_grad=True)
    y = reversed_gradient(x, 0.5)
    assert torch.equal(x, y)
    (gradient,) = torch.autograd.grad((y**2).sum(), x)
    torch.testing.assert_close(gradient, -x.detach())


def learner(hiding: float, faces: Labelled) -> Anonymizing:
    options = {"protection": "anonymizer", "settings": {"channels": 1, "width": 4, "mean": 0.5, "std": 0.25}}
    network = build("protected", {**options, "network": "resnet18", "options": OF_RESNET})
    names = tuple(faces.attributes)[:2]
    adversary = build("resnet18", OF_RESNET)
    assert faces.identity is not None
    return Anonymizing(
        MixedNetwork(network, 1, 1), AttributeTask(names), faces, faces, DataSettings(), FitSettings(),
        MixSettings(group_size=1), 0, people=faces.identity, adversary=adversary, hiding=hiding,
    ).double()  # fmt: skip


def test_an_anonymizer_learns_what_its_adversary_unlearns() -> None:
    """The loss's gradient is, to the generator, of keeping the task and the face less what the adversary gets; to the
    adversary, of telling people by what is sent and by the images."""
    faces, hiding = synthetic_faces(4, 2, SIZE, 1), 0.7
    model = learner(hiding, faces)
    x = torch.randn(8, 1, *SIZE, dtype=torch.float64)
    rows = torch.arange(8).flip(0)
    assert faces.identity is not None
    people, names = faces.identity[rows], model.task.labels
    labels = torch.stack([faces.attributes[name][rows] for name in names], 1)
    model.loss(x, {"rows": rows, "attributes": labels}, 0).backward()
    generator = list(model.network.network.get_submodule("protect").parameters())
    found = [p.grad for p in (*generator, *model.adversary.parameters())]

    sent = model.network.first(x)
    kept = model.task.loss(model.network.rest(sent), labels) + LIKENESS * (sent - x).abs().mean()
    told, known = (F.cross_entropy(model.adversary(images), people) for images in (sent, x))
    of_generator = torch.autograd.grad(kept - hiding * told, generator, retain_graph=True)
    of_adversary = torch.autograd.grad(told + known, list(model.adversary.parameters()))
    torch.testing.assert_close(found, [*of_generator, *of_adversary])


def test_an_anonymizer_must_know_the_people() -> None:
    faces = replace(synthetic_faces(4, 2, SIZE, 1), identity=None)
    experiment = Experiment(
        data=DataSettings(task="attributes"), protection=ProtectionSettings("anonymizer", width=4)
    )  # fmt: skip
    with pytest.raises(ValueError, match="the anonymizer must know the people on the photographs"):
        Stages(experiment, 0, faces, faces, AttributeTask(tuple(faces.attributes))).check()


def test_a_protection_has_its_own_setting() -> None:
    assert ProtectionSettings().name == "mix"
    assert ProtectionSettings("noise", sigma=4).sigma == 4
