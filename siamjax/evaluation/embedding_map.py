"""Embeddings as a map: what lies close together is alike to the network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from siamjax.data.splits import printable
from siamjax.evaluation.plots import DPI, FAINT, INK
from siamjax.types import typed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TSNE = 2000  # images: beyond, t-SNE takes minutes
MOST_CLASSES = 20  # told apart by colour
THUMBNAILS = 120  # on a panel


@typed
def embedding_map(
    embeddings: Float[np.ndarray, "n d"],
    labels: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str,
    seed: int = 0,
    thumbnail: Callable[[int], np.ndarray] | None = None,
) -> None:
    """Draws two maps: PCA, which keeps the large distances, and t-SNE, which keeps neighbours.

    Up to 20 classes are told apart by colour; of more, or of images without classes, some images
    themselves are drawn where they lie.

    Args:
        embeddings: of a run.
        labels: the class of each, "" for none.
        path: the picture to write.
        title: names the run and the images.
        seed: of t-SNE, and of what is chosen where not everything fits.
        thumbnail: gives the pixels `uint8 [h, w, c]` of an image by its place.

    Raises:
        ValueError: if there are fewer than two embeddings.

    References:
        van der Maaten and Hinton, "Visualizing data using t-SNE" (2008).
    """
    if len(embeddings) < 2:
        raise ValueError(f"a map needs at least two images; got {len(embeddings)}")
    rng = np.random.default_rng(seed)
    figure, (left, right) = _figure(title)
    flat, shares = pca(embeddings)
    left.set_title(f"PCA of {len(flat):,} images", loc="left", fontsize=12, color=INK)
    left.set_xlabel(f"component 1 ({100 * shares[0]:.0f} % of the variance)")
    left.set_ylabel(f"component 2 ({100 * shares[1]:.0f} %)")
    left.set_aspect("equal", adjustable="datalim")
    everything = np.arange(len(embeddings))
    _points(left, flat, everything, labels, thumbnail, rng)
    chosen = everything
    name = f"t-SNE of {len(chosen):,} images"
    if len(chosen) > MOST_TSNE:
        chosen = np.sort(rng.choice(len(chosen), MOST_TSNE, replace=False))
        name = f"t-SNE of {len(chosen):,} of {len(embeddings):,} images, chosen by seed {seed}"
    right.set_title(name, loc="left", fontsize=12, color=INK)
    right.set_xlabel("only neighbourhoods mean something here, no distances")
    right.set_xticks([])
    right.set_yticks([])
    if len(chosen) < 5 or not np.ptp(embeddings[chosen], 0).any():
        few = len(chosen) < 5
        text = "t-SNE needs at least 5 images" if few else "all embeddings are equal"
        right.text(0.5, 0.5, text, transform=right.transAxes, ha="center", color=INK)
    else:
        _points(right, tsne(embeddings[chosen], seed), chosen, labels, thumbnail, rng)
    _legend(figure, labels)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class may have any name
        figure.savefig(path)


@typed
def pca(
    rows: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "2"]]:
    """The two directions of most variance.

    Args:
        rows: at least one.

    Returns:
        Coordinates along them, and their shares of the whole variance, in 0..1.

    Example:
        >>> rows = np.array([[0.0, 0, 9], [2, 0, 9], [0, 1, 9], [2, 1, 9]])
        >>> flat, shares = pca(rows)
        >>> np.abs(flat[0]).round(6).tolist(), shares.round(2).tolist()
        ([1.0, 0.5], [0.8, 0.2])
    """
    wide = rows.astype(np.float64)
    wide = np.pad(wide - wide.mean(0), [(0, 0), (0, max(0, 2 - rows.shape[1]))])
    variances, directions = np.linalg.eigh(wide.T @ wide)
    variances = np.maximum(variances[::-1], 0)
    return wide @ directions[:, :-3:-1], variances[:2] / max(variances.sum(), 1e-300)


@typed
def tsne(rows: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    """t-SNE from the PCA, so that equal seeds give equal maps; at least 5 rows, not all equal."""
    from sklearn.manifold import TSNE

    start = pca(rows)[0]
    start = (start / start[:, 0].std() * 1e-4).astype(np.float32)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(rows)


def _figure(title: str) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, color=INK, parse_math=False)
    panels = figure.subplots(1, 2)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=9)
    return figure, panels


def _classes(labels: Sequence[str]) -> list[str]:
    """The classes that get a colour, in the order of the labels; none if they are too many."""
    classes = list(dict.fromkeys(labels))
    return classes if 1 < len(classes) <= MOST_CLASSES else []


def _colours(count: int) -> list[Any]:
    import matplotlib

    return list(matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors)  # type: ignore


def _points(
    axes: Axes,
    at: np.ndarray,
    images: Int[np.ndarray, "n"],
    labels: Sequence[str],
    thumbnail: Callable[[int], np.ndarray] | None,
    rng: np.random.Generator,
) -> None:
    """A dot for each image; thumbnails where there are no colours."""
    classes, area = _classes(labels), float(np.clip(30_000 / len(at), 3, 36))
    if not classes:
        axes.scatter(*at.T, s=area, color=FAINT, linewidths=0)
        if thumbnail:
            _thumbnails(axes, at, images, thumbnail, rng)
        return
    number = {name: i for i, name in enumerate(classes)}
    chosen = [number[labels[int(i)]] for i in images]
    colours = np.array(_colours(len(classes)))[chosen]
    # In a random order: no class lies over all the others.
    order = rng.permutation(len(at))
    axes.scatter(*at[order].T, s=area, c=colours[order], linewidths=0, alpha=0.8)


def _thumbnails(
    axes: Axes,
    at: np.ndarray,
    images: np.ndarray,
    thumbnail: Callable[[int], np.ndarray],
    rng: np.random.Generator,
) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for place in _apart(at, rng):
        pixels = thumbnail(int(images[place]))
        zoom = 26 / max(pixels.shape[:2])
        grey = pixels.shape[-1] == 1
        drawn = OffsetImage(
            pixels[..., 0] if grey else pixels,
            zoom=zoom,
            cmap="gray" if grey else None,
            norm=_byte_range() if grey else None,
        )
        box = {"edgecolor": FAINT, "linewidth": 0.5}
        axes.add_artist(AnnotationBbox(drawn, tuple(at[place]), pad=0.05, bboxprops=box))


def _apart(at: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Points chosen at random that lie far enough apart for a thumbnail each."""
    reach = float(np.ptp(at, 0).max()) or 1.0
    chosen: list[int] = []
    for place in rng.permutation(len(at)).tolist():
        if not chosen or (np.abs(at[chosen] - at[place]).max(1) > 0.06 * reach).all():
            chosen.append(place)
        if len(chosen) == THUMBNAILS:
            break
    return chosen


def _byte_range():
    from matplotlib.colors import Normalize

    return Normalize(0, 255)


def _legend(figure: Figure, labels: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    if not (classes := _classes(labels)):
        return
    count = {name: labels.count(name) for name in classes}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=c, markersize=7)
        for c in _colours(len(classes))[: len(classes)]
    ]
    # Matplotlib drops labels that begin with "_" and reads "$" as mathematics.
    texts = [f" {_short(printable(name) or '(no class)')} ({count[name]:,})" for name in classes]
    texts = [text.replace("$", r"\$") for text in texts]
    figure.legend(
        handles, texts, loc="outside lower center", ncols=5, frameon=False, fontsize=9,
        labelcolor=INK, handletextpad=0.1,
    )  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) < 30 else "…" + text[-28:]
