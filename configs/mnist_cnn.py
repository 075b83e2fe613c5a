"""The small CNN with binary cross-entropy of PyImageSearch's Siamese tutorial, on MNIST.

Rosebrock 2020, "Siamese networks with Keras, TensorFlow, and Deep Learning": for every image one
positive and one negative pair, made once (120,000 for training, 20,000 of the test images for
validation), a Euclidean distance squashed by one learned weight. Published: 88.10 % validation
accuracy after 100 epochs; the source says that 10 "still give good results".

    python -m experiments.main --config=configs/mnist_cnn.py --workdir=runs/mnist_cnn

As in the source, the test pairs are the validation (`data.holdout = 0`), and a positive may be an
image with itself (`pairs.allow_self`). The test classes are the training classes.

One difference: the source leaves it to chance whether its last weight starts above or below 0, and
from above the distance collapses (seed 0: loss 0.693 and AUC 0.42 after an epoch). Here large
distances mean different from the start (`nonnegative`, the default).
"""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 64
    c.data.source = "mnist"
    c.data.fallback = "digits"
    c.data.size = (28, 28)
    c.data.holdout = 0.0
    c.pairs.scheme = "all-once"
    c.pairs.allow_self = True
    c.model.tower = "small_cnn"
    c.model.init = "glorot"
    c.model.head = "euclidean_dense"
    c.model.head_options = configuration.options(epsilon=1e-7, nonnegative=True)
    c.objective.loss = "bce"
    c.optimizer.name = "keras_adam"
    c.optimizer.learning_rate = 1e-3
    c.train.mode = "epochs"
    c.train.epochs = 100
    c.train.log_every = 125  # an epoch has 1,875 steps, 15 x 125
    c.eval.trials = 0  # ten classes, all of them seen
    c.checkpoint.every = 1875
    c.checkpoint.metric = "pair_accuracy"
    return c
