"""Lake's layout, as a folder and as a zip; what is refused; and his own demo as the oracle."""

import shutil
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from lake_layout import random_runs, write_runs, zipped
from PIL import Image
from scipy.spatial.distance import cdist

from siamjax.data.omniglot import read_paths
from siamjax.evaluation import one_shot
from siamjax.evaluation.baselines import BASELINES
from siamjax.evaluation.lake_runs import find_runs, read_runs
from siamjax.evaluation.protocols import score_lake
from siamjax.preprocess import Preprocess

SMALL = Preprocess(size=(12, 12))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake") / "all_runs"
    answers = random_runs(folder)
    return folder, answers


@pytest.fixture
def copy(runs, tmp_path):
    return Path(shutil.copytree(runs[0], tmp_path / "all_runs"))


def demo_errors(folder, run, queries=20):
    """Which of a run's queries Lake's demo_classification.py gets wrong."""

    def points(path):
        ink = ~np.array(Image.open(path), bool)
        at = np.array(ink.nonzero()).T.astype(float)
        return at - at.mean(0)

    pairs = [line.split() for line in (folder / run / "class_labels.txt").read_text().splitlines()]
    tests, trains = sorted(p[0] for p in pairs), sorted(p[1] for p in pairs)
    answers = [p[1] for p in pairs]
    cost = np.zeros((queries, 20))
    for i, test in enumerate(tests[:queries]):
        for c, train in enumerate(trains):
            d = cdist(points(folder / test), points(folder / train))
            cost[i, c] = max(d.min(1).mean(), d.min(0).mean())
    return [trains[row.argmin()] != answers[i] for i, row in enumerate(cost)]


def test_trials_are_what_the_list_says(runs):
    folder, answers = runs
    found = read_runs(folder, SMALL)
    e = found.episodes
    assert (e.protocol, e.support.shape, e.query.shape) == ("lake-20runs", (400, 20, 1), (400,))
    np.testing.assert_array_equal(e.answer, answers.ravel())
    np.testing.assert_array_equal(found.run, np.repeat(np.arange(20), 20))
    assert found.run_names == tuple(f"run{i:02}" for i in range(1, 21))
    assert len(found.images) == len(set(found.paths)) == 800
    assert len(np.unique(np.concatenate([e.query, e.support.ravel()]))) == 800
    for t in (0, 25, 399):
        run = found.run_names[found.run[t]]
        assert found.paths[e.query[t]] == f"{run}/test/item{t % 20 + 1:02}.png"
        assert found.paths[e.support[t, 7, 0]] == f"{run}/training/class08.png"
        file = np.array(Image.open(folder / found.paths[e.query[t]]).convert("L"))
        np.testing.assert_array_equal(found.images[e.query[t], ..., 0], file)
    assert found.of_run(3).support.shape == (20, 20, 1)
    np.testing.assert_array_equal(found.of_run(3).answer, answers[3])


def test_hausdorff_has_the_error_of_lakes_demo(runs):
    folder, _ = runs
    found, hausdorff = read_runs(folder, SMALL), BASELINES["hausdorff"]
    z = hausdorff.embed(found.images)
    errors = []
    for run in (0, 19):
        result = one_shot.evaluate(z, hausdorff.score, found.of_run(run), chunk=400)
        errors.append(1 - result.accuracy)
        assert errors[-1] == pytest.approx(np.mean(demo_errors(folder, found.run_names[run])))
    assert 0.05 < np.mean(errors) < 0.95, "neither all right nor all wrong, or this shows nothing"


def test_the_error_of_each_run_and_of_all(runs):
    found, cosine = read_runs(runs[0], SMALL), BASELINES["pixel-cosine"]
    result, z = score_lake(cosine, found), cosine.embed(found.images)
    whole = one_shot.evaluate(z, cosine.score, found.episodes)
    assert result.total.accuracy == pytest.approx(whole.accuracy)
    for run in (3, 11):
        alone = one_shot.evaluate(z, cosine.score, found.of_run(run))
        assert result.errors[run] == pytest.approx(1 - alone.accuracy)
    first, second = str(result).split("\n")
    assert first == str(whole)
    assert first.startswith("lake-20runs 20-way 1-shot: ")
    e = 100 * result.errors
    expected = f"mean {e.mean():.2f} %, min {e.min():.1f} %, max {e.max():.1f} % (20 runs)"
    assert second == f"  error per run: {expected}"
    assert len(set(e)) > 1


@pytest.mark.parametrize(("inside", "macos"), [("", False), ("all_runs/", True)])
def test_a_zip_gives_what_its_folder_gives(runs, tmp_path, inside, macos):
    place = zipped(runs[0], tmp_path / "all_runs.zip", inside=inside, macos=macos)
    found, expected = read_runs(place, SMALL), read_runs(runs[0], SMALL)
    np.testing.assert_array_equal(found.images, expected.images)
    for field in ("query", "support", "answer"):
        a, b = getattr(found.episodes, field), getattr(expected.episodes, field)
        np.testing.assert_array_equal(a, b)
    assert find_runs(place) == place
    assert find_runs(tmp_path) == place


def test_the_order_of_the_list_and_its_line_endings_do_not_matter(runs, copy):
    list_ = copy / "run07/class_labels.txt"
    lines = list_.read_text().splitlines()[::-1]
    list_.write_bytes(("\r\n".join(lines).replace("/", "\\") + "\r\n\r\n").encode())
    np.testing.assert_array_equal(
        read_runs(copy, SMALL).episodes.answer, read_runs(runs[0], SMALL).episodes.answer
    )


def test_images_go_through_the_preprocessing(runs):
    found = read_runs(runs[0], Preprocess(size=(6, 8), channels=3, invert=True))
    assert found.images.shape == (800, 6, 8, 3)
    assert found.images.mean() < 128 < read_runs(runs[0], SMALL).images.mean()


def test_no_runs_are_found_where_there_are_none(runs, tmp_path):
    assert find_runs(tmp_path) is None
    assert find_runs(tmp_path / "gone") is None
    (tmp_path / "omniglot").mkdir()
    shutil.copytree(runs[0] / "run01", tmp_path / "omniglot/all_runs/run01")
    assert find_runs(tmp_path) == tmp_path / "omniglot/all_runs"


def test_missing_runs_are_refused(copy):
    shutil.rmtree(copy / "run20")
    with pytest.raises(ValueError, match=r"needs 20 runs in one place; .* holds 19 in the top"):
        read_runs(copy, SMALL)


def test_a_missing_list_is_refused(copy):
    (copy / "run03/class_labels.txt").unlink()
    with pytest.raises(ValueError, match=r"holds no run03/class_labels\.txt, which says"):
        read_runs(copy, SMALL)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda lines: lines[:-1], "20 training images; it has 19 lines with 19 test and 19"),
        (lambda lines: [*lines, lines[0]], "it has 21 lines with 20 test and 20 training"),
        (
            lambda lines: [f"{lines[0].split()[0]} {lines[1].split()[1]}", *lines[1:]],
            "it has 20 lines with 20 test and 19 training",
        ),
        (lambda lines: ["run05/test/item99.png run05/training/class01.png", *lines[1:]],
         r"names images that are not there: run05/test/item99\.png"),
        (lambda lines: ["run04/test/item01.png run05/training/class01.png", *lines[1:]],
         r"line 1: expected run05/test/item01\.png run05/training/class12\.png; got 'run04"),
        (lambda lines: [*lines[:4], "run05/test/item05.png", *lines[5:]], "line 5: expected run05"),
    ],
)  # fmt: skip
def test_a_wrong_list_is_refused(copy, change, text):
    list_ = copy / "run05/class_labels.txt"
    list_.write_text("\n".join(change(list_.read_text().splitlines())))
    with pytest.raises(ValueError, match=text):
        read_runs(copy, SMALL)


def test_an_unreadable_image_is_refused(copy):
    (copy / "run02/test/item03.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 800 images could not be read.*run02/test/item03"):
        read_runs(copy, SMALL)


def test_real_characters_in_lakes_layout(real_data, tmp_path):
    """Two drawers' characters of the ten validation alphabets, as the official runs are made."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(real_data / "omniglot/images_validation.zip") as archive:
        drawn = defaultdict(dict)  # alphabet -> (character, drawer) -> file
        for entry in read_paths(archive.namelist())[0]:
            drawn[entry.group_name][entry.class_name, entry.drawer] = entry.path

        def pixels(alphabet, characters, drawer):
            files = (archive.open(drawn[alphabet][c, drawer]) for c in characters)
            return np.array([np.array(Image.open(file).convert("L")) for file in files])

        shown, asked, answers = [], [], []
        for alphabet in np.repeat(sorted(drawn), 2):
            characters = sorted({c for c, _ in drawn[alphabet]})
            chosen, order = rng.choice(characters, 20, replace=False), rng.permutation(20)
            first, second = rng.choice(np.arange(1, 21), 2, replace=False)
            shown.append(pixels(alphabet, chosen, first))
            asked.append(pixels(alphabet, chosen[order], second))
            answers.append(order)
    folder = write_runs(tmp_path / "all_runs", np.array(shown), np.array(asked), np.array(answers))
    runs = read_runs(folder, Preprocess(size=(105, 105)))
    z = BASELINES["hausdorff"].embed(runs.images)
    hausdorff, run = BASELINES["hausdorff"], runs.of_run(0)
    z = hausdorff.embed(runs.images)
    wrong = []
    for query, support, answer in zip(
        run.query[:5], run.support[:5, :, 0], run.answer, strict=False
    ):
        found = hausdorff.score(np.broadcast_to(z[query], (20, z.shape[1])), z[support])
        wrong.append(found.argmax() != answer)
    assert wrong == demo_errors(folder, "run01", queries=5)
    cosine = score_lake(BASELINES["pixel-cosine"], runs)
    assert 0.1 < cosine.total.accuracy < 0.4  # 21.75 % on the official runs
