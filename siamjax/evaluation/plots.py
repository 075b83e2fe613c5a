"""Pictures of a run: its curves, and pairs with what the network thinks of them.

Drawn on a `Figure` with the Agg canvas: no window, no pyplot, nothing global.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from siamjax.losses import LOSSES
from siamjax.types import typed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, SKY, ORANGE = "#0072B2", "#56B4E9", "#E69F00"
GREEN, RED, PURPLE = "#009E73", "#D55E00", "#AA4499"
INK, FAINT = "#333333", "#8A8A8A"
DPI = 100
LN2 = math.log(2)

# A row of metrics has the data fit, the loss without penalties, under the name of the loss.
DATA_FITS = tuple(LOSSES)
PAIR_LINES = (
    ("auc", "pairs, AUC", PURPLE),
    ("best_accuracy", "pairs, accuracy at the best threshold", GREEN),
    ("pair_accuracy", "pairs, accuracy at similarity 0.5", ORANGE),
)


def curves(
    rows: Rows,
    path: str | os.PathLike[str],
    *,
    title: str,
    protocol: str | None = None,
    loss: str | None = None,
) -> None:
    """Draws loss and validation figures against the step.

    Above, the training loss: light as it came, bold smoothed; also its data-fit part and the
    validation loss where the rows have them, and for binary cross-entropy the line at
    ln 2 = 0.693, the loss of a network that answers the same to every pair. Below, one-shot
    accuracy with its interval, and the pair figures.

    Args:
        rows: of metrics.jsonl. Used are `step`, `split`, `loss` and `bce` (or another name in
            `DATA_FITS`) of both splits, and `one_shot_accuracy`, `one_shot_low`, `one_shot_high`,
            `protocol`, `auc`, `best_accuracy`, `pair_accuracy` of the validation.
        path: the picture to write; its ending chooses the format.
        title: names the run and the data really used.
        protocol: of the one-shot accuracy; None: as the rows say.
        loss: name of the loss; None: "bce" if the rows have that figure.

    Raises:
        ValueError: if the rows have nothing to draw.
    """
    train = [r for r in rows if r["split"] == "train"]
    validation = [r for r in rows if r["split"] == "validation"]
    if not (_line(train, "loss")[0].size or validation):
        raise ValueError("no rows to draw: curves needs train rows with a loss, or validation rows")
    figure, (above, below) = _figure(10, 7, rows=2, sharex=True, title=title)
    _loss_panel(above, train, validation, loss)
    _validation_panel(below, validation, protocol)
    below.set_xlabel("training step")
    below.locator_params(axis="x", integer=True)
    below.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    _save(figure, path)


def keras_plot(rows: Rows, path: str | os.PathLike[str]) -> None:
    """Draws train and validation loss and accuracy per epoch: the plot.png of the Keras tutorials.

    Args:
        rows: of metrics.jsonl, with `epoch`. Train figures are averaged over an epoch, as Keras
            does; of the validation the epoch's last counts. Accuracy is `pair_accuracy`.
        path: the picture to write.

    Raises:
        ValueError: if no row has an epoch.
    """
    by_epoch: dict[str, dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get("epoch") is not None:
            by_epoch[row["split"]][math.ceil(row["epoch"])].append(row)
    if not by_epoch:
        raise ValueError("no rows with an epoch: keras_plot draws runs of train.mode='epochs'")
    figure, (axes,) = _figure(8, 6, title="Training loss and accuracy")
    for figure_name, short in (("loss", "loss"), ("pair_accuracy", "acc")):
        for split, prefix, colour in (("train", "train", BLUE), ("validation", "val", RED)):
            points = []
            for epoch, group in sorted(by_epoch[split].items()):
                _, values = _line(group, figure_name)
                if values.size:
                    points.append((epoch, values.mean() if split == "train" else values[-1]))
            if points:
                style = "-" if short == "loss" else "--"
                marker = "o" if len(points) < 25 else None
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, marker=marker, markersize=4,
                    label=f"{prefix}_{short}",
                )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss / accuracy")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    _legend(axes)
    _save(figure, path)


@typed
def pair_grid(
    left: UInt8[np.ndarray, "p h w c"],
    right: UInt8[np.ndarray, "p h w c"],
    same: Bool[np.ndarray, "p"],
    similarity: Float[np.ndarray, "p"],
    path: str | os.PathLike[str],
    *,
    title: str,
    columns: int = 3,
    threshold: float = 0.5,
) -> None:
    """Draws pairs with their similarity: same-class pairs on the left, different on the right.

    In each block the most alike come first. A thin green frame and a tick say that
    `similarity >= threshold` is right, a thick red frame and a cross that it is wrong. Below, the
    similarities of all pairs.

    Args:
        left: images `[p, h, w, c]`, c = 1 or 3.
        right: the other image of each pair.
        same: the truth.
        similarity: of each pair, in [0, 1].
        path: the picture to write; it is 1,000 pixels wide.
        title: names the run and the data really used.
        columns: pairs side by side in each block.
        threshold: from where on a pair is called same.

    Raises:
        ValueError: if there are no pairs, or a similarity is not in [0, 1].
    """
    if not len(same):
        raise ValueError("no pairs to draw: pair_grid needs at least one")
    if not ((similarity >= 0) & (similarity <= 1)).all():
        raise ValueError(
            f"similarities must lie in [0, 1]; got {similarity.min():.3g}..{similarity.max():.3g}:"
            " give the head's similarity, not its logit or distance"
        )
    height, width = left.shape[1:3]
    wide, tall = 2 * width / height + 0.45, 1.5  # a cell, in image heights
    blocks = [np.flatnonzero(same), np.flatnonzero(~same)]
    lines = max(1, *(math.ceil(len(b) / columns) for b in blocks))
    inches = 4.55 / (columns * wide) * lines * tall
    figure, panels = _figure(10, inches + 3.3, title=title, mosaic=(inches + 0.5, 1.9))
    for axes, block, name in zip(panels, blocks, ("Same class", "Different classes"), strict=False):
        block = block[np.argsort(-similarity[block], kind="stable")]
        right_calls = (similarity[block] >= threshold) == same[block]
        axes.set_title(
            f"{name}: {right_calls.sum()} of {len(block)} right", loc="left", fontsize=12, color=INK
        )
        axes.set_axis_off()
        axes.set_xlim(0, columns * wide)
        axes.set_ylim(lines * tall, 0)
        for place, (pair, good) in enumerate(zip(block, right_calls, strict=True)):
            x, y = place % columns * wide + 0.15, place // columns * tall + 0.1
            _draw_pair(axes, x, y, left[pair], right[pair], float(similarity[pair]), bool(good))
        axes.set_aspect("equal", anchor="N")  # after the images, each of which sets its own
    _histogram(panels[2], same, similarity, threshold)
    _save(figure, path)


def _draw_pair(
    axes: Axes, x: float, y: float, left: np.ndarray, right: np.ndarray, value: float, good: bool
) -> None:
    from matplotlib.patches import Rectangle

    width = left.shape[1] / left.shape[0]
    for i, image in enumerate((left, right)):
        start = x + i * (width + 0.03)
        picture = image[..., 0] if image.shape[-1] == 1 else image
        extent = (start, start + width, y + 1, y)
        axes.imshow(picture, extent=extent, cmap="gray", vmin=0, vmax=255, aspect="auto")
    colour = GREEN if good else RED
    line = 1.6 if good else 3.4
    axes.add_patch(
        Rectangle((x, y), 2 * width + 0.03, 1, fill=False, edgecolor=colour, linewidth=line)
    )
    axes.plot([x + width + 0.015] * 2, [y, y + 1], color=colour, linewidth=0.8)
    axes.text(
        x + width, y + 1.06, f"{'✓' if good else '✗'} {value:.2f}", color=colour, fontsize=10,
        fontweight="normal" if good else "bold", ha="center", va="top",
    )  # fmt: skip


def _histogram(axes: Axes, same: np.ndarray, similarity: np.ndarray, threshold: float) -> None:
    bins: list[float] = np.linspace(0, 1, 21 if len(same) < 200 else 51).tolist()
    for keep, name, colour in ((same, "same class", BLUE), (~same, "different classes", ORANGE)):
        if keep.any():
            axes.hist(
                similarity[keep], bins, histtype="stepfilled", alpha=0.45, color=colour,
                edgecolor=colour, linewidth=1.4, label=name,
            )  # fmt: skip
    label = f"threshold {threshold:g}"
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label=label)
    axes.set_xlim(0, 1)
    axes.set_xlabel("similarity")
    axes.set_ylabel("pairs")
    axes.locator_params(axis="y", integer=True)
    _legend(axes, columns=3)


def _loss_panel(axes: Axes, train: Rows, validation: Rows, loss: str | None) -> None:
    drawn = []
    steps, values = _line(train, "loss")
    if values.size:
        axes.plot(steps, values, color=SKY, linewidth=0.8, alpha=0.6)
        axes.plot(steps, _smooth(values), color=BLUE, linewidth=2.2, label="training loss")
        drawn.append(_smooth(values))
    penalised = False
    for name in DATA_FITS:
        steps, fit = _line(train, name)
        if fit.size and not np.array_equal(fit, values):
            label = f"of which {name}, the data fit"
            axes.plot(steps, _smooth(fit), color=ORANGE, linewidth=2.2, label=label)
            drawn.append(_smooth(fit))
            penalised = True
    steps, held_out = _line(validation, "loss")
    if held_out.size:
        label = "validation loss" + (", data fit only" if penalised else "")
        axes.plot(steps, held_out, color=RED, marker="o", markersize=3.5, label=label)
        drawn.append(held_out)
    if loss == "bce" or (loss is None and _line(train, "bce")[0].size):
        axes.axhline(
            LN2, color=FAINT, linestyle=":", linewidth=1.4, label="ln 2 = 0.693: same answer to all"
        )  # fmt: skip
        drawn.append(np.array([LN2]))
    axes.set_ylabel("loss")
    values = np.concatenate(drawn) if drawn else np.ones(1)
    lowest, highest = float(values.min()), float(values.max())
    # A penalty or a blow-up would press the rest of the picture flat.
    if lowest > 0 and highest / lowest > (8 if penalised else 30):
        _log_scale(axes, lowest, highest)
    else:
        axes.set_ylim(bottom=min(0.0, lowest))
    _legend(axes)


def _log_scale(axes: Axes, lowest: float, highest: float) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.set_ylim(lowest / 1.6, highest * 1.3)
    axes.set_ylabel("loss (log scale)")
    decades = math.log10(highest / lowest)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")


def _validation_panel(axes: Axes, validation: Rows, protocol: str | None) -> None:
    steps, share = _line(validation, "one_shot_accuracy")
    if share.size:
        names = [r["protocol"] for r in validation if r.get("protocol")]
        name = protocol or (names[-1] if names else "one-shot, protocol not recorded")
        best = int(share.argmax())
        axes.plot(
            steps, 100 * share, color=BLUE, linewidth=2.2, marker="o", markersize=4,
            label=f"{name} (best {100 * share[best]:.1f} % at step {steps[best]:,.0f})",
        )  # fmt: skip
        low_steps, low = _line(validation, "one_shot_low")
        high_steps, high = _line(validation, "one_shot_high")
        if low.size and np.array_equal(low_steps, high_steps):
            axes.fill_between(low_steps, 100 * low, 100 * high, color=BLUE, alpha=0.15, linewidth=0)
    for key, name, colour in PAIR_LINES:
        steps, values = _line(validation, key)
        if values.size:
            label = f"{name} (last {100 * values[-1]:.1f} %)"
            axes.plot(steps, 100 * values, color=colour, linewidth=1.6, linestyle="--", label=label)
    axes.set_ylim(0, 102)
    axes.set_ylabel("validation (%)")
    _legend(axes)


def _line(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of a figure, also under "train/<name>"; rows without it are left out."""
    found = [(r["step"], r.get(name, r.get(f"{r['split']}/{name}"))) for r in rows]
    points = [(step, value) for step, value in found if value is not None]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return steps, values


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over about a twentieth of the curve around each point, as far as there is one."""
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def _figure(
    width: float,
    height: float,
    *,
    title: str,
    rows: int = 1,
    sharex: bool = False,
    mosaic: tuple[float, float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure in inches with its axes: `rows` below each other, or two above one (`mosaic`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(wspace=0.06 if mosaic else None)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=engine)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, color=INK, parse_math=False)
    if mosaic:
        grid = figure.subplot_mosaic([["a", "b"], ["c", "c"]], height_ratios=mosaic)
        panels = [grid[k] for k in "abc"]
    else:
        panels = list(np.atleast_1d(figure.subplots(rows, 1, sharex=sharex)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=10)
        axes.grid(True, axis="y", color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def _legend(axes: Axes, columns: int = 2) -> None:
    """A legend above the panel, where it can cover nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
            fontsize=10, borderaxespad=0.2, labelcolor=INK, handlelength=1.8,
        )  # fmt: skip


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
