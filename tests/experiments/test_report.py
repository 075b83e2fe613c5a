"""The command, in processes of its own: on a run with its data, with other data, and without."""

import optax
import pytest
from commands import command
from untrained import untrained_run

from siamjax import config as configuration
from siamjax.data import load
from siamjax.preprocess import preprocess_of
from siamjax.recipe import build_model
from siamjax.training.checkpoint import BEST, CheckpointStore
from siamjax.training.state import create_state


def glyph_run(folder, fingerprint=None):
    """An untrained run on a few glyphs, that says its data had this fingerprint."""
    config = configuration.base()
    config.data.update(source="glyphs", glyph_alphabets=(2, 2), size=(12, 12))
    config.data.cache_dir = str(folder.parent / "cache")
    config.model.tower, config.model.head = "mlp", "euclidean"
    config.model.tower_options = configuration.options(features=(8, 8))
    config.eval.way = 5
    splits = load(config)
    state = create_state(build_model(config), optax.sgd(1.0), (12, 12, 1), seed=0)
    about = {
        "config": configuration.to_json(config),
        "preprocess": preprocess_of(config).to_dict(),
        "data": {
            "name": splits.name,
            "summary": splits.summary,
            "notes": list(splits.notes),
            "fingerprint": fingerprint or splits.fingerprint,
        },
        "progress": {"card": None},
    }
    with CheckpointStore(folder) as store:
        store.save(BEST, state, about)


@pytest.fixture(autouse=True)
def without_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SIAMJAX_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("no_proxy", "")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def reported(*arguments):
    """What the command prints."""
    done = command("experiments.report", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_runs_with_their_data_with_others_and_without(tmp_path):
    few = "--trials=20", "--num_pairs=80"
    glyph_run(tmp_path / "glyphs")
    out = tmp_path / "page.html"
    text = reported(f"--workdir={tmp_path}/glyphs", *few, f"--out={out}", "--split=validation")
    page = out.read_text(encoding="utf-8")
    assert text.startswith("data: glyphs, split validation: ")
    assert "page.html: 0." in text
    assert "NOTE" not in text
    assert "within-alphabet 5-way 1-shot, 20 trials" in page
    assert "random-class" in page
    assert "80 pairs by seed 0, half of them same: 40 same, 40 different" in page
    assert page.count("<img ") > 4
    assert "could not" not in page

    glyph_run(tmp_path / "changed", fingerprint="of other data")
    text = reported(f"--workdir={tmp_path}/changed", *few)
    page = (tmp_path / "changed/report.html").read_text(encoding="utf-8")
    assert "NOTE: the data have changed since the training" in text
    assert page.index("the data have changed since") < page.index("one-shot accuracy, within")

    untrained_run(tmp_path / "lost")
    text = reported(f"--workdir={tmp_path}/lost")
    page = (tmp_path / "lost/report.html").read_text(encoding="utf-8")
    assert text.startswith("NOTE: the run's data could not be had: ")
    assert "Not measured: the run&#x27;s data could not be had" in page


def test_a_folder_that_is_no_run_ends_in_a_sentence(tmp_path):
    ran = command("experiments.report", f"--workdir={tmp_path}")
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ")
    assert "is this the folder of a run (--workdir)?" in ran.stderr
    assert list(tmp_path.iterdir()) == []
