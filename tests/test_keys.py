"""MixKey: what it checks, what it hides, and that its memory is zeroed."""

from __future__ import annotations

import copy
import io
import os
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from cases import key_for
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from facemix_ops import MixKey, act_mix, conv_mix, group_mix, group_unmix, reference, unmix_linear


def test_shapes() -> None:
    key = MixKey.sample(24, 8)
    assert key.coeffs.shape == (3, 8, 8)
    assert key.coeffs.dtype == torch.float64
    assert key.order.shape == (24,)
    assert (key.groups, key.group_size, key.batch) == (3, 8, 24)
    assert key.device.type == "cpu"
    assert torch.equal(key.order.sort().values, torch.arange(24))


@pytest.mark.parametrize("size", [2, 3, 8, 64])
def test_sampled_keys_pass_their_own_check(size: int) -> None:
    key = MixKey.sample(3 * size, size, max_coeff=0.9)
    again = MixKey(key.coeffs, key.order)
    assert torch.equal(again.coeffs, key.coeffs)
    assert again.coeffs.data_ptr() != key.coeffs.data_ptr(), "a key owns its memory"
    assert again.order.data_ptr() != key.order.data_ptr()
    assert key.coeffs.abs().max() <= 0.9


def test_no_two_keys_agree() -> None:
    """Nor do seeds of PyTorch's own generator matter."""
    keys = []
    for _ in range(20):
        torch.manual_seed(0)
        keys.append(MixKey.sample(64, 8))
    assert torch.stack([k.coeffs.flatten() for k in keys]).unique(dim=0).shape[0] == 20
    assert torch.stack([k.order for k in keys]).unique(dim=0).shape[0] == 20


def test_keys_differ_across_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: MixKey.sample(64, 8).coeffs.flatten(), range(40)))
    assert torch.stack(keys).unique(dim=0).shape[0] == 40


def test_keys_differ_across_fork() -> None:
    """A forked child draws other keys than its parent, and its kernels work without the parent's threads."""
    group_mix(torch.randn(64, 5000), key_for(64, 8))  # the pool's threads exist
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            key = MixKey.sample(64, 8)
            group_mix(torch.randn(64, 5000), key)
            os.write(write, key.coeffs.numpy().tobytes())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    mine = MixKey.sample(64, 8).coeffs
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    theirs = torch.frombuffer(bytearray(data), dtype=torch.float64).reshape(8, 8, 8)
    assert not torch.equal(mine, theirs)


def test_generator_is_reproducible() -> None:
    one, two, other = key_for(16, 4), key_for(16, 4), key_for(16, 4, seed=1)
    assert torch.equal(one.coeffs, two.coeffs)
    assert torch.equal(one.order, two.order)
    assert not torch.equal(one.coeffs, other.coeffs)
    generator = torch.Generator().manual_seed(0)
    first, second = (MixKey.sample(16, 4, generator=generator) for _ in range(2))
    assert torch.equal(first.coeffs, one.coeffs)
    assert not torch.equal(second.coeffs, first.coeffs)
    assert not torch.equal(second.order, first.order)


def test_sampling_leaves_pytorchs_generator_alone() -> None:
    before = torch.get_rng_state()
    MixKey.sample(16, 4)
    key_for(16, 4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("closed", [False, True])
def test_repr_shows_no_values(closed: bool) -> None:
    key = MixKey(torch.eye(2).repeat(3, 1, 1), torch.tensor([5, 4, 3, 2, 1, 0]))
    if closed:
        key.close()
    state = ", closed" if closed else ""
    assert repr(key) == str(key) == f"{key}" == f"MixKey(groups=3, group_size=2, device='cpu'{state})"


@pytest.mark.parametrize(
    "save", [pickle.dumps, copy.copy, copy.deepcopy, lambda k: torch.save({"key": k}, io.BytesIO())],
    ids=["pickle", "copy", "deepcopy", "torch.save"],
)  # fmt: skip
def test_cannot_be_saved_or_copied(save: Any) -> None:
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        save(key_for(4, 2))
    assert not hasattr(key_for(4, 2), "__dict__")


def test_close_zeroes_the_memory() -> None:
    key = key_for(12, 4)
    coeffs, order = key.coeffs, key.order
    assert coeffs.any()
    assert not key.closed
    key.close()
    assert key.closed
    assert not coeffs.any()
    assert not order.any()
    key.close()  # twice is once
    for name in ("coeffs", "order"):
        with pytest.raises(ValueError, match="MixKey: key must be open"):
            getattr(key, name)
    assert (key.groups, key.group_size, key.batch) == (3, 4, 12)


@pytest.mark.parametrize("op", [reference.group_mix, reference.group_unmix])
def test_the_reference_zeroes_its_copy_of_the_coefficients(op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a gradient needs it."""
    copies = []

    def watched(tensor: Tensor, *arguments: Any) -> Tensor:
        copies.append(to(tensor, *arguments))
        return copies[-1]

    to, key, x = Tensor.to, MixKey.sample(8, 4), torch.randn(8, 5)
    monkeypatch.setattr(Tensor, "to", watched)
    op(x, key)
    (copy,) = (each for each in copies if each.shape == key.coeffs.shape)
    assert not copy.any()
    assert key.coeffs.any()
    op(x.requires_grad_(), key).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_close_in_inference_mode() -> None:
    key = key_for(12, 4)
    coeffs = key.coeffs
    with torch.inference_mode():
        key.close()
        assert not coeffs.any()
        inner = key_for(4, 2)
        group_mix(torch.randn(4, 3), inner)
    inner.close()


def test_with_block_closes() -> None:
    with key_for(4, 2) as key:
        coeffs = key.coeffs
        assert coeffs.any()
    assert key.closed
    assert not coeffs.any()


def test_with_block_closes_on_exceptions() -> None:
    key = key_for(4, 2)
    coeffs = key.coeffs
    with pytest.raises(ZeroDivisionError), key:
        _ = 1 / 0
    assert key.closed
    assert not coeffs.any()


def use_every_op(key: MixKey) -> list[Any]:
    x = torch.randn(4, 3, 5, 5)
    return [
        lambda: conv_mix(x, torch.randn(2, 3, 3, 3), None, key),
        lambda: act_mix(x, key),
        lambda: group_mix(x, key),
        lambda: group_unmix(x, key),
        lambda: unmix_linear(x, key, torch.randn(2, 5)),
        lambda: key.to("cpu"),
    ]


@pytest.mark.parametrize(
    "x", [torch.randn(8, 3, 5, 5), torch.randn(4, 3, 5, 5, device="meta"), torch.randn(())], ids=["rows", "device", "0"]
)
def test_refusals_keep_the_key_out_of_tracebacks(x: Tensor) -> None:
    """Reports of errors may record the locals of every frame: a key shows no values there, its tensors do."""
    key = key_for(4, 2)
    for call in (
        lambda: group_mix(x, key),
        lambda: group_unmix(x, key),
        lambda: act_mix(x if x.dim() else torch.randn(8, 3, 5, 5), key),
        lambda: conv_mix(x if x.dim() else torch.randn(8, 3, 5, 5), torch.randn(2, 3, 3, 3), None, key),
        lambda: unmix_linear(x, key, torch.randn(2, 5)),
    ):
        with pytest.raises(ValueError, match="key must be") as caught:
            call()
        for frame, _ in traceback.walk_tb(caught.tb):
            if "facemix_ops" in frame.f_code.co_filename:
                held = [v for v in frame.f_locals.values() if isinstance(v, Tensor)]
                assert not any(v.data_ptr() in (key.coeffs.data_ptr(), key.order.data_ptr()) for v in held)


def test_closed_keys_are_refused_everywhere() -> None:
    key = key_for(4, 2)
    for call in use_every_op(key):
        call()
    key.close()
    for call in use_every_op(key):
        with pytest.raises(ValueError, match="key must be open, got a closed key"):
            call()


def test_to() -> None:
    key = key_for(4, 2)
    assert key.to("cpu") is key
    meta = key.to("meta")
    assert meta.device.type == "meta"
    assert not key.closed


class Drawn(TorchDispatchMode):
    """Keeps what is drawn on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        if op.name().startswith("facemix_ops::sample"):
            self.tensors.append(result)
        return result


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_nothing_of_a_key_for_another_device_stays_on_the_host(mode: type) -> None:
    with mode(), Drawn() as drawn:
        assert MixKey.sample(8, 4, device="meta").device.type == "meta"
    assert [t.shape for t in drawn.tensors] == [(2, 4, 4), (8,)]
    assert not any(t.any() for t in drawn.tensors)
    with mode(), Drawn() as drawn:
        key = MixKey.sample(8, 4, device="cpu")
    assert [t.data_ptr() for t in drawn.tensors] == [key.coeffs.data_ptr(), key.order.data_ptr()]
    assert torch.equal(key.order.sort().values, torch.arange(8))


def rotation(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([[[0.6, 0.8], [-0.8, 0.6]]], dtype=dtype)


def test_own_matrices_are_copied() -> None:
    coeffs, order = rotation(), torch.tensor([1, 0])
    key = MixKey(coeffs, order)
    key.close()
    assert torch.equal(coeffs, rotation())
    assert order.tolist() == [1, 0]
    assert MixKey(rotation(torch.float32)).coeffs.dtype == torch.float64
    assert MixKey(torch.eye(3).repeat(2, 1, 1)).order.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("error", "coeffs", "order", "message"),
    [
        (TypeError, [[1.0]], None, "coeffs must be a Tensor, got list"),
        (TypeError, torch.ones(1, 2, 2, dtype=torch.int64), None, "coeffs must be float32"),
        (ValueError, torch.eye(2), None, "coeffs must have 3 dimensions"),
        (ValueError, torch.ones(1, 2, 3), None, "coeffs must have shape"),
        (ValueError, torch.ones(1, 1, 1), None, "group_size must be between 2 and 64"),
        (ValueError, torch.eye(65)[None], None, "group_size must be between 2 and 64"),
        (ValueError, 1.001 * rotation(), None, "coeffs must be orthogonal"),
        (ValueError, torch.full((1, 2, 2), float("nan")), None, "coeffs must be orthogonal"),
        (ValueError, rotation().requires_grad_(), None, "coeffs must not require gradients"),
        (TypeError, rotation(), [0, 1], "order must be an int64 Tensor"),
        (TypeError, rotation(), torch.tensor([0, 1], dtype=torch.int32), "order must be an int64 Tensor"),
        (TypeError, rotation(), torch.tensor([0, 1, 2]), "order must be an int64 Tensor of shape"),
        (ValueError, rotation(), torch.tensor([0, 1], device="meta"), "order must be on the device of coeffs"),
        (ValueError, rotation(), torch.tensor([0, 0]), "order must be a permutation"),
        (ValueError, rotation(), torch.tensor([0, 2]), "order must be a permutation"),
        (ValueError, rotation(), torch.tensor([-1, 0]), "order must be a permutation"),
    ],
)
def test_constructor_checks(error: type[Exception], coeffs: Any, order: Any, message: str) -> None:
    with pytest.raises(error, match=f"^MixKey: {message}"):
        MixKey(coeffs, order)


@pytest.mark.parametrize(
    ("error", "args", "kwargs", "message"),
    [
        (ValueError, (10, 4), {}, "MixKey.sample: batch must be a multiple of group_size = 4"),
        (ValueError, (-4, 4), {}, "MixKey.sample: batch must"),
        (TypeError, (8.0, 4), {}, "MixKey.sample: batch must be an int"),
        (TypeError, (True, 2), {}, "MixKey.sample: batch must be an int"),
        (TypeError, (8, 4.0), {}, "MixKey.sample: group_size must be an int"),
        (ValueError, (8, 1), {}, "MixKey.sample: group_size must be between 2 and 64"),
        (ValueError, (65, 65), {}, "MixKey.sample: group_size must be between 2 and 64"),
        (ValueError, (8, 4), {"max_coeff": 0.629}, ".*max_coeff must be at least 0.63 for groups of 4"),
        (ValueError, (8, 4), {"max_coeff": 1.5}, ".*max_coeff must be .* at most 1"),
        (TypeError, (8, 4), {"max_coeff": "0.9"}, ".*max_coeff must"),
        (TypeError, (8, 4), {"generator": 0}, ".*generator must"),
    ],
)
def test_sample_checks(error: type[Exception], args: tuple[Any, ...], kwargs: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        MixKey.sample(*args, **kwargs)
