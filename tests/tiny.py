"""The smallest recipe that has everything: trials, dropout, a best checkpoint, many saves.

python -m experiments.main --config=tests/tiny.py --workdir=...
"""

from siamjax import config as configuration


def get_config():
    """An MLP on drawn glyphs, 24 steps, a checkpoint every fourth."""
    c = configuration.base()
    c.data.source, c.data.glyph_alphabets, c.data.size = "glyphs", (2, 2), (12, 12)
    c.model.tower, c.model.tower_options = "mlp", configuration.options(features=(16, 8))
    c.model.head, c.objective.loss = "euclidean_dense", "bce"
    c.train.update(steps=24, log_every=4, devices=1)
    c.eval.update(every=8, way=5, trials=20, pairs=100)
    c.checkpoint.update(every=4, metric="auc")
    return c
