"""Which implementation runs: chosen by the environment, explained, and never slow in silence."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from cases import key_for
from processes import error_of, output_of
from tolerances import assert_near

import facemix_ops
from facemix_ops import backend
from facemix_ops.native import C
from facemix_ops.ops.library import on_its_device

# Every op with fixed inputs, out= included; kernels that must not run are replaced by a trap.
PROGRAM = """
import sys, torch, facemix_ops
from facemix_ops.native import C
ran = []
for name in ("conv_mix", "conv_mix_vjp", "act_mix", "act_mix_jvp", "act_mix_vjp", "group_mix", "unmix_linear"):
    setattr(C, name, lambda *a, f=getattr(C, name), n=name: (ran.append(n), f(*a))[1])
torch.manual_seed(0)
def randn(*s): return torch.randn(*s, dtype=torch.float64)
key = facemix_ops.MixKey.sample(8, 4, generator=torch.Generator().manual_seed(0))
empty = facemix_ops.MixKey.sample(0, 4)
x, w, v = randn(8, 3, 9, 8), randn(5, 3, 3, 3), randn(6, 8)
last = x.contiguous(memory_format=torch.channels_last)
calls = [
    lambda x, key, **k: facemix_ops.conv_mix(x, w, None, key, padding=1, activation="relu", pool=(3, 2, 1), **k),
    lambda x, key, **k: facemix_ops.act_mix(x, key, scale=w[0, :, 0, 0], activation="leaky_relu", pool=2, **k),
    lambda x, key, **k: facemix_ops.group_mix(x, key, **k),
    lambda x, key, **k: facemix_ops.group_unmix(x, key, **k),
    lambda x, key, **k: facemix_ops.unmix_linear(x, key, v, **k),
]
results = []
for call in calls:
    for image in (x, last):
        y = call(image, key)
        image = image.clone().requires_grad_()
        (g,) = torch.autograd.grad(call(image, key).square().sum(), image, create_graph=True)
        (h,) = torch.autograd.grad(g.square().sum(), image)
        results += [y, call(x if image.is_contiguous() else last, key, out=torch.empty_like(y)), g.detach(), h]
    results.append(call(x[:0], empty))
w.requires_grad_()
for image in (x, last):
    y = facemix_ops.conv_mix(image, w, None, key, padding=1, activation="relu", pool=(3, 2, 1))
    (g,) = torch.autograd.grad(y.square().sum(), w)
    results.append(g.contiguous())  # PyTorch's own takes the layout of the image
layouts = [r.stride() for r in results]
print(facemix_ops.explain("conv_mix", x), sorted(set(ran)), sep="|")
torch.save((results, layouts), sys.argv[1] if len(sys.argv) > 1 else "results.pt")
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program leaves with the kernels."""
    folder = tmp_path_factory.mktemp("native")
    said, ran = output_of(PROGRAM, folder, FACEMIX_BACKEND="native").strip().split("|")
    assert said == f"conv_mix on cpu: native (CPU kernels, {C.capability()})"
    assert "conv_mix" in ran
    assert "act_mix_vjp" in ran
    assert "conv_mix_vjp" in ran
    return folder / "results.pt"


@pytest.mark.parametrize(
    ("name", "reason", "first", "environment"),
    [
        ("reference", "FACEMIX_BACKEND=reference", "", {}),
        (
            "triton",
            "FACEMIX_BACKEND=triton, interpreted",
            "import interpreted",  # for speed
            {"TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parent / "helpers")},
        ),
    ],
)
def test_other_backends(
    name: str, reason: str, first: str, environment: dict[str, str], native: Path, tmp_path: Path
) -> None:
    """They give the same values and layouts, derivatives and out= too, and run no native kernel."""
    said, ran = output_of(first + PROGRAM, tmp_path, FACEMIX_BACKEND=name, **environment).strip().split("|")
    assert said == f"conv_mix on cpu: {name} ({reason})"
    assert ran == "[]"
    (expected, layouts), (plain, others) = (torch.load(path) for path in (native, tmp_path / "results.pt"))
    assert layouts == others
    for a, b in zip(expected, plain, strict=True):
        assert_near(a, b)


def test_wrong_backend(tmp_path: Path) -> None:
    code = "import torch, facemix_ops as f; f.group_mix(torch.zeros(8, 3), f.MixKey.sample(8, 4))"
    message = error_of(code, tmp_path, FACEMIX_BACKEND="fast")
    assert message == "ValueError: FACEMIX_BACKEND must be one of native, triton, reference, got 'fast'"


@pytest.mark.parametrize("capability", C.available_capabilities())
def test_capability(tmp_path: Path, capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from facemix_ops.native import C; print(C.capability())"
    assert output_of(code, tmp_path, FACEMIX_CPU_CAPABILITY=capability) == f"{capability}\n"
    monkeypatch.setattr(C, "capability", lambda: capability)
    assert facemix_ops.explain("act_mix", torch.zeros(1)) == f"act_mix on cpu: native (CPU kernels, {capability})"


def test_wrong_capability(tmp_path: Path) -> None:
    message = error_of("import facemix_ops.native", tmp_path, FACEMIX_CPU_CAPABILITY="sse9")
    assert message.startswith("ValueError: FACEMIX_CPU_CAPABILITY: capability must be one of baseline")
    assert message.endswith("got sse9")


def test_explain() -> None:
    assert facemix_ops.explain("group_mix", torch.zeros(1)).startswith("group_mix on cpu: native (CPU kernels, ")
    meta = facemix_ops.explain("group_mix", torch.zeros(1, device="meta"))
    assert meta == "group_mix on meta: reference (no native kernel for meta tensors in this build)"
    keys = facemix_ops.explain("sample_orthogonal", torch.zeros(1, device="meta"))
    assert keys == "sample_orthogonal on meta: cpu (drawn on the CPU)"
    gradients = facemix_ops.explain("conv_mix_vjp", torch.zeros(1, device="meta"))
    assert gradients == "conv_mix_vjp on meta: reference (act_mix_vjp, then PyTorch's convolution)"
    with pytest.raises(ValueError, match=r"^explain: op must be one of .*conv_mix, .*, got conv_unmix$"):
        facemix_ops.explain("conv_unmix", torch.zeros(1))
    with pytest.raises(TypeError, match=r"^explain: x must be a Tensor, got str$"):
        facemix_ops.explain("conv_mix", "cpu")  # type: ignore[arg-type]


def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("device", "cuda_ops", "hip", "installed", "expected"),
    [
        ("cuda", "act_mix group_mix", None, True, "native"),
        ("cuda", "act_mix group_mix", None, False, "native"),
        ("cuda", "act_mix", None, True, "triton"),
        ("cuda", "act_mix group_mix", "6.4", True, "triton"),
        ("cuda", "", None, True, "triton"),
        ("cuda", "", None, False, "reference"),
        ("xpu", "group_mix", None, True, "triton"),
        ("xpu", "group_mix", None, False, "reference"),
        ("mps", "group_mix", None, True, "reference"),
        ("cpu", "", None, True, "native"),
    ],
)
def test_selection(
    device: str, cuda_ops: str, hip: str | None, installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA kernels where they were built, Triton on the GPUs without, never on the CPU of its own accord."""
    monkeypatch.setattr(backend, "WISH", None)
    monkeypatch.setattr(C, "cuda_ops", cuda_ops)
    monkeypatch.setattr(torch.version, "hip", hip)
    if not installed:
        without_triton(monkeypatch)
    choice = backend.select("group_mix", device)
    assert choice.backend == expected
    assert choice.slow == (expected == "reference")
    if expected == "triton":
        assert choice.reason == f"Triton kernels; no native kernel for {device} tensors in this build"


@pytest.mark.parametrize(("device", "left"), [(-1, []), (1, [-1, 1])])  # a tensor on the CPU says -1
def test_tensors_choose_the_device(device: int, left: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own guard, which leaves alone what was not used, and only where another device is current."""
    current = [device]

    @contextmanager
    def on(index: int) -> Iterator[None]:
        current.append(index)
        yield
        current.append(device)

    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: current[-1])
    monkeypatch.setattr(torch.accelerator, "device_index", on)
    kernel = on_its_device(lambda name, x: (name, current[-1]))
    assert kernel("op", torch.zeros(1)) == ("op", -1)
    assert current[1:] == left


def test_group_sizes_of_a_device() -> None:
    """More than its kernels have room for is refused, whoever calls them."""
    expected = r"coeffs must hold groups of 1\.\.64 on a device, got 65" if C.cuda_ops else "place must be the CPU"
    with pytest.raises(ValueError, match=rf"^group_mix: {expected}"):
        C.group_mix(0, 0, 0, 1, False, 0, 0, (1, 65), (0, 0))


def test_explained_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the environment after the ops were registered."""
    before = facemix_ops.explain("group_mix", torch.empty(8))
    assert before.startswith("group_mix on cpu: native")
    monkeypatch.setenv("FACEMIX_BACKEND", "reference")
    assert facemix_ops.explain("group_mix", torch.empty(8)) == before


def test_forced_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error where it cannot run, which names the way out."""
    monkeypatch.setattr(backend, "WISH", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert backend.select("group_mix", "cuda").backend == "triton"
    # What has no Triton kernel runs where it can.
    assert backend.select("conv_mix_vjp", "cpu").backend == "reference"
    monkeypatch.setattr(C, "cuda_ops", "sample_orthogonal")
    assert backend.select("sample_orthogonal", "cuda").backend == "cpu"
    with pytest.raises(RuntimeError, match=r"^group_mix: .* only in its interpreter: TRITON_INTERPRET=1 \(.* bfloat16"):
        backend.select("group_mix", "cpu")
    with pytest.raises(RuntimeError, match=r"^group_mix: .* but there is no Triton kernel for mps tensors$"):
        backend.select("group_mix", "mps")
    without_triton(monkeypatch)
    with pytest.raises(RuntimeError, match=r"^group_mix: .* but Triton is not installed: pip install triton$"):
        backend.select("group_mix", "cuda")


def test_forced_triton_at_a_call(tmp_path: Path) -> None:
    """It does not keep the package from being imported; the op says so when such a tensor comes."""
    code = "import torch, facemix_ops as f; f.group_mix(torch.zeros(8, 3), f.MixKey.sample(8, 4))"
    message = error_of(code, tmp_path, FACEMIX_BACKEND="triton", TRITON_INTERPRET="0")
    assert message.startswith("RuntimeError: group_mix: FACEMIX_BACKEND=triton, but Triton runs on cpu tensors only in")


def test_triton_is_imported_when_it_runs(tmp_path: Path) -> None:
    """Not with the package, and not for tensors that other kernels serve."""
    code = """
import sys, torch, facemix_ops as f
f.group_mix(torch.zeros(8, 3), f.MixKey.sample(8, 4))
print(sorted(m for m in sys.modules if m.startswith("facemix_ops.triton") or m == "triton.language"))
"""
    assert output_of(code, tmp_path) == "[]\n"


def test_native_is_an_error_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "WISH", "native")
    with pytest.raises(RuntimeError, match=r"^group_mix: FACEMIX_BACKEND=native, but there is no native"):
        backend.select("group_mix", "xpu")
    assert backend.select("group_mix", "cpu").backend == "native"


def test_slow_path_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for an op and a device, and it says what to do."""
    monkeypatch.setattr(backend, "_warned", set())
    without_triton(monkeypatch)
    with pytest.warns(UserWarning, match=r"^group_mix: .* xpu tensors .* install triton; .* Move the edge half to"):
        backend.warn_if_slow("group_mix", "xpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.warn_if_slow("group_mix", "xpu")
        backend.warn_if_slow("group_mix", "cpu")
    with pytest.warns(UserWarning, match=r"^act_mix"):
        backend.warn_if_slow("act_mix", "xpu")


def test_meta_tensors() -> None:
    """Shapes, dtypes and layouts without data, as the kernels give them."""
    key = key_for(4, 2)
    there = key.to("meta")
    x, w = torch.randn(4, 3, 7, 8).contiguous(memory_format=torch.channels_last), torch.randn(2, 3, 3, 3)
    for call in (
        lambda x, w, key: facemix_ops.conv_mix(x, w, None, key, padding="same", pool=2, out_dtype=torch.float16),
        lambda x, w, key: facemix_ops.act_mix(x, key, pool=(3, 2, 1)),
        lambda x, w, key: facemix_ops.group_mix(x, key),
        lambda x, w, key: facemix_ops.group_unmix(x, key),
        lambda x, w, key: facemix_ops.unmix_linear(x, key, w.flatten()[:16].view(2, 8)),
    ):
        real, meta = call(x, w, key), call(x.to("meta"), w.to("meta"), there)
        assert meta.device.type == "meta"
        assert (meta.shape, meta.dtype, meta.stride()) == (real.shape, real.dtype, real.stride())
