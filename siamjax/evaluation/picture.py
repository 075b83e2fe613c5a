"""Two images side by side with how alike they are."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import UInt8

from siamjax.data.splits import printable


def side_by_side(
    left: UInt8[np.ndarray, "h w c"],
    right: UInt8[np.ndarray, "h2 w2 c2"],
    similarity: float,
    path: str | os.PathLike[str],
    *,
    names: tuple[str, str] = ("", ""),
    threshold: float = 0.5,
) -> None:
    """Draws both images, their names, the similarity and the decision.

    Args:
        left: any size, 1 or 3 channels.
        right: the other.
        similarity: in 0..1.
        path: the picture to write.
        names: below each image.
        threshold: above it the decision is "same".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, image, name in zip(figure.subplots(1, 2), (left, right), names, strict=True):
        if image.shape[-1] == 1:
            axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
        else:
            axes.imshow(image)
        axes.set_xticks([])
        axes.set_yticks([])
        shown = printable(name)
        shown = shown if len(shown) < 36 else "…" + shown[-35:]
        axes.set_xlabel(shown, fontsize=9, parse_math=False)
    verdict = "same" if similarity > threshold else "different"
    figure.suptitle(f"similarity {similarity:.3f}: {verdict}", fontsize=14)
    figure.savefig(path, dpi=150)
