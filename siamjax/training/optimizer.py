"""Optimisers and schedules from a config section."""

from __future__ import annotations

import optax
from ml_collections import ConfigDict


def schedule(config: ConfigDict, total_steps: int) -> optax.Schedule:
    """The learning rate at each step.

    Args:
        config: the section `config.optimizer`.
        total_steps: length of the run, where a cosine ends.
    """
    rate, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        rest = optax.cosine_decay_schedule(rate, max(1, total_steps - warmup))
    else:
        rest = optax.constant_schedule(rate)
    if not warmup:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), rest], [warmup])


def create_optimizer(config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """The optimiser of `config.optimizer`.

    Args:
        config: the section `config.optimizer`.
        total_steps: length of the run, for the schedule.
    """
    rate = schedule(config, total_steps)
    optimizers = {
        "adam": lambda: optax.adam(rate, eps=config.epsilon),
        "adamw": lambda: optax.adamw(rate, eps=config.epsilon, weight_decay=config.weight_decay),
        "sgd": lambda: optax.sgd(rate, momentum=config.momentum or None),
        "rmsprop": lambda: optax.rmsprop(rate, decay=config.decay, eps=config.epsilon),
    }
    optimizer = optimizers[config.name]()
    if config.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
