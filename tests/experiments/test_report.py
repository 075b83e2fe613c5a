"""The command, in processes of its own: on a run with its data, with other data, and without."""

import os
import subprocess
import sys
from pathlib import Path

import optax
from untrained import untrained_run

from siamjax import config as configuration
from siamjax.data import load
from siamjax.preprocess import preprocess_of
from siamjax.recipe import build_model
from siamjax.training.checkpoint import BEST, CheckpointStore
from siamjax.training.state import create_state

ROOT = Path(__file__).resolve().parents[2]
SEVERAL = """
import sys
from absl import flags
from experiments import report

flags.FLAGS(["report"])
for line in sys.stdin.read().splitlines():
    for flag in flags.FLAGS.get_key_flags_for_module(report):
        flag.unparse()
    flags.FLAGS(["report", *line.split()])
    print("#", line)
    report.main(["report"])
"""


def python(*arguments, **more):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, **more,
    )  # fmt: skip


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


def three_runs(folder):
    """What the command prints and writes of three runs, in one process."""
    glyph_run(folder / "glyphs")
    glyph_run(folder / "changed", fingerprint="of other data")
    untrained_run(folder / "lost")
    few = "--trials=20 --num_pairs=80"
    lines = (
        f"--workdir={folder}/glyphs {few} --out={folder}/page.html --split=validation",
        f"--workdir={folder}/changed {few}",
        f"--workdir={folder}/lost",
    )
    ran = python("-c", SEVERAL, input="\n".join(lines), env=without_data(folder))
    assert ran.returncode == 0, ran.stderr
    texts = [part.partition("\n")[2] for part in ran.stdout.split("# ")[1:]]
    pages = folder / "page.html", folder / "changed/report.html", folder / "lost/report.html"
    return list(zip(texts, [page.read_text(encoding="utf-8") for page in pages], strict=True))


def without_data(folder):
    return {**os.environ, "SIAMJAX_DATA": str(folder / "nowhere"), "no_proxy": "",
            "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # fmt: skip


def test_runs_with_their_data_with_others_and_without(tmp_path):
    own, changed, lost = three_runs(tmp_path)

    text, page = own
    assert text.startswith("data: glyphs, split validation: ")
    assert "page.html: 0." in text
    assert "NOTE" not in text
    assert "within-alphabet 5-way 1-shot, 20 trials" in page
    assert "random-class" in page
    assert "80 pairs by seed 0, half of them same: 40 same, 40 different" in page
    assert page.count("<img ") > 4
    assert "could not" not in page

    text, page = changed
    assert "NOTE: the data have changed since the training" in text
    assert page.index("the data have changed since") < page.index("one-shot accuracy, within")

    text, page = lost
    assert text.startswith("NOTE: the run's data could not be had: ")
    assert "Not measured: the run&#x27;s data could not be had" in page


def test_a_folder_that_is_no_run_ends_in_a_sentence(tmp_path):
    ran = python("-m", "experiments.report", f"--workdir={tmp_path}")
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ")
    assert "is this the folder of a run (--workdir)?" in ran.stderr
    assert list(tmp_path.iterdir()) == []
