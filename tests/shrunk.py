"""Any recipe made small enough to run in seconds, on glyphs, without changing what it does."""

import importlib.util
from pathlib import Path

from synthetic import labelled

from siamjax.data.pair_table import write_pair_folder

CONFIGS = sorted(
    p for p in (Path(__file__).parent.parent / "configs").glob("*.py") if p.stem != "__init__"
)
SMALL = {
    "koch": {"features": (2, 2, 2, 2), "embedding": 8},
    "mlp": {"features": (8, 8)},
    "resnet_v2": {"depth": 26, "divide": 16, "embedding": 8},
    "small_cnn": {"features": (2, 2), "embedding": 4},
    "small_resnet": {"width": 2, "embedding": 8},
    "vgg": {"depth": 11, "divide": 32},
}
# Of heads that ask something of an embedding: what suits one of eight numbers.
SMALL_HEADS = {"relational": {"embedding": 4, "grid": 2, "channels": 1, "hidden": 3}}


def shrunk(path, cache_dir):
    """The config of a recipe file, with few and small images, a thin tower and four steps."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.data.cache_dir = str(cache_dir)
    if config.pairs.scheme == "explicit":
        config.data.dir = str(pair_folder(Path(cache_dir) / "pairs"))
    else:
        config.data.source = "glyphs"
        config.data.glyph_alphabets = (2, 2)
        config.data.drawn_alphabets = min(1, config.data.drawn_alphabets)
    small = {"koch": 65, "vgg": 32, "resnet_v2": 32}.get(config.model.tower, 16)
    config.data.size = (small, small)
    config.model.tower_options.update(SMALL.get(config.model.tower, {}))
    if config.model.head == "relational":
        config.model.head_options.update(embedding=8, grid=2)  # 2x2 places are left of 16x16
    # An epoch of a table has to pass in a few steps.
    config.batch_size = 480 if config.pairs.scheme in ("all-once", "consecutive") else 12
    # The doctor is a second program to compile, and takes up to a third of such a run.
    config.train.update(steps=4, epochs=1, log_every=2, devices=1, doctor=False)
    config.model.views = min(2, config.model.views)
    config.eval.update(every=2, way=5, trials=min(20, config.eval.trials), pairs=40)
    # An epoch of fixed pairs has some hundred steps, and a checkpoint takes longer than a step.
    config.checkpoint.every = 2 if config.train.mode == "iterations" else 50
    return config.lock()


def pair_folder(out):
    """Folders of two images each and annos.csv, made once."""
    if not out.exists():
        train, test = labelled(seed=0, size=(32, 32)), labelled(seed=1, size=(32, 32))
        write_pair_folder(out, (train, 24), (test, 12), seed=0)
    return out


def recipe_file(name):
    """The path of `configs/<name>.py`."""
    return next(path for path in CONFIGS if path.stem == name)
