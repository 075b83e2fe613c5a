import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models import HEADS, TOWERS, Siamese


@pytest.fixture(scope="module")
def built():
    model = Siamese(TOWERS["small_resnet"](width=2, embedding=4), HEADS["cosine"]())
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1), np.uint8)
    variables = model.init(jax.random.key(0), images[:3], images[3:])
    return model, variables, jnp.asarray(images)


def test_bytes_and_their_fractions_embed_alike(built):
    model, variables, images = built
    as_bytes = model.apply(variables, images, method="embed")
    fractions = model.apply(variables, images.astype(jnp.float32) / 255, method="embed")
    np.testing.assert_array_equal(as_bytes, fractions)


def test_pairs_all_pairs_and_compare_agree(built):
    model, variables, images = built
    pairs = model.apply(variables, images[:3], images[3:]).value
    table = model.apply(variables, images, method="all_pairs").value
    np.testing.assert_allclose(pairs, [table[0, 3], table[1, 4], table[2, 5]], rtol=1e-5)
    z = model.apply(variables, images, method="embed")
    compared = model.apply(variables, z[:3], z[3:], method="compare").value
    np.testing.assert_allclose(pairs, compared, rtol=1e-5)


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(built):
    model, variables, images = built
    whole = model.apply(variables, images, method="embed")
    alone = model.apply(variables, images[2:3], method="embed")
    np.testing.assert_allclose(whole[2:3], alone, atol=1e-6)


def test_training_updates_batch_statistics_once_for_both_sides(built):
    model, variables, images = built
    _, updated = model.apply(variables, images, train=True, method="pairs", mutable=["batch_stats"])
    old = variables["batch_stats"]["tower"]["stem_norm"]["mean"]
    kernel = variables["params"]["tower"]["stem"]["kernel"]
    x = images.astype(jnp.float32) / 255
    stem = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = 0.95 * old + 0.05 * stem.mean((0, 1, 2))
    got = updated["batch_stats"]["tower"]["stem_norm"]["mean"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tower", sorted(TOWERS))
def test_every_tower_keeps_float32_parameters_and_computes_in_bfloat16(tower):
    options = {"koch": {"features": (2, 2, 2, 2), "embedding": 4}, "small_resnet": {"width": 2}}
    module = TOWERS[tower](dtype=jnp.bfloat16, **options[tower])
    x = jnp.ones((2, 65, 65, 1))
    variables = module.init(jax.random.key(0), x, train=False)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert module.apply(variables, x, train=False).dtype == jnp.bfloat16


def test_small_resnet_refuses_an_unknown_init():
    with pytest.raises(ValueError, match="small_resnet knows init he; got 'seed'"):
        TOWERS["small_resnet"](initial="seed").init(
            jax.random.key(0), jnp.ones((1, 16, 16, 1)), train=False
        )
