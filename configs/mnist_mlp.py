"""The MLP with contrastive loss of Keras' example mnist_siamese.py, on MNIST.

Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping", as the
example has it: 108,400 fixed training pairs of consecutive members of a class, RMSprop, 20 epochs,
"same" below a distance of 0.5. Published: 97.2 % of the 17,820 test pairs. The test classes are
the training classes, so this is verification of known digits, not one-shot learning.

    python -m experiments.main --config=configs/mnist_mlp.py --workdir=runs/mnist_mlp

As in the source, the test pairs are the validation (`data.holdout = 0`); what larger classes have
beyond the smallest is not used (`pairs.use_all = False`).
"""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 128
    c.data.source = "mnist"
    c.data.fallback = "digits"
    c.data.size = (28, 28)
    c.data.holdout = 0.0
    c.pairs.scheme = "consecutive"
    c.pairs.use_all = False
    c.model.tower = "mlp"
    c.model.init = "glorot"
    c.model.head = "euclidean"
    c.model.head_options = configuration.options(epsilon=1e-7)
    c.objective.loss = "contrastive"
    c.objective.margin = 1.0
    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 1e-3
    c.train.mode = "epochs"
    c.train.epochs = 20
    c.train.log_every = 121  # an epoch has 847 steps, 7 x 121
    c.eval.trials = 0  # ten classes, all of them seen
    c.checkpoint.every = 847
    c.checkpoint.metric = "pair_accuracy"
    return c
