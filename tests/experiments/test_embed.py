"""The commands embed and explain as a user runs them."""

import numpy as np
import pytest
from commands import command
from PIL import Image
from untrained import untrained_run

import siamjax


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    untrained_run(folder / "run")
    rng = np.random.default_rng(0)
    for i in range(9):
        path = folder / "photos" / f"class{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (14, 12), np.uint8)).save(path)
    return folder


def test_a_folder_becomes_a_file_and_a_map(place):
    (place / "photos/class1/bad.png").write_text("no")
    done = command("experiments.embed", place / "photos", f"--workdir={place / 'run'}",
                   f"--out={place / 'e.npz'}", f"--map={place / 'map.png'}")  # fmt: skip
    assert done.returncode == 1
    assert "9 images, 8 numbers each" in done.stdout
    assert "bad.png cannot be read as an image" in done.stderr
    with np.load(place / "e.npz", allow_pickle=False) as file:
        paths, labels, z = file["paths"].tolist(), file["labels"].tolist(), file["embeddings"]
    assert paths[:4] == ["class0/0.png", "class0/3.png", "class0/6.png", "class1/1.png"]
    assert labels == ["class0"] * 3 + ["class1"] * 3 + ["class2"] * 3
    expected = siamjax.load(place / "run").embed([place / "photos" / path for path in paths])
    np.testing.assert_allclose(z, expected, atol=1e-5)
    with Image.open(place / "map.png") as image:
        assert image.size == (1400, 740)


def test_two_images_become_a_picture(place):
    images = [place / "photos" / name for name in ("class0/0.png", "class1/1.png")]
    done = command("experiments.explain", *images, f"--workdir={place / 'run'}",
                   f"--out={place / 'why.png'}", "--patch=4")  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = siamjax.load(place / "run").similarity(*images)
    assert done.stdout.startswith(f"{place / 'why.png'}: similarity {expected:.4f}: ")
    with Image.open(place / "why.png") as image:
        assert image.size == (1100, 760)
    done = command("experiments.explain", images[0], f"--workdir={place / 'run'}", "--out=x.png")
    assert done.returncode == 1
    assert "error: give two images" in done.stderr
