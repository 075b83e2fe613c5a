"""Two recipes of colour images against their libraries, from their weights, through our own steps.

The recorded arrays are those of thin towers (make_colour_recipes.py). `pytest -m parity` lets
Keras compute the image-pairs recipe anew with ResNet152V2, with the interpreter named by
SIAMJAX_REFERENCE_PYTHON (else this one). The full VGG16 is in tests/models/test_pretrained.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import close, moved_alike, part, recipe, train
from flax.traverse_util import flatten_dict, unflatten_dict

from siamjax.models.layouts import LAYOUTS
from siamjax.models.pretrained import import_weights
from siamjax.recipe import build_model
from siamjax.training.features import features, split_model

HERE = Path(__file__).parent


def load(path):
    with np.load(path) as file:
        return dict(file)


def imported(model, images, content, path):
    """Weights and statistics of a file; zeros where it has none."""
    image = jnp.zeros((1, *images.shape[3:]))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image, image)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    path.write_bytes(bytes(content))
    return import_weights(zeros["params"], zeros.get("batch_stats", {}), path)


def stacked(images):
    """The images of a batch as the tower sees them: all left ones, then all right ones."""
    return jnp.asarray(images.reshape(-1, *images.shape[2:]))


# ------------------------------------------------------------------------------------ omniglot_vgg


def by_torch_name(params):
    """Our parameters' paths to the reference's names and the turns that make ours of theirs."""
    return LAYOUTS["bubbliiiing-vgg"].plan(flatten_dict({"params": params}, sep="/"))


def test_three_steps_of_the_siamese_vgg(tmp_path):
    recorded = load(HERE / "omniglot_vgg.npz")
    config = recipe("omniglot_vgg", depth=11, divide=32)
    config.model.head_options.update(hidden=8)
    model, images = build_model(config), recorded["images"]
    params, _ = imported(model, images, recorded["pth"], tmp_path / "x.pth")
    plan = by_torch_name(params)

    def ours(group):
        arrays = part(recorded, group)
        return {path: source.turn(arrays[source.name]) for path, source in plan.items()}

    left, right = jnp.asarray(images[0])
    embedding = model.apply({"params": params}, left, method="embed")
    close(embedding, recorded["embedding"], "embedding")
    output = model.apply({"params": params}, left, right, train=True)
    close(output.value, recorded["logits"], "logits")
    trained = train(config, model, params, {}, images, recorded["same"])
    close(trained.losses, recorded["losses"], "losses")
    gradients = flatten_dict({"params": trained.gradients}, sep="/")
    expected = ours("gradient")
    assert gradients.keys() == expected.keys()
    for path, gradient in gradients.items():
        close(gradient, expected[path], f"gradient of {path}")
    after = flatten_dict({"params": trained.state.params}, sep="/")
    initial = flatten_dict({"params": params}, sep="/")
    moved_alike(after, ours("after"), initial, expected, rate=1e-4)


# ------------------------------------------------------------------------------------- image_pairs


def image_pairs(recorded, tmp_path, **tower_options):
    """The recipe's config and model, and the reference's weights and statistics."""
    width = recorded["initial/tower/dense/bias"].size
    config = recipe("image_pairs", embedding=width, dropout=0.0, **tower_options)
    model = build_model(config)
    params, batch_stats = imported(model, recorded["images"], recorded["h5"], tmp_path / "x.h5")
    params = flatten_dict(params, sep="/") | part(recorded, "initial")
    batch_stats = flatten_dict(batch_stats, sep="/") | part(recorded, "initial statistics")
    return (
        config,
        model,
        *(jax.tree.map(jnp.asarray, unflatten_dict(t, sep="/")) for t in (params, batch_stats)),
    )


def compare_image_pairs(recorded, config, model, params, batch_stats, images, **movement):
    """`images` [steps, 2, b, h, w, c], or a frozen tower's features of them; the worst errors."""
    variables = {"params": params, "batch_stats": batch_stats}
    worst = {}

    def compare(name, got, expected=None):
        expected = recorded[name] if expected is None else expected
        worst[name] = close(got, expected, name)

    compare("embedding", model.apply(variables, stacked(images[0]), method="embed"))
    left, right = jnp.asarray(images[0])
    output, _ = model.apply(variables, left, right, train=True, mutable=["batch_stats"])
    compare("output", output.value)
    trained = train(config, model, params, batch_stats, images, recorded["same"])
    compare("losses", trained.losses)
    gradients, slopes = flatten_dict(trained.gradients, sep="/"), part(recorded, "gradient")
    assert gradients.keys() == slopes.keys()  # none of what is frozen
    for path, gradient in gradients.items():
        compare(f"gradient of {path}", gradient, slopes[path])
    expected, initial = part(recorded, "after"), part(recorded, "initial")
    after = flatten_dict(trained.state.params, sep="/")
    after = {path: after[path] for path in expected}
    moves = moved_alike(after, expected, initial, slopes, rate=0.01, **movement)
    worst["after"], worst["movement"] = moves
    for path, value in part(recorded, "after statistics").items():
        compare(f"{path} after", flatten_dict(trained.state.batch_stats, sep="/")[path], value)
    for new, old in ((trained.state.params, params), (trained.state.batch_stats, batch_stats)):
        jax.tree.map(
            np.testing.assert_array_equal, new["tower"].get("backbone"), old["tower"]["backbone"]
        )
    variables = {"params": trained.state.params, "batch_stats": trained.state.batch_stats}
    compare("inferred", model.apply(variables, left, right).value)
    return worst


def on_features(model, params, batch_stats, images):
    """The part of the model behind its frozen front, and what takes the images' place."""
    front, rest = split_model(model)
    flat = features(front, params, batch_stats, images.reshape(-1, *images.shape[3:]))
    return rest, flat.reshape(*images.shape[:3], *flat.shape[1:])


@pytest.mark.parametrize(
    "once",
    [pytest.param(False, id="images", marks=pytest.mark.slow), pytest.param(True, id="features")],
)
def test_three_steps_of_image_pairs(tmp_path, once):
    """With the frozen backbone in the step, and run once an image before the first step."""
    pytest.importorskip("h5py")
    recorded = load(HERE / "image_pairs.npz")
    config, model, params, batch_stats = image_pairs(recorded, tmp_path, depth=26, divide=32)
    images = recorded["images"]
    if once:
        model, images = on_features(model, params, batch_stats, images)
        close(images, recorded["features"][..., None, None, :], "features")
    compare_image_pairs(recorded, config, model, params, batch_stats, images)


@pytest.mark.parity
@pytest.mark.timeout(900)
def test_live_image_pairs_of_resnet152v2(real_data, tmp_path):
    pytest.importorskip("h5py")
    python = os.environ.get("SIAMJAX_REFERENCE_PYTHON", sys.executable)
    needs = "import keras, tensorflow, h5py"
    if subprocess.run([python, "-c", needs], capture_output=True).returncode:
        pytest.skip(f"{python} can't `{needs}`: set SIAMJAX_REFERENCE_PYTHON")
    script = HERE / "make_colour_recipes.py"
    command = [python, script, real_data, "image_pairs", "--full", "--out", tmp_path]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    recorded = load(tmp_path / "image_pairs.npz")
    config, model, params, batch_stats = image_pairs(recorded, tmp_path)
    model, ours = on_features(model, params, batch_stats, recorded["images"])
    theirs = recorded["features"][..., None, None, :]
    print("features", close(ours, theirs, "features"))
    # 152 layers of random weights multiply rounding, and Adam turns what of it is in a small
    # gradient into a step: so the step starts from the same features, and gradients below a
    # thousandth of the largest are left out.
    parts = config, model, params, batch_stats, theirs
    print(compare_image_pairs(recorded, *parts, tiny=1e-3))
