"""The charts of a run, each from what was logged or measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from siamjax.evaluation.verification import Verification
from siamjax.losses import LOSSES
from siamjax.report.chart import COLOURS, Axis, Chart, deviate, linear, logarithmic
from siamjax.report.markup import Markup
from siamjax.report.measured import EmbeddingMap
from siamjax.report.picture import data_uri

Rows = Sequence[Mapping[str, Any]]
LETTERS = "ABCDEFGHIJ"
PIECES = 250  # of the loss curve: beyond, steps are drawn as their mean and their range
LINES = (
    ("auc", "pairs: AUC", 4),
    ("best_accuracy", "pairs: accuracy at the best threshold", 3),
    ("pair_accuracy", "pairs: accuracy at similarity 0.5", 2),
)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as per cent.

    Example:
        >>> percent(0.4562), percent(None)
        ('45.6 %', 'unknown')
    """
    return "unknown" if share is None else f"{100 * share:.{digits}f} %"


# ------------------------------------------------------------------------------- of the training


def loss_chart(train: Rows, validation: Rows) -> Markup | None:
    """The training loss of every step, its data fit, and the validation loss."""
    steps, losses = every_loss(train)
    fits = [(name, *points(train, name)) for name in LOSSES if points(train, name)[0].size]
    held_out = points(validation, "loss")
    if not steps.size and not held_out[0].size:
        return None
    at, low, mean, high = pieces(steps, losses)
    drawn = np.concatenate([low, high, held_out[1], *(fit[2] for fit in fits)])
    last = int(max([*steps[-1:], *held_out[0][-1:]]))
    x, y = linear("training step", 0, last, whole=True), _loss_axis(drawn)
    text = f"Loss over {last:,} training steps"
    if losses.size:
        text += f": {losses[0]:.3g} at first, {mean[-1]:.3g} at the end"
    chart = Chart("loss", "Loss", text + ".", x, y)
    chart.band(at, low, high)
    chart.line(at, mean, "training loss" + (", mean and range" if len(at) < len(steps) else ""))
    for name, fit_steps, fit in fits:
        _, logged = points(train, "loss")
        if not np.array_equal(fit, logged):
            chart.line(fit_steps, fit, f"of which {name}, the data fit", colour=3, dash=1)
    if held_out[0].size:
        chart.line(*held_out, "validation loss", colour=2, dash=1, markers=True)
    if any(name == "bce" for name, *_ in fits):
        chart.horizontal(math.log(2), "ln 2 = 0.693: the same answer to every pair")
    return chart.figure()


def _loss_axis(values: np.ndarray) -> Axis:
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 30:  # a penalty or a blow-up would press the rest flat
        return logarithmic("loss (logarithmic)", low / 1.1, high * 1.1)
    return linear("loss", min(0.0, low), 1.05 * high if high > 0 else 1.0)


def validation_chart(validation: Rows, *, log_end: int) -> Markup | None:
    """One-shot accuracy with its interval, and the figures of pairs."""
    shares = points(validation, "one_shot_accuracy")
    others = [(*points(validation, key), name, colour) for key, name, colour in LINES]
    if not shares[0].size and not any(line[0].size for line in others):
        return None
    protocol = next((r["protocol"] for r in reversed(validation) if r.get("protocol")), None)
    text = "Validation figures over the training"
    if shares[0].size:
        text += f"; {protocol}: {percent(shares[1][0])} at first, {percent(shares[1][-1])} at last"
    end = max(log_end, int(validation[-1]["step"]))
    x = linear("training step", 0, end, whole=True)
    y = linear("validation (%)", 0, 1, percent=True)
    chart = Chart("validation", "Validation", text + ".", x, y)
    if shares[0].size:
        low, high = (points(validation, f"one_shot_{side}") for side in ("low", "high"))
        if np.array_equal(low[0], high[0]):
            chart.band(low[0], low[1], high[1])
        chart.line(*shares, f"{protocol}, 95 % interval", markers=True)
    for steps, values, name, colour in others:
        if steps.size:
            chart.line(steps, values, name, colour=colour, dash=colour - 1)
    return chart.figure()


def speed_chart(train: Rows) -> Markup | None:
    """Pairs a second over the run's time."""
    rows = [row for row in train if row.get("pairs_per_second") is not None]
    if not rows:
        return None
    minutes = np.array([row["time"] / 60 for row in rows])
    speed = np.array([row["pairs_per_second"] for row in rows])
    text = f"Median {np.median(speed):,.1f} pairs a second, from {speed.min():,.1f} to"
    chart = Chart(
        "speed",
        "Speed of the training steps",
        f"{text} {speed.max():,.1f}.",
        linear("minutes since the run began", 0, float(minutes.max())),
        linear("pairs a second", 0, 1.08 * float(speed.max())),
    )
    chart.line(minutes, speed, None, markers=len(rows) < 40)
    return chart.figure("Validation, checkpoints and compiling are left out of the speed.")


def points(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of a figure, of the rows that have it."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    return steps, values


def every_loss(train: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(steps, losses) of every step that was logged; a row's `losses` end at its step."""
    steps: list[float] = []
    losses: list[float] = []
    for row in train:
        each = row.get("losses") or [row.get("loss")]
        for back, loss in enumerate(reversed(each)):
            if loss is not None:
                steps.append(row["step"] - back)
                losses.append(loss)
    order = np.argsort(steps, kind="stable")
    return np.array(steps, np.float64)[order], np.array(losses, np.float64)[order]


def pieces(
    steps: np.ndarray, values: np.ndarray, most: int = PIECES
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(step, least, mean, most) of at most `most` pieces of a curve, or of 20 at least.

    Example:
        >>> pieces(np.arange(4.0), np.array([1.0, 3, 5, 9]), most=2)[2].tolist()
        [2.0, 7.0]
    """
    if not len(steps):
        return steps, values, values, values
    count = min(most, max(len(steps) // 4, min(len(steps), 20)))
    parts = np.array_split(np.arange(len(steps)), count)
    columns = [(steps[p].mean(), values[p].min(), values[p].mean(), values[p].max()) for p in parts]
    at, low, mean, high = np.array(columns).T
    return at, low, mean, high


# ---------------------------------------------------------------------------------- of the pairs


def roc_chart(v: Verification, name: str) -> Markup:
    """True against false accepts, with the card's thresholds."""
    chart = Chart(
        f"{name}-roc", "ROC", f"True against false accept rate; the area below is {v.auc:.4f}.",
        linear("false accepts (%)", 0, 1, percent=True),
        linear("true accepts (%)", 0, 1, percent=True),
    )  # fmt: skip
    chart.line(np.array([0.0, 1]), np.array([0.0, 1]), "chance", colour=0, dash=2)
    chart.line(v.roc[0], v.roc[1], f"AUC {v.auc:.4f}")
    if v.at:
        at = np.array([(d.false_matches, 1 - d.false_non_matches) for d in v.at.values()])
        chart.dots(at[:, 0], at[:, 1], "the card's thresholds", colour=2)
    return chart.figure()


def det_chart(v: Verification, name: str) -> Markup:
    """False non-matches against false matches, on normal deviates."""
    chart = Chart(
        f"{name}-det", "DET",
        "False non-match against false match rate, both axes spaced by normal deviates; they are"
        f" equal at {percent(v.eer, 2)}.",
        deviate("false matches (%)"), deviate("false non-matches (%)"),
    )  # fmt: skip
    inside = _on_deviates(v.det)
    chart.line(v.det[0, inside], v.det[1, inside], "this run")
    if v.eer > 0:
        chart.dots(np.array([v.eer]), np.array([v.eer]), f"EER {percent(v.eer, 2)}", colour=3)
    at = np.array([(d.false_matches, d.false_non_matches) for d in v.at.values()]).reshape(-1, 2).T
    if (shown := _on_deviates(at)).any():
        chart.dots(at[0, shown], at[1, shown], "the card's thresholds", colour=2)
    if not inside.any():
        return chart.figure("Empty: no threshold makes errors of both kinds on these pairs.")
    return chart.figure()


def _on_deviates(rates: np.ndarray) -> np.ndarray:
    """Which of the pairs of rates `[2, m]` lie on the axes of a DET curve."""
    return np.all((rates > 0.0005) & (rates < 0.95), axis=0)


def precision_recall_chart(v: Verification, name: str) -> Markup:
    """Precision against recall of "same"."""
    share = v.same / (v.same + v.different)
    chart = Chart(
        f"{name}-pr", "Precision and recall",
        "Precision against recall of the answer same; average precision"
        f" {v.average_precision:.4f}.",
        linear("recall (%)", 0, 1, percent=True), linear("precision (%)", 0, 1, percent=True),
    )  # fmt: skip
    chart.line(
        v.precision_recall[1], v.precision_recall[0], f"average precision {v.average_precision:.4f}"
    )
    chart.horizontal(share, f"chance: {percent(share)} of these pairs are the same")
    return chart.figure()


def reliability_chart(v: Verification, name: str) -> Markup | None:
    """Does similarity 0.8 mean that 80 % are the same?"""
    table = v.reliability
    if table is None:
        return None
    filled = table.pairs > 0
    chart = Chart(
        f"{name}-reliability", "Reliability",
        "Share of same pairs against the similarity that was claimed, in"
        f" {len(table.pairs)} bins; expected calibration error {table.error:.4f}.",
        linear("similarity claimed", 0, 1), linear("same pairs found (%)", 0, 1, percent=True),
    )  # fmt: skip
    chart.line(np.array([0.0, 1]), np.array([0.0, 1]), "as claimed", colour=0, dash=2)
    chart.line(
        table.claimed[filled], table.found[filled],
        f"found; calibration error (ECE) {table.error:.4f}", markers=True,
    )  # fmt: skip
    return chart.figure("Same and different pairs weigh the same in total.")


def histogram_chart(v: Verification, name: str) -> Markup | None:
    """How similar same and different pairs are, with the card's thresholds."""
    if v.histogram is None:
        return None
    edges = v.histogram[0]
    kinds = [row[:-1] / max(row.sum(), 1) for row in v.histogram[1:]]
    chart = Chart(
        f"{name}-histogram", "Similarity of the pairs",
        f"Histogram of the similarity of {v.same:,} same and {v.different:,} different pairs, with"
        " thresholds at "
        + (", ".join(f"{d.threshold:.3f} ({n})" for n, d in v.at.items()) or "none") + ".",
        linear("similarity", 0, 1),
        linear("share of the pairs (%)", 0, 1.05 * max(k.max() for k in kinds), percent=True),
    )  # fmt: skip
    for kind, label, colour in zip(kinds, ("same", "different"), (1, 2), strict=True):
        chart.steps(edges, kind, label, colour=colour)
    for row, (letter, (key, d)) in enumerate(zip(LETTERS, v.at.items(), strict=False)):
        chart.mark(d.threshold, letter, f"{key} {d.threshold:.3f}", row)
    return chart.figure()


def map_chart(m: EmbeddingMap, name: str) -> Markup:
    """The PCA of the embeddings."""
    n, classes = len(m.at), list(dict.fromkeys(m.labels))
    named = not m.thumbnails and len(classes) > 1
    low, high = m.at.min(0), m.at.max(0)
    room = 0.06 * np.maximum(high - low, 1e-9)
    axes = [
        linear(f"component {i + 1} ({percent(m.shares[i], 0)} of the variance)", a, b)
        for i, (a, b) in enumerate(zip(low - room, high + room, strict=True))
    ]
    chart = Chart(
        f"{name}-map", "Map of the embeddings (PCA)",
        f"The first two principal components of {n:,} embeddings of {m.total:,} images"
        + (f" of {len(classes)} classes." if named else "."), *axes,
    )  # fmt: skip
    if not named:
        chart.dots(m.at[:, 0], m.at[:, 1], None)
        for place, image in m.thumbnails.items():
            x, y = m.at[place].tolist()
            chart.picture(x, y, data_uri(image, 40))
    else:
        labels = np.array([classes.index(label) for label in m.labels])
        for i in range(len(classes)):
            x, y = m.at[labels == i].T
            chart.dots(x, y, None, colour=i % COLOURS + 1)
        for i, label in enumerate(classes):
            word = label if len(label) <= 14 else "…" + label[-13:]
            x, y = np.median(m.at[labels == i], axis=0).tolist()
            chart.word(x, y, word)
    which = f"{n:,} of {m.total:,} images, drawn at random" if n < m.total else f"{n:,} images"
    how = "each class named at its middle" if named else "some of them drawn where they lie"
    return chart.figure(f"{which}; {how}.")
