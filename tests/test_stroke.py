import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from siamjax import augment, recipe, stroke
from siamjax.config import base, validate


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def images(n, h=9, w=7, c=1, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((n, h, w, c)), jnp.float32)


width = jax.jit(stroke.stroke_width, static_argnames="fill")
amounts = jax.jit(stroke.amounts, static_argnames=("probability", "stroke"))


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_amount_zero_and_flat_images_stay_bit_for_bit(fill):
    batch = images(3)
    np.testing.assert_array_equal(width(batch, jnp.zeros(3), fill=fill), batch)
    flat = jnp.full((3, 5, 6, 1), jnp.array([0.0, 0.3, 1.0])[:, None, None, None])
    np.testing.assert_array_equal(width(flat, jnp.array([1.0, -0.7, 0.4]), fill=fill), flat)


def test_a_line_by_hand():
    line = jnp.array([0, 0, 1, 0, 0], jnp.float32)[None, None, :, None]
    bar = jnp.array([0, 1, 1, 1, 0], jnp.float32)[None, None, :, None]

    def row(image, amount, fill):
        return np.asarray(width(image, jnp.array([amount]), fill=fill))[0, 0, :, 0].tolist()

    assert row(line, 1.0, 0.0) == [0, 1, 1, 1, 0]
    assert row(line, 0.25, 0.0) == [0, 0.25, 1, 0.25, 0]
    assert row(bar, -1.0, 0.0) == [0, 0, 1, 0, 0]
    assert row(bar, -0.25, 0.0) == [0, 0.75, 1, 0.75, 0]
    # Where paper is white the same picture has ink at both ends.
    assert row(bar, 0.25, 1.0) == [0, 0.75, 1, 0.75, 0]
    assert row(line, -0.25, 1.0) == [0, 0.25, 1, 0.25, 0]


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("amount", [-1.0, -0.3, 0.6])
def test_against_scipy(fill, amount):
    batch = images(2)
    thicker = (amount > 0) == (fill == 0)
    spread = ndimage.grey_dilation if thicker else ndimage.grey_erosion
    found = spread(np.asarray(batch), size=(1, 3, 3, 1), mode="nearest")
    expected = (1 - abs(amount)) * batch + abs(amount) * found
    out = width(batch, jnp.full(2, amount), fill=fill)
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_thicker_adds_ink_and_thinner_takes_it_within_the_range(fill):
    batch = images(4, h=12, w=12)

    def ink(x):
        return np.abs(np.asarray(x) - fill)

    more = width(batch, jnp.array([0.1, 0.4, 0.8, 1.0]), fill=fill)
    less = width(batch, -jnp.array([0.1, 0.4, 0.8, 1.0]), fill=fill)
    assert (ink(more) >= ink(batch)).all()
    assert (ink(less) <= ink(batch)).all()
    assert ink(more).sum() > ink(batch).sum() > ink(less).sum()
    for out in (more, less):
        assert batch.min() <= out.min()
        assert out.max() <= batch.max()


def test_mirrors_turns_and_the_negative_change_nothing():
    batch, amount = images(3, h=8, w=8), jnp.array([0.7, -0.4, 1.0])
    out = width(batch, amount, fill=0.0)
    np.testing.assert_array_equal(width(batch[:, ::-1], amount, fill=0.0), out[:, ::-1])
    np.testing.assert_array_equal(
        width(jnp.rot90(batch, 1, (1, 2)), amount, fill=0.0), jnp.rot90(out, 1, (1, 2))
    )
    np.testing.assert_allclose(1 - width(1 - batch, amount, fill=1.0), out, atol=1e-6)


def test_amounts_follow_the_keys_and_fill_their_range():
    found = np.asarray(amounts(keys(600), probability=1.0, stroke=0.5))
    assert -0.5 <= found.min() < -0.45
    assert 0.45 < found.max() < 0.5
    assert abs(found.mean()) < 0.05
    np.testing.assert_array_equal(amounts(keys(600)[5:9], probability=1.0, stroke=0.5), found[5:9])
    few = np.asarray(amounts(keys(600), probability=0.3, stroke=0.5))
    assert 0.23 < (few != 0).mean() < 0.37
    assert not np.asarray(amounts(keys(9), probability=0.0, stroke=0.5)).any()


def config(**keys):
    whole = base()
    whole.augment.update(name="affine", probability=1.0, stroke=0.5)
    whole.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    return whole


def test_it_comes_before_the_warp_and_leaves_its_draw_alone():
    batch, some = images(4), keys(4)
    whole = config()
    both = jax.jit(augment.from_config(whole.augment, fill=1.0))(some, batch)
    whole.augment.stroke = 0.0
    warp = jax.jit(augment.from_config(whole.augment, fill=1.0))
    drawn = amounts(some, probability=1.0, stroke=0.5)
    np.testing.assert_array_equal(both, warp(some, width(batch, drawn, fill=1.0)))
    assert np.abs(both - warp(some, batch)).max() > 0.05


def test_a_shared_map_and_turns_still_apply():
    batch, some = images(2, h=8, w=8), keys(2)
    whole = config(augment__shared=1.0)
    warp = jax.jit(augment.from_config(whole.augment, fill=0.0))
    turned = warp(some, batch, jnp.array([1, 2]), some)
    assert np.abs(turned - warp(some, batch, jnp.array([0, 0]), some)).max() > 0.1
    assert np.abs(turned - warp(some, batch, jnp.array([1, 2]), keys(2, 1))).max() > 0.1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"augment__stroke": 1.5}, r"augment\.stroke must lie in 0\.\.1; got 1\.5"),
        ({"augment__stroke": -0.5}, r"augment\.stroke must lie in 0\.\.1; got -0\.5"),
        ({"augment__name": "none"}, r"augment\.stroke warps images, .* choose affine or"),
        ({"data__channels": 3}, r"augment\.stroke is for grey images.*channels to 1; got 3"),
    ],
)
def test_faults(change, text):
    validate(config())
    with pytest.raises(ValueError, match=text):
        validate(config(**change))


def test_colour_and_lacking_keys_are_refused():
    with pytest.raises(ValueError, match="of grey images; got 3 channels"):
        stroke.stroke_width(images(1, c=3), jnp.ones(1), fill=0.0)
    warp = augment.from_config(config().augment, fill=0.0)
    with pytest.raises(ValueError, match="one typed key per image is needed"):
        warp(keys(2), images(3))


def test_overfitting_one_batch_does_without():
    still = recipe.without_chance(config(), 3)
    recipe.validate(still)
    assert still.augment.stroke == 0
