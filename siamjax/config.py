"""Every configuration key with its default, the checks, and JSON in and out.

A recipe starts from `base()`, overrides what it needs and returns the config; the command line
may override again (`--config.batch_size=64`). Keys that are not here do not exist: a misspelt
one is an error that names its nearest neighbour.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ml_collections.config_dict import placeholder

from siamjax.config_faults import find_faults

if TYPE_CHECKING:

    class ConfigDict(Any):
        """As Any: ml_collections types each attribute as a union of all that it may hold."""

else:
    from ml_collections import ConfigDict

SCHEMA = 1  # raised when a saved config needs translating before it can be read


def base() -> ConfigDict:
    """Every key, its default, and what it means."""
    c = ConfigDict()
    c.seed = 0  # the one seed: weights, pairs, warps, dropout, trials, and the split
    c.batch_size = 32  # pairs in a step, over all devices; the tower sees 2 x this many images
    c.dtype = "float32"  # of the computation: float32 or bfloat16; parameters stay float32
    c.data = _data()
    c.pairs = _pairs()
    c.augment = _augment()
    c.model = _model()
    c.objective = _objective()
    c.optimizer = _optimizer()
    c.train = _train()
    c.eval = _eval()
    c.checkpoint = _checkpoint()
    return c


def _data() -> ConfigDict:
    """Where images come from, and how they become pixels."""
    d = ConfigDict()
    d.source = "omniglot"  # omniglot | folder | tfds | mnist | digits | pair_table | glyphs
    d.dir = placeholder(str)  # where the files are; None: $SIAMJAX_DATA, else ./data
    d.fallback = placeholder(str)  # source to use when `source` cannot be had; None: an error
    # More are sent batch by batch, with the same numbers; 4096 is a quarter of a 16 GB GPU.
    d.resident_limit = 4096  # MiB of training images that may stay on each device
    d.cache_dir = placeholder(str)  # decoded images; None: the user's cache directory
    d.tfds_name = placeholder(str)  # source=tfds: the data set's name, e.g. "mnist"
    d.size = (105, 105)  # height, width
    d.fit = "resize"  # (stretch) | crop (cut the rest) | letterbox (pad) | ink (only what is drawn)
    d.channels = 1  # 1 grey, 3 colour
    d.invert = False  # 255 - x: ink white on black, so zero padding is paper
    d.split = "class"  # hold out whole classes (or groups) | "drawer": also other drawers (Koch)
    # share of classes or groups held out where the source has no split of its own;
    d.holdout = 0.2  # 0 with a test split and no validation: the test images validate
    d.split_seed = placeholder(int)  # of what is held out, so that seeds may share it; None: seed
    d.glyph_alphabets = (30, 10)  # source=glyphs: training and validation alphabets
    d.drawn_alphabets = 0  # that many alphabets of drawn glyphs train beside the source's images
    d.glyph_seed = 0  # source=glyphs: of the drawing, so that runs over seeds share their data
    return d


def _pairs() -> ConfigDict:
    """Which pairs a step sees."""
    p = ConfigDict()
    # drawn anew at each step: balanced | within-group (negatives of one group) | triples (three
    # images of a class and one of another) | in-batch (every image against all of its group);
    # drawn once, shuffled each epoch: all-once | consecutive; from the source: explicit
    p.scheme = "balanced"  # one of these
    p.allow_self = False  # all-once: a positive may be an image with itself
    p.use_all = True  # consecutive: all images of each class, not as many as the smallest has
    p.groups_per_batch = 2  # in-batch: groups (alphabets) drawn for a step
    p.images_per_class = 3  # in-batch: images of each class drawn
    p.augment_singletons = False  # a class of one image gives positives: two warps of that image
    p.turned_groups = 0.0  # in-batch: share of groups turned by 90, 180 or 270 degrees: new classes
    return p


def _augment() -> ConfigDict:
    """How images are warped in training."""
    a = ConfigDict()
    a.name = "none"  # none | affine | affine_elastic
    a.probability = 0.5  # of each of the seven affine components (1 + 2 + 2 + 2), and of stroke
    a.rotation = 10.0  # degrees, drawn from -rotation .. rotation
    a.shear = 0.3  # drawn from -shear .. shear, along x and along y
    a.scale = (0.8, 1.2)  # drawn for x and for y
    a.translation = 2.0  # pixels, drawn from -translation .. translation
    a.elastic = 0.0  # affine_elastic: standard deviation of the displacement field, pixels
    a.stroke = 0.0  # strokes thicker or thinner by -stroke .. stroke pixels a side; 0..1, grey only
    # One map for all images that are compared with each other (a pair, a group): new classes
    a.shared = 0.0  # probability of it; it turns by any angle
    a.shared_shear = 0.3  # drawn from -shear .. shear
    a.shared_stretch = 1.2  # of x against y, drawn from 1/stretch .. stretch
    a.shared_reflected = 0.5  # share of them that also reflect
    return a


def _model() -> ConfigDict:
    """The tower and the head."""
    m = ConfigDict()
    m.tower = "koch"  # a name in siamjax.models.TOWERS
    m.tower_options = ConfigDict()  # arguments of that tower beyond `init`
    m.head = "weighted_l1"  # a name in siamjax.models.HEADS
    m.head_options = ConfigDict()  # arguments of that head beyond `init`
    m.init = "he"  # the tower's own: koch has paper | seed | he
    m.views = 1  # turns of each image whose comparisons are averaged: 1 to 4, 8 with mirror images
    m.members = 1  # nets whose scores are averaged; more only by experiments.ensemble
    m.cache_features = True  # run a frozen tower once an image, where nothing random comes before
    m.remat = False  # vgg, resnet_v2 on GPUs: a block's maps computed twice, less memory
    m.weights = placeholder(str)  # to start from: the folder of a run, or a published file
    # auto | run: tower and head of that run | run-tower: its tower, the head starts fresh | of a
    m.weights_kind = "auto"  # file: torchvision-vgg | bubbliiiing-vgg | keras-resnet-v2
    m.weights_sha256 = placeholder(str)  # of a file, 8 digits or more: no other is taken
    m.sum_colours = False  # grey images: add up the three colours of the file's first kernel
    return m


def _objective() -> ConfigDict:
    """What is minimised."""
    o = ConfigDict()
    o.loss = "bce"  # a name in siamjax.losses.LOSSES
    o.margin = 1.0  # contrastive, triplet
    o.strategy = "hardest"  # triplet: hardest | semi_hard | all
    o.l2 = ()  # (("path regex", factor), ...): adds factor * sum(w ** 2) over matching parameters
    return o


def _optimizer() -> ConfigDict:
    """How it is minimised."""
    z = ConfigDict()
    z.name = "adam"  # adam | adamw | keras_adam | sgd | keras_sgd | rmsprop
    z.learning_rate = 1e-3  # at its highest, where a schedule changes it
    z.schedule = "constant"  # constant | cosine | step | exponential (by epoch)
    z.schedule_factor = 0.99  # step, exponential: of each reduction
    z.schedule_every = 1000  # step: steps between reductions
    z.schedule_end = 0.0  # cosine: share of the learning rate at the end
    z.warmup_steps = 0  # linear from 0
    z.plateau_patience = 0  # validations without a better figure before the rate falls; 0: never
    z.plateau_factor = 0.1  # of each fall
    z.plateau_minimum = 0.0  # lowest share of the learning rate
    z.plateau_metric = "loss"  # the validation figure that a plateau watches
    z.plateau_mode = "min"  # min: smaller is better | max
    z.momentum = 0.9  # sgd, keras_sgd
    z.momentum_start = 0.5  # where a linear rise of the momentum begins
    z.momentum_epochs = 0  # over which it rises to `momentum`; 0: constant
    z.epsilon = 1e-7  # adam, adamw, keras_adam, rmsprop; Keras' default
    z.decay = 0.9  # rmsprop: of the running mean of squares
    z.weight_decay = 0.0  # adamw: decoupled
    z.groups = ()  # ((path pattern, learning rate or None, momentum or None), ...)
    z.frozen = ()  # path patterns of parameters that do not train and cost no optimiser memory
    z.clip_norm = placeholder(float)  # clip the global norm of the gradient; None: never
    # of the weights, 1 left out: validation and whoever uses the run then see their mean
    z.average = 0.0  # decay of that running mean; 0: none
    z.accumulate = 1  # steps whose gradients are averaged into one update
    return z


def _train() -> ConfigDict:
    """How long, and in what portions."""
    t = ConfigDict()
    t.mode = "iterations"  # iterations: a fixed number of steps | epochs: max(1, n // batch) each
    t.steps = 1000  # mode=iterations
    t.epochs = 10  # mode=epochs
    t.patience = 0  # validations without a better checkpoint.metric before the end; 0: never
    t.log_every = 20  # steps between lines of metrics
    t.doctor = True  # examine the net at each validation, and say what ails it
    t.tensorboard = False  # TensorBoard events too (pip install 'siamjax[tensorboard]')
    t.devices = 0  # of this process to train on; 0: all
    t.steps_per_dispatch = "auto"  # steps in one compiled call; auto: by backend and tower
    return t


def _eval() -> ConfigDict:
    """What validation measures."""
    e = ConfigDict()
    e.every = 100  # steps between validations (mode=epochs: every epoch)
    e.way = 20  # classes in a one-shot trial
    e.shot = 1  # support images per class
    e.trials = 320  # one-shot trials in a validation; 0: none
    e.pairs = 2000  # validation pairs in a validation, where they are drawn
    e.pair_scheme = placeholder(str)  # all-once | consecutive; None: as in training, else drawn
    return e


def _checkpoint() -> ConfigDict:
    """What is kept."""
    k = ConfigDict()
    k.every = 200  # steps between checkpoints of the latest state
    k.metric = "one_shot_accuracy"  # a validation figure that chooses the best checkpoint
    k.mode = "max"  # max: larger is better | min
    return k


def options(**values: Any) -> ConfigDict:
    """Options of one tower or head, for `model.tower_options` and `model.head_options`."""
    return ConfigDict(values)


def validate(config: ConfigDict, choices: Mapping[str, Collection[str]] | None = None) -> None:
    """Checks every key and reports all faults at once.

    Args:
        config: what a recipe returned, with the user's overrides.
        choices: further dotted paths and the values they may take (the registries' names, which
            this file, at the bottom of the house, cannot know).

    Raises:
        ValueError: one line for each fault: the key, what was expected, what came.
    """
    faults = find_faults(config, choices or {})
    if faults:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise ValueError(f"the config has {len(faults)} fault(s):\n{lines}")


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON text, keys sorted; `from_json` reads it back equal."""
    return json.dumps({"schema": SCHEMA, "config": config.to_dict()}, indent=2, sort_keys=True)


def from_json(saved: str | Mapping[str, Any]) -> ConfigDict:
    """A locked config from `to_json`'s text (or its parsed form), its lists tuples again.

    Raises:
        ValueError: if the text was written by a newer siamjax.
    """
    parsed: Mapping[str, Any] = json.loads(saved) if isinstance(saved, str) else saved
    if parsed["schema"] > SCHEMA:
        raise ValueError(
            f"this config has schema {parsed['schema']}, written by a newer siamjax; this one reads"
            f" up to {SCHEMA}: upgrade siamjax"
        )
    config = base()
    for section in ("tower_options", "head_options"):  # free-form: each tower has its own
        values = parsed["config"]["model"][section]
        config.model[section] = ConfigDict({key: _tuples(values[key]) for key in values})
    _fill(config, parsed["config"])
    return config.lock()


def _fill(config: ConfigDict, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in config:
            raise ValueError(
                f"a saved config has the key {key!r}, which this siamjax does not know: it was"
                " written by another version; upgrade siamjax"
            )
        if isinstance(value, Mapping):
            _fill(config[key], value)
        else:
            with config.ignore_type():
                config[key] = _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
