"""How a pretrained tower wants its pixels: each tower does this itself, with its own constants."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.types import typed

# name -> (mean, standard deviation) of red, green and blue, of pixels in 0..1
NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "none": None,  # pixels stay in 0..1
    "unit": None,  # the same by Keras' users' name
    "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # -1..1: keras.applications, mode "tf"
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision
}


@typed
def normalise(
    x: Float[Array, "n h w c"], name: str = "none", replicate_grey: bool = False
) -> Float[Array, "n h w c2"]:
    """`(x - mean) / deviation` per channel, with the constants that published weights go with.

    Args:
        x: images in 0..1, `[n, h, w, c]`.
        name: "none" or "unit" (x as it is), "tf" (-1..1), "imagenet" (mean and deviation of
            ImageNet's channels; a grey image takes the means over the three).
        replicate_grey: copy a grey image's channel to red, green and blue first.

    Returns:
        `[n, h, w, c]`, or `[n, h, w, 3]` of a replicated grey image.

    Raises:
        ValueError: for another name, or "imagenet" with channels other than 1 and 3.

    Example:
        >>> normalise(jnp.array([[[[0.0, 0.5, 1.0]]]]), "tf").tolist()
        [[[[-1.0, 0.0, 1.0]]]]
    """
    if name not in NORMALISATIONS:
        raise ValueError(f"normalise must be one of {', '.join(NORMALISATIONS)}; got {name!r}")
    channels = x.shape[-1]
    if replicate_grey and channels == 1:
        x, channels = jnp.repeat(x, 3, axis=-1), 3
    constants = NORMALISATIONS[name]
    if constants is None:
        return x
    mean, deviation = (jnp.asarray(values, x.dtype) for values in constants)
    if channels == 1:
        mean, deviation = mean.mean(), deviation.mean()
    elif channels != 3:
        raise ValueError(f"normalise {name} is for 1 or 3 channels; got {channels}: use none")
    return (x - mean) / deviation
