"""Random warps of a batch, inside the compiled step: `(keys, images) -> images`.

Every image has a key of its own, so what happens to it depends on neither the batch nor the
device it is in. Only one interpolation ever happens: rotation, shear, scale, translation, elastic
displacement and quarter turns are first composed into one map of coordinates. The width of strokes
changes before it (`siamjax/stroke.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from siamjax import stroke
from siamjax.config import ConfigDict
from siamjax.types import typed

Images = Float[Array, "n h w c"]
Turns = Int[Array, "n"]
Maps = Float[Array, "n 2 2"]
Augmentation = Callable[..., Array]  # (keys, images, turns=None, shared_keys=None) -> images

COMPONENTS = 7  # rotation, two shears, two scales, two translations
ELASTIC_GRID = (4, 4)  # nodes of the displacement field


@typed
def affine(
    keys: Array,
    images: Images,
    *,
    probability: float,
    rotation: float,
    shear: float,
    scale: tuple[float, float],
    translation: float,
    fill: float = 0.0,
    turns: Turns | None = None,
    shared: Maps | None = None,
) -> Images:
    r"""Affine distortions as in Koch et al.: seven random components, each with a probability.

    With `x` to the right and `y` down, both counted from the middle of the image
    `((w - 1) / 2, (h - 1) / 2)`, a point of the image moves to

        p' = R(theta) H(rho_x, rho_y) S(s_x, s_y) p + (t_x, t_y),
        H = [[1, rho_x], [rho_y, 1]],  S = diag(s_x, s_y),

    so a positive `theta` turns counter-clockwise, a scale above 1 enlarges and a positive
    translation moves right or down. Each pixel of the result is read at the inverse of this map,
    with bilinear interpolation. The paper gives the components, `T = (theta, rho_x, rho_y, s_x,
    s_y, t_x, t_y)`, "each of these components" included with probability 0.5; it does not give
    their order, nor the direction of the map, so those are ours.

    Args:
        keys: typed keys `[n]`, one per image.
        images: `[n, h, w, c]`, usually in [0, 1]; need not be square.
        probability: that a component is included, independently for each of the seven.
        rotation: degrees; `theta` is uniform in -rotation .. rotation.
        shear: `rho_x` and `rho_y` are uniform in -shear .. shear; below 1.
        scale: `s_x` and `s_y` are uniform in scale[0] .. scale[1].
        translation: pixels; `t_x` and `t_y` are uniform in -translation .. translation.
        fill: the value outside the image: what paper is, 1 for black on white.
        turns: `int [n]`, quarter turns counter-clockwise made before the warp, at no cost
            beyond it; square images only.
        shared: `[n, 2, 2]`, a further linear map of each image (`shared_maps`), made after the
            turns and before the warp, in the same pass.

    Returns:
        `[n, h, w, c]`, the images' dtype. With probability 0, no turns and no shared map, the
        images exactly.

    Raises:
        ValueError: if there is not one key per image, `shear` is 1 or more, or images that are
            not square should be turned.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> images = jnp.ones((2, 5, 7, 1))
        >>> koch = dict(rotation=10.0, shear=0.3, scale=(0.8, 1.2), translation=2.0)
        >>> augment = jax.jit(partial(affine, probability=0.5, **koch, fill=1.0))
        >>> augment(keys, images).shape
        (2, 5, 7, 1)

    References:
        Koch, Zemel, Salakhutdinov (2015), "Siamese Neural Networks for One-shot Image
        Recognition", section 3.2, "Affine distortions".
    """
    _check(keys, images, shear)
    drawn = _draw(keys, probability, rotation, shear, scale, translation)
    return _resample(images, *_source(images, drawn), fill, turns, shared)


@typed
def affine_elastic(
    keys: Array,
    images: Images,
    *,
    probability: float,
    rotation: float,
    shear: float,
    scale: tuple[float, float],
    translation: float,
    elastic: float,
    fill: float = 0.0,
    turns: Turns | None = None,
    shared: Maps | None = None,
) -> Images:
    """`affine`, and a smooth random displacement of every pixel, as strokes vary in handwriting.

    The displacement is normal with standard deviation `elastic` at the nodes of a 4 x 4 grid over
    the image, cubically interpolated between them, separately for x and y, and added to where the
    affine map reads. It is always applied: `probability` is of the affine components. The idea is
    Simard et al.'s, who smooth pixel-wise uniform noise with a Gaussian instead; a coarse grid
    gives as smooth a field for a fraction of the random numbers.

    Args:
        keys: as in `affine`; the affine components drawn are those that `affine` would draw.
        images: as in `affine`.
        probability: as in `affine`.
        rotation: as in `affine`.
        shear: as in `affine`.
        scale: as in `affine`.
        translation: as in `affine`.
        elastic: pixels; with 0 this is `affine`.
        fill: as in `affine`.
        turns: as in `affine`.
        shared: as in `affine`.

    Returns:
        As `affine`.

    Raises:
        ValueError: as `affine`.

    References:
        Simard, Steinkraus, Platt (2003), "Best Practices for Convolutional Neural Networks
        Applied to Visual Document Analysis", section 2.
    """
    _check(keys, images, shear)
    drawn = _draw(keys, probability, rotation, shear, scale, translation)
    nodes = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (2, *ELASTIC_GRID)))
    field = jax.image.resize(nodes(keys), (len(images), 2, *images.shape[1:3]), "cubic")
    x, y = _source(images, drawn)
    x, y = x + elastic * field[:, 0], y + elastic * field[:, 1]
    return _resample(images, x, y, fill, turns, shared)


@typed
def quarter_turns(images: Images, turns: Turns) -> Images:
    """Turns each image counter-clockwise by `turns` quarters, like `np.rot90`.

    Args:
        images: `[n, h, w, c]`, square.
        turns: `int [n]`, any integers.

    Returns:
        `[n, h, w, c]`.

    Raises:
        ValueError: if the images are not square.

    Example:
        >>> image = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
        >>> quarter_turns(image, jnp.array([1]))[0, :, :, 0]
        Array([[2., 4.],
               [1., 3.]], dtype=float32)
    """
    _check_square(images)
    turns = (turns % 4)[:, None, None, None]
    # Three selects, fused into one pass; a switch under vmap would compute all four images.
    images = jnp.where(turns % 2 == 1, images.swapaxes(1, 2), images)
    images = jnp.where((turns == 1) | (turns == 2), images[:, ::-1], images)
    return jnp.where(turns >= 2, images[:, :, ::-1], images)


@typed
def shared_maps(
    keys: Array, *, probability: float, shear: float, stretch: float, reflected: float
) -> Maps:
    """Linear maps for images that are compared with each other, to warp them all alike.

    A warped alphabet is another alphabet, whose characters are as easy or hard to tell apart: so
    classes are made that no data set has, beyond the quarter turns of Santoro et al. Each map turns
    by any angle, shears, stretches one axis as it shrinks the other, and may reflect.

    Args:
        keys: typed keys `[n]`; equal keys give equal maps.
        probability: that a map is not the identity.
        shear: uniform in -shear .. shear.
        stretch: uniform on a logarithmic scale in 1/stretch .. stretch, for x against y.
        reflected: share of the maps that are not the identity that reflect.

    Returns:
        `[n, 2, 2]`, from positions in the result to positions in the image, about its middle.

    References:
        Santoro et al. 2016, "One-shot Learning with Memory-Augmented Neural Networks", section
        4.1, for the idea that a turned character is a new one.
    """

    def one(key: Array) -> Array:
        chance, angle, slant, wide, mirror = jax.random.uniform(key, (5,))
        used = chance < probability
        angle = jnp.where(used, 2 * jnp.pi * angle, 0.0)
        slant = jnp.where(used, shear * (2 * slant - 1), 0.0)
        wide = jnp.where(used, stretch ** (2 * wide - 1), 1.0)
        sign = jnp.where(used & (mirror < reflected), -1.0, 1.0)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # R(angle) H(slant) diag(sign wide, 1 / wide), multiplied out.
        return jnp.stack(
            [
                jnp.stack([sign * wide * cos, (slant * cos - sin) / wide]),
                jnp.stack([sign * wide * sin, (slant * sin + cos) / wide]),
            ]
        )

    return jax.vmap(one)(keys)


@typed
def none(keys: Array, images: Images, *, turns: Turns | None = None) -> Images:
    """The images as they are, but for quarter turns; the keys are not used."""
    return images if turns is None else quarter_turns(images, turns)


_AFFINE = ("probability", "rotation", "shear", "scale", "translation")
AUGMENTATIONS: dict[str, tuple[Callable[..., Array], tuple[str, ...]]] = {
    # name: (function, the keys of config.augment that it takes)
    "none": (none, ()),
    "affine": (affine, _AFFINE),
    "affine_elastic": (affine_elastic, (*_AFFINE, "elastic")),
}


def from_config(augment: ConfigDict, fill: float) -> Augmentation:
    """The augmentation that `config.augment` describes.

    Args:
        augment: `config.augment`.
        fill: the value of paper: 1 for black on white, 0 where the images are inverted.

    Returns:
        `(keys, images, turns=None, shared_keys=None) -> images`, to be called inside the compiled
        step; images with equal shared keys get the same further map (`shared_maps`).

    Raises:
        ValueError: if there is no augmentation of that name.

    Example:
        >>> from siamjax.config import base
        >>> config = base()
        >>> config.augment.name = "affine"
        >>> augment = from_config(config.augment, fill=1.0)
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> jax.eval_shape(augment, keys, jnp.ones((2, 5, 5, 1))).shape
        (2, 5, 5, 1)
    """
    if augment.name not in AUGMENTATIONS:
        raise ValueError(
            f"config.augment.name must be one of {', '.join(AUGMENTATIONS)}; got {augment.name!r}"
        )
    function, names = AUGMENTATIONS[augment.name]
    if function is none:
        return partial(_alike, none, None)
    options: dict[str, Any] = {name: augment[name] for name in names}
    maps = partial(
        shared_maps,
        probability=augment.shared,
        shear=augment.shared_shear,
        stretch=augment.shared_stretch,
        reflected=augment.shared_reflected,
    )
    warp = partial(function, **options, fill=fill)
    if augment.stroke:
        pen = partial(stroke.amounts, probability=augment.probability, stroke=augment.stroke)
        warp = partial(_rewritten, warp, pen, fill)
    return partial(_alike, warp, maps if augment.shared else None)


def _rewritten(
    warp: Callable[..., Array], pen: Callable, fill: float, keys: Array, images: Array, **rest: Any
) -> Array:
    """`warp` of images whose strokes have become thicker or thinner."""
    _check(keys, images)
    return warp(keys, stroke.stroke_width(images, pen(keys), fill=fill), **rest)


def _alike(
    warp: Callable[..., Array],
    maps: Callable[[Array], Array] | None,
    keys: Array,
    images: Array,
    turns: Array | None = None,
    shared_keys: Array | None = None,
) -> Array:
    """`warp` with the maps that `shared_keys` give, where there are any."""
    if maps is None or shared_keys is None:
        return warp(keys, images, turns=turns)
    return warp(keys, images, turns=turns, shared=maps(shared_keys))


# ------------------------------------------------------------------------------------- inside


def _check(keys: Array, images: Array, shear: float = 0.0) -> None:
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != (len(images),):
        raise ValueError(
            f"one typed key per image is needed, jax.random.split(key, {len(images)}); got"
            f" {keys.dtype} {list(keys.shape)} for {len(images)} images"
        )
    if not 0 <= shear < 1:
        raise ValueError(
            f"shear must be at least 0 and below 1, where images collapse; got {shear}"
        )


def _check_square(images: Array) -> None:
    if images.shape[1] != images.shape[2]:
        raise ValueError(
            f"only square images can be turned by quarters; got {images.shape[1]} x"
            f" {images.shape[2]} pixels: choose a square config.data.size or turned_groups = 0"
        )


def _draw(
    keys: Array, probability: float, rotation: float, shear: float, scale: Any, translation: float
) -> Float[Array, "7 n"]:
    """Theta (radians), rho_x, rho_y, s_x, s_y, t_x, t_y of every image."""
    angle = rotation * jnp.pi / 180
    high = jnp.array([angle, shear, shear, scale[1], scale[1], translation, translation])
    low = jnp.array([-angle, -shear, -shear, scale[0], scale[0], -translation, -translation])
    neutral = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])

    def one(key):
        value, chance = jax.random.uniform(key, (2, COMPONENTS))
        return jnp.where(chance < probability, low + (high - low) * value, neutral)

    return jax.vmap(one)(keys).T


def _source(images: Array, drawn: Array) -> tuple[Array, Array]:
    """Where each pixel of the result is read: x and y `[n, h, w]`, from the middle."""
    h, w = images.shape[1:3]
    theta, rho_x, rho_y, s_x, s_y, t_x, t_y = drawn[:, :, None, None]
    x = jnp.arange(w)[None, None, :] - (w - 1) / 2 - t_x
    y = jnp.arange(h)[None, :, None] - (h - 1) / 2 - t_y
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    # S^-1 H^-1 R^-1, multiplied out: a matmul of such small matrices loses digits on a GPU.
    determinant = 1 - rho_x * rho_y
    a, b = (cos - rho_x * sin) / determinant / s_x, (-sin - rho_x * cos) / determinant / s_x
    c, d = (sin - rho_y * cos) / determinant / s_y, (cos + rho_y * sin) / determinant / s_y
    return a * x + b * y, c * x + d * y


def _resample(
    images: Array, x: Array, y: Array, fill: float, turns: Array | None, shared: Array | None
) -> Array:
    """Reads the images at x, y (from the middle), turned by quarters and then mapped first."""
    h, w = images.shape[1:3]
    if shared is not None:
        (a, b), (c, d) = jnp.moveaxis(shared, 0, -1)[..., None, None]
        x, y = a * x + b * y, c * x + d * y
    if turns is not None:
        _check_square(images)
        cos = jnp.array([1.0, 0.0, -1.0, 0.0])[turns % 4][:, None, None]
        sin = jnp.array([0.0, 1.0, 0.0, -1.0])[turns % 4][:, None, None]
        x, y = cos * x - sin * y, sin * x + cos * y
    return jax.vmap(partial(_bilinear, fill=fill))(images, x + (w - 1) / 2, y + (h - 1) / 2)


def _bilinear(image: Array, x: Array, y: Array, *, fill: float) -> Array:
    """One image `[h, w, c]` read at columns x and rows y `[h, w]`.

    Four gathers from the image in a frame of `fill`: with the positions clipped to the frame, no
    corner needs a mask. On a CPU this costs what `jax.scipy.ndimage.map_coordinates` does, and
    a fifth of gathering 2 x 2 windows or of packing four pixels into one word.
    """
    h, w = image.shape[:2]
    framed = jnp.pad(image, ((1, 2), (1, 2), (0, 0)), constant_values=fill)
    x, y = jnp.clip(x, -1, w) + 1, jnp.clip(y, -1, h) + 1
    column, row = jnp.floor(x), jnp.floor(y)
    right, below = (x - column)[..., None], (y - row)[..., None]
    i, j = row.astype(jnp.int32), column.astype(jnp.int32)

    def corner(di: int, dj: int) -> Array:
        return framed.at[i + di, j + dj].get(mode="promise_in_bounds")

    top = corner(0, 0) * (1 - right) + corner(0, 1) * right
    bottom = corner(1, 0) * (1 - right) + corner(1, 1) * right
    return (top * (1 - below) + bottom * below).astype(image.dtype)
