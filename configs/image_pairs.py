r"""A frozen ResNet152V2 on pairs of your own images.

He et al. 2016, "Identity Mappings in Deep Residual Networks", with ImageNet weights, as a frozen
tower; Flatten -> Dropout 0.1 -> Dense 512; the Euclidean distance through a batch norm and one
sigmoid unit, whose output counts as a distance in 0..1 (small = same). The contrastive loss of
such an output with margin 1 is the mean squared error of a probability.

    python -m experiments.main --config=configs/image_pairs.py --workdir=runs/image_pairs \
        --config.data.dir=my_data --config.model.weights=resnet152v2_notop.h5

`my_data` holds a CSV with the columns left,right,same, or `init_data/data/train/<n>/{a,b}.jpg`,
`.../test/<n>/{a,b}.jpg` and `annos.csv`. Without weights the frozen tower is random: the run says
so. The source divides by 255 where these weights expect -1..1; `model.tower_options.normalise =
"tf"` is the right one.
"""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 64
    c.data.source = "pair_table"
    c.data.size = (64, 64)
    c.data.channels = 3
    c.data.holdout = 0.0  # as in the source, the test pairs validate
    c.pairs.scheme = "explicit"
    c.model.tower = "resnet_v2"
    c.model.init = "keras"
    c.model.tower_options = configuration.options(
        depth=152, frozen=True, normalise="unit", embedding=512, dropout=0.1
    )
    c.model.head = "euclidean_norm_dense"
    c.model.head_options = configuration.options(nonnegative=False)
    c.objective.loss = "contrastive"
    c.objective.margin = 1.0
    c.optimizer.name = "keras_adam"
    c.optimizer.learning_rate = 1e-2
    c.optimizer.frozen = ("tower/backbone/.*",)
    c.optimizer.plateau_patience = 10
    c.optimizer.plateau_factor = 0.1
    c.train.mode = "epochs"
    c.train.epochs = 100
    c.train.log_every = 8
    c.eval.trials = 0
    c.checkpoint.every = 80
    c.checkpoint.metric = "loss"
    c.checkpoint.mode = "min"
    return c
