"""A picture of why two images are alike or not: both, with maps laid over them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from siamjax.data.splits import printable
from siamjax.evaluation.plots import DPI, FAINT, INK
from siamjax.types import typed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EQUAL = "the images are equal,\nthe score is at its peak,\nwhere its slope is 0"
FLAT = "the score does not\nreact to this image"


@typed
def explanation(
    images: Sequence[UInt8[np.ndarray, "h w c"]],
    occlusion: Sequence[Float[np.ndarray, "h w"]],
    gradient: Sequence[Float[np.ndarray, "h w"]],
    path: str | os.PathLike[str],
    *,
    similarity: float,
    threshold: float,
    names: Sequence[str],
    origin: str,
    patch: int,
) -> None:
    """Draws a row for each of two images: itself, its occlusion map, its gradient map.

    The maps of one kind share a scale, so the two images can be compared. A map of zeros says
    so.

    Args:
        images: what the tower sees of the two.
        occlusion: loss of score; above 0 where an image is like the other.
        gradient: at least 0.
        path: the picture to write.
        similarity: of the two, in 0..1.
        threshold: from there on they count as same.
        names: of the images.
        origin: of the run.
        patch: side of the covered square in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    verdict = "same" if similarity >= threshold else "different"
    figure.suptitle(
        f"similarity {similarity:.3f}: {verdict} (threshold {threshold:.3g})\n{origin}",
        fontsize=13, color=INK, parse_math=False,
    )  # fmt: skip
    panels = figure.subplots(2, 3)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(FAINT)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        _image(panels[row, 0], image)
        shown = printable(name)
        short = shown if len(shown) < 36 else "…" + shown[-35:]
        panels[row, 0].set_xlabel(short, fontsize=10, color=INK, parse_math=False)
    _column(panels[:, 1], images, occlusion, "RdBu_r", f"{patch}×{patch} pixels covered",
            "score lost: red alike, blue unlike", signed=True)  # fmt: skip
    _column(panels[:, 2], images, gradient, "inferno", "gradient",
            "|d score / d pixel|", signed=False)  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a file may have any name
        figure.savefig(path)


def _image(axes: Axes, image: np.ndarray, faint: bool = False) -> None:
    """The image, or a grey one without black, which a map can be laid over."""
    picture = image[..., 0] if image.shape[-1] == 1 else image
    if faint:
        picture = 90 + 0.65 * image.mean(-1)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)


def _column(
    panels: Sequence[Axes],
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    colours: str,
    title: str,
    label: str,
    *,
    signed: bool,
) -> None:
    most = max(float(np.abs(map_).max()) for map_ in maps)
    panels[0].set_title(title, fontsize=12, color=INK)
    drawn = None
    for axes, image, map_ in zip(panels, images, maps, strict=True):
        _image(axes, image, faint=True)
        if not map_.any():
            equal = np.array_equal(images[0], images[1])
            axes.text(
                0.5, 0.5, f"0 everywhere:\n{EQUAL if equal else FLAT}",
                transform=axes.transAxes, ha="center", va="center", fontsize=11, color=INK,
                bbox={"facecolor": "white", "edgecolor": FAINT, "alpha": 0.9},
            )  # fmt: skip
            continue
        # What says little lets the image through.
        drawn = axes.imshow(
            map_, cmap=colours, vmin=-most if signed else 0, vmax=most,
            alpha=0.9 * (np.abs(map_) / most) ** 0.5,
        )  # fmt: skip
    if drawn is not None:
        bar = panels[0].figure.colorbar(drawn, ax=list(panels), shrink=0.7, location="right")
        bar.set_label(label, color=INK)
        if bar.solids is not None:
            bar.solids.set_alpha(1)
