"""Optimisers, schedules, per-layer settings and plateaus, from the section `config.optimizer`.

What the names mean (g gradient, w parameter, r learning rate, hats bias-corrected):

- `adam`, `adamw`: `w -= r m_hat / (sqrt(v_hat) + eps)`. Kingma and Ba, PyTorch, optax.
- `keras_adam`: `w -= r sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)`. Epsilon is added before
  the correction, so at the first step it weighs 31.6 times as much.
- `sgd`: `u = momentum u + g; w -= r u`. PyTorch, optax.
- `keras_sgd`: `u = momentum u + r g; w -= u`. Keras and Koch et al.; the same while r is constant.
- `rmsprop`: `v = decay v + (1 - decay) g^2; w -= r g / sqrt(v + eps)`. Keras 3 and optax alike;
  PyTorch and Keras before 2.11 add eps outside the root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from siamjax.config import ConfigDict
from siamjax.training.average import keep_average
from siamjax.training.paths import check_patterns, named_leaves

OPTIMIZERS = ("adam", "adamw", "keras_adam", "sgd", "keras_sgd", "rmsprop")
Schedule = Callable[[Any], Array]  # a number of steps to a figure
SCHEDULES = ("constant", "cosine", "step", "exponential")


def create_optimizer(
    config: ConfigDict, total_steps: int, steps_per_epoch: int = 1
) -> optax.GradientTransformation:
    """The optimiser of `config.optimizer`.

    Args:
        config: the section `config.optimizer`.
        total_steps: length of the run, where a cosine ends.
        steps_per_epoch: of training, for what changes once an epoch.

    Returns:
        A transformation whose `init` raises ValueError for a path pattern that matches nothing.
    """
    share = _share(config, total_steps, steps_per_epoch)
    build = partial(_optimizer, config, share, steps_per_epoch)
    optimizer = build(config.learning_rate, config.momentum)
    groups = tuple(config.groups)
    if groups:
        by_name = {str(i): build(rate, momentum) for i, (_, rate, momentum) in enumerate(groups)}
        label = partial(_labels, [pattern for pattern, _, _ in groups])
        optimizer = optax.partition({**by_name, "rest": optimizer}, label)
    if config.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if config.average:
        optimizer = optax.chain(optimizer, keep_average(config.average))
    if config.accumulate > 1:
        optimizer = optax.MultiSteps(optimizer, config.accumulate).gradient_transformation()
    return _checked(optimizer, [pattern for pattern, _, _ in groups])


def _optimizer(
    config: ConfigDict,
    share: Schedule,
    steps_per_epoch: int,
    learning_rate: float | None,
    momentum: float | None,
) -> optax.GradientTransformation:
    """One group's optimiser; None means the section's own learning rate or momentum."""
    rate = config.learning_rate if learning_rate is None else learning_rate
    final = config.momentum if momentum is None else momentum
    every = config.accumulate  # the optimiser counts updates, schedules count steps
    by_rate = scale_by_rate(lambda count: rate * share(count * every))
    if config.name in ("sgd", "keras_sgd"):
        if not final:
            return by_rate
        ramp = _momentum(config, final, steps_per_epoch)
        trace = accumulate_momentum(lambda count: ramp(count * every))
        return optax.chain(*((trace, by_rate) if config.name == "sgd" else (by_rate, trace)))
    if momentum is not None and momentum != config.momentum:
        raise ValueError(
            f"config.optimizer.groups sets a momentum ({momentum}), which {config.name} does not"
            " have: write None, or use sgd or keras_sgd"
        )
    directions: dict[str, Callable[[], list[optax.GradientTransformation]]] = {
        "adam": lambda: [optax.scale_by_adam(eps=config.epsilon)],
        "adamw": lambda: [
            optax.scale_by_adam(eps=config.epsilon),
            optax.add_decayed_weights(config.weight_decay),
        ],
        "keras_adam": lambda: [scale_by_keras_adam(epsilon=config.epsilon)],
        "rmsprop": lambda: [optax.scale_by_rms(decay=config.decay, eps=config.epsilon)],
    }
    return optax.chain(*directions[config.name](), by_rate)


# ------------------------------------------------------------------------------------- schedules


def schedule(config: ConfigDict, total_steps: int, steps_per_epoch: int = 1) -> Schedule:
    """The learning rate at each step, before plateaus.

    Args:
        config: the section `config.optimizer`.
        total_steps: length of the run, where a cosine ends.
        steps_per_epoch: of training, for schedule=exponential.
    """
    share = _share(config, total_steps, steps_per_epoch)
    return lambda step: config.learning_rate * share(step)


def _share(config: ConfigDict, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The share of its highest learning rate that every group has at a step."""
    warmup, factor = config.warmup_steps, config.schedule_factor

    def rest(step: Array) -> Array:
        if config.schedule == "cosine":
            done = jnp.clip((step - warmup) / max(1, total_steps - warmup), 0.0, 1.0)
            end = config.schedule_end
            return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        period = {"step": config.schedule_every, "exponential": steps_per_epoch}
        if config.schedule in period:
            return jnp.float32(factor) ** (step // period[config.schedule])
        return jnp.ones(())

    def share(step: Any) -> Array:
        step = jnp.asarray(step)
        return rest(step) * jnp.minimum(1.0, step / warmup) if warmup else rest(step)

    return share


def _momentum(config: ConfigDict, final: float, steps_per_epoch: int) -> Schedule:
    """Rises epoch by epoch from `momentum_start`, over `momentum_epochs`; constant if that is 0."""
    if not config.momentum_epochs:
        return lambda step: jnp.float32(final)

    def ramp(step: Any) -> Array:
        done = jnp.minimum(1.0, (step // steps_per_epoch) / config.momentum_epochs)
        return config.momentum_start + (final - config.momentum_start) * done

    return ramp


# ------------------------------------------------------------------------------- transformations


class RateState(NamedTuple):
    """Updates made, `int32 []`, and the share of the learning rate that plateaus have left."""

    count: Array
    scale: Array


def scale_by_rate(rate: Schedule) -> optax.GradientTransformation:
    """Multiplies by minus the learning rate, and by a scale that lives in the state.

    Args:
        rate: number of updates made to learning rate.
    """

    def init(params: Any) -> RateState:
        return RateState(jnp.zeros((), jnp.int32), jnp.ones(()))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        step = -rate(state.count) * state.scale
        return jax.tree.map(lambda u: step * u, updates), state._replace(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def with_rate_scale(opt_state: Any, scale: float) -> Any:
    """The same optimiser state with every learning rate at `scale` times its schedule.

    The step reads the scale from its state, so it stays pure, and a checkpoint holds it.
    """

    def replace(node: Any) -> Any:
        if not isinstance(node, RateState):
            return node
        # Arithmetic keeps the leaf where it is, on one device or on several.
        return node._replace(scale=node.scale * 0 + jnp.float32(scale))

    return jax.tree.map(replace, opt_state, is_leaf=lambda node: isinstance(node, RateState))


class MomentumState(NamedTuple):
    """Updates made, and the running sum u."""

    count: Array
    velocity: Any


def accumulate_momentum(momentum: Schedule) -> optax.GradientTransformation:
    """`u = momentum(t) u + g`, as `optax.trace` with a momentum that may change."""

    def init(params: Any) -> MomentumState:
        return MomentumState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        keep = momentum(state.count)
        velocity = jax.tree.map(lambda u, g: keep * u + g, state.velocity, updates)
        return velocity, MomentumState(state.count + 1, velocity)

    return optax.GradientTransformation(init, update)


class KerasAdamState(NamedTuple):
    """Updates made, and the running means of g and g^2."""

    count: Array
    mean: Any
    square: Any


def scale_by_keras_adam(
    b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Adam's direction with epsilon added before the bias correction, as Keras adds it.

    References:
        Kingma, Ba 2015, "Adam: A Method for Stochastic Optimization", the variant at the end of
        section 2 (its epsilon hat).
    """

    def init(params: Any) -> KerasAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return KerasAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        t = state.count + 1
        correction = jnp.sqrt(1 - jnp.float32(b2) ** t) / (1 - jnp.float32(b1) ** t)
        mean = jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state.mean, updates)
        square = jax.tree.map(lambda v, g: v + (1 - b2) * (g * g - v), state.square, updates)
        direction = jax.tree.map(
            lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mean, square
        )
        return direction, KerasAdamState(t, mean, square)

    return optax.GradientTransformation(init, update)


# -------------------------------------------------------------------------------- parameter paths


def _labels(patterns: Sequence[str], tree: Any) -> Any:
    """For each parameter the number of the first pattern that matches its path, or "rest"."""

    def label(path: str) -> str:
        return next((str(i) for i, p in enumerate(patterns) if re.fullmatch(p, path)), "rest")

    return jax.tree.unflatten(jax.tree.structure(tree), [label(p) for p, _ in named_leaves(tree)])


def _checked(
    optimizer: optax.GradientTransformation, groups: Sequence[str]
) -> optax.GradientTransformation:
    def init(params: Any) -> Any:
        check_patterns("config.optimizer.groups", groups, params)
        return optimizer.init(params)

    return optax.GradientTransformation(init, optimizer.update)


# ------------------------------------------------------------------- watching a validation figure


@dataclass
class Patience:
    """Counts validations without improvement, to stop early.

    Attributes:
        patience: validations without improvement after which to stop; 0: never.
        mode: "max": larger is better; "min".
        delta: the least change that counts as improvement.
        best: the best figure so far, None before the first.
        waited: validations since.
    """

    patience: int
    mode: str = "max"
    delta: float = 0.0
    best: float | None = None
    waited: int = 0

    def update(self, figure: float) -> bool:
        """Takes a figure; whether patience is at its end. A NaN is no improvement."""
        sign = 1.0 if self.mode == "max" else -1.0
        if figure == figure and (self.best is None or sign * (figure - self.best) > self.delta):
            self.best, self.waited = float(figure), 0
        else:
            self.waited += 1
        return self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.waited

    def state(self) -> dict[str, Any]:
        """What has to be remembered, as JSON values."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state()`."""
        self.best, self.waited = state["best"], state["waited"]


@dataclass
class Plateau(Patience):
    """Lowers the learning rate when a figure stops improving: Keras' ReduceLROnPlateau.

    Its `scale` is for `with_rate_scale`.

    Attributes:
        factor: of each reduction.
        minimum: the scale is not lowered further.
        scale: share of the learning rate that is left.
    """

    mode: str = "min"
    delta: float = 1e-4
    factor: float = 0.1
    minimum: float = 0.0
    scale: float = 1.0

    def update(self, figure: float) -> bool:
        """Takes a figure; whether the scale changed."""
        if not super().update(figure) or self.scale <= self.minimum:
            return False
        self.scale, self.waited = max(self.scale * self.factor, self.minimum), 0
        return True

    def state(self) -> dict[str, Any]:
        """What has to be remembered, as JSON values."""
        return {**super().state(), "scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state()`."""
        super().restore(state)
        self.scale = state["scale"]
