from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models import HEADS, TOWERS, Siamese


@pytest.fixture(scope="module")
def built():
    """Variables, images, and everything that a model can be asked, compiled in one program."""
    model = Siamese(TOWERS["small_resnet"](width=2, embedding=4), HEADS["cosine"]())
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1), np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), images[:3], images[3:])

    @jax.jit
    def ask(variables, images):
        apply = partial(model.apply, variables)
        z = apply(images, method="embed")
        _, updated = apply(images, train=True, method="pairs", mutable=["batch_stats"])
        return {
            "embed": z,
            "embed fractions": apply(images.astype(jnp.float32) / 255, method="embed"),
            "embed alone": apply(images[2:3], method="embed"),
            "pairs": apply(images[:3], images[3:]).value,
            "all_pairs": apply(images, method="all_pairs").value,
            "compare": apply(z[:3], z[3:], method="compare").value,
            "updated": updated["batch_stats"],
        }

    return variables, images, ask(variables, images)


def test_bytes_and_their_fractions_embed_alike(built):
    *_, answers = built
    np.testing.assert_allclose(answers["embed"], answers["embed fractions"], atol=1e-6)
    assert float(jnp.abs(answers["embed"]).max()) > 0.1


def test_pairs_all_pairs_and_compare_agree(built):
    *_, answers = built
    pairs, table = answers["pairs"], answers["all_pairs"]
    np.testing.assert_allclose(pairs, [table[0, 3], table[1, 4], table[2, 5]], rtol=1e-5)
    np.testing.assert_allclose(pairs, answers["compare"], rtol=1e-5)


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(built):
    *_, answers = built
    np.testing.assert_allclose(answers["embed"][2:3], answers["embed alone"], atol=1e-6)


@pytest.mark.parametrize(
    ("head", "views"),
    [
        pytest.param("cosine", 4, marks=pytest.mark.slow),
        ("euclidean", 8),
        ("relational", 4),
        pytest.param("relational", 6, marks=pytest.mark.slow),
    ],
)
def test_views_average_the_comparisons_of_turned_and_mirrored_images(head, views):
    options = {"embedding": 4, "grid": 3, "channels": 2, "hidden": 3}
    relational = head == "relational"
    model = Siamese(
        TOWERS["small_resnet"](width=2, embedding=4, tokens=2 if relational else 0),
        HEADS[head](**options) if relational else HEADS[head](),
        views=views,
    )
    images = jnp.asarray(np.random.default_rng(0).random((6, 24, 24, 1)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:3], images[3:])

    @jax.jit
    def ask(variables, images):
        single = model.clone(views=1)
        apply = partial(model.apply, variables)
        mirrored = jnp.flip(images, 2)
        seen = [jnp.rot90(images if k < 4 else mirrored, k, (1, 2)) for k in range(views)]
        each = [single.apply(variables, x, method="all_pairs").value for x in seen]
        train = {"train": True, "method": "all_pairs", "mutable": ["batch_stats"]}
        return {
            "views": apply(images, method="all_pairs").value,
            "turned": apply(jnp.rot90(images, 1, (1, 2)), method="all_pairs").value,
            "mean": sum(each) / views,
            "first": each[0],
            "training": apply(images, **train)[0].value,
            "training alone": single.apply(variables, images, **train)[0].value,
        }

    answers = ask(variables, images)
    np.testing.assert_allclose(answers["views"], answers["mean"], rtol=1e-4, atol=1e-5)
    if views % 4 == 0:
        np.testing.assert_allclose(answers["views"], answers["turned"], rtol=1e-4, atol=1e-5)
    assert np.abs(answers["views"] - answers["first"]).max() > 1e-3
    np.testing.assert_array_equal(answers["training"], answers["training alone"])


def test_training_updates_batch_statistics_once_for_both_sides(built):
    variables, images, answers = built
    old = variables["batch_stats"]["tower"]["stem_norm"]["mean"]
    kernel = variables["params"]["tower"]["stem"]["kernel"]
    x = jnp.asarray(images, jnp.float32) / 255
    stem = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = 0.95 * old + 0.05 * stem.mean((0, 1, 2))
    got = answers["updated"]["tower"]["stem_norm"]["mean"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tower", sorted(TOWERS))
def test_every_tower_keeps_float32_parameters_and_computes_in_bfloat16(tower):
    module = TOWERS[tower](dtype=jnp.bfloat16)
    create = partial(module.init_with_output, train=False)
    z, variables = jax.eval_shape(create, jax.random.key(0), jnp.ones((2, 65, 65, 1)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert z.dtype == jnp.bfloat16


def test_small_resnet_refuses_an_unknown_init():
    with pytest.raises(ValueError, match="small_resnet knows init he; got 'seed'"):
        TOWERS["small_resnet"](initial="seed").init(
            jax.random.key(0), jnp.ones((1, 16, 16, 1)), train=False
        )
