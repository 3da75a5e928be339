"""Photographs of every kind become what the network wants, or are refused by name."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facemix.data import load_orl, orl_folder
from facemix.edge.images import GROUND, ImageError, load_image, load_images
from numpy.typing import NDArray
from PIL import Image, ImageOps

GREY, RGB = (24, 20, 1), (24, 20, 3)
UPRIGHT = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
           7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip


def ramp(height: int = 48, width: int = 40) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: smooth, and no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y // height, 255 * x // width, 255 * (x + y) // (height + width)], -1).astype(np.uint8)


def saved(folder: Path, image: Image.Image, name: str, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def refused(source: Any, shape: tuple[int, int, int] = GREY) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load_image(source, shape)
    error = caught.value
    assert str(error) == f"{error.source}: {error.problem}"
    return error


def png(width: int, height: int, bits: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    """A PNG by hand, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_as_the_networks_were_trained() -> None:
    """The photographs of the training set come out to the bit as `load_orl` gives them."""
    train, _ = load_orl((56, 46))
    expected = {face[0].tobytes() for face in train.images}
    paths = [orl_folder() / f"s{person}" / f"{photo}.pgm" for person in (1, 40) for photo in range(1, 11)]
    found = [load_image(path, (56, 46, 1)).tobytes() in expected for path in paths]
    assert sum(found) == 14  # seven of ten are in the training set


@pytest.mark.parametrize("size", [(48, 40), (24, 20), (100, 100), (31, 200), (500, 17), (16, 16)])
@pytest.mark.parametrize("shape", [GREY, RGB])
def test_any_size_is_covered_and_cut_around_the_centre(size: tuple[int, int], shape: tuple[int, int, int]) -> None:
    height, width = size
    image = load_image(ramp(height, width), shape)
    assert image.shape == shape
    assert image.dtype == np.uint8
    assert image.flags.writeable
    # The centre of the original lies in the centre.
    centre = image[11:13, 9:11].mean((0, 1))
    assert np.abs(centre - 127.5).max() < 14
    # Proportions are kept: the longer side loses its ends.
    if shape == RGB:
        spans = [float(np.ptp(image[..., 0].astype(int))) / 255, float(np.ptp(image[..., 1].astype(int))) / 255]
        scale = min(height / 24, width / 20)
        np.testing.assert_allclose(spans, [24 * scale / height, 20 * scale / width], atol=0.16)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((240, 200), np.uint8)
    stripes[::2] = 255
    assert np.abs(load_image(stripes, GREY)[1:-1].astype(int) - 127).max() <= 2  # at the border the filter is cut off


def test_the_right_size_passes_unchanged() -> None:
    values = np.random.default_rng(0).integers(0, 256, RGB, dtype=np.uint8)
    np.testing.assert_array_equal(load_image(values, RGB), values)
    np.testing.assert_array_equal(load_image(np.asfortranarray(values)[::-1], RGB), values[::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientations_all_give_the_same_picture(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = Image.fromarray(ramp())
    turned = upright.transpose(Image.Transpose[UPRIGHT[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = saved(tmp_path, turned, f"turned.{suffix}", exif=exif, **options)
    image = load_image(path, RGB).astype(int)
    expected = load_image(upright, RGB).astype(int)
    assert np.abs(image - expected).max() <= 4


@pytest.mark.parametrize("junk", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\xff\x01\x12"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_is_no_obstacle(junk: bytes, tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(ramp()), "junk.jpg", exif=b"Exif\0\0" + junk)
    assert load_image(path, RGB).std() > 20


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "RGBa"])
@pytest.mark.parametrize("shape", [GREY, RGB])
def test_modes_in_memory(mode: str, shape: tuple[int, int, int]) -> None:
    via = "RGBA" if mode == "RGBa" else mode
    image = Image.fromarray(np.full((48, 40, 3), (200, 200, 200), np.uint8)).convert(via).convert(mode)
    result = load_image(image, shape).astype(int)
    assert np.abs(result.mean() - 200) < (60 if mode == "1" else 4)  # "1" is dithered
    assert image.mode == mode  # the caller's is left as it was


def test_grey_of_colour_is_luma() -> None:
    green = np.full((24, 20, 3), (0, 255, 0), np.uint8)
    assert set(load_image(green, GREY).flat) == {150}
    assert {tuple(pixel) for pixel in load_image(green[..., 1], RGB).reshape(-1, 3)} == {(255, 255, 255)}


def test_transparency_shows_mid_grey(tmp_path: Path) -> None:
    half = np.zeros((48, 40, 4), np.uint8)
    half[24:] = (255, 0, 0, 255)
    palette = Image.fromarray(half).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.paste(255, (0, 0, 40, 24))
    sources = [
        half,
        saved(tmp_path, Image.fromarray(half), "half.png"),
        saved(tmp_path, Image.fromarray(half), "half.webp", lossless=True),
        saved(tmp_path, palette, "palette.png", transparency=255),
        saved(tmp_path, palette, "palette.gif", transparency=255),
    ]
    for source in sources:
        image = load_image(source, RGB).astype(int)
        assert np.abs(image[:11] - GROUND).max() <= 1, source
        assert np.abs(image[13:] - (255, 0, 0)).max() <= 2, source
    clear = Image.fromarray(np.full((24, 20), 7, np.uint8))
    image = load_image(saved(tmp_path, clear, "grey.png", transparency=7), GREY)
    assert set(image.flat) == {GROUND}


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    wide = np.linspace(0, 65535, 48 * 40).reshape(48, 40).astype(np.uint16)
    expected = load_image((wide / 65535 * 255).round().astype(np.uint8), GREY).astype(int)
    pgm = tmp_path / "wide.pgm"
    pgm.write_bytes(b"P5 40 48 65535\n" + wide.astype(">u2").tobytes())
    sources = [
        wide,
        wide[..., None],
        wide.astype(">u2"),
        wide / 65535,
        (wide / 65535).astype(np.float32),
        saved(tmp_path, Image.fromarray(wide), "wide.png"),
        saved(tmp_path, Image.fromarray(wide), "wide.tif"),
        saved(tmp_path, Image.fromarray(wide.astype(np.int32)), "wide32.tif"),
        saved(tmp_path, Image.fromarray((wide / 65535).astype(np.float32)), "float.tif"),
        pgm,
    ]
    for source in sources:
        assert np.abs(load_image(source, GREY).astype(int) - expected).max() <= 1, source
    colour = np.stack([wide, wide[::-1], wide], -1)
    assert np.abs(load_image(colour, RGB)[..., 0].astype(int) - expected[..., 0]).max() <= 1


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_in_colour_and_with_alpha(colour: int, channels: int, tmp_path: Path) -> None:
    pixel = [0x8123] * channels
    if colour in (4, 6):
        pixel[-1] = 0xFFFF
    row = b"\0" + struct.pack(f">{20 * channels}H", *(pixel * 20))
    path = tmp_path / "wide.png"
    path.write_bytes(png(20, 24, 16, colour, row * 24))
    assert set(load_image(path, RGB).flat) == {0x81}


def test_cmyk_jpeg(tmp_path: Path) -> None:
    red = Image.new("RGB", (40, 48), (220, 30, 30)).convert("CMYK")
    image = load_image(saved(tmp_path, red, "red.jpg", quality=95), RGB).astype(int)
    assert np.abs(image - (220, 30, 30)).max() <= 6


def test_the_first_picture_of_several(tmp_path: Path) -> None:
    frames = [Image.new("L", (40, 48), value) for value in (40, 200)]
    for suffix in ("gif", "png", "tif", "webp"):
        path = saved(tmp_path, frames[0], f"several.{suffix}", save_all=True, append_images=frames[1:])
        assert Image.open(path).n_frames == 2  # type: ignore[attr-defined]
        assert np.abs(load_image(path, GREY).astype(int) - 40).max() <= 2
    phone = saved(tmp_path, frames[0].convert("RGB"), "phone.jpg", format="MPO", save_all=True,
                  append_images=[frames[1].convert("RGB")])  # fmt: skip
    assert np.abs(load_image(phone, GREY).astype(int) - 40).max() <= 2


def test_a_large_jpeg_is_the_same_picture(tmp_path: Path) -> None:
    large = Image.fromarray(ramp()).resize((2000, 2400), Image.Resampling.BICUBIC)
    image = load_image(saved(tmp_path, large, "large.jpg", quality=95), RGB).astype(int)
    assert np.abs(image - load_image(large, RGB)).max() <= 4


def truncated(folder: Path, suffix: str) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    path = saved(folder, Image.fromarray(noise), f"cut.{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp", "ppm"])
def test_truncated_files(suffix: str, tmp_path: Path) -> None:
    path = truncated(tmp_path, suffix)
    error = refused(path)
    assert error.source == str(path)
    assert "must be" in error.problem


def test_files_that_are_no_images(tmp_path: Path) -> None:
    empty, text, header = tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "header.png"
    empty.touch()
    text.write_text("a text\n" * 100)
    header.write_bytes(png(20, 24))
    assert refused(empty).problem == "must be an image, got an empty file"
    assert refused(text).problem.startswith("must be an image (AVIF, BMP, ")
    assert refused(header).problem.startswith("must be readable, got ")
    assert refused(tmp_path / "none.png").problem == "must be readable, got No such file or directory"
    assert refused(str(tmp_path)).problem == "must be a file, got a folder"


def test_formats_that_run_other_programs_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "script.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 48\n%%EndComments\nshowpage\n")
    assert Image.open(path).format == "EPS"
    assert "got something else" in refused(path).problem


def test_odd_files(tmp_path: Path) -> None:
    loop, pipe = tmp_path / "loop.png", tmp_path / "pipe.png"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    assert "symbolic links" in refused(loop).problem
    assert refused(pipe).problem == "must be a file, got no file"  # and it does not wait for a writer
    assert "readable" in refused("a\0b.png").problem


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.new("L", (40, 48)), "secret.png")

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")  # root, who runs CI, may read everything

    monkeypatch.setattr(Image, "open", denied)
    assert refused(path).problem == "must be readable, got Permission denied"


def test_sizes_that_are_refused(tmp_path: Path) -> None:
    bomb, large = tmp_path / "bomb.png", tmp_path / "large.png"
    bomb.write_bytes(png(60000, 60000))
    large.write_bytes(png(8000, 8000))
    assert "at most 50,000,000 pixels" in refused(bomb).problem
    assert refused(large).problem == "must have at most 50,000,000 pixels, got 8000 x 8000"
    assert refused(saved(tmp_path, Image.new("L", (1, 1)), "dot.png")).problem == (
        "must have at least 16 pixels a side, got 1 x 1"
    )
    assert "at least 16 pixels a side, got 900 x 15" in refused(np.zeros((15, 900), np.uint8)).problem
    assert "pixels" in refused(np.broadcast_to(np.uint8(0), (60000, 60000))).problem


def test_a_network_for_small_images_takes_small_images() -> None:
    assert load_image(np.full((8, 9), 5, np.uint8), (8, 9, 1)).max() == 5


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.zeros((24, 20), np.int64), "dtype"),
        (np.zeros((24, 20), bool), "dtype"),
        (np.zeros((24, 20), complex), "dtype"),
        (np.full((24, 20), 255.0), "0 to 1"),
        (np.full((24, 20), np.nan), "0 to 1"),
        (np.full((24, 20), -0.5), "0 to 1"),
        (np.zeros((24, 20, 2), np.uint8), "shape"),
        (np.zeros((24,), np.uint8), "shape"),
        (np.zeros((1, 24, 20, 3), np.uint8), "shape"),
        (np.zeros((0, 20), np.uint8), "pixels"),
    ],
)
def test_arrays_that_are_refused(values: NDArray[Any], problem: str) -> None:
    error = refused(values)
    assert error.source == "array"
    assert problem in error.problem


def test_more_than_sixteen_bits(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.full((24, 20), 70000, np.int32)), "deep.tif")
    assert refused(path).problem == "must have at most 16 bits a value, got more"


def test_what_is_no_source_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError, match="load_image: source must be a path, an array or a PIL image, got int"):
        load_image(7, GREY)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="load_image: shape must have 1 or 3 channels, got 4"):
        load_image(ramp(), (24, 20, 4))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_random_damage_never_escapes(tmp_path: Path) -> None:
    """Bytes of good files changed at random: an image or an ImageError, nothing else."""
    random = np.random.default_rng(0)
    outcomes = set()
    for suffix in ("jpg", "png", "gif", "webp", "tif", "bmp", "ppm"):
        stream = io.BytesIO()
        Image.fromarray(ramp()).save(stream, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
        good = np.frombuffer(stream.getvalue(), np.uint8)
        for _ in range(40):
            bad = good.copy()
            places = random.integers(0, min(len(bad), 400), 6)
            bad[places] = random.integers(0, 256, 6)
            path = tmp_path / f"bad.{suffix}"
            path.write_bytes(bad.tobytes())
            try:
                outcomes.add(load_image(path, RGB).shape)
            except ImageError as error:
                outcomes.add(type(error))
    assert outcomes == {RGB, ImageError}


def test_one_bad_image_does_not_stop_the_rest(tmp_path: Path) -> None:
    good = saved(tmp_path, Image.new("L", (40, 48), 9), "good.png")
    sources = [good, tmp_path / "none", truncated(tmp_path, "png"), np.full((24, 20), 9, np.uint8)] * 30
    results = list(load_images(sources, GREY, threads=3, ahead=5))
    for number, result in enumerate(results):
        if number % 4 in (1, 2):
            assert isinstance(result, ImageError)
            assert result.source == str(sources[number])
        else:
            assert isinstance(result, np.ndarray)
            assert set(result.flat) == {9}
    assert len(results) == 120


def test_little_is_read_ahead() -> None:
    taken = 0

    def camera() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((24, 20), np.uint8)

    images = load_images(camera(), GREY, ahead=5)
    for number in range(1, 20):
        next(images)
        assert taken == number + 5
    images.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("facemix-decode")]


def test_no_pytorch(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from facemix.edge.images import load_image
assert load_image(np.zeros((24, 20), np.uint8), (24, 20, 3)).shape == (24, 20, 3)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_reference_resize() -> None:
    """`load_orl`'s resize, for an image of the same proportions."""
    image = Image.fromarray(ramp(96, 80)).convert("L")
    expected = np.asarray(image.resize((20, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(load_image(image, GREY)[..., 0], expected)
    assert ImageOps.exif_transpose(image).size == (80, 96)
