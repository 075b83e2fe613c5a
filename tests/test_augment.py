import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from siamjax import augment
from siamjax.config import base, validate

KOCH = {"rotation": 10.0, "shear": 0.3, "scale": (0.8, 1.2), "translation": 2.0}
STILL = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "translation": 0.0}


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def images(n, h=9, w=7, c=1, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((n, h, w, c)), jnp.float32)


def drawn(theta=0.0, rho=(0.0, 0.0), scale=(1.0, 1.0), shift=(0.0, 0.0)):
    return jnp.array([[theta, *rho, *scale, *shift]], jnp.float32).T


@jax.jit
def _warp(batch, components, fill, turns):
    return augment._resample(batch, *augment._source(batch, components), fill, turns, None)


def warp(image, fill=0.0, turns=None, **components):
    batch = jnp.asarray(image, jnp.float32)[None, ..., None]
    turns = None if turns is None else jnp.array([turns])
    return np.asarray(_warp(batch, drawn(**components), fill, turns))[0, ..., 0]


def run(name, batch_keys, batch, **options):
    function = augment.AUGMENTATIONS[name][0]
    return np.asarray(jax.jit(lambda k, x: function(k, x, **options))(batch_keys, batch))


@pytest.mark.parametrize("shape", [(105, 105, 1), (8, 5, 3)])
def test_probability_zero_gives_the_images_bit_for_bit(shape):
    batch = images(3, *shape)
    out = run("affine", keys(3), batch, probability=0.0, **KOCH)
    assert np.array_equal(out, batch)


def test_elastic_zero_is_affine():
    options = {"probability": 1.0, **KOCH}
    plain = run("affine", keys(4), images(4), **options)
    elastic = run("affine_elastic", keys(4), images(4), elastic=0.0, **options)
    np.testing.assert_allclose(elastic, plain, atol=1e-6)


# ------------------------------------------------------------------------- golden values, by hand

IMAGE = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_translation_moves_right_and_down_and_fills():
    out = warp(IMAGE, fill=0.5, shift=(1.0, 0.0))
    assert out.tolist() == [[0.5, 1, 2], [0.5, 4, 5], [0.5, 7, 8]]
    out = warp(IMAGE, fill=0.5, shift=(0.0, 1.0))
    assert out.tolist() == [[0.5, 0.5, 0.5], [1, 2, 3], [4, 5, 6]]


def test_half_a_pixel_interpolates_with_the_fill_at_the_border():
    assert warp(IMAGE[:1], fill=0.0, shift=(0.5, 0.0)).tolist() == [[0.5, 1.5, 2.5]]


def test_positive_rotation_is_counter_clockwise():
    out = warp(IMAGE, theta=np.pi / 2)
    np.testing.assert_allclose(out, [[3, 6, 9], [2, 5, 8], [1, 4, 7]], atol=1e-5)


def test_scale_two_along_x_only_widens():
    row = np.array([[0, 0, 4, 8, 0]])  # the middle is column 2; column 4 reads column 3
    assert warp(row, scale=(2.0, 1.0)).tolist() == [[0, 2, 4, 6, 8]]
    assert warp(row.T, scale=(1.0, 2.0)).T.tolist() == [[0, 2, 4, 6, 8]]


def test_shear_x_moves_lower_rows_right():
    out = warp([[0, 1, 0], [0, 1, 0], [0, 1, 0]], rho=(1.0, 0.0))
    assert out.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    out = warp([[0, 0, 0], [1, 1, 1], [0, 0, 0]], rho=(0.0, 1.0))  # right columns down
    assert out.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_far_outside_is_fill(fill):
    assert warp(IMAGE, fill=fill, shift=(40.0, 0.0)).tolist() == np.full((3, 3), fill).tolist()


def test_the_fill_reaches_the_corners_of_a_turned_page():
    out = warp(np.ones((21, 21)), fill=0.25, theta=0.5)
    assert [out[i, j] for i in (0, -1) for j in (0, -1)] == [0.25] * 4
    np.testing.assert_allclose(out[5:16, 5:16], 1.0, atol=1e-6)


# ----------------------------------------------------------------------------------- oracles


@pytest.mark.parametrize("fill", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(6))
def test_against_scipy(seed, fill):
    rng = np.random.default_rng(seed)
    theta, rho_x, rho_y = rng.uniform(-0.6, 0.6, 3)
    s_x, s_y, t_x, t_y = *rng.uniform(0.7, 1.4, 2), *rng.uniform(-3, 3, 2)
    image = rng.random((12, 9))
    cos, sin = np.cos(theta), np.sin(theta)
    # The documented map, factor by factor, in (x, y), y down.
    forward = [[cos, sin], [-sin, cos]] @ np.array([[1, rho_x], [rho_y, 1]]) @ np.diag([s_x, s_y])
    inverse = np.linalg.inv(forward)[::-1, ::-1]  # scipy wants (row, column)
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - inverse @ (middle + np.array([t_y, t_x]))
    expected = ndimage.affine_transform(
        image, inverse, offset, order=1, mode="grid-constant", cval=fill
    )
    out = warp(
        image, fill=fill, theta=theta, rho=(rho_x, rho_y), scale=(s_x, s_y), shift=(t_x, t_y)
    )
    np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3, 6])
def test_turns_before_the_warp(turns):
    image = np.asarray(images(1, 9, 9))[0, :, :, 0]
    components = {"theta": 0.2, "rho": (0.1, -0.2), "scale": (0.9, 1.1), "shift": (1.5, -0.5)}
    expected = warp(np.rot90(image, turns), **components)
    np.testing.assert_allclose(warp(image, turns=turns, **components), expected, atol=1e-6)
    assert np.array_equal(warp(image, turns=turns), np.rot90(image, turns))


def test_quarter_turns_against_numpy():
    batch = images(6, 5, 5, 3)
    turns = np.array([0, 1, 2, 3, -1, 5])
    out = augment.quarter_turns(batch, jnp.asarray(turns))
    expected = [np.rot90(image, k) for image, k in zip(np.asarray(batch), turns, strict=True)]
    assert np.array_equal(out, expected)


# --------------------------------------------------------------------------------- randomness


def components(n, probability):
    return np.asarray(jax.jit(lambda k: augment._draw(k, probability, **KOCH))(keys(n)))


def test_each_of_the_seven_components_is_included_by_itself_with_the_probability():
    values = components(4000, 0.5)
    neutral = np.array([0, 0, 0, 1, 1, 0, 0])[:, None]
    included = values != neutral
    np.testing.assert_allclose(included.mean(1), 0.5, atol=0.035)  # four standard deviations
    together = np.corrcoef(included)
    assert np.abs(together - np.eye(7)).max() < 0.07
    np.testing.assert_allclose((components(4000, 0.2) != neutral).mean(1), 0.2, atol=0.03)


def test_ranges_are_uniform_and_filled():
    values = components(4000, 1.0)
    angle = np.deg2rad(10)
    low = np.array([-angle, -0.3, -0.3, 0.8, 0.8, -2, -2])
    high = np.array([angle, 0.3, 0.3, 1.2, 1.2, 2, 2])
    unit = (values - low[:, None]) / (high - low)[:, None]
    assert unit.min() >= -1e-6
    assert unit.max() <= 1 + 1e-6
    quartiles = np.quantile(unit, [0.01, 0.25, 0.5, 0.75, 0.99], axis=1)
    np.testing.assert_allclose(
        quartiles, np.array([0.01, 0.25, 0.5, 0.75, 0.99])[:, None] * np.ones(7), atol=0.035
    )


OPTIONS = {
    "affine": {"probability": 0.5, **KOCH},
    "affine_elastic": {"probability": 0.5, "elastic": 1.2, **KOCH},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_key_decides_and_the_rest_of_the_batch_does_not(name):
    function = jax.jit(lambda k, x: augment.AUGMENTATIONS[name][0](k, x, **OPTIONS[name]))
    batch, batch_keys = images(6, 16, 16), keys(6)
    whole = function(batch_keys, batch)
    assert np.array_equal(whole, function(batch_keys, batch))
    assert np.array_equal(whole[:3], function(batch_keys[:3], batch[:3]))
    assert np.array_equal(whole[3:], function(batch_keys[3:], batch[3:]))
    assert not np.allclose(whole, function(keys(6, seed=1), batch))


def test_images_differ_from_each_other_under_one_key_split():
    out = run("affine", keys(2), jnp.repeat(images(1, 16, 16), 2, 0), probability=1.0, **KOCH)
    assert not np.allclose(out[0], out[1])


def test_channels_move_together():
    grey = images(2, 12, 10)
    options = OPTIONS["affine_elastic"]
    colour = run("affine_elastic", keys(2), jnp.repeat(grey, 3, -1), **options)
    expected = np.repeat(run("affine_elastic", keys(2), grey, **options), 3, -1)
    np.testing.assert_allclose(colour, expected, atol=1e-6)


def test_the_elastic_field_is_smooth_and_of_the_size_asked_for(monkeypatch):
    monkeypatch.setattr(augment, "_resample", lambda batch, x, y, *_: jnp.stack([x, y], -1))
    monkeypatch.setattr(augment, "affine_elastic", augment.affine_elastic.__wrapped__)
    where = jax.jit(
        lambda k, b: augment.affine_elastic(k, b, probability=0.0, elastic=2.0, **STILL)
    )(keys(200), images(200, 24, 24, 2))
    grid = np.arange(24) - 11.5
    x, y = np.asarray(where[..., 0]) - grid, np.asarray(where[..., 1]) - grid[:, None]
    assert 1.2 < x.std() < 2.2
    assert 1.2 < y.std() < 2.2
    assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 0.1
    # 6 pixels from node to node: neighbours hardly differ.
    assert np.diff(x, axis=1).std() < 0.35 * x.std()
    assert np.diff(y, axis=1).std() < 0.35 * y.std()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_and_shape_are_kept(dtype):
    batch = images(2, 6, 8).astype(dtype)
    for name, options in OPTIONS.items():
        function = augment.AUGMENTATIONS[name][0]
        out = jax.eval_shape(lambda k, x, f=function, o=options: f(k, x, **o), keys(2), batch)
        assert out.dtype == dtype
        assert out.shape == batch.shape


# --------------------------------------------------------------------------------- the registry


def test_from_config_hands_over_every_option():
    config = base()
    config.augment.name = "affine_elastic"
    config.augment.elastic = 1.0
    config.augment.probability = 0.9
    config.augment.shear = 0.1
    out = jax.jit(augment.from_config(config.augment, fill=1.0))(keys(3), images(3))
    options = {**KOCH, "probability": 0.9, "elastic": 1.0, "fill": 1.0, "shear": 0.1}
    assert np.array_equal(out, run("affine_elastic", keys(3), images(3), **options))
    assert not np.array_equal(
        out, run("affine_elastic", keys(3), images(3), **options | {"fill": 0.0})
    )


def test_none_changes_nothing_but_turns():
    batch = images(2, 4, 4)
    nothing = augment.from_config(base().augment, fill=1.0)
    assert nothing(keys(2), batch) is batch
    turned = nothing(keys(2), batch, turns=jnp.array([1, 0]))
    assert np.array_equal(turned[0], np.rot90(batch[0]))
    assert np.array_equal(turned[1], batch[1])


def test_unknown_name():
    config = base()
    config.augment.name = "blur"
    with pytest.raises(
        ValueError, match=r"augment\.name must be one of none, affine, affine_elastic; got 'blur'"
    ):
        augment.from_config(config.augment, fill=0.0)


# ------------------------------------------------------------------------------------- errors


def test_one_typed_key_per_image():
    message = r"one typed key per image is needed, jax\.random\.split\(key, 3\); got"
    with pytest.raises(ValueError, match=message + r" key<fry> \[2\] for 3 images"):
        augment.affine(keys(2), images(3), probability=0.5, **KOCH)
    with pytest.raises(ValueError, match=message + r" uint32 \[3, 2\]"):
        augment.affine(jax.random.key_data(keys(3)), images(3), probability=0.5, **KOCH)


def test_shear_of_one_is_refused():
    with pytest.raises(ValueError, match=r"shear must be at least 0 and below 1, .* got 1\.0"):
        augment.affine(keys(1), images(1), probability=0.5, **{**KOCH, "shear": 1.0})


def test_rectangles_are_not_turned():
    message = r"only square images can be turned by quarters; got 9 x 7 pixels"
    turns = jnp.array([1, 2])
    with pytest.raises(ValueError, match=message):
        augment.quarter_turns(images(2), turns)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda k, x: augment.affine(k, x, probability=0.5, turns=turns, **KOCH),
            keys(2),
            images(2),
        )


def test_shared_maps_turn_shear_stretch_and_reflect_but_keep_the_area():
    same_key = jax.random.key(3)
    options = {"probability": 1.0, "shear": 0.3, "stretch": 1.2, "reflected": 0.5}
    maps = np.asarray(augment.shared_maps(keys(400), **options))
    area = np.linalg.det(maps)
    np.testing.assert_allclose(np.abs(area), 1, rtol=1e-5)
    assert 0.4 < (area < 0).mean() < 0.6
    angle = np.arctan2(maps[:, 1, 0], maps[:, 0, 0]) % (2 * np.pi)
    assert np.histogram(angle, 4, (0, 2 * np.pi))[0].min() > 60
    wide = np.linalg.norm(maps[:, :, 0], axis=1)
    assert 1 / 1.2 - 1e-5 <= wide.min() < 0.86
    assert 1.16 < wide.max() <= 1.2 + 1e-5
    alike = augment.shared_maps(jnp.stack([same_key, same_key]), **options)
    np.testing.assert_array_equal(alike[0], alike[1])
    never = augment.shared_maps(keys(5), **options | {"probability": 0.0})
    np.testing.assert_allclose(never, np.broadcast_to(np.eye(2), (5, 2, 2)), atol=1e-7)


def test_a_shared_map_is_applied_to_the_image_before_its_own_warp():
    batch = images(2, h=9, w=9)
    quarter = jnp.array([[[0.0, -1.0], [1.0, 0.0]]] * 2)  # reads where a quarter turn reads
    still = dict(KOCH, probability=0.0)
    mapped = augment.affine(keys(2), batch, **still, shared=quarter)
    turned = augment.affine(keys(2), batch, **still, turns=jnp.array([1, 1]))
    np.testing.assert_allclose(mapped, turned, atol=1e-5)
    warped = augment.affine(keys(2), batch, **KOCH, probability=1.0, shared=quarter)
    alone = augment.affine(keys(2), mapped, **KOCH, probability=1.0)
    np.testing.assert_allclose(warped, alone, atol=1e-4)


def test_shared_needs_a_warp_and_acts_by_its_keys():
    whole = base()
    config = whole.augment
    config.shared = 1.0
    with pytest.raises(ValueError, match=r"config\.augment\.shared .* choose\s+affine"):
        validate(whole)
    config.name, config.probability = "affine", 0.0
    warp = augment.from_config(config, fill=0.0)
    batch = jnp.repeat(images(1), 3, 0)
    first, other = jax.random.split(jax.random.key(0))
    a, b, c = warp(keys(3), batch, None, jnp.stack([first, first, other]))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1
    np.testing.assert_array_equal(warp(keys(3), batch), batch)
