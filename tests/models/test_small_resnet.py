import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from siamjax.models.small_resnet import SmallResNet
from siamjax.models.standardised import StandardisedConv, standardise

SMALL = {"width": 4, "embedding": 6, "tokens": 2}
OTHER = {"norm": "group", "groups": 2, "standardise": True}


def images(n=3, side=16, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((n, side, side, 1)), jnp.float32)


def made(**options):
    """A tower, and variables that are nowhere at their special starting values."""
    tower = SmallResNet(**{**SMALL, **options})
    variables = jax.jit(lambda: tower.init(jax.random.key(0), images(1), train=False))()
    leaves, structure = jax.tree.flatten(variables)
    rng = np.random.default_rng(1)
    moved = [leaf + jnp.asarray(0.1 * rng.random(leaf.shape), jnp.float32) for leaf in leaves]
    return tower, jax.tree.unflatten(structure, moved)


def shapes(**options):
    tower = SmallResNet(**{**SMALL, **options})
    found = jax.eval_shape(lambda: tower.init(jax.random.key(0), images(1), train=False))
    return {
        collection: {
            "/".join(str(key.key) for key in keys): leaf.shape
            for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for collection, tree in found.items()
    }


KERNELS = {
    "stem": (3, 3, 1, 4), "block1/conv1": (3, 3, 4, 4), "block1/conv2": (3, 3, 4, 4),
    "block2/conv1": (3, 3, 4, 8), "block2/conv2": (3, 3, 8, 8), "block2/join": (1, 1, 4, 8),
    "block3/conv1": (3, 3, 8, 16), "block3/conv2": (3, 3, 16, 16), "block3/join": (1, 1, 8, 16),
}  # fmt: skip
NORMED = {
    "stem_norm": 4, "block1/norm1": 4, "block1/norm2": 4,
    "block2/norm1": 8, "block2/norm2": 8, "block2/norm_join": 8,
    "block3/norm1": 16, "block3/norm2": 16, "block3/norm_join": 16,
}  # fmt: skip
DENSE = {
    "dense/kernel": (64, 6), "dense/bias": (6,), "tokens/kernel": (16, 2), "tokens/bias": (2,),
}  # fmt: skip


def test_the_default_has_the_parameters_that_saved_runs_have():
    found = shapes()
    norms = {f"{n}/{part}": (f,) for n, f in NORMED.items() for part in ("scale", "bias")}
    kernels = {f"{name}/kernel": shape for name, shape in KERNELS.items()}
    assert found["params"] == kernels | norms | DENSE
    assert found["batch_stats"] == {
        f"{n}/{part}": (f,) for n, f in NORMED.items() for part in ("mean", "var")
    }


def test_group_norm_has_no_statistics_and_standardised_kernels_a_gain():
    assert set(shapes(**OTHER)) == {"params"}
    assert shapes(**OTHER)["params"] == shapes()["params"] | {
        f"{name}/gain": (shape[-1],) for name, shape in KERNELS.items()
    }
    assert shapes(standardise=True)["batch_stats"] == shapes()["batch_stats"]


def test_kernels_have_mean_0_and_one_variance_times_their_gain():
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(3 + 2 * rng.random((3, 3, 8, 5)), jnp.float32)
    gain = jnp.array([1.0, 2.0, 0.5, -1.0, 0.0])
    out = np.asarray(standardise(kernel, gain))
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(out.var((0, 1, 2)) * 72, np.square(gain), rtol=1e-4)
    w = np.asarray(kernel, np.float64)
    by_hand = gain * (w - w.mean((0, 1, 2))) / np.sqrt(72 * w.var((0, 1, 2)) + 1e-4)
    np.testing.assert_allclose(out, by_hand, atol=1e-6)
    # A mean, or a positive factor, in the parameter changes nothing; a constant kernel gives 0.
    np.testing.assert_allclose(standardise(5 * kernel + 1, gain), out, atol=2e-4)
    flat = jnp.full((3, 3, 2, 5), 0.7)
    np.testing.assert_allclose(standardise(flat, gain), 0, atol=1e-4)


def test_the_convolution_is_that_of_the_standardised_kernel():
    x = images(2, side=5)
    conv = StandardisedConv(3, (3, 3))
    variables = conv.init(jax.random.key(0), x)
    kernel = standardise(variables["params"]["kernel"], variables["params"]["gain"])
    out = np.asarray(conv.apply(variables, x))
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i, j in ((0, 0), (2, 3), (4, 4)):
        window = padded[:, i : i + 3, j : j + 3]
        expected = np.einsum("nhwc,hwcf->nf", window, kernel)
        np.testing.assert_allclose(out[:, i, j], expected, atol=1e-5)
    assert conv.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.float32
    assert StandardisedConv(3, (3, 3), dtype=jnp.bfloat16).apply(variables, x).dtype == jnp.bfloat16


@pytest.mark.parametrize("train", [False, True])
def test_an_embedding_depends_on_no_other_image(train):
    tower, variables = made(**OTHER)
    embed = jax.jit(lambda x: tower.apply(variables, x, train=train))
    x = images(4)
    together = embed(x)
    others = embed(jnp.concatenate([x[:1], 1 - images(3, seed=5)]))
    np.testing.assert_allclose(others[0], together[0], atol=1e-5)
    np.testing.assert_allclose(embed(x[2:3])[0], together[2], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_with_batch_norm_it_does_in_training():
    tower, variables = made()
    x = images(4)

    def embed(x):
        return tower.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    others = embed(jnp.concatenate([x[:1], 1 - images(3, seed=5)]))
    assert np.abs(others[0] - embed(x)[0]).max() > 1e-2


def test_gradients_reach_every_parameter_and_leave_the_mean_of_kernels_alone():
    tower, variables = made(**OTHER)

    def loss(params):
        return jnp.square(tower.apply({"params": params}, images(), train=True) - 1).mean()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, slope in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(slope).all(), name
        assert np.abs(slope).max() > 0, name
    for name in ("stem", "block2"):
        slope = gradients[name] if name == "stem" else gradients[name]["conv2"]
        slope = np.asarray(slope["kernel"])
        np.testing.assert_allclose(slope.mean((0, 1, 2)), 0, atol=1e-4 * float(np.abs(slope).max()))


def test_a_blank_page_gives_finite_numbers_and_slopes():
    tower, variables = made(**OTHER)

    def loss(params, x):
        return tower.apply({"params": params}, x, train=True).sum()

    blank = jnp.zeros((2, 16, 16, 1))
    value, slopes = jax.jit(jax.value_and_grad(loss))(variables["params"], blank)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, slopes)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"norm": "layer"}, "small_resnet knows norm batch, group; got 'layer'"),
        ({"norm": "group", "groups": 3}, "groups must divide its width, 4 channels .*; got 3"),
        ({"norm": "group", "groups": 0}, "groups must divide its width, 4 channels .*; got 0"),
    ],
)
def test_what_it_does_not_know(options, text):
    with pytest.raises(ValueError, match=text):
        shapes(**options)


@pytest.mark.slow
def test_it_is_exported_for_any_number_of_images():
    tower, variables = made(**OTHER)
    (n,) = export.symbolic_shape("n")
    program = export.export(jax.jit(lambda x: tower.apply(variables, x, train=False)))(
        jax.ShapeDtypeStruct((n, 16, 16, 1), jnp.float32)
    )
    x = images(3)
    expected = tower.apply(variables, x, train=False)
    np.testing.assert_allclose(program.call(x), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"standardise": True}])
def test_pooling_first_is_the_same_function_where_a_norm_only_scales_up(options):
    # Of batch norm's statistics in training it is not: they are those of the maxima then.
    x = images(side=17)
    late, variables = made(**options, pool_first=False)
    early = late.clone(pool_first=True)
    wanted = jax.tree.map(jnp.shape, early.init(jax.random.key(0), x, train=False))
    assert jax.tree.map(jnp.shape, variables) == wanted
    a, b = (tower.apply(variables, x, train=False) for tower in (late, early))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    train = [
        tower.apply(variables, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]
        for tower in (late, early)
    ]
    assert (train[1]["stem_norm"]["mean"] >= train[0]["stem_norm"]["mean"]).all()
