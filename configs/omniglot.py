"""Koch's convolutional Siamese network on Omniglot.

Koch, Zemel, Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition", as the
Keras ports train it: Adam 6e-5, batches of 32 pairs, L2 of 2e-4 on convolutions and 1e-3 on the
dense layer. The paper reports 92.0 % 20-way one-shot accuracy (koch-within) with its own
optimiser settings, which it never published.

    python -m experiments.main --config=configs/omniglot.py --workdir=runs/omniglot

Where the ports choose the best weights on 10 trials, where chance picks the winner, this uses 320.
`--config.model.init=seed` starts as the ports do, `paper` as the paper does; both start almost
constant, so the first hundreds of steps move little (and with the dense kernel of `paper` the L2
penalty starts at about 1,500).
"""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 32
    c.data.source = "omniglot"
    c.data.fallback = "glyphs"
    c.data.size = (105, 105)
    c.pairs.scheme = "balanced"
    c.model.tower = "koch"
    c.model.head = "weighted_l1"
    c.model.head_options = configuration.options(nonnegative=False)
    c.model.init = "he"
    c.objective.loss = "bce"
    c.objective.l2 = (("tower/conv./kernel", 2e-4), ("tower/dense/kernel", 1e-3))
    c.optimizer.name = "keras_adam"
    c.optimizer.learning_rate = 6e-5
    c.train.mode = "iterations"
    c.train.steps = 1000
    c.train.log_every = 20
    c.eval.every = 100
    c.eval.way = 20
    c.eval.trials = 320
    c.checkpoint.every = 100
    return c
