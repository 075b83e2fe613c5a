"""The folder of a run with fresh weights: what commands need, without the training."""

import optax

from siamjax import config as configuration
from siamjax.preprocess import preprocess_of
from siamjax.recipe import build_model
from siamjax.training.checkpoint import BEST, CheckpointStore
from siamjax.training.state import create_state


def untrained_run(folder, size=(12, 12), config=None, state=None):
    """A run, of an MLP with the Euclidean head, as if its best checkpoint came before step 1."""
    if config is None:
        config = configuration.base()
        config.data.size = size
        config.model.tower = "mlp"
        config.model.tower_options = configuration.options(features=(8, 8))
        config.model.head = "euclidean"
    preprocess = preprocess_of(config)
    if state is None:
        state = create_state(build_model(config), optax.sgd(1.0), (*config.data.size, 1), seed=0)
    about = {
        "config": configuration.to_json(config),
        "preprocess": preprocess.to_dict(),
        "data": {"name": "nothing"},
        "progress": {"card": None},
    }
    with CheckpointStore(folder) as store:
        store.save(BEST, state, about)
    return folder
