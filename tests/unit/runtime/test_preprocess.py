import io
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeft.core.errors import DataError, UsageError
from edgeft.runtime import preprocess as module
from edgeft.runtime.preprocess import InputContract, decode, load_pixels, preprocess

CROP = InputContract(8, 8, "shorter_side", 10, "bicubic", (127.0,) * 3, (128.0,) * 3)
SQUASH = replace(CROP, resize="squash", resize_to=None)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_contract_survives_json() -> None:
    assert InputContract.from_json(CROP.to_json()) == CROP
    assert InputContract.from_json(SQUASH.to_json()) == SQUASH


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"resize": "stretch"},
        {"filter": "nearest"},
        {"resize_to": None},
        {"resize_to": 7},
        {"std": (1, 0, 1)},
    ],
)
def test_contradicting_contract_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(CROP, **change)


@pytest.mark.parametrize("change", [{"extra": 1}, {"height": "tall"}, {"height": 8.5}, {"mean": 3}])
def test_unreadable_contract_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match="input contract"):
        InputContract.from_json({**CROP.to_json(), **change})


def test_sixteen_bit_grey_is_scaled_by_257() -> None:
    wide = np.array([[0, 257, 128, 129, 257 * 200, 65535]], dtype=np.uint16)
    image = decode(encoded(Image.fromarray(wide)), "wide.png")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 0, 1, 200, 255]


def test_sixteen_bit_tiff_of_either_byte_order() -> None:
    wide = np.array([[0, 257 * 7, 65535]], dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(wide), "TIFF"), "a.tif"))[0, :, 1].tolist() == [0, 7, 255]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "CMYK"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    source = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    image = decode(encoded(source, kind), "x")
    assert image.mode == "RGB"
    assert np.asarray(image).min() >= 254


def test_alpha_is_composited_on_black() -> None:
    image = decode(encoded(Image.new("RGBA", (2, 2), (200, 100, 50, 0))), "clear.png")
    assert np.asarray(image).max() == 0
    half = decode(encoded(Image.new("RGBA", (2, 2), (200, 100, 50, 51))), "half.png")
    assert np.asarray(half)[0, 0].tolist() == [40, 20, 10]


def test_transparent_palette_entry_is_black() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert np.asarray(decode(encoded(image, transparency=0), "p.png"))[0].tolist() == [[0, 0, 0], [0, 255, 0]]


def test_exif_orientation_is_applied() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise: the first pixel goes to the upper right
    image = np.asarray(decode(encoded(Image.fromarray(pixels), exif=exif), "turned.png"))
    assert image.shape == (6, 4, 3)
    assert image[0, 3, 0] == 255


def test_truncated_damaged_and_foreign_files_are_named() -> None:
    good = encoded(Image.effect_noise((64, 64), 50), "JPEG")
    for data, why in [(b"", "0 bytes"), (good[: len(good) // 2], "decoded"), (b"hello", "known format")]:
        with pytest.raises(DataError, match=rf"cell7\.jpg: .*{why}"):
            decode(data, "cell7.jpg")


def test_formats_outside_the_list_are_refused() -> None:
    with pytest.raises(DataError, match="not an image of a known format"):
        decode(encoded(Image.new("RGB", (2, 2)), "ICO"), "a.ico")


def test_several_pages_are_refused() -> None:
    pages = [Image.new("L", (4, 4), value) for value in (0, 9)]
    with pytest.raises(DataError, match="2 pages"):
        decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "scan.tif")


def test_floating_point_is_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        decode(encoded(Image.new("F", (2, 2)), "TIFF"), "f.tif")


def test_the_pixel_cap_is_held_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 15)
    with pytest.raises(DataError, match="4x4 pixels"):
        decode(encoded(Image.new("L", (4, 4))), "big.png")


def test_pillows_own_bomb_warning_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="big"):
            decode(encoded(Image.new("L", (4, 4))), "big.png")


def test_shorter_side_keeps_the_proportions_and_crops_the_centre() -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 12:28] = 200  # the middle 16 columns become the middle 8 of 20, which is the crop
    pixels = preprocess(Image.fromarray(wide), replace(CROP, resize_to=10, filter="bilinear"))
    assert pixels.shape == (8, 8, 3)
    assert pixels[:, 1:7].min() >= 199
    assert preprocess(Image.fromarray(wide.transpose(1, 0, 2)), CROP).shape == (8, 8, 3)


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(preprocess(Image.fromarray(pixels), SQUASH), pixels)


def test_load_pixels_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        load_pixels(tmp_path / "gone.png", SQUASH)
    with pytest.raises(DataError, match="a folder"):
        load_pixels(tmp_path, SQUASH)


def test_load_pixels_is_writable_and_contiguous(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (1, 2, 3)).save(tmp_path / "a.png")
    pixels = load_pixels(tmp_path / "a.png", SQUASH)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [1, 2, 3]
