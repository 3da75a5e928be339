"""Bundles: what was written is what is read, and nothing that is broken is accepted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import CONFIG, FEATURES, assembled, bundle_bytes, tensors, written

from facemix_ops.edge import Bundle, BundleError
from facemix_ops.edge.safetensors import MAX_HEADER, seal


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    path.write_bytes(bundle_bytes(pool=[[3, 2], [2, 1], [1, 0]], activation=["leaky_relu", 0.1], max_coeff=0.9))
    bundle = Bundle.load(path)
    assert {name: getattr(bundle, name) for name in ("name", "group_size", "max_coeff", "wire_dtype")} == {
        "name": "small",
        "group_size": 4,
        "max_coeff": 0.9,
        "wire_dtype": "float32",
    }
    assert (bundle.image_shape, bundle.stride, bundle.padding, bundle.dilation) == ((12, 10, 3), (2, 2), (1, 1), (1, 1))
    assert (bundle.mean, bundle.std) == ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    assert (bundle.activation, bundle.pool) == (("leaky_relu", 0.1), ((3, 2), (2, 1), (1, 0)))
    assert bundle.classes == ("ann", "ben", "cid", "dot")
    for name, value in tensors().items():
        part, kind = name.split(".")
        got = getattr(bundle, kind if part == "first" else f"last_{kind}")
        np.testing.assert_array_equal(got, value)
        assert got.dtype == np.float32
        assert got.flags.aligned
        assert got.flags.c_contiguous
    assert bundle.conv_shape == (6, 5)
    assert bundle.features_shape == (5, 3, 4)


def test_odd_places_are_aligned() -> None:
    """Other writers may put tensors anywhere; kernels get aligned memory."""
    header: dict[str, Any] = {"__metadata__": {"facemix": json.dumps(CONFIG), "sha256": "0" * 64}}
    data, end = b"", 0
    for name, value in tensors().items():
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [begin, end]}
        data += value.tobytes()
    text = json.dumps(header).encode()
    for spaces in range(4):
        bundle = Bundle.parse(seal(assembled(text + b" " * spaces, data)))
        assert bundle.weight.flags.aligned
        np.testing.assert_array_equal(bundle.weight, tensors()["first.weight"])


def test_no_byte_can_be_missing() -> None:
    data = bundle_bytes()
    for length in range(len(data)):
        with pytest.raises(BundleError):
            Bundle.parse(data[:length])
    with pytest.raises(BundleError, match="damaged or altered"):
        Bundle.parse(data + b"\0")


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_no_byte_can_change(mask: int) -> None:
    data = bytearray(bundle_bytes())
    for place in range(len(data)):
        data[place] ^= mask
        with pytest.raises(BundleError):
            Bundle.parse(bytes(data))
        data[place] ^= mask
    Bundle.parse(bytes(data))


def test_noise_is_refused() -> None:
    generator = np.random.default_rng(0)
    for length in generator.integers(0, 300, 2000):
        noise = generator.bytes(int(length))
        with pytest.raises(BundleError):
            Bundle.parse(noise)
        with pytest.raises(BundleError):
            Bundle.parse(assembled(noise, noise))


@pytest.mark.parametrize("version", ["3", "10", "9" * 3000])
def test_a_newer_version_says_to_upgrade(version: str) -> None:
    with pytest.raises(BundleError, match=r"be of version 2 at most, got \d+: a newer facemix wrote it; upgrade"):
        Bundle.parse(bundle_bytes(kind=f"facemix-edge-{version}"))


@pytest.mark.parametrize("kind", ["facemix-cloud-1", "facemix-edge-0", "facemix-edge-x", "facemix-edge-", "", 1, None])
def test_other_kinds_are_refused(kind: Any) -> None:
    with pytest.raises(BundleError, match="the kind must be 'facemix-edge-2', got"):
        Bundle.parse(bundle_bytes(kind=kind))


FIELDS: list[tuple[str, Any, str]] = [
    ("name", "", "name must be a text of 1 to 200 printable characters"),
    ("name", "x" * 201, "name must be a text"),
    ("name", "\x1b[2J", r"name must be a text of 1 to 200 printable characters, got '\x1b[2J'"),
    ("name", 3, "name must be a text"),
    ("image_shape", [12, 10], "image_shape must be 3 integers from 1"),
    ("image_shape", [12, 10, 0], "image_shape must be 3 integers from 1"),
    ("image_shape", [12, 10.0, 3], "image_shape must be 3 integers from 1"),
    ("image_shape", [2**20, 2**20, 3], "a padded image must have at most"),
    ("image_shape", [6688, 6688, 3], "a padded image must have at most 134217728 elements"),
    ("image_shape", [10**30, 10, 3], "image_shape must be 3 integers from 1"),
    ("image_shape", [12, 10, 1], "mean must be 1 numbers"),
    ("mean", [0.5, 0.5], "mean must be 3 numbers"),
    ("mean", [0.5, 0.5, True], "mean must be 3 numbers"),
    ("mean", [0.5, 0.5, 1e999], "the config must be JSON, got Infinity"),
    ("mean", [0.5, 0.5, float("nan")], "the config must be JSON, got NaN"),
    ("mean", [0.5, 0.5, 1e30], "mean must be 3 numbers"),
    ("std", [0.5, 0.5, 0.0], "std must be at least"),
    ("std", [0.5, 0.5, -1.0], "std must be at least"),
    ("stride", [0, 1], "stride must be 2 integers from 1"),
    ("stride", 2, "stride must be 2 integers from 1"),
    ("stride", [True, 1], "stride must be 2 integers from 1"),
    ("stride", [15, 1], "stride must be at most the padded image"),
    ("padding", [-1, 0], "padding must be 2 integers from 0"),
    ("padding", [10**6, 10**6], "a padded image must have at most"),
    ("dilation", [0, 1], "dilation must be 2 integers from 1"),
    ("dilation", [7, 1], "first.weight must span at most the padded image"),
    ("activation", "gelu", 'activation must be null, "relu" or ["leaky_relu", slope]'),
    ("activation", ["leaky_relu", "0.1"], "activation must be null"),
    ("activation", ["leaky_relu", 1e39], "activation must be null"),
    ("activation", {}, "activation must be null"),
    ("pool", [3, 2, 1], "pool must be 2 integers from 1"),
    ("pool", [[3, 3], [2, 2]], "pool must be null or [kernel, stride, padding]"),
    ("pool", [[3, 3], [2, 2], [2, 1]], "the pool must fit in the padded map, padded by at most half of it"),
    ("pool", [[9, 3], [2, 2], [0, 0]], "the pool must fit"),
    ("pool", [[3, 3], [9, 2], [1, 1]], "the pool's stride must be at most the padded map"),
    ("pool", [[128, 1], [1, 1], [64, 0]], "the pool must have at most 127 elements"),
    ("group_size", 1, "group_size must be an integer from 2 to 64"),
    ("group_size", 65, "group_size must be an integer from 2 to 64"),
    ("group_size", 4.0, "group_size must be an integer"),
    ("max_coeff", 0.629, "max_coeff must be at least 0.63 for groups of 4 and at most 1, got 0.629"),
    ("max_coeff", 1.1, "max_coeff must be at least"),
    ("max_coeff", "0.9", "max_coeff must be null or a number"),
    ("wire_dtype", "float64", "wire_dtype must be one of float32, float16, bfloat16, int8, got 'float64'"),
    ("wire_dtype", None, "wire_dtype must be one of"),
    ("classes", ["a", "b", "c"], "classes must be 4 texts"),
    ("classes", ["a", "b", "c", ""], "classes must be 4 texts"),
    ("classes", "abcd", "classes must be 4 texts"),
    ("attributes", ["a", "a"], "attributes must be different texts of 1 to 200 printable characters, or null"),
    ("attributes", ["a", ""], "attributes must be different texts"),
    ("attributes", ["a", 1], "attributes must be different texts"),
    ("attributes", [], "attributes must be different texts"),
    ("attributes", "ab", "attributes must be different texts"),
    ("attributes", ["a", "b"], "classes must be null where there are attributes, got ('ann', 'ben', 'cid', 'dot')"),
    ("extra", 1, "the config must have no other fields, got ['extra']"),
]


@pytest.mark.parametrize(("field", "value", "message"), FIELDS)
def test_every_field_is_checked(field: str, value: Any, message: str) -> None:
    """Also where the digest holds: it keeps nobody from writing a file by hand."""
    with pytest.raises(BundleError, match=re.escape(message)):
        Bundle.parse(bundle_bytes(**{field: value}))


def test_attributes() -> None:
    """Two scores each. Files without the field are as old as those that know nothing of it."""
    assert Bundle.parse(bundle_bytes()).attributes is None
    assert Bundle.parse(bundle_bytes(classes=None, attributes=None)).attributes is None
    assert Bundle.parse(bundle_bytes(classes=None, attributes=["hat", "tie"])).attributes == ("hat", "tie")
    with pytest.raises(BundleError, match="attributes must be a name for each two scores, got 3 for 4"):
        Bundle.parse(bundle_bytes(classes=None, attributes=["hat", "tie", "bow"]))


@pytest.mark.parametrize("field", sorted(CONFIG.keys() - {"kind"}))
def test_no_field_can_be_missing(field: str) -> None:
    config = {name: value for name, value in CONFIG.items() if name != field}
    with pytest.raises(BundleError, match=f"the config must have '{field}', got none"):
        Bundle.parse(written(config, tensors()))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("first.weight", np.zeros((5, 2, 3, 3)), "first.weight must have 3 input channels, got [5, 2, 3, 3]"),
        ("first.weight", np.zeros((5, 27)), "tensor 'first.weight' must be there with 4 dimensions, got [5, 27]"),
        ("first.weight", np.full((5, 3, 3, 3), np.nan), "'first.weight' must be finite, got 135 values that are not"),
        ("first.bias", np.zeros(4), "first.bias must have shape [5], got [4]"),
        ("first.bias", np.array([0, 0, np.inf, 0, 0]), "'first.bias' must be finite, got 1 values that are not"),
        ("first.bias", None, "tensor 'first.bias' must be there with 1 dimensions, got none"),
        ("last.weight", None, "tensor 'last.weight' must be there with 2 dimensions, got none"),
        ("last.bias", np.zeros(5), "last.bias must have shape [4], got [5]"),
        ("last.bias", np.zeros((4, 1)), "tensor 'last.bias' must be there with 1 dimensions, got [4, 1]"),
        (
            "third",
            np.zeros(1),
            "the tensors must be first.weight, first.bias, last.weight, last.bias, wire.scales, decoys, "
            "got also 'third'",
        ),
    ],
)
def test_every_tensor_is_checked(name: str, value: Any, message: str) -> None:
    weights = tensors()
    weights.pop(name, None)
    if value is not None:
        weights[name] = value.astype(np.float32)
    with pytest.raises(BundleError, match=re.escape(message)):
        Bundle.parse(written(CONFIG, weights))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_dtypes_are_refused(dtype: type) -> None:
    weights = {**tensors(), "last.bias": np.zeros(4, dtype)}
    with pytest.raises(BundleError, match=r"tensor 'last.bias' must have dtype F32, got '[FI]\d\d"):
        Bundle.parse(written(CONFIG, weights))


def entry(begin: Any, end: Any, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, "'b' must begin at byte 8 of the tensors, got 4"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, "'b' must begin at byte 8 of the tensors, got 12"),
        ({"a": entry(4, 12)}, "'a' must begin at byte 0"),
        ({"a": entry(0, 8)}, "the file must end with its tensors"),
        ({"a": entry(0, 28, [7])}, "'a' must lie within 24 bytes, got offsets [0, 28]"),
        ({"a": entry(-8, 0)}, "'a' must lie within 24 bytes"),
        ({"a": entry(8, 0)}, "'a' must lie within 24 bytes"),
        ({"a": entry(0, 2**70)}, "'a' must lie within 24 bytes"),
        ({"a": entry(0, "8")}, "'a' must lie within 24 bytes"),
        ({"a": entry(0, 24, [2**32, 2**32])}, "'a' must have a shape of positive integers that fits the file"),
        ({"a": entry(0, 24, [5])}, "'a' must have 20 bytes for its shape, got 24"),
        ({"a": entry(0, 0, [0])}, "'a' must have a shape of positive integers"),
        ({"a": entry(0, 24, [-2, -3])}, "'a' must have a shape of positive integers"),
        ({"a": entry(0, 24, [1] * 9 + [6])}, "'a' must have a shape of positive integers"),
        ({"a": entry(0, 24, 6)}, "'a' must have a shape of positive integers"),
        ({"a": entry(0, 24, [10**4000, 10**4000])}, "'a' must have a shape of positive integers that fits the file"),
        ({"a": {"dtype": "F32"}}, "'a' must have dtype, shape and data_offsets"),
        ({"a": [0, 24]}, "'a' must have dtype, shape and data_offsets"),
        ({"a": "\x1b[2J"}, r"'a' must have dtype, shape and data_offsets, got '\x1b[2J'"),
    ],
)
def test_every_place_is_checked(entries: dict[str, Any], message: str) -> None:
    header = {"__metadata__": {"facemix": json.dumps(CONFIG), "sha256": "0" * 64}, **entries}
    with pytest.raises(BundleError, match=re.escape(message)):
        Bundle.parse(seal(assembled(header, bytes(24))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file must have at least 8 bytes, got 0"),
        (bytes(8), f"the header must have between 2 and {MAX_HEADER} bytes, got 0"),
        (b"\xff" * 64, "the header must have between 2"),
        (assembled(b"{}", b"")[:9], "the header must lie in the file of 9 bytes, got one that ends at 10"),
        (assembled(b"{}", b""), "the header must have metadata of strings, got none"),
        (assembled(b"[]", b""), "the header must be a JSON object, got list"),
        (assembled(b"[" * 100_000, b""), "the header must be JSON, got"),
        (assembled(b"\xff\xfe", b""), "the header must be JSON, got"),
        (assembled(b'{"a":1,"a":2}', b""), "the header must be JSON, got the name 'a' twice"),
        (assembled(b'{"a":' + b"9" * 5000 + b"}", b""), "the header must be JSON, got"),
        (assembled({"__metadata__": {"a": 1}}, b""), "the header must have metadata of strings"),
        (assembled({"__metadata__": {"a": "1"}}, b""), "the metadata must have 'facemix', got ['a']"),
        (assembled({"__metadata__": {"facemix": "[]"}}, b""), "the config must be a JSON object, got list"),
        (assembled({"__metadata__": {"facemix": "{"}}, b""), "the config must be JSON, got"),
        (
            assembled({"__metadata__": {"facemix": json.dumps(CONFIG)}}, b""),
            "the metadata must have a sha256 of 64 characters, got 0",
        ),
        (
            assembled({"__metadata__": {"facemix": json.dumps(CONFIG), "sha256": "\ud800" * 64}}, b""),
            "the metadata must have a sha256 of 64 characters",
        ),
        (
            assembled({"__metadata__": {"facemix": json.dumps(CONFIG), "sha256": "0" * 64}}, b""),
            "the digest must be that of the file, got another: the file was damaged or altered",
        ),
    ],
)
def test_headers(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)):
        Bundle.parse(data)


def test_the_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    path.write_bytes(bundle_bytes()[:-1])
    with pytest.raises(BundleError, match=f"^{re.escape(str(path))}: the digest must be"):
        Bundle.load(path)
    with pytest.raises(FileNotFoundError):
        Bundle.load(tmp_path / "none.safetensors")
    assert issubclass(BundleError, ValueError)


def test_the_largest_integers_are_safe() -> None:
    """A geometry at the limits is computed without overflow, and either refused or small."""
    bundle = Bundle.parse(bundle_bytes(image_shape=[1, 2**20, 3], padding=[1, 0], stride=[1, 2**20]))
    assert bundle.features_shape == (5, 1, 1)
    assert Bundle.parse(bundle_bytes()).features_shape == FEATURES
