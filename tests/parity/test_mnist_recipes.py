"""Three recipes against Keras, from its weights: forward pass, loss, gradients, three steps.

The recorded arrays are those of narrow towers (make_mnist_recipes.py). `pytest -m parity` lets
Keras compute them anew, at full width, with the interpreter named by SIAMJAX_REFERENCE_PYTHON
(else this one); it needs keras and tensorflow. Dropout is off on both sides.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from comparison import close, part

from siamjax import backend, losses
from siamjax.config import base
from siamjax.models import Siamese
from siamjax.models.heads import Euclidean, EuclideanDense, EuclideanNormDense, WeightedL1
from siamjax.models.koch import Koch
from siamjax.models.mlp import Mlp
from siamjax.models.small_cnn import SmallCnn
from siamjax.training.objective import Objective
from siamjax.training.optimizer import create_optimizer
from siamjax.training.paths import named_leaves

HERE = Path(__file__).parent
KOCH_L2 = (("tower/conv./kernel", 2e-4), ("tower/dense/kernel", 1e-3))
# recipe: (tower, head, objective, optimiser, learning rate)
RECIPES = {
    "mnist_mlp": (
        lambda width: Mlp(features=width[:3], dropout=0.0),
        Euclidean(epsilon=1e-7),
        Objective("contrastive", losses.contrastive),
        "rmsprop",
        1e-3,
    ),
    "mnist_cnn": (
        lambda width: SmallCnn(features=width[:2], embedding=width[2], dropout=0.0),
        EuclideanDense(nonnegative=False),
        Objective("bce", losses.bce),
        "keras_adam",
        1e-3,
    ),
    "omniglot": (
        lambda width: Koch(initial="seed", features=width[:4], embedding=width[4]),
        WeightedL1(initial="seed", nonnegative=False),
        Objective("bce", losses.bce, l2=KOCH_L2),
        "keras_adam",
        6e-5,
    ),
}


# The bias of a linear layer cancels in the distance: both sides have it. Its gradient is rounding.
CANCELS = {"mnist_cnn": ("tower/dense/bias",)}


def build(recipe, initial):
    """The recipe's model and optimiser, at the widths of the recorded weights."""
    tower, head, objective, optimizer, rate = RECIPES[recipe]
    widths = tuple(v.shape[0] for k, v in initial.items() if k.endswith("bias") and "tower" in k)
    section = base().optimizer
    section.name, section.learning_rate = optimizer, rate
    return Siamese(tower(widths), head), objective, create_optimizer(section, total_steps=3)


def compare(recipe, recorded, tolerance):
    """The worst errors. `tolerance` is of the movement: of a ReLU or a pool near a tie, rounding
    decides.
    """
    worst = {}

    def check(got, expected, what):
        kind = what.split()[0]
        worst[kind] = max(worst.get(kind, 0), close(got, expected, what))

    initial = part(recorded, "initial")
    model, objective, optimizer = build(recipe, initial)
    params = flax.traverse_util.unflatten_dict(jax.tree.map(jnp.asarray, initial), sep="/")
    images = jnp.asarray(recorded["images"], jnp.float32) / 255

    @partial(jax.value_and_grad, has_aux=True)
    def loss(params, left, right, same):
        z = model.apply({"params": params}, jnp.concatenate([left, right]), method="embed")
        output = model.apply({"params": params}, left, right, train=True)
        value = objective.loss(output, same).mean() + objective.penalty(params)
        return value, (z, output)

    gradient, update = backend.jit(loss), backend.jit(optimizer.update)
    state = optimizer.init(params)
    for step in range(3):
        batch = (*images[step], jnp.asarray(recorded["same"][step]))
        (value, (z, output)), slope = gradient(params, *batch)
        check(value, recorded["losses"][step], f"loss {step}")
        if step == 0:
            check(z, recorded["embedding"], "embedding")
            value = output.value if recipe == "mnist_mlp" else output.similarity
            check(value, recorded["output"], "output")
            expected = part(recorded, "gradient")
            assert expected.keys() == dict(named_leaves(slope)).keys()
            for path, leaf in named_leaves(slope):
                if path in CANCELS.get(recipe, ()):
                    assert max(np.abs(leaf).max(), np.abs(expected[path]).max()) < 1e-8
                else:
                    check(leaf, expected[path], f"gradient of {path}")
        updates, state = update(slope, state, params)
        params = optax.apply_updates(params, updates)
    expected = part(recorded, "after")
    for path, leaf in named_leaves(params):
        if path in CANCELS.get(recipe, ()):
            assert max(np.abs(leaf).max(), np.abs(expected[path]).max()) < 1e-6
            continue
        layer = path.rpartition("/")[0]
        scale = max(np.abs(v).max() for k, v in expected.items() if k.startswith(layer))
        error = np.abs(leaf - expected[path]).max() / scale
        assert error < 1e-4, f"{path} after three steps: {error:.1e}"
        moved = expected[path] - initial[path]
        other = np.linalg.norm(leaf - expected[path]) / np.linalg.norm(moved)
        assert other < tolerance, f"{path} moved otherwise by {other:.1e}"
        worst["after"] = max(worst.get("after", 0), error)
        worst["movement"] = max(worst.get("movement", 0), other)
    return worst


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_recorded(recipe):
    with np.load(HERE / f"{recipe}.npz") as file:
        compare(recipe, dict(file), tolerance=1e-4)


def test_the_norm_head_equals_keras_in_training_and_inference():
    with np.load(HERE / "euclidean_norm_dense.npz") as file:
        recorded = dict(file)
    gamma, beta, kernel, bias = (jnp.asarray(v)[None] for v in recorded["params"])
    params = {
        "norm": {"scale": gamma, "bias": beta},
        "dense": {"kernel": kernel[None], "bias": bias},
    }
    statistics = {"norm": {"mean": jnp.zeros(1), "var": jnp.ones(1)}}
    head = EuclideanNormDense(nonnegative=False)
    left, right = jnp.asarray(recorded["left"]), jnp.asarray(recorded["right"])

    def trained(left):
        variables = {"params": params, "batch_stats": statistics}
        output, new = head.apply(variables, left, right, train=True, mutable=["batch_stats"])
        return jnp.square(output.value).sum(), (output.value, new["batch_stats"])

    gradient, (value, new) = jax.grad(trained, has_aux=True)(left)
    close(value, recorded["trained"], "output in training")
    close(gradient, recorded["gradient"], "gradient")
    close(jnp.r_[new["norm"]["mean"], new["norm"]["var"]], recorded["statistics"], "statistics")
    inferred = head.apply({"params": params, "batch_stats": new}, left, right)
    close(inferred.value, recorded["inferred"], "output in inference")


@pytest.mark.parity
@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_live(real_data, tmp_path, recipe):
    python = os.environ.get("SIAMJAX_REFERENCE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import keras, tensorflow"], capture_output=True).returncode:
        pytest.skip(f"{python} has no keras and tensorflow: set SIAMJAX_REFERENCE_PYTHON")
    script = HERE / "make_mnist_recipes.py"
    command = [python, script, real_data, "--out", tmp_path, "--wide", "--only", recipe]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    with np.load(tmp_path / f"{recipe}.npz") as file:
        print(recipe, compare(recipe, dict(file), tolerance=1e-2))
