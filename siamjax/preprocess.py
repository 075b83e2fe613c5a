"""`Preprocess`: how a file becomes the pixels a tower sees. It travels with the weights.

Training, evaluation, prediction and export all use the one object, so a picture means the same
pixels everywhere. What it does, in this order: EXIF orientation, 8 bits, transparent parts onto
white paper, grey or RGB, fit to the size, invert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from siamjax.config import ConfigDict

if TYPE_CHECKING:
    from PIL import Image

FITS = ("resize", "crop", "letterbox", "ink")
MARGIN = 1 / 12  # of paper on each side of what fit "ink" cuts out: room for warps
SMALLEST = 1 / 3  # of the image's shorter side: ink below it is not enlarged further
PAPER = 255  # white: what shows through transparent parts, and what letterbox pads with
MAX_PIXELS = 1 << 24  # of what a tower sees: a run from a stranger may ask for any size
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Preprocess:
    """Brings any image to `uint8 [h, w, c]`.

    Resampling is bilinear with antialiasing (Pillow's `BILINEAR`, whose support grows with the
    reduction). An image that has the size already is not resampled: its pixels pass unchanged, but
    by fit "ink".

    Attributes:
        size: (height, width) in pixels.
        fit: "resize" stretches; "crop" scales until the frame is filled and cuts the rest
            centrally; "letterbox" scales until the image fits, centres it and pads with white
            paper (255 before `invert`, so 0 after it); "ink" is a letterbox of only what is drawn,
            so place and size in the image no longer count. Paper is then the median of the image's
            rim, ink what differs from it at least half as much as the most different pixel; a
            twelfth of each side stays paper, and what is smaller than a third of the image's
            shorter side stays as much smaller.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
        invert: 255 - x after everything else.

    Raises:
        ValueError: if a setting is none of these.

    Example:
        >>> page = np.full((4, 2), 255, np.uint8)
        >>> Preprocess(size=(2, 2), fit="letterbox", invert=True)(page)[..., 0]
        array([[0, 0],
               [0, 0]], dtype=uint8)
    """

    size: tuple[int, int]
    fit: str = "resize"
    channels: int = 1
    invert: bool = False

    def __post_init__(self):
        size = tuple(self.size) if isinstance(self.size, tuple | list) else ()
        if len(size) != 2 or not all(isinstance(s, int | np.integer) and s > 0 for s in size):
            raise ValueError(f"size must be (height, width) in pixels; got {self.size!r}")
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(
                f"size {size!r} has more than {MAX_PIXELS:,} pixels: no tower takes it"
            )
        object.__setattr__(self, "size", (int(size[0]), int(size[1])))
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}; got {self.fit!r}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB); got {self.channels!r}")
        if not isinstance(self.invert, bool):
            raise ValueError(f"invert must be True or False; got {self.invert!r}")

    def __call__(self, image: Image.Image | np.ndarray) -> UInt8[np.ndarray, "h w c"]:
        """The pixels of one image.

        Args:
            image: a PIL image of any mode (of an animation, the first frame), or an array
                `[h, w]` or `[h, w, 1 | 3 | 4]` (the fourth channel is opacity) of uint8
                (0..255), uint16 (0..65535), bool (False black) or float (0..1).

        Returns:
            `uint8 [height, width, channels]`, 0..255.

        Raises:
            ValueError: if the array has another shape, type or range, or the image is empty.
        """
        from PIL import Image

        picture = plain(image if isinstance(image, Image.Image) else _from_array(image))
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        pixels = np.asarray(self._fitted(picture)).reshape(*self.size, self.channels)
        return 255 - pixels if self.invert else pixels.copy()

    def _fitted(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        height, width = self.size
        if image.size == (width, height) and self.fit != "ink":
            return image
        if self.fit == "resize":
            return image.resize((width, height), Image.Resampling.BILINEAR)
        if self.fit == "crop":
            # The box is in fractions of a pixel: rounding it would stretch the image a little.
            scale = max(height / image.height, width / image.width)
            box_w, box_h = width / scale, height / scale
            left, top = (image.width - box_w) / 2, (image.height - box_h) / 2
            left, top = max(left, 0.0), max(top, 0.0)
            right, bottom = min(left + box_w, image.width), min(top + box_h, image.height)
            return image.resize(
                (width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
            )
        paper, room, most = "white", 1.0, float("inf")
        if self.fit == "ink":
            paper, box = _ink(image)
            room = 1 - 2 * MARGIN
            most = room * min(width, height) / (SMALLEST * min(image.size))
            image = image.crop(box)
        scale = min(room * height / image.height, room * width / image.width, most)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if inner != image.size:
            image = image.resize(inner, Image.Resampling.BILINEAR)
        page = Image.new(image.mode, (width, height), paper)
        page.paste(image, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return page

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_dict`, also after a trip through JSON (lists for tuples).

        Raises:
            ValueError: if a key is missing, unknown, or has a value that cannot be.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"Preprocess has no {', '.join(unknown)}; it has {', '.join(sorted(known))}."
                " Was this written by a newer siamjax?"
            )
        if "size" not in values:
            raise ValueError("Preprocess needs a size: (height, width) in pixels")
        return cls(**values)


def plain(image: Image.Image) -> Image.Image:
    """A picture of any mode upright, in 8 bits, on white paper: what comes before the fitting.

    Raises:
        ValueError: if it is empty, or its values are out of range.
    """
    picture = _upright(image)
    if 0 in picture.size:
        raise ValueError(f"the image is empty: {picture.height}×{picture.width} pixels")
    return _opaque(_eight_bit(picture))


def preprocess_of(config: ConfigDict) -> Preprocess:
    """The preprocessing that `config.data` describes."""
    d: Any = config.data
    return Preprocess(size=tuple(d.size), fit=d.fit, channels=d.channels, invert=d.invert)


def _ink(image: Image.Image) -> tuple[Any, tuple[int, int, int, int]]:
    """The colour of the paper, and the box (left, top, right, bottom) of what is drawn on it.

    Of an image of one colour, the whole image.
    """
    values = np.asarray(image).reshape(image.height, image.width, -1).astype(np.int16)
    rim = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    paper = np.median(rim, axis=0).astype(np.int16)
    contrast = np.abs(values - paper).max(-1)
    drawn = 2 * contrast >= max(int(contrast.max()), 1)
    colour = int(paper[0]) if len(paper) == 1 else tuple(int(c) for c in paper)
    if not drawn.any():
        return colour, (0, 0, image.width, image.height)
    rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
    return colour, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _from_array(array: np.ndarray) -> Image.Image:
    from PIL import Image

    if isinstance(array, str | bytes) or not hasattr(array, "__array__"):
        raise ValueError(
            "an image must be a PIL image or an array; open a file with PIL.Image.open(path);"
            f" got {type(array).__name__}"
        )
    array = np.asarray(array)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            "an image array must have the shape [h, w] or [h, w, c] with c 1, 3 or 4"
            f" (channels last, one image at a time); got {list(array.shape)}"
        )
    if array.size == 0:
        raise ValueError(f"the image is empty: an array of shape {list(array.shape)}")
    array = _bytes_of(array)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _bytes_of(array: np.ndarray) -> UInt8[np.ndarray, "..."]:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _from_16_bits(array)
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not 0 <= low <= high <= 1:  # also False for NaN
            raise ValueError(
                f"a float image must lie in 0..1; got {low:g}..{high:g}."
                " For 0..255 pass array.astype(np.uint8)"
            )
        return np.rint(array * 255).astype(np.uint8)
    raise ValueError(
        "an image array must be uint8 (0..255), uint16 (0..65535), bool or float (0..1);"
        f" got {array.dtype}"
    )


def _from_16_bits(array: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """16 bits to 8: 65535 becomes 255, so 257 to one."""
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    if getattr(image, "is_animated", False):
        image.seek(0)
    return ImageOps.exif_transpose(image) if turned_by_exif(image) else image


def turned_by_exif(image: Image.Image) -> bool:
    """Whether an image's EXIF block says that it lies on its side, on its head or mirrored."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1) in range(2, 9)
    except Exception:  # a damaged EXIF block, of whatever kind, says nothing about the pixels
        return False


def _eight_bit(image: Image.Image) -> Image.Image:
    """The wide grey modes to L; all others as they are."""
    from PIL import Image

    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray(_bytes_of(values))
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"an image of mode {image.mode} must lie in 0..65535 (16 bits);"
            f" got {values.min()}..{values.max()}: scale it first"
        )
    grey = _from_16_bits(values)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = PAPER
    return Image.fromarray(grey)


def _opaque(image: Image.Image) -> Image.Image:
    """Transparent parts show white paper."""
    from PIL import Image

    if not image.has_transparency_data:
        # Pillow knows no direct way from these to grey.
        return image.convert("RGB") if image.mode in ("LAB", "HSV") else image
    # Premultiplied modes (La, RGBa) convert only to their own plain mode.
    plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    image = image.convert(plain).convert("RGBA")
    paper = Image.new("RGBA", image.size, (PAPER, PAPER, PAPER, 255))
    return Image.alpha_composite(paper, image).convert("RGB")
