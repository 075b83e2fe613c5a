import csv
import json

import jax
import numpy as np
import pytest
from commands import command
from PIL import Image
from shrunk import pair_folder

import siamjax
from siamjax import predictions
from siamjax.evaluation.picture import side_by_side
from siamjax.predictions import COLUMNS, read_pairs, write_predictions
from siamjax.training.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def workdir(trained_run):
    return trained_run


@pytest.fixture(scope="module")
def comparator(workdir):
    return siamjax.load(workdir)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    arrays = np.random.default_rng(0).integers(0, 256, (5, 40, 30), np.uint8)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(5)], arrays


def test_two_images_give_a_float_in_0_1_whatever_their_kind(comparator, pictures):
    paths, arrays = pictures
    by_path = comparator.similarity(paths[0], str(paths[1]))
    assert isinstance(by_path, float)
    assert 0 <= by_path <= 1
    with Image.open(paths[0]) as image:
        assert comparator.similarity(image, arrays[1]) == pytest.approx(by_path, abs=1e-6)


def test_lists_give_arrays_and_one_image_meets_a_list(comparator, pictures):
    paths, arrays = pictures
    pairs = comparator.similarity(paths[:3], paths[2:])
    single = [comparator.similarity(a, b) for a, b in zip(paths[:3], paths[2:], strict=True)]
    np.testing.assert_allclose(pairs, single, atol=1e-6)
    one_to_many = comparator.similarity(paths[0], list(arrays))
    assert one_to_many.shape == (5,)
    assert one_to_many[0] == one_to_many.max()
    np.testing.assert_allclose(
        comparator.similarity(paths[0], arrays[..., None]), one_to_many, atol=1e-6
    )
    many_to_one = comparator.similarity(paths, paths[1])
    np.testing.assert_allclose(many_to_one[4], comparator.similarity(paths[4], paths[1]), atol=1e-6)


def test_compare_says_what_it_decides_by(comparator, pictures):
    paths, _ = pictures
    compared = comparator.compare(paths[:2], paths[1:3])
    np.testing.assert_array_equal(compared.similarity, comparator.similarity(paths[:2], paths[1:3]))
    np.testing.assert_array_equal(compared.same, compared.similarity >= compared.threshold)
    assert compared.distance is None  # a cosine head gives a logit


def test_each_distinct_image_is_embedded_once(comparator, pictures, monkeypatch):
    paths, _ = pictures
    counted = []
    original = comparator.encoder.embed
    monkeypatch.setattr(
        comparator.encoder, "embed", lambda x: (counted.append(len(x)), original(x))[1]
    )
    z = comparator.embed([paths[0], paths[1], paths[0], paths[0]])
    assert counted == [2]
    np.testing.assert_array_equal(z[0], z[2])
    assert (z[0] != z[1]).any()


def test_the_command_prints_what_python_returns(comparator, workdir, pictures):
    paths, _ = pictures
    expected = comparator.similarity(paths[0], paths[1])

    def printed(*options):
        done = command("experiments.predict", f"--workdir={workdir}", *paths[:2], *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = printed()
    assert text.startswith(f"similarity {expected:.4f}: ")
    assert "trained on glyphs" in text
    answer = json.loads(printed("--json", "--threshold=eer"))
    assert answer["similarity"] == pytest.approx(expected, abs=1e-6)
    assert answer["threshold"] == comparator.card.thresholds["eer"]
    assert answer["threshold_source"].startswith("fitted on validation pairs of glyphs")


def test_a_table_of_pairs_is_answered_row_by_row(comparator, pictures, tmp_path):
    paths, _ = pictures
    table = tmp_path / "pairs.csv"
    table.write_text(f"left,right,label\n{paths[0]},{paths[1]},1\n{paths[2]},gone.png,0\n")
    with table.open("a") as file:
        file.write(f"{paths[3]},{paths[4]},0\n")
    written = write_predictions(comparator, read_pairs(table), tmp_path / "out.csv", chunk=2)
    assert (written.answered, written.failed) == (2, 1)
    assert len(written.faults) == 1
    assert "gone.png cannot be read" in written.faults[0]
    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["label"] for row in rows] == ["1", "0", "0"]
    expected = comparator.similarity(paths[0], paths[1])
    assert float(rows[0]["similarity"]) == pytest.approx(expected, abs=1e-5)
    assert rows[0]["same"] == str(int(expected >= 0.5))
    assert rows[1]["similarity"] == ""
    assert rows[2]["x2"] == str(paths[4])


def test_a_table_names_an_image_many_times_and_it_runs_once(
    comparator, pictures, tmp_path, monkeypatch
):
    paths, _ = pictures
    table = tmp_path / "pairs.csv"
    table.write_text("left,right\n" + f"{paths[0]},{paths[1]}\n" * 7)
    counted = []
    original = comparator.encoder.embed
    monkeypatch.setattr(
        comparator.encoder, "embed", lambda x: (counted.append(len(x)), original(x))[1]
    )
    out = tmp_path / "out.jsonl"
    written = write_predictions(comparator, read_pairs(table), out, threshold=0.0, chunk=3)
    assert written.answered == 7
    assert counted == [2]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 7
    assert {row["same"] for row in rows} == {1}
    assert {row["threshold"] for row in rows} == {0.0}


def test_embeddings_beyond_the_limit_are_dropped_the_oldest_first(comparator, pictures):
    paths, _ = pictures
    width = comparator.embed(paths[:1]).shape[1]
    kept = predictions._Embeddings(comparator, limit=2 * 4 * width)
    z, unreadable = kept.of(paths[:3])
    assert list(kept._kept) == paths[1:3]
    np.testing.assert_allclose(z, comparator.embed(paths[:3]), atol=1e-6)
    assert not unreadable


def test_thresholds_and_priors_reach_the_answer(comparator, pictures):
    paths, _ = pictures
    plain = comparator.compare(paths[0], paths[1])
    np.testing.assert_array_equal(plain.probability, plain.similarity)
    strict = comparator.compare(paths[0], paths[1], threshold="eer", prior=0.01)
    assert strict.threshold == comparator.card.thresholds["eer"]
    assert strict.probability < plain.probability
    with pytest.raises(ValueError, match="choose calibrated"):
        comparator.compare(paths[0], paths[1], threshold="nonsense")


def test_rank_orders_a_gallery(comparator, pictures):
    paths, _ = pictures
    order, similarity = comparator.rank(paths[2], paths, top=3)
    assert order[0] == 2
    assert (np.diff(similarity) <= 0).all()
    np.testing.assert_allclose(similarity, comparator.similarity(paths[2], paths)[order], atol=1e-6)


def test_the_fingerprint_follows_the_weights(comparator, workdir):
    again = siamjax.load(workdir)
    assert again.fingerprint == comparator.fingerprint
    leaves, tree = jax.tree.flatten(again.encoder.weights)
    leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].add(1e-3)
    again.encoder.weights = jax.tree.unflatten(tree, leaves)
    del again.fingerprint
    assert again.fingerprint != comparator.fingerprint


def test_folders_of_two_images_are_read_in_natural_order(pictures, tmp_path):
    paths, _ = pictures
    for name in ("10", "9", "1"):
        (tmp_path / name).mkdir()
        for side in ("a.png", "b.png"):
            (tmp_path / name / side).write_bytes(paths[0].read_bytes())
    assert [pair.left.parent.name for pair in read_pairs(tmp_path)] == ["1", "9", "10"]
    with pytest.raises(ValueError, match="holds no folder of two images"):
        list(read_pairs(tmp_path / "1"))
    (tmp_path / "t.csv").write_text("first,second\n")
    with pytest.raises(ValueError, match=r"must have the columns left,right.*it has first, second"):
        list(read_pairs(tmp_path / "t.csv"))


def test_labels_come_from_the_list_beside_the_folders(tmp_path):
    root = pair_folder(tmp_path / "pairs")
    everything = list(read_pairs(root))
    tests = list(read_pairs(next(root.rglob("test"))))
    assert len(everything) == 36
    assert tests == everything[24:]
    with next(root.rglob("annos.csv")).open() as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert [pair.label for pair in everything] == labels
    assert {"0", "1"} == set(labels)


def test_tables_of_any_dialect(tmp_path):
    (tmp_path / "t.csv").write_text("x1;x2;label\n a.png ;b.png;1\nc.png\n")
    first, second = read_pairs(tmp_path / "t.csv")
    assert first == (tmp_path / "a.png", tmp_path / "b.png", "1")
    assert second.left == tmp_path / "c.png"
    (tmp_path / "bad.csv").write_text('x1,x2\n"a.png,b.png\n')
    with pytest.raises(ValueError, match="is a quote not closed"):
        list(read_pairs(tmp_path / "bad.csv"))


def test_the_picture_shows_both(comparator, pictures, tmp_path):
    paths, _ = pictures
    side_by_side(*map(comparator.pixels, paths[:2]), 0.7, tmp_path / "out.png", names=("a", "b"))
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (900, 540)
        assert len(set(image.convert("L").tobytes())) > 50


def test_what_cannot_be_compared_says_why(comparator, pictures, tmp_path):
    paths, _ = pictures
    with pytest.raises(ValueError, match="got 2 and 3 images"):
        comparator.similarity(paths[:2], paths[:3])
    with pytest.raises(ValueError, match="got 0 and 1 images"):
        comparator.similarity([], paths[0])
    (tmp_path / "no.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"no\.png cannot be read as an image"):
        comparator.similarity(paths[0], tmp_path / "no.png")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="is this the folder of a run"):
        siamjax.load(tmp_path)


def test_import_is_light():
    import subprocess
    import sys

    slow = ("jax", "PIL", "matplotlib")
    code = f"import sys, siamjax; print([m for m in {slow} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
