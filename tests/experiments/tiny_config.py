"""A recipe of eight steps that trains in a second: for tests that start processes."""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 16
    c.data.source = "glyphs"
    c.data.glyph_alphabets = (2, 2)
    c.data.size = (16, 16)
    c.model.tower = "mlp"
    c.model.init = "glorot"
    c.model.tower_options = configuration.options(features=(8,))
    c.optimizer.name = "sgd"  # Adam's first steps follow signs, and make differences of rounding
    c.optimizer.learning_rate = 0.05
    c.train.steps = 8
    c.train.log_every = 2
    c.eval.every = 4
    c.eval.trials = 20
    c.eval.way = 5
    c.eval.pairs = 40
    c.checkpoint.every = 4
    return c
