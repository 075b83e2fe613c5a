"""Any recipe made small enough to run in seconds, on glyphs, without changing what it does."""

import importlib.util
from pathlib import Path

CONFIGS = sorted(
    p for p in (Path(__file__).parent.parent / "configs").glob("*.py") if p.stem != "__init__"
)
SMALL = {
    "koch": {"features": (2, 2, 2, 2), "embedding": 8},
    "small_resnet": {"width": 2, "embedding": 8},
}


def shrunk(path, cache_dir):
    """The config of a recipe file, with few and small images, a thin tower and four steps."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.data.source = "glyphs"
    config.data.glyph_alphabets = (2, 2)
    config.data.cache_dir = str(cache_dir)
    small = 65 if config.model.tower == "koch" else 16
    config.data.size = (small, small)
    config.model.tower_options.update(SMALL.get(config.model.tower, {}))
    config.batch_size = 12
    config.train.update(steps=4, epochs=1, log_every=2, devices=1)
    config.eval.update(every=2, way=5, trials=20, pairs=40)
    config.checkpoint.every = 2
    return config.lock()


def recipe_file(name):
    """The path of `configs/<name>.py`."""
    return next(path for path in CONFIGS if path.stem == name)
