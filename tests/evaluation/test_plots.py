"""What is on the pictures: the axes are read back before they are saved."""

import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from siamjax.evaluation import plots


@pytest.fixture
def drawn(monkeypatch):
    """The last figure saved; saving still writes the file."""
    kept = []
    save = plots._save

    def keep(figure, path):
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return kept


def rows(penalty=0.0, steps=40):
    found = []
    for step in range(10, 10 * steps + 1, 10):
        bce = 0.7 * 0.99 ** (step / 10) + 0.02 * (step % 20 == 0)
        train = {"loss": bce + penalty, "bce": bce, "losses": [bce] * 10}
        found.append({"step": step, "split": "train", "epoch": None, "time": 1.0, **train})
        if step % 100 == 0:
            share = step / (10 * steps) * 0.8
            figures = {
                "one_shot_accuracy": share, "one_shot_low": share - 0.05, "auc": 0.9,
                "one_shot_high": share + 0.05, "pair_accuracy": 0.8, "best_accuracy": 0.85,
                "protocol": "within-alphabet 20-way 1-shot", "loss": bce + 0.1,
            }  # fmt: skip
            found.append(
                {"step": step, "split": "validation", "epoch": None, "time": 1.0, **figures}
            )
    return found


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def overlaps(figure):
    """Pairs of texts that cover each other on the canvas."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    texts = [figure._suptitle]
    for axes in figure.axes:
        texts += [*axes.texts, axes.title, axes._left_title]
        if axes.get_legend():
            texts += axes.get_legend().get_texts()
        if axes.axison:
            # Ticks beyond the ends of an axis are there, and not drawn.
            (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
            texts += [t for t in axes.get_xticklabels() if left <= t.get_position()[0] <= right]
            texts += [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
            texts += [axes.xaxis.label, axes.yaxis.label]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]
    assert len(boxes) > 10
    return [(a, b) for (a, p), (b, q) in itertools.combinations(boxes, 2) if p.overlaps(q)]


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def test_curves(tmp_path, drawn):
    plots.curves(rows(), tmp_path / "new" / "curves.png", title="Omniglot, Koch tower")
    (figure,) = drawn
    assert size_of(tmp_path / "new" / "curves.png") == (1000, 700)
    assert figure.get_suptitle() == "Omniglot, Koch tower"
    above, below = figure.axes
    assert labels(above) == ["training loss", "validation loss", "ln 2 = 0.693: same answer to all"]
    assert labels(below) == [
        "within-alphabet 20-way 1-shot (best 80.0 % at step 400)",
        "pairs, AUC (last 90.0 %)",
        "pairs, accuracy at the best threshold (last 85.0 %)",
        "pairs, accuracy at similarity 0.5 (last 80.0 %)",
    ]
    one_shot = lines(below)[labels(below)[0]]
    assert one_shot == pytest.approx(np.array([[100, 20], [200, 40], [300, 60], [400, 80]]))
    band = below.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((15, 85))
    assert lines(above)["ln 2 = 0.693: same answer to all"][0, 1] == pytest.approx(np.log(2))
    assert len(above.lines) == 4, "the raw loss lies behind the smoothed one"
    assert not overlaps(figure)


def test_curves_show_the_data_fit_under_a_penalty(tmp_path, drawn):
    plots.curves(rows(penalty=5.0), tmp_path / "c.png", title="t")
    above = drawn[0].axes[0]
    assert labels(above)[:3] == [
        "training loss", "of which bce, the data fit", "validation loss, data fit only",
    ]  # fmt: skip
    assert above.get_yscale() == "log", "or the data fit would be pressed flat"
    assert lines(above)["of which bce, the data fit"][:, 1].max() < 1
    assert not overlaps(drawn[0])


def test_curves_without_bce_have_no_constant_line(tmp_path, drawn):
    other = [{k: v for k, v in row.items() if k != "bce"} for row in rows()]
    plots.curves(other, tmp_path / "a.png", title="t")
    plots.curves(other, tmp_path / "b.png", title="t", loss="bce")
    found = [any("ln 2" in label for label in labels(f.axes[0])) for f in drawn]
    assert found == [False, True]


def test_curves_leave_out_what_is_not_there(tmp_path, drawn):
    some = [{**row} for row in rows()]
    some[3]["loss"] = None  # a NaN, as metrics.jsonl writes it
    for row in some:
        for name in ("protocol", "auc", "one_shot_low", "one_shot_high"):
            row.pop(name, None)
    plots.curves(some, tmp_path / "a.png", title="t")
    below = drawn[0].axes[1]
    assert labels(below)[0].startswith("one-shot, protocol not recorded (best 80.0 %")
    assert len(labels(below)) == 3
    assert not below.collections
    assert len(lines(drawn[0].axes[0])["training loss"]) == 39
    plots.curves(some, tmp_path / "a.png", title="t", protocol="koch-within")
    assert labels(drawn[1].axes[1])[0].startswith("koch-within (best")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_curves_of_one_split(tmp_path, drawn, split):
    plots.curves([r for r in rows() if r["split"] == split], tmp_path / "a.png", title="t")
    assert len(drawn) == 1


def test_smoothing_is_a_mean_that_stays_within_the_curve():
    values = np.array([0.0, 4.0] * 60)
    smooth = plots._smooth(values)
    half = len(values) // 40
    for i in range(len(values)):
        assert smooth[i] == pytest.approx(values[max(0, i - half) : i + half + 1].mean())
    assert plots._smooth(np.array([3.0])).tolist() == [3.0]


def epochs():
    found = []
    for epoch in range(1, 4):
        for part in (0.5, 1.0):
            train = {"loss": epoch + part, "pair_accuracy": 0.5 + epoch / 10}
            found.append({"step": 0, "epoch": epoch - 1 + part, "split": "train", **train})
        validation = {"loss": 2.0 * epoch, "pair_accuracy": 0.4 + epoch / 10}
        found.append({"step": 0, "epoch": float(epoch), "split": "validation", **validation})
    return found


def test_keras_plot_has_a_point_an_epoch(tmp_path, drawn):
    plots.keras_plot(epochs(), tmp_path / "plot.png")
    (axes,) = drawn[0].axes
    assert labels(axes) == ["train_loss", "val_loss", "train_acc", "val_acc"]
    assert lines(axes)["train_loss"].tolist() == [[1, 1.75], [2, 2.75], [3, 3.75]]
    assert lines(axes)["val_loss"].tolist() == [[1, 2], [2, 4], [3, 6]]
    assert lines(axes)["val_acc"] == pytest.approx(np.array([[1, 0.5], [2, 0.6], [3, 0.7]]))
    assert not overlaps(drawn[0])


def pairs(count=14, channels=1, size=(10, 10)):
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (2, count, *size, channels), np.uint8)
    same = np.arange(count) % 2 == 0
    similarity = rng.random(count).astype(np.float32)
    return left, right, same, similarity


def test_pair_grid(tmp_path, drawn):
    left, right, same, similarity = pairs()
    similarity[:4] = [0.9, 0.8, 0.5, 0.1]  # right, wrong, right (at the threshold), right
    plots.pair_grid(left, right, same, similarity, tmp_path / "pairs.png", title="Omniglot")
    assert size_of(tmp_path / "pairs.png")[0] == 1000
    (figure,) = drawn
    for axes, block, name in zip(figure.axes, (same, ~same), ("Same", "Diff"), strict=False):
        order = np.sort(similarity[block])[::-1]
        right_calls = (order >= 0.5) == (name == "Same")
        title = f"{right_calls.sum()} of 7 right"
        assert axes.get_title(loc="left").startswith(name)
        assert axes.get_title(loc="left").endswith(title)
        texts = [t.get_text() for t in axes.texts]
        marks = ["✓" if good else "✗" for good in right_calls]
        assert texts == [f"{m} {v:.2f}" for m, v in zip(marks, order, strict=True)]
        colours = [t.get_color() for t in axes.texts]
        assert colours == [plots.GREEN if good else plots.RED for good in right_calls]
        widths = [p.get_linewidth() for p in axes.patches]
        assert [w > 2 for w in widths] == [not good for good in right_calls]
        assert len(axes.images) == 14
        first = np.flatnonzero(block)[similarity[block].argmax()]
        assert np.array_equal(axes.images[0].get_array(), left[first, ..., 0])
        assert np.array_equal(axes.images[1].get_array(), right[first, ..., 0])
    assert labels(figure.axes[2]) == ["same class", "different classes", "threshold 0.5"]
    assert not overlaps(figure)


@pytest.mark.parametrize("size", [(10, 10), (8, 16), (16, 8)])
def test_pair_grid_keeps_the_shape_of_images(tmp_path, drawn, size):
    plots.pair_grid(*pairs(4, size=size), tmp_path / "a.png", title="t", columns=2)
    box = drawn[0].axes[0].images[0].get_window_extent()
    assert box.width / box.height == pytest.approx(size[1] / size[0], rel=0.02)


def test_pair_grid_of_colours_and_of_one_kind(tmp_path, drawn):
    left, right, same, similarity = pairs(6, channels=3)
    only = np.ones_like(same)
    plots.pair_grid(left, right, only, similarity, tmp_path / "a.png", title="t", threshold=0.3)
    grid, empty, histogram = drawn[0].axes
    assert grid.images[0].get_array().shape == (10, 10, 3)
    assert empty.get_title(loc="left") == "Different classes: 0 of 0 right"
    assert labels(histogram) == ["same class", "threshold 0.3"]


def test_nothing_global(tmp_path):
    sys.modules.pop("matplotlib.pyplot", None)
    plots.curves(rows(), tmp_path / "a.png", title="t")
    plots.pair_grid(*pairs(), tmp_path / "b.png", title="t")
    assert "matplotlib.pyplot" not in sys.modules


def test_errors(tmp_path):
    left, right, same, similarity = pairs()
    with pytest.raises(ValueError, match="no rows to draw"):
        plots.curves([], tmp_path / "a.png", title="t")
    with pytest.raises(ValueError, match="no rows with an epoch"):
        plots.keras_plot(rows(), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]; got .*\.\.4: give the head's"):
        plots.pair_grid(left, right, same, similarity + 4 - similarity.max(), "a.png", title="t")
    with pytest.raises(ValueError, match="no pairs to draw"):
        plots.pair_grid(left[:0], right[:0], same[:0], similarity[:0], "a.png", title="t")
    assert not list(tmp_path.iterdir())
