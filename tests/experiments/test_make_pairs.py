import numpy as np
from commands import command
from PIL import Image


def test_a_class_folder_becomes_pairs(tmp_path):
    rng = np.random.default_rng(0)
    for name in range(10):
        folder = tmp_path / "photos" / f"class{name}"
        folder.mkdir(parents=True)
        for i in range(5):
            noise = rng.integers(0, 256, (8, 9, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"{i}.png")
    arguments = [f"--data={tmp_path}/photos", f"--out={tmp_path}/out", "--pairs=20", "--size=16"]
    done = command("experiments.make_pairs", *arguments, f"--cache_dir={tmp_path}/c")
    assert done.returncode == 0, done.stderr
    assert "NOTE: held out for validation by seed 0: 2 of 10 classes" in done.stdout
    assert "16 training and 4 test pairs of 10 classes, 50 images" in done.stdout
    data = tmp_path / "out/init_data/data"
    assert len(list(data.glob("train/*/[ab].jpg"))) == 32
    assert len(list(data.glob("test/*/[ab].jpg"))) == 8
    assert len((data / "annos.csv").read_text().split()) == 21
    with Image.open(data / "test/17/a.jpg") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")
