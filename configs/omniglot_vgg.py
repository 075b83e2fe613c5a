"""VGG16 with a two-layer head: bubbliiiing's Siamese-pytorch, on Omniglot or on your own folders.

Simonyan, Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
configuration D, as the tower; |f(a) - f(b)| -> Dense 512 -> Dense 1, with no activation between
(`model.head_options.activation = "relu"` puts one there). Two pairs of each class drawn: (a, b)
same, (c, other) different. The source publishes no figure.

    python -m experiments.main --config=configs/omniglot_vgg.py --workdir=runs/omniglot_vgg

With ImageNet weights: `--config.model.weights=vgg16-397923af.pth`. On your own images, two levels
`class/image`: `--config.data.source=folder --config.data.dir=images_background`. Mirroring, which
the source applies, makes other letters of letters, so it is left out here.
"""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 32
    c.data.source = "omniglot"
    c.data.fallback = "glyphs"
    c.data.size = (105, 105)
    c.data.channels = 3
    c.pairs.scheme = "triples"
    c.model.tower = "vgg"
    c.model.init = "kaiming"
    c.model.tower_options = configuration.options(depth=16, batch_norm=False, normalise="none")
    c.model.head = "l1_mlp"
    c.model.head_options = configuration.options(activation="none", nonnegative=False)
    c.objective.loss = "bce"
    c.optimizer.name = "adam"
    c.optimizer.epsilon = 1e-8  # PyTorch's default
    c.optimizer.learning_rate = 1e-4
    c.train.steps = 1000
    c.train.log_every = 20
    c.eval.every = 100
    c.eval.trials = 100
    c.eval.pairs = 400
    c.checkpoint.every = 100
    return c
