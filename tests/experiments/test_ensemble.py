"""Runs of two seeds made into one, and every command that reads a run on what comes out."""

import json
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import command
from PIL import Image

import siamjax
from siamjax import config as configuration
from siamjax import report, selfcheck
from siamjax.data import load
from siamjax.embeddings import embed_folder
from siamjax.ensemble import EnsembleError, make_ensemble
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.report_card import Evaluation, Settings
from siamjax.evaluation.subject import own_subject
from siamjax.explain import gradient_map, occlusion_map
from siamjax.export import export
from siamjax.export.graphs import portable_encoder
from siamjax.gallery import Gallery, nearest
from siamjax.inference import Comparator, model_of
from siamjax.predictions import read_pairs, write_predictions
from siamjax.recipe import build_model, describe
from siamjax.run import check_resumable
from siamjax.training.checkpoint import BEST, CheckpointError, CheckpointStore
from siamjax.training.state import create_state
from siamjax.training.writer import read_rows


def tiny(folder, seed=0):
    """The config of a small MLP on a few glyphs."""
    config = configuration.base()
    config.seed = seed
    config.data.update(source="glyphs", glyph_alphabets=(2, 2), size=(12, 12))
    config.data.cache_dir = str(folder / "cache")
    config.model.tower, config.model.head = "mlp", "euclidean_dense"
    config.model.tower_options = configuration.options(features=(8,))
    config.eval.update(way=5, trials=20, pairs=100)
    return config


def save(folder, config, step=0, state=None, fingerprint=None):
    """A run with fresh weights, as if its best checkpoint were of that step."""
    splits = load(config)
    state = state or create_state(build_model(config), optax.sgd(1.0), (12, 12, 1), config.seed)
    about = describe(config, splits) | {"progress": {"card": None}}
    about["data"]["fingerprint"] = fingerprint or splits.fingerprint
    with CheckpointStore(folder) as store:
        store.save(BEST, replace(state, step=jnp.asarray(step)), about)
    return state


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs a and b, what the command made of them, and what it printed."""
    folder = tmp_path_factory.mktemp("ensemble")
    for seed, name in enumerate("ab"):
        config = tiny(folder, seed)
        config.train.steps = 100 + seed  # one of the keys that may differ
        save(folder / name, config, step=10 + seed)
    runs = f"--runs={folder / 'a'},{folder / 'b'}"
    done = command("experiments.ensemble", runs, f"--workdir={folder / 'ab'}")
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    return siamjax.load(place / "ab")


@pytest.fixture(scope="module")
def pictures(place):
    rng = np.random.default_rng(0)
    for name in ("anna/1.png", "anna/2.png", "ben/1.png"):
        (place / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (15, 9), np.uint8)).save(place / "people" / name)
    return [place / "people" / name for name in ("anna/1.png", "anna/2.png", "ben/1.png")]


def test_it_scores_the_mean_of_its_members_scores(place, whole):
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 1), np.uint8)
    scores = []
    for comparator in (siamjax.load(place / "a"), siamjax.load(place / "b"), whole):
        z = comparator.embed(images)
        scores.append(comparator.encoder.score(z[:4], z[4:]))
    a, b, both = scores
    assert np.abs(a - b).min() > 1e-3
    np.testing.assert_allclose(both, (a + b) / 2, atol=1e-6)
    assert z.shape[1] == 2 * siamjax.load(place / "a").embed(images).shape[1]


def test_its_folder_says_what_it_was_made_of(place, whole):
    members = json.loads((place / "ab/about.json").read_text())["members"]
    assert [member["run"] for member in members] == [str(place / "a"), str(place / "b")]
    assert [(member["seed"], member["step"]) for member in members] == [(0, 10), (1, 11)]
    digests = [siamjax.load(place / name).fingerprint for name in "ab"]
    assert [member["fingerprint"] for member in members] == digests
    config = configuration.from_json((place / "ab/config.json").read_text())
    assert config.model.members == 2
    assert whole.config.to_dict() == config.to_dict()
    with CheckpointStore(place / "ab", read_only=True) as store:
        assert store.about(BEST)["members"] == members
    names = {path.name for path in (place / "ab").iterdir()}
    assert names == {
        "about.json", "checkpoints", "config.json", "metrics.jsonl", "pairs.png", "report.html"
    }  # fmt: skip
    assert whole.origin == (
        f"{place / 'ab'}, 2 nets as one, best checkpoint of step 11, trained on glyphs"
    )


def test_the_decision_card_is_fitted_anew_to_the_mean(place, whole):
    (row,) = read_rows(place / "ab/metrics.jsonl")
    assert row["protocol"] == "within-alphabet 5-way 1-shot"
    assert whole.card.calibration is not None
    assert whole.card.source.startswith("fitted on validation pairs of glyphs: ")
    said = (place / "printed.txt").read_text().splitlines()
    figure = f"within-alphabet 5-way 1-shot: {100 * row['one_shot_accuracy']:.1f} % ["
    assert said[-2].startswith(f"{place / 'ab'}, all 2: {figure}")
    assert said[-1] == f"done: {place / 'ab'}"
    for name, seed, step in (("a", 0, 10), ("b", 1, 11)):
        line = f"{place / name}, seed {seed}, step {step}: within-alphabet 5-way 1-shot: "
        assert any(text.startswith(line) for text in said)


def test_predict_embed_and_gallery_take_it(place, whole, pictures, tmp_path):
    (tmp_path / "pairs.csv").write_text(f"left,right\n{pictures[0]},{pictures[1]}\n")
    write_predictions(whole, read_pairs(tmp_path / "pairs.csv"), tmp_path / "result.csv")
    row = (tmp_path / "result.csv").read_text().splitlines()[1]
    similarity = whole.similarity(pictures[0], pictures[1])
    assert f",{similarity:.4f}"[:6] in row
    assert embed_folder(whole, place / "people").embeddings.shape == (3, 16)
    gallery = Gallery.build(whole, place / "people")
    assert nearest(whole, gallery.embeddings) is None
    assert gallery.query(pictures[2]).matches[0].name == "ben/1.png"
    gallery.save(tmp_path / "index")
    assert len(Gallery.load(tmp_path / "index", siamjax.load(place / "ab"))) == 3


def test_evaluate_takes_it(whole):
    splits = load(whole.config)
    settings = Settings(way=5, trials=20, pairs=100, queries=10)
    evaluation = Evaluation(
        whole.encoder, lambda: own_subject(splits, "validation"), None, whole.card, settings
    )
    assert evaluation.run("within-alphabet").trials == 20
    assert evaluation.run("retrieval").queries == 10
    assert evaluation.run("verification").card_source.startswith("fitted on validation pairs")
    assert evaluation.run("open-set").source == whole.card.source


def test_explain_takes_it(whole, pictures):
    for maps in (
        occlusion_map(whole, pictures[0], pictures[2]),
        gradient_map(whole, pictures[0], pictures[2]),
    ):
        assert maps.left.shape == maps.right.shape == (12, 12)
        assert np.abs(maps.left).max() > 0


def test_export_takes_it(whole, tmp_path):
    exported = export(whole, tmp_path / "out", ("stablehlo", "npz"))
    assert len(exported.differences["stablehlo"]) == 4
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert about["graphs"]["tower"]["outputs"][0]["shape"] == ["b", 16]  # of both members
    with np.load(tmp_path / "out/weights.npz") as weights:
        owners = {name.split("/")[1] for name in weights.files}
    assert owners == {"members_0", "members_1"}


def test_half_precision_members_leave_in_float32(whole):
    config = whole.config.copy_and_resolve_references()
    with config.unlocked():
        config.dtype = "bfloat16"
    half = Comparator(Encoder(model_of(config), whole.encoder.weights), whole.preprocess, config)
    model = portable_encoder(half).model
    assert [member.tower.dtype for member in model.members] == [jnp.float32] * 2
    assert portable_encoder(whole) is whole.encoder


def test_the_report_names_its_runs_and_how_to_make_it_again(place):
    record = report.read(place / "ab")
    assert record.title == "2 nets as one, mlp tower, euclidean_dense head, on glyphs"
    page = report.page(record)
    assert f"{place / 'a'} (seed 0, step 10); {place / 'b'} (seed 1, step 11)" in page
    assert f"--runs={place / 'a'},{place / 'b'}" in page
    assert f"--workdir={place / 'ab'}-again" in page
    assert page.count(report.run_sections.UNTRAINED) == 3
    written = (place / "ab/report.html").read_text()
    for text in (page, written):
        assert "This run, in training" not in text
        assert "Started from" not in text
    assert "the kept weights" in written
    assert "on images that also chose each run&#x27;s checkpoint" in page


def test_it_is_not_to_be_trained_or_repeated(place, whole):
    with pytest.raises(ValueError, match="an ensemble, which was not trained itself"):
        selfcheck.verify_run(place / "ab")
    config = tiny(place)
    with CheckpointStore(place / "ab", read_only=True) as store:
        saved = store.about(BEST)
    with pytest.raises(ValueError, match=r"config\.model\.members: 2 then, 1 now"):
        check_resumable(saved, describe(config, load(config)))


def test_runs_that_do_not_go_together_are_refused(place, tmp_path):
    a, new = place / "a", tmp_path / "new"

    def refused(text, *runs, workdir=new, error=EnsembleError):
        with pytest.raises(error, match=text):
            make_ensemble(runs, workdir, lambda _: None)
        assert not new.exists()
        assert not list(tmp_path.glob(".new*"))

    refused("two runs or more; got none", *())
    refused("two runs or more; got .*/a ", a)
    refused("/a and .*/a hold the same weights", a, a)
    shutil.copytree(a, tmp_path / "copy")
    refused("/b and .*/copy hold the same weights|/a and .*/copy hold", a, place / "b",
            tmp_path / "copy")  # fmt: skip
    refused("is an ensemble itself: give the runs", a, place / "ab")
    refused("no checkpoint in", a, tmp_path / "nothing", error=CheckpointError)
    refused("is there and is not empty", a, place / "b", workdir=place / "ab")

    config = tiny(place, seed=1)
    config.model.head_options = configuration.options(nonnegative=False)
    config.data.invert = True
    save(tmp_path / "other", config)
    refused(
        r"/a and .*/other cannot be one:\n"
        r"  config\.data\.invert: False in .*/a, True in .*/other\n"
        r"  config\.model\.head_options\.nonnegative: None in .*/a, False in .*/other\n",
        a, tmp_path / "other",
    )  # fmt: skip
    for name, seed in (("old", 1), ("older", 2)):
        save(tmp_path / name, tiny(place, seed), fingerprint="of other data")
    refused(r"cannot be one:\n  the data: glyphs .* in .*/a, glyphs", a, tmp_path / "old")
    refused("the data are not those of .*/old", tmp_path / "old", tmp_path / "older")


def test_runs_that_saw_each_others_validation_classes_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcdefgh":
        for i in range(2):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(path)
    for name, split_seed in (("run", None), ("alike", 0)):
        for seed in (0, 1):
            config = tiny(tmp_path, seed)
            config.data.update(source="folder", dir=str(tmp_path / "images"), holdout=0.5)
            config.data.split_seed, config.eval.way = split_seed, 4
            save(tmp_path / f"{name}{seed}", config)
    with pytest.raises(EnsembleError, match=r"hold out other images .* --config\.data\.split_seed"):
        make_ensemble([tmp_path / "run0", tmp_path / "run1"], tmp_path / "new", lambda _: None)
    assert not (tmp_path / "new").exists()
    make_ensemble([tmp_path / "alike0", tmp_path / "alike1"], tmp_path / "new", lambda _: None)
    assert siamjax.load(tmp_path / "new").config.model.members == 2
