"""A small residual tower on 35x35 Omniglot: a good one-shot net from a CPU in minutes.

Every image of a step is compared with all others of its alphabet (hard negatives by
construction), each warped anew; whole alphabets are turned to make new ones.

    python -m experiments.main --config=configs/omniglot_fast.py --workdir=runs/omniglot_fast
"""

from siamjax import config as configuration


def get_config():
    """The recipe."""
    c = configuration.base()
    c.batch_size = 60
    c.data.source = "omniglot"
    c.data.fallback = "glyphs"
    c.data.size = (35, 35)
    c.data.fit = "ink"  # what is drawn, whatever its place and size: so the warps can be weak
    c.data.invert = True
    c.pairs.scheme = "in-batch"
    c.pairs.groups_per_batch = 2
    c.pairs.images_per_class = 3
    c.pairs.turned_groups = 0.375
    c.augment.name = "affine_elastic"
    c.augment.probability = 1.0
    c.augment.rotation = 7.5
    c.augment.shear = 0.15
    c.augment.scale = (0.9, 1.12)
    c.augment.translation = 1.5
    c.augment.elastic = 0.6
    c.model.tower = "small_resnet"
    c.model.head = "cosine"
    c.objective.loss = "nca"
    c.optimizer.name = "adamw"
    c.optimizer.learning_rate = 3e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.weight_decay = 1e-3
    c.train.steps = 2500
    c.train.log_every = 25
    c.eval.trials = 1000  # of 320, chance would choose the checkpoint
    c.eval.every = 250
    c.checkpoint.every = 250
    return c
