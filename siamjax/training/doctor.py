"""Looks at a run while it trains, and says in plain words what ails it.

At each validation one batch is drawn and examined on the device: about one step's work, some
per cent of what a validation costs. `examine` measures, `Doctor` judges. A finding has to hold
twice in a row, and not before step 100: many healthy nets start almost constant, and leave that
plateau within some dozen steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from siamjax import backend
from siamjax.models import Siamese
from siamjax.training.objective import Objective, comparisons
from siamjax.training.paths import merge, named_leaves, split
from siamjax.training.state import TrainState
from siamjax.training.step import Data, forward, prepare
from siamjax.types import Distance, PairDraw, PairOutput, SetDraw

# Thresholds. A net that learns is far from each of them: see docs/reliability.md for what the
# recipes measure.
EARLIEST, PATIENCE = 100, 2  # the first step of a finding; examinations it has to hold
FLAT_EMBEDDINGS = 0.004  # difference of two images' embeddings, as a share of their size
FLAT_SIMILARITIES = 1e-4  # standard deviation over pairs
NOT_LEARNED = 0.98  # loss, as a share of what the best constant answer costs
WORSE_THAN_CONSTANT = 2.0  # the same share; untrained nets come to 1.4
DEAD, SATURATED = 0.9, 0.9  # shares of units
INVERTED_AUC = 0.45  # of some thousand validation pairs, whose chance is 0.5 +- 0.015
INVERTED = -4.0  # separation in standard errors; fresh nets of the recipes have -1 and more


class Measures(NamedTuple):
    """What an examination finds; scalars, but for the last two.

    Attributes:
        embedding_spread: mean absolute difference of two images' embeddings, in their own unit.
        relative_spread: the same over the mean size of an embedding's entries.
        similarity_spread: standard deviation of the similarities of the pairs.
        self_similarity: mean similarity of an image and itself.
        other_similarity: mean similarity of the pairs of two classes.
        separation: how much farther apart the embeddings of two classes lie than those of one, in
            standard errors; 0 where every image is compared with every other.
        loss: of the batch, without penalties.
        loss_over_constant: that over the loss of the best constant answer.
        active: share of examples that cost anything.
        saturated: share of embedding entries at the ends of a sigmoid; 0 without one.
        gradient_norm: by module.
        dead: share of units without any gradient, by module.
        marks: three sums over each array of parameters, which change when it does.
    """

    embedding_spread: Any
    relative_spread: Any
    similarity_spread: Any
    self_similarity: Any
    other_similarity: Any
    separation: Any
    loss: Any
    loss_over_constant: Any
    active: Any
    saturated: Any
    gradient_norm: dict[str, Any]
    dead: dict[str, Any]
    marks: dict[str, Any]


def examiner(
    model: Siamese,
    scheme: Callable,
    augment: Callable,
    objective: Objective,
    frozen: tuple[str, ...] = (),
) -> Callable[[TrainState, Data], Measures]:
    """The compiled examination of one recipe, on one device: `(state, data) -> Measures`."""

    def examine(state: TrainState, data: Data) -> Measures:
        draw, images, key = prepare(state, data, scheme, augment, axis=None)
        weight = objective.weight(draw)
        total = jnp.maximum(weight.sum(), 1)
        trained, left_alone = split(state.params, frozen)

        def loss(trained: Any) -> tuple[Array, tuple[Array, Array]]:
            params = merge(trained, left_alone)
            output, _ = forward(model, params, state.batch_stats, images, draw, key)
            each = objective.measure(output, draw).loss
            constant = _constant_loss(objective, output, draw, weight)
            return (each * weight).sum() / total, (each, constant / total)

        gradients, (each, constant) = jax.grad(loss, has_aux=True)(trained)
        cost = (each * weight).sum() / total
        return Measures(
            **_look(model, state, images, draw),
            loss=cost,
            loss_over_constant=cost / jnp.maximum(constant, 1e-12),
            active=((each > 1e-6) * weight).sum() / total,
            gradient_norm=_by_module(gradients, _norm),
            dead=_by_module(gradients, _silent),
            marks={path: _marks(leaf) for path, leaf in named_leaves(trained)},
        )

    return backend.jit_once(examine)


def _look(
    model: Siamese, state: TrainState, images: Array, draw: PairDraw | SetDraw
) -> dict[str, Array]:
    """Spreads of embeddings and similarities, as they are in use: without dropout."""
    weights = {"params": state.params, "batch_stats": state.batch_stats}
    z = jnp.asarray(model.apply(weights, images, method="embed"))

    def compare(left: Array, right: Array) -> Array:
        output: Any = model.apply(weights, left, right, method="compare")
        return output.similarity

    if isinstance(draw, PairDraw):
        left, right = jnp.split(z, 2)
        similarity, same, counted = compare(left, right), draw.same, draw.weight > 0
        separation = _separation(jnp.abs(left - right).mean(-1), same, counted)
    else:
        groups = z.reshape(len(draw.weight), -1, z.shape[-1])
        similarity = compare(groups[:, :, None], groups[:, None]).reshape(len(z), -1)
        (same, counted), separation = comparisons(draw), jnp.zeros(())
    difference = jnp.abs(z - jnp.roll(z, 1, 0)).mean()
    ends = (z < 0.02) | (z > 0.98)
    sigmoid = (z.min() >= 0) & (z.max() <= 1) & ((z > 0.98).mean() > 0.05)
    mean = _mean(similarity, counted)
    return {
        "embedding_spread": difference,
        "relative_spread": difference / jnp.maximum(jnp.abs(z).mean(), 1e-30),
        "similarity_spread": jnp.sqrt(_mean(jnp.square(similarity - mean), counted)),
        "self_similarity": compare(z, z).mean(),
        "other_similarity": _mean(similarity, counted & ~same),
        "separation": separation,
        "saturated": jnp.where(sigmoid, ends.mean(), 0.0),
    }


def _mean(values: Array, mask: Array) -> Array:
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def _separation(distance: Array, same: Array, counted: Array) -> Array:
    """Welch's t of the distances of two classes against those of one."""
    parts = [counted & ~same, counted & same]
    means = [_mean(distance, part) for part in parts]
    errors = [
        _mean(jnp.square(distance - mean), part) / jnp.maximum(part.sum() - 1, 1)
        for mean, part in zip(means, parts, strict=True)
    ]
    both = parts[0].any() & parts[1].any()
    return jnp.where(both, (means[0] - means[1]) / jnp.sqrt(errors[0] + errors[1] + 1e-30), 0.0)


def _constant_loss(
    objective: Objective, output: PairOutput, draw: PairDraw | SetDraw, weight: Array
) -> Array:
    """The summed loss of the best answer that is the same for every pair."""
    if objective.over_sets:
        answers = jnp.ones(1)  # only differences count
    elif isinstance(output, Distance):
        answers = jnp.linspace(0.0, 4.0, 33) * output.midpoint
    else:
        answers = jnp.linspace(-6.0, 6.0, 49)

    def cost(answer: Array) -> Array:
        constant = replace(output, value=jnp.full_like(output.value, answer))
        return (objective.measure(constant, draw).loss * weight).sum()

    return jnp.min(jax.lax.map(cost, answers))


def _by_module(tree: Any, measure: Callable[[list[Array]], Array | None]) -> dict[str, Array]:
    modules: dict[str, list[Array]] = {}
    for path, leaf in named_leaves(tree):
        modules.setdefault(path.rpartition("/")[0], []).append(leaf)
    found = {name: measure(leaves) for name, leaves in modules.items()}
    return {name: value for name, value in found.items() if value is not None}


def _norm(leaves: list[Array]) -> Array:
    return jnp.sqrt(sum((jnp.square(leaf).sum() for leaf in leaves), jnp.zeros(())))


def _silent(leaves: list[Array]) -> Array | None:
    """Share of a layer's units that no gradient reaches; None for what is not a layer."""
    kernels = [leaf for leaf in leaves if leaf.ndim >= 2 and leaf.shape[-1] > 1]
    if not kernels:
        return None
    return jnp.concatenate(
        [(kernel.reshape(-1, kernel.shape[-1]) == 0).all(0) for kernel in kernels]
    ).mean()


def _marks(leaf: Array) -> Array:
    flat = leaf.reshape(-1).astype(jnp.float32)
    wave = jnp.cos(jnp.arange(flat.size, dtype=jnp.float32))
    return jnp.stack([flat.sum(), jnp.abs(flat).sum(), (flat * wave).sum()])


@dataclass
class Doctor:
    """Judges what `examine` measures over a run.

    Attributes:
        examine: of `examiner`.
        learning_rate: of the config, for the remedy.
        start_remedy: what helps a net that starts almost constant.
        counts: how often in a row each finding held.
        said: findings that were told.
        first: relative and absolute spread of the embeddings, and their separation, at the first
            examination.
        marks: of the last examination, and the step it was at.
        last_ratio: the loss over a constant answer's, at the last examination.
    """

    examine: Callable[[TrainState, Data], Measures]
    learning_rate: float
    start_remedy: str
    counts: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    first: tuple[float, float, float] | None = None
    marks: dict[str, list[float]] = field(default_factory=dict)
    marked_at: int = 0
    last_ratio: float | None = None

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, as JSON values."""
        return {
            "counts": dict(self.counts),
            "said": list(self.said),
            "first": None if self.first is None else list(self.first),
            "marks": dict(self.marks),
            "marked_at": self.marked_at,
            "last_ratio": self.last_ratio,
        }

    def restore(self, saved: dict[str, Any] | None) -> None:
        """Goes on from `state()`; None, of a run without a doctor, changes nothing."""
        if saved is None:
            return
        for name, value in saved.items():
            setattr(self, name, value)
        self.first = saved["first"] and tuple(saved["first"])

    def look(
        self, step: int, state: TrainState, data: Data, auc: float | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Examines a state.

        Args:
            step: steps taken.
            state: one copy, on one device.
            data: of one device.
            auc: of the validation pairs.

        Returns:
            Figures for the metrics, and the sentences that were not told before.
        """
        found = jax.device_get(self.examine(state, data))
        findings = self.judge(step, found, auc)
        new = [text for name, text in findings.items() if name not in self.said]
        self.said += [name for name in findings if name not in self.said]
        figures = {
            name: value for name, value in found._asdict().items() if not isinstance(value, dict)
        }
        figures["modules"] = list(found.gradient_norm)
        figures["gradient_norms"] = [float(f"{g:.4g}") for g in found.gradient_norm.values()]
        figures["dead_units"] = max((float(v) for v in found.dead.values()), default=0.0)
        figures["findings"] = list(findings.values())
        return figures, new

    def judge(self, step: int, found: Measures, auc: float | None = None) -> dict[str, str]:
        """The findings that have held long enough: name to sentence."""
        ratio = float(found.loss_over_constant)
        if self.first is None:
            first = found.relative_spread, found.embedding_spread, found.separation
            self.first = (float(first[0]), float(first[1]), float(first[2]))
        held = {
            **self._spread(found, ratio),
            **self._loss(found, ratio),
            **self._labels(found, ratio, auc),
            **self._moved(step, found),
        }
        self.last_ratio = ratio if np.isfinite(ratio) else None
        self.counts = {name: self.counts.get(name, 0) + 1 for name in held if step >= EARLIEST}
        return {name: text for name, text in held.items() if self.counts.get(name, 0) >= PATIENCE}

    def _spread(self, found: Measures, ratio: float) -> dict[str, str]:
        """Constant answers: from the start, or by a collapse."""
        findings = {}
        flat = found.relative_spread < FLAT_EMBEDDINGS
        if ratio > NOT_LEARNED and (flat or found.similarity_spread < FLAT_SIMILARITIES):
            now, slower = found.embedding_spread, f"{self.learning_rate / 10:g}"
            start, then, _ = self.first or (0.0, 0.0, 0.0)
            if then > 10 * now:
                findings["collapse"] = (
                    f"embeddings of different images differ by {now:.2g}, and by {then:.2g} at the"
                    " start: the net has collapsed to a constant answer; use"
                    f" --config.optimizer.learning_rate={slower}"
                )
            elif flat or start < FLAT_EMBEDDINGS:
                findings["blind"] = (
                    f"embeddings of different images differ by {now:.2g}: the net can't tell images"
                    f" apart yet; {self.start_remedy}"
                )
            else:
                findings["constant"] = (
                    f"the similarities of all pairs lie within {found.similarity_spread:.2g} of"
                    " each other, though embeddings differ: the head gives a constant answer; use"
                    f" --config.optimizer.learning_rate={slower}, or another config.model.head"
                )
        if found.saturated > SATURATED and ratio > NOT_LEARNED:
            findings["saturated"] = (
                f"{found.saturated:.0%} of the embeddings' entries lie at the ends of their"
                f" sigmoid, where no gradient passes; {self.start_remedy}"
            )
        return findings

    def _loss(self, found: Measures, ratio: float) -> dict[str, str]:
        """A learning rate too high, and units that it killed."""
        findings, slower = {}, f"{self.learning_rate / 10:g}"
        falling = self.last_ratio is not None and ratio < 0.9 * self.last_ratio
        if ratio > WORSE_THAN_CONSTANT and not falling:
            findings["rate"] = (
                f"the loss, {found.loss:.3g}, is {ratio:.1f} times that of a constant answer and"
                f" does not fall: the learning rate ({self.learning_rate:g}) is too high; use"
                f" --config.optimizer.learning_rate={slower}"
            )
        dead = {name: share for name, share in found.dead.items() if share > DEAD}
        if dead and ratio > NOT_LEARNED:
            name, share = max(dead.items(), key=lambda item: item[1])
            findings["dead"] = (
                f"{share:.0%} of the units of {name} get no gradient: they are dead; use"
                f" --config.optimizer.learning_rate={slower}, or another config.model.init"
            )
        return findings

    def _labels(self, found: Measures, ratio: float, auc: float | None) -> dict[str, str]:
        """Same and different the wrong way round."""
        low = auc is not None and auc < INVERTED_AUC
        backwards = found.separation < INVERTED
        # Told apart the wrong way round, a net whose head can only fall with the distance makes
        # all images alike: only its start still shows why.
        if ratio > NOT_LEARNED and self.first is not None:
            backwards |= self.first[2] < INVERTED
        if not (low or backwards):
            return {}
        if low:
            seen = (
                f"validation pairs of one class look less alike than pairs of two (AUC {auc:.2f})"
            )
        else:
            seen = "training pairs that are called same lie farther apart than those called"
            seen += " different"
        return {
            "inverted": f"{seen}: the labels are probably inverted; 1 has to mean same, in a table"
            " of pairs as everywhere"
        }

    def _moved(self, step: int, found: Measures) -> dict[str, str]:
        """Parameters that should train and do not."""
        marks = {path: [float(x) for x in value] for path, value in found.marks.items()}
        modules: dict[str, list[bool]] = {}
        for path, value in marks.items():
            still = self.marks.get(path) == value and step > self.marked_at
            modules.setdefault(path.rpartition("/")[0], []).append(still)
        since = self.marked_at
        self.marks, self.marked_at = marks, step
        stuck = [name for name, still in modules.items() if all(still)]
        if not stuck:
            return {}
        shown = ", ".join(stuck[:5]) + (f" and {len(stuck) - 5} more" if len(stuck) > 5 else "")
        reached = [name for name in stuck if found.gradient_norm[name] > 0]
        why = (
            "gradients reach them, but the optimiser leaves them: look for a learning rate of 0 in"
            " config.optimizer.groups, and at the schedule"
            if reached
            else "no gradient reaches them: they are cut off from the loss, or their units are dead"
        )
        return {
            "frozen": f"the parameters of {shown} have not changed since step {since}, though"
            f" config.optimizer.frozen does not name them; {why}"
        }
