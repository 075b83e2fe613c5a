import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained import untrained_run

import siamjax
from siamjax.demo import Demo, page
from siamjax.gallery import Gallery


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return Demo(siamjax.load(untrained_run(folder)), folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i, array in enumerate(np.random.default_rng(0).integers(0, 256, (3, 20, 20), np.uint8)):
        Image.fromarray(array).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(3)]


def opened(path):
    with Image.open(path) as image:
        return image.copy()


def test_two_images_get_a_verdict_and_a_picture(demo, files):
    left, right = (opened(file) for file in files[:2])
    text, picture = demo.compare(left, right)
    expected = demo.comparator.similarity(files[0], files[1])
    assert f"similarity **{expected:.3f}**" in text
    assert text.startswith("## same" if expected >= 0.5 else "## different")
    with Image.open(picture) as image:
        assert image.width > 500
    assert demo.compare(left, left)[0].startswith("## same")
    strict, _ = demo.compare(left, right, "calibrated")
    assert strict == text


def test_an_empty_side_is_asked_for(demo, files):
    assert demo.compare(None, opened(files[0])) == ("Drop an image on each side.", None)
    assert demo.search(None)[1] == []


def test_a_gallery_is_filled_and_asked(files, demo, tmp_path):
    mine = Demo(demo.comparator, tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    assert mine.add(None) == "The gallery holds 0 images."
    said = mine.add([*files, str(broken)])
    assert said.startswith("3 added; the gallery holds 3 images.")
    assert "broken.png" in said
    assert "is there already" in mine.add(files[:1])
    answer, shown = mine.search(opened(files[2]))
    assert answer.startswith("## 2.png")
    assert next(Path(path).name for path, _ in shown) == "2.png"
    assert len(shown) == 3


def test_an_index_shows_the_files_it_was_built_from(files, demo, tmp_path):
    gallery = Gallery.build(demo.comparator, Path(files[0]).parent)
    _, shown = Demo(demo.comparator, tmp_path, gallery).search(opened(files[1]))
    assert next(Path(path).name for path, _ in shown) == "1.png"


PAGE = """
import sys, siamjax
from siamjax.demo import Demo, page
blocks = page(Demo(siamjax.load(sys.argv[1]), sys.argv[1]))
print(sorted(f.api_name for f in blocks.fns.values()))
"""


def test_the_page_has_both_tabs_or_says_what_is_missing(demo):
    if importlib.util.find_spec("gradio") is None:
        with pytest.raises(ValueError, match=r"pip install 'siamjax\[demo\]'"):
            page(demo)
        return
    # In a process of its own: gradio leaves an event loop open.
    line = [sys.executable, "-c", PAGE, str(demo._folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['add', 'compare', 'search']"
