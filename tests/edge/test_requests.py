"""Keys: from the operating system, used once, zeroed however a request ends, and never shown."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bundles import CLASSES, FEATURES, GROUP, OUTPUTS, bundle_bytes, images

from facemix_ops.edge import Bundle, EdgeModel, MixedRequest
from facemix_ops.edge import key as key_module
from facemix_ops.edge.key import Key
from facemix_ops.edge.result import result_of


@pytest.fixture
def model() -> EdgeModel:
    return EdgeModel(Bundle.parse(bundle_bytes()))


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """Every key that is sampled."""
    sampled: list[Key] = []

    class Spied(Key):
        def __init__(self, *args: Any) -> None:
            sampled.append(self)
            super().__init__(*args)

    monkeypatch.setattr("facemix_ops.edge.model.Key", Spied)
    return sampled


def secrets(key: Key) -> list[np.ndarray]:
    return [key.coeffs, key.order, key.rows]


def zeroed(key: Key) -> bool:
    return key.closed and not any(secret.any() for secret in secrets(key))


def reply(rows: int = 4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, OUTPUTS)).astype(np.float32)


def test_a_key_is_zeroed_by_the_reply(model: EdgeModel, keys: list[Key]) -> None:
    with model.mix(images(4)) as request:
        assert not request.closed
        assert all(secret.any() for secret in secrets(keys[0]))
        payload = request.payload.copy()
        request.classify(reply())
        assert request.closed
        assert zeroed(keys[0])
    np.testing.assert_array_equal(request.payload, payload)  # what was sent stays


def test_a_key_is_zeroed_by_the_end_of_the_block(model: EdgeModel, keys: list[Key]) -> None:
    with model.mix(images(8)):
        pass
    request = model.mix(images(8))
    request.close()
    request.close()
    assert len(keys) == 2
    assert all(map(zeroed, keys))


def test_a_key_is_zeroed_where_its_request_is_forgotten(model: EdgeModel) -> None:
    request = model.mix(images(4))
    left = secrets(request._key)
    assert all(secret.any() for secret in left)
    del request
    assert not any(secret.any() for secret in left)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_a_key_is_zeroed_by_errors(model: EdgeModel, keys: list[Key], error: type[BaseException]) -> None:
    with pytest.raises(error), model.mix(images(4)):
        raise error
    with pytest.raises(ValueError, match="reply must be finite"), model.mix(images(4)) as request:
        request.classify(np.full((4, OUTPUTS), np.nan, np.float32))
    assert len(keys) == 2
    assert all(map(zeroed, keys))


@pytest.mark.parametrize("step", ["conv_mix", "unmix_linear"])
def test_a_key_is_zeroed_where_a_kernel_fails(
    model: EdgeModel, keys: list[Key], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(f"facemix_ops.edge.kernels.{step}", fail)
    with pytest.raises(MemoryError):
        model.mix(images(4)).classify(reply())
    assert [zeroed(key) for key in keys] == [True]


def test_a_key_is_for_one_reply(model: EdgeModel) -> None:
    with model.mix(images(4)) as request:
        request.classify(reply())
        with pytest.raises(ValueError, match="classify: the request must be open, got a closed one: its key was zero"):
            request.classify(reply())
    with pytest.raises(ValueError, match="must be open"):
        request.classify(reply())


def test_a_bad_reply_may_be_followed_by_a_better(model: EdgeModel) -> None:
    """The cloud is asked again with the same rows, so that it learns nothing new."""
    with model.mix(images(4)) as request:
        with pytest.raises(ValueError, match="reply must have shape"):
            request.classify(reply(3))
        assert request.classify(reply()).scores.shape == (4, CLASSES)


@pytest.mark.parametrize("value", [3.4e38, -3.4e38])
def test_a_reply_that_makes_scores_overflow_is_refused(model: EdgeModel, keys: list[Key], value: float) -> None:
    """Every value of it is finite."""
    large = np.where(np.arange(OUTPUTS) % 2, value, -value).astype(np.float32)
    with model.mix(images(4)) as request:
        with pytest.raises(ValueError, match=r"reply must leave scores finite, got \d+ values that are not"):
            request.classify(np.tile(large, (4, 1)))
        assert zeroed(keys[0])


def test_every_request_has_a_key_of_its_own(model: EdgeModel, keys: list[Key]) -> None:
    requests = [model.mix(images(8)) for _ in range(8)]
    for name in ("coeffs", "order"):
        assert len({getattr(key, name).tobytes() for key in keys}) > 6, name
    assert len({request.payload.tobytes() for request in requests}) == 8
    for request, key in zip(requests, keys, strict=True):
        request.close()
        assert zeroed(key)
    for first in keys:
        for second in keys:
            assert first is second or not np.shares_memory(first.coeffs, second.coeffs)


def test_keys_are_what_they_must_be() -> None:
    for size, bound in ((2, None), (3, None), (8, 0.6), (16, None), (64, None)):
        key = Key(np.arange(3 * size), size, bound)
        for matrix in key.coeffs:
            np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-12)
        assert bound is None or np.abs(key.coeffs).max() <= bound
        np.testing.assert_array_equal(np.sort(key.order), np.arange(3 * size))


def test_keys_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """No seed, at address 0, asks for its CSPRNG, and nothing else is ever asked for."""
    seeds: list[Any] = []

    class Spy:
        def __getattr__(self, name: str) -> Any:
            def call(*args: Any) -> Any:
                seeds.append(args[-2])
                return getattr(C, name)(*args)

            return call

    C = key_module.kernels.C
    monkeypatch.setattr("facemix_ops.edge.kernels.C", Spy())
    Key(np.arange(16), 8, None)
    assert seeds == [0, 0]


def test_keys_are_never_copied(model: EdgeModel) -> None:
    with model.mix(images(4)) as request:
        for thing in (request, request._key):
            for copier in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="it cannot be pickled or copied"):
                    copier(thing)


def numbers(request: MixedRequest) -> Iterator[str]:
    for secret in secrets(request._key):
        yield from (f"{value:.4g}" for value in secret.flat if abs(value) > 0.01 and value != int(value))


def test_keys_are_never_shown(model: EdgeModel) -> None:
    with model.mix(images(4), wire_dtype="bfloat16") as request:
        shape = [4, *FEATURES]
        assert repr(request) == f"MixedRequest(payload=uint16 {shape}, wire_dtype='bfloat16')"
        shown = repr(request) + repr(request._key)
        assert not any(number in shown for number in numbers(request))
    assert repr(request).endswith(", closed)")
    assert repr(request._key) == "Key(groups=1, group_size=4, closed)"


def test_no_row_is_one_image(model: EdgeModel) -> None:
    """What is sent is not what one image gives, up to its scale."""
    model = EdgeModel(Bundle.parse(bundle_bytes(group_size=8, max_coeff=0.6)))
    pictures = np.concatenate([images(8, seed=n) for n in range(3)])
    with model.mix(pictures) as request:
        sent = request.payload.reshape(24, -1).astype(float)
        coeffs, order = request._key.coeffs, request._key.order
        unmixed = np.einsum("gij,gif->gjf", coeffs, sent[order].reshape(3, 8, -1)).reshape(24, -1)
        cosine = (sent @ unmixed.T) / np.linalg.norm(sent, axis=1)[:, None] / np.linalg.norm(unmixed, axis=1)
        assert np.abs(cosine).max() < 0.999


def test_grouping_follows_from_the_images_and_not_from_their_order(model: EdgeModel) -> None:
    def groups(shown: np.ndarray) -> set[frozenset[bytes]]:
        with model.mix(shown) as request:
            group = request._key.rows // GROUP
        return {frozenset(image.tobytes() for image in shown[group == number]) for number in range(3)}

    pictures = images(3 * GROUP)
    assert groups(pictures) == groups(pictures[np.random.default_rng(0).permutation(3 * GROUP)])


def test_names_and_labels(model: EdgeModel) -> None:
    with model.mix(images(4)) as request:
        result = request.classify(reply())
    np.testing.assert_array_equal(result.labels, result.scores.argmax(1))
    assert result.names == [model.bundle.classes[label] for label in result.labels]
    scores, labels, names, attributes = result
    assert (scores.shape, labels.shape, len(names), attributes) == ((4, CLASSES), (4,), 4, None)


def test_attributes() -> None:
    model = EdgeModel(Bundle.parse(bundle_bytes(classes=None, attributes=["hat", "tie"])))
    with model.mix(images(8)) as request:
        scores, labels, names, attributes = request.classify(reply(8))
    assert names is None
    assert attributes is not None
    assert list(attributes) == ["hat", "tie"]
    for column, yes in enumerate(attributes.values()):
        no_and_yes = np.exp(scores[:, 2 * column : 2 * column + 2].astype(float))
        np.testing.assert_allclose(yes, no_and_yes[:, 1] / no_and_yes.sum(1), rtol=1e-4)
        np.testing.assert_array_equal(labels[:, column], yes > 0.5)
        assert yes.dtype == np.float32
    assert (labels.shape, labels.dtype) == ((8, 2), np.int64)


def test_attributes_of_large_scores() -> None:
    scores = np.array([[0, 1e30, 5, 5], [-1e30, -2e30, 1, 0]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        result = result_of(scores, Bundle.parse(bundle_bytes(classes=None, attributes=["hat", "tie"])))
    np.testing.assert_array_equal(result.labels, [[1, 0], [0, 0]])
    assert result.attributes is not None
    np.testing.assert_allclose(result.attributes["hat"], [1, 0])
    np.testing.assert_allclose(result.attributes["tie"], [0.5, 1 / (1 + np.e)], rtol=1e-6)
