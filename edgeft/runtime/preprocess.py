"""From a raw image file to the model's pixels: the one code that training, verification and the device share.

Colour is RGB throughout. The steps are fixed: decode, turn upright (EXIF), 8 bits, RGB on black, resize, crop. They are
Pillow's own resampling filters (antialiased), so two machines with the same Pillow give the same bytes.
"""

import io
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Json

Pixels: TypeAlias = npt.NDArray[np.uint8]
Resize: TypeAlias = Literal["squash", "shorter_side"]
Filter: TypeAlias = Literal["bilinear", "bicubic", "lanczos"]

INPUT = "pixels"
"""Name of an image graph's input, uint8 [N, H, W, 3]."""
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files with another suffix are not taken for images."""
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What `decode` opens; every other decoder of Pillow stays unreachable."""
MAX_PIXELS = 1 << 26
"""Largest decoded image (67 megapixels), so that a small file cannot fill the memory."""
MAX_BYTES = 1 << 28
"""Largest image file (256 MiB)."""

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_MAX_16_BIT = 65535


@dataclass(frozen=True, slots=True)
class InputContract:
    """How an image becomes the model's input.

    Args:
        height: rows of the model's input.
        width: columns of the model's input.
        resize: "squash" goes straight to (height, width); "shorter_side" scales the shorter side to `resize_to`, keeps
            the proportions and crops the centre.
        resize_to: pixels of the shorter side; None for "squash".
        filter: Pillow's resampling filter.
        mean: per RGB channel, in 0..255 pixel units; the graph computes `(pixel - mean) / std`.
        std: per RGB channel, in 0..255 pixel units.

    Raises:
        UsageError: the values contradict each other.
    """

    height: int
    width: int
    resize: Resize
    resize_to: int | None
    filter: Filter
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(f"input size {self.height}x{self.width}: both sides must be at least 1")
        if self.resize not in get_args(Resize) or self.filter not in get_args(Filter):
            raise UsageError(
                f"input resize {self.resize!r} with filter {self.filter!r} is not known",
                hint=f"resize: one of {', '.join(get_args(Resize))}; filter: one of {', '.join(get_args(Filter))}",
            )
        if (self.resize == "shorter_side") != (self.resize_to is not None):
            raise UsageError(
                f"input resize {self.resize!r} with resize_to {self.resize_to}",
                hint="resize_to belongs to shorter_side, and shorter_side needs it",
            )
        if self.resize_to is not None and self.resize_to < max(self.height, self.width):
            raise UsageError(
                f"input resize_to {self.resize_to} is smaller than the crop {self.height}x{self.width}",
                hint="raise input.resize_to or lower the input size",
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:  # noqa: PLR2004 - RGB
            raise UsageError(f"input mean {self.mean} and std {self.std}: three values each, std above 0")

    def to_json(self) -> dict[str, Json]:
        """Return the contract as JSON values, as they stand in dataset.json and manifest.json."""
        return cast("dict[str, Json]", {**asdict(self), "mean": list(self.mean), "std": list(self.std)})

    @classmethod
    def from_json(cls, d: Mapping[str, Json]) -> "InputContract":
        """Read what `to_json` wrote.

        Raises:
            DataError: a key is missing, unknown, or holds the wrong type.
        """
        names = set(cls.__dataclass_fields__)
        if set(d) != names:
            raise DataError(f"input contract has keys {sorted(d)}, expected {sorted(names)}")
        values = cast("dict[str, Any]", d)
        try:
            return cls(
                height=operator.index(values["height"]),
                width=operator.index(values["width"]),
                resize=values["resize"],
                resize_to=None if values["resize_to"] is None else operator.index(values["resize_to"]),
                filter=values["filter"],
                mean=cast("tuple[float, float, float]", tuple(float(value) for value in values["mean"])),
                std=cast("tuple[float, float, float]", tuple(float(value) for value in values["std"])),
            )
        except (TypeError, ValueError) as error:
            raise DataError(f"input contract {dict(d)} cannot be read: {error}") from error


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image file's bytes to an upright 8-bit RGB image.

    16-bit grey is scaled by 1/257 (65535 becomes 255), palettes are expanded, alpha is composited on black, and the
    EXIF orientation is applied. (Pillow itself reads 16-bit *colour* PNGs by their high byte.)

    Args:
        data: the whole file.
        name: how the file is called in messages.

    Returns:
        An RGB image.

    Raises:
        DataError: the bytes are no image of an allowed format, are damaged or truncated, hold several pages, are larger
            than `MAX_PIXELS`, or have no defined 8-bit meaning (floating point, 32-bit).
    """
    if not data:
        raise DataError(f"{name}: the file is empty (0 bytes)", hint="remove it from the data or restore it")
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_oversized(image, name)
            image.load()
            return _to_rgb(_upright(image), name)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not an image of a known format",
            hint=f"edgeft reads {', '.join(FORMATS)}; convert it or leave it out",
        ) from error
    except Exception as error:  # Pillow's decoders raise almost any type on damaged bytes
        raise DataError(
            f"{name}: the image cannot be decoded ({error})", hint="the file is damaged or truncated: restore it"
        ) from error


def preprocess(image: Image.Image, contract: InputContract) -> Pixels:
    """Resize and crop an image to the model's input.

    Args:
        image: any 8-bit Pillow image; not changed.
        contract: the model's input.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    rgb = image if image.mode == "RGB" else _to_rgb(image, "image")
    resample = _FILTERS[contract.filter]
    if contract.resize_to is None:
        resized = rgb.resize((contract.width, contract.height), resample)
    else:
        resized = _crop_centre(_scale_shorter_side(rgb, contract.resize_to, resample), contract)
    return np.array(resized, dtype=np.uint8)


def load_pixels(path: Path, contract: InputContract) -> Pixels:
    """Read the image file at `path` as the model's input, uint8 [H, W, 3].

    Raises:
        DataError: the file is missing or cannot be decoded.
    """
    return preprocess(decode(read_image_bytes(path), str(path)), contract)


def read_image_bytes(path: Path) -> bytes:
    """Read a file of at most `MAX_BYTES`.

    Raises:
        DataError: the file is missing, unreadable, no regular file, or larger than that.
    """
    try:
        if path.is_dir():
            raise DataError(f"{path}: a folder, expected an image file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})", hint="check the path and its permissions"
        ) from error


def _refuse_oversized(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{name}: {image.width}x{image.height} pixels, at most {MAX_PIXELS} are decoded",
            hint="scale or tile the image first",
        )
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # the other pages of a phone's MPO are previews and depth maps
        raise DataError(f"{name}: {pages} pages or frames, expected one image", hint="split it into single images")


def _upright(image: Image.Image) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    return image if turned is None else turned


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _WIDE_MODES:
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > _MAX_16_BIT:
            raise DataError(f"{name}: pixel values {wide.min()}..{wide.max()}, expected 8 or 16 bits")
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError(f"{name}: floating-point pixels have no fixed range", hint="convert it to 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_shorter_side(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    shorter, longer = sorted(image.size)
    scaled = int(side * longer / shorter)
    size = (side, scaled) if image.width <= image.height else (scaled, side)
    return image.resize(size, resample)


def _crop_centre(image: Image.Image, contract: InputContract) -> Image.Image:
    left = round((image.width - contract.width) / 2)
    top = round((image.height - contract.height) / 2)
    return image.crop((left, top, left + contract.width, top + contract.height))
