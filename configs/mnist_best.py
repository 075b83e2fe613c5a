"""MNIST pairs, as right as five minutes on two CPU cores make them.

Judged on the pairs of Keras' example (`mnist_mlp`: 17,820 consecutive members of the test classes),
trained on pairs drawn anew, warped, half of them of one class. The test classes are the training
classes.

    python -m experiments.main --config=configs/mnist_best.py --workdir=runs/mnist_best

As in `mnist_mlp` the test pairs are the validation, so they also choose the `best` checkpoint. The
figure that counts is therefore that of the last step.
"""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 60
    c.data.source = "mnist"
    c.data.fallback = "digits"
    c.data.size = (28, 28)
    c.data.holdout = 0.0
    c.pairs.scheme = "balanced"
    c.pairs.use_all = False  # of the test pairs, as in the example
    c.augment.name = "affine_elastic"
    c.augment.probability = 1.0
    c.augment.rotation = 10.0
    c.augment.shear = 0.2
    c.augment.scale = (0.9, 1.1)
    c.augment.elastic = 0.8
    c.model.tower = "small_resnet"
    c.model.tower_options = configuration.options(width=32, embedding=64)
    c.model.head = "cosine"
    c.objective.loss = "bce"
    c.optimizer.name = "adamw"
    c.optimizer.learning_rate = 3e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.weight_decay = 1e-3
    c.optimizer.average = 0.998
    c.train.steps = 4800
    c.train.log_every = 25
    c.eval.every = 1200
    c.eval.pair_scheme = "consecutive"
    c.eval.trials = 0  # ten classes, all of them seen
    c.checkpoint.every = 1200
    c.checkpoint.metric = "pair_accuracy"
    return c
