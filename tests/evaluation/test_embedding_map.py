import numpy as np
import pytest
from PIL import Image

from siamjax.evaluation import embedding_map as module
from siamjax.evaluation.embedding_map import embedding_map, pca, tsne


def clusters(classes=3, each=8, d=6):
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((classes, d))
    rows = np.repeat(centres, each, 0) + rng.standard_normal((classes * each, d))
    return rows.astype(np.float32), [f"class {i // each}" for i in range(classes * each)]


def test_pca_is_the_singular_value_decomposition():
    rows, _ = clusters()
    flat, shares = pca(rows)
    centred = rows - rows.mean(0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(flat), np.abs(u[:, :2] * s[:2]), atol=1e-6)
    np.testing.assert_allclose(shares, s[:2] ** 2 / (s**2).sum(), atol=1e-9)


def test_pca_of_little():
    flat, shares = pca(np.array([[1.0], [3.0]], np.float32))
    np.testing.assert_allclose(np.abs(flat), [[1, 0], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(shares, [1, 0])
    flat, shares = pca(np.ones((3, 2), np.float32))
    assert not flat.any()
    assert not shares.any()


def test_tsne_keeps_neighbours_and_its_seed():
    rows, labels = clusters()
    flat = tsne(rows, seed=0)
    np.testing.assert_array_equal(flat, tsne(rows, seed=0))
    apart = np.square(flat[:, None] - flat).sum(-1)
    np.fill_diagonal(apart, np.inf)
    assert [labels[i] for i in apart.argmin(1)] == labels


def drawn(path):
    with Image.open(path) as image:
        return image.size, np.asarray(image.convert("RGB"))


def test_few_classes_have_colours_and_a_legend(tmp_path, monkeypatch):
    seen = {}
    original = module._legend
    monkeypatch.setattr(
        module, "_legend", lambda figure, labels: (original(figure, labels), seen.update(f=figure))
    )
    rows, labels = clusters()
    odd = {"class 0": "_a$b", "class 1": "", "class 2": "中\udcff\x1b"}
    labels = [odd[label] for label in labels]
    embedding_map(rows, labels, tmp_path / "new" / "map.png", title="t")
    assert drawn(tmp_path / "new" / "map.png")[0] == (1400, 740)
    texts = [text.get_text() for text in seen["f"].legends[0].get_texts()]
    assert texts == [r" _a\$b (8)", " (no class) (8)", r" 中\udcff\x1b (8)"]
    titles = [axes.get_title(loc="left") for axes in seen["f"].axes]
    assert titles == ["PCA of 24 images", "t-SNE of 24 images"]


def test_many_classes_show_images(tmp_path):
    rows, labels = clusters(classes=21, each=2)
    asked = []

    def thumbnail(place):
        asked.append(place)
        return np.full((4, 5, 3), (255, 0, 0), np.uint8)

    embedding_map(rows, labels, tmp_path / "map.png", title="t", thumbnail=thumbnail)
    assert 4 < len(set(asked)) <= len(rows)
    assert (drawn(tmp_path / "map.png")[1] == (255, 0, 0)).all(-1).sum() > 1000


def test_too_many_for_tsne_are_chosen_and_the_title_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_TSNE", 10)
    calls, titles = [], []
    monkeypatch.setattr(
        module,
        "tsne",
        lambda rows, seed: (calls.append(rows), np.ascontiguousarray(rows[:, :2]))[1],
    )
    monkeypatch.setattr(
        module, "_legend",
        lambda figure, labels: titles.extend(a.get_title(loc="left") for a in figure.axes),
    )  # fmt: skip
    rows, labels = clusters()
    for seed in (3, 3, 4):
        embedding_map(rows, labels, tmp_path / "map.png", title="t", seed=seed)
    assert [len(rows) for rows in calls] == [10] * 3
    np.testing.assert_array_equal(calls[0], calls[1])
    assert (calls[0] != calls[2]).any()
    assert titles[1] == "t-SNE of 10 of 24 images, chosen by seed 3"


def test_too_little_to_draw(tmp_path):
    rows, _ = clusters()
    embedding_map(rows[:3], ["a"] * 3, tmp_path / "few.png", title="t")
    embedding_map(np.ones((9, 4), np.float32), ["a"] * 9, tmp_path / "equal.png", title="t")
    with pytest.raises(ValueError, match="at least two images; got 1"):
        embedding_map(rows[:1], ["a"], tmp_path / "one.png", title="t")
