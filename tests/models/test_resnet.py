import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models import HEADS, Siamese
from siamjax.models.resnet import ResNetV2

RNG = np.random.default_rng(0)
SMALL = {"depth": 26, "divide": 32, "embedding": 5}


def size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def images(n=2, h=32, w=32, c=3):
    return jnp.asarray(RNG.random((n, h, w, c)), jnp.float32)


@pytest.fixture(scope="module")
def built():
    """A small frozen tower, all its numbers away from their defaults, and images."""
    tower, x = ResNetV2(**SMALL, frozen=True, dropout=0.5), images()
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), x, train=False))
    noise = np.random.default_rng(1)
    variables = jax.tree.map(lambda v: jnp.asarray(noise.normal(0.2, 0.2, v.shape), "f4"), shapes)
    variables["batch_stats"] = jax.tree.map(lambda v: jnp.abs(v) + 0.5, variables["batch_stats"])
    return tower, variables, x


@functools.partial(jax.jit, static_argnums=(0, 3))
def run(tower, variables, x, train=False, seed=0):
    """Embeddings and the statistics after them."""
    rngs = {"dropout": jax.random.key(seed)}
    return tower.apply(variables, x, train=train, mutable=["batch_stats"], rngs=rngs)


@pytest.mark.parametrize(
    ("depth", "count"), [(50, 23_564_800), (101, 42_626_560), (152, 58_331_648)]
)
def test_numbers_are_those_that_keras_counts(depth, count):
    variables = jax.eval_shape(
        lambda: ResNetV2(depth=depth).init(
            jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False
        )
    )
    backbone = variables["params"]["backbone"], variables["batch_stats"]["backbone"]
    assert size(backbone) == count
    assert size(variables["params"]["dense"]) == 8192 * 512 + 512 == 4_194_816
    assert set(variables["params"]) == {"backbone", "dense"}
    assert set(variables["batch_stats"]) == {"backbone"}


def features(tower, variables, x, train=False):
    backbone = {kind: {"backbone": tree["backbone"]} for kind, tree in variables.items()}
    return run(tower.clone(embedding=0), backbone, x, train)[0]


def test_embedding_is_relu_of_dense_of_the_flattened_maps(built):
    tower, variables, x = built
    flat = features(tower, variables, x)
    assert flat.shape == (2, 1 * 1 * 64)
    dense = variables["params"]["dense"]
    expected = np.maximum(np.asarray(flat) @ dense["kernel"] + dense["bias"], 0)
    assert (expected > 0).any()
    np.testing.assert_allclose(run(tower, variables, x)[0], expected, rtol=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def gradient_and_statistics(tower, variables, x):
    def loss(params):
        z, changed = run(tower, {**variables, "params": params}, x, True)
        return jnp.square(z).sum(), changed

    return jax.grad(loss, has_aux=True)(variables["params"])


def test_frozen_gives_the_backbone_no_gradient_and_keeps_its_statistics(built):
    tower, variables, x = built
    gradient, changed = gradient_and_statistics(tower, variables, x)
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(gradient["backbone"]))
    assert np.asarray(gradient["dense"]["kernel"]).any()
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])


def test_a_free_backbone_learns_and_takes_new_statistics(built):
    tower, variables, x = built
    gradient, changed = gradient_and_statistics(tower.clone(frozen=False), variables, x)
    assert all(np.asarray(g).any() for g in jax.tree.leaves(gradient["backbone"]["conv1_conv"]))
    layer = ("batch_stats", "backbone", "conv2_block1_preact_bn", "mean")
    old, new = (functools.reduce(dict.get, layer, tree) for tree in (variables, changed))
    assert float(jnp.abs(new - old).min()) > 1e-6


def test_a_frozen_backbone_s_maps_do_not_depend_on_the_batch_or_on_training(built):
    tower, variables, x = built
    whole = features(tower, variables, x, True)
    assert (whole > 0).any()
    other = features(tower, variables, jnp.stack([x[0], 1 - x[1]]))
    np.testing.assert_allclose(whole[0], other[0], rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only(built):
    tower, variables, x = built
    still, a, b = (run(tower, variables, x, *how)[0] for how in ((), (True, 0), (True, 1)))
    np.testing.assert_array_equal(still, run(tower, variables, x, False, 1)[0])
    assert float(jnp.abs(a - b).max()) > 1e-3
    assert float(jnp.abs(a - still).max()) > 1e-3


def test_the_stride_is_in_the_last_block_of_the_first_three_stacks():
    """Sizes of the maps after each stack's first block: not yet halved."""
    tower, x = ResNetV2(depth=50, divide=32), jnp.zeros((1, 64, 96, 3))

    def sizes():
        _, state = tower.init_with_output(
            jax.random.key(0), x, train=False, capture_intermediates=True
        )
        return state["intermediates"]["backbone"]

    seen = jax.eval_shape(sizes)
    maps = {
        name: value["__call__"][0].shape[1:3] for name, value in seen.items() if name != "__call__"
    }
    assert maps["conv1_conv"] == (32, 48)
    assert maps["conv2_block1_3_conv"] == (16, 24)
    assert maps["conv2_block2_3_conv"] == (16, 24)
    assert maps["conv2_block3_3_conv"] == maps["conv3_block1_3_conv"] == (8, 12)
    assert maps["conv3_block4_3_conv"] == maps["conv4_block5_3_conv"] == (4, 6)
    assert maps["conv4_block6_3_conv"] == maps["conv5_block3_3_conv"] == maps["post_bn"] == (2, 3)


def test_normalises_and_replicates(built):
    tower, variables, _ = built
    grey = images(2, 32, 32, 1)
    replicating = tower.clone(normalise="unit", replicate_grey=True)
    replicated = run(replicating, variables, 2 * grey - 1)[0]
    colour = run(tower, variables, jnp.repeat(grey, 3, -1))[0]  # its default is "tf"
    assert (colour > 0).any()
    np.testing.assert_allclose(replicated, colour, rtol=1e-4)


@pytest.mark.parametrize(
    ("initial", "variance"), [("keras", 2 / (9 * 32 + 9 * 32)), ("he", 2 / (9 * 32))]
)
def test_inits(initial, variance):
    tower, x = ResNetV2(initial=initial, depth=26, divide=16), jnp.zeros((1, 32, 32, 3))

    def two_layers():  # only what is returned is compiled
        backbone = tower.init(jax.random.key(0), x, train=False)["params"]["backbone"]
        return backbone["conv5_block1_2_conv"]["kernel"], backbone["conv1_conv"]["bias"]

    kernel, bias = map(np.asarray, jax.jit(two_layers)())
    assert kernel.shape == (3, 3, 32, 32)
    assert kernel.std() == pytest.approx(variance**0.5, rel=0.03)
    assert not bias.any()


def test_inside_a_siamese_the_frozen_part_has_one_path():
    model = Siamese(ResNetV2(**SMALL, frozen=True), HEADS["euclidean"]())
    x = images(1)
    params = jax.eval_shape(model.init, jax.random.key(0), x, x)["params"]
    assert set(params["tower"]) == {"backbone", "dense"}


def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
    tower, x = ResNetV2(**SMALL, dtype=jnp.bfloat16), images(1)
    z, variables = jax.eval_shape(lambda: tower.init_with_output(jax.random.key(0), x, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert z.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"depth": 34}, "resnet_v2 has depth 26, 50, 101, 152; got 34"),
        ({"initial": "paper"}, "resnet_v2 knows init keras, he; got 'paper'"),
        ({"divide": 0}, "resnet_v2's divide must divide 64; got 0"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(ValueError, match=text):
        ResNetV2(**options).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
