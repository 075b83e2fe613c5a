import numpy as np
import pytest
from PIL import Image
from untrained import untrained_run

import siamjax
from siamjax.hard_classes import find_hard_classes


@pytest.fixture(scope="module")
def comparator(tmp_path_factory):
    return siamjax.load(untrained_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def folder(tmp_path):
    """Ten classes of four noisy images; `twin` is `c3` by another name; `alone` has one image."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(40, 216, (10, 12, 12))
    named = {f"c{c}": patterns[c] for c in range(10)} | {"twin": patterns[3]}
    for name, pattern in named.items():
        (tmp_path / name).mkdir()
        for i in range(4):
            noisy = np.clip(pattern + rng.integers(-4, 5, (12, 12)), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "alone").mkdir()
    Image.new("L", (12, 12)).save(tmp_path / "alone/1.png")
    (tmp_path / "c0/broken.png").write_bytes(b"no")
    return tmp_path


def test_one_class_of_two_names_is_the_hardest(comparator, folder):
    found = find_hard_classes(comparator, folder)
    hardest, second = found.pairs[:2]
    assert {hardest.left, hardest.right} == {"c3", "twin"}
    assert hardest.auc < 0.75
    assert second.auc > 0.9
    assert hardest.across == 16
    assert [p.auc for p in found.pairs] == sorted(p.auc for p in found.pairs)
    assert found.compared.endswith("pairs of 11 classes, up to 10 images of each")
    assert found == find_hard_classes(comparator, folder)


def test_what_has_no_two_classes(comparator, folder, tmp_path):
    for name in (*(f"c{c}" for c in range(10)), "twin"):
        for path in sorted((folder / name).iterdir())[1:]:
            path.unlink()
    with pytest.raises(ValueError, match=r"has 0 class\(es\) with two readable images"):
        find_hard_classes(comparator, folder)


def test_pairs_have_no_classes(comparator, folder):
    (folder / "pairs.csv").write_text("left,right,same\nc0/0.png,c1/0.png,0\n")
    with pytest.raises(ValueError, match="states pairs, not classes"):
        find_hard_classes(comparator, folder / "pairs.csv")
