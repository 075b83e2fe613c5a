"""Images as PNGs inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8

from siamjax.types import typed


@typed
def data_uri(image: UInt8[np.ndarray, "h w c"], most: int = 64) -> str:
    """A PNG of at most `most` pixels to a side, as a data URI.

    Example:
        >>> data_uri(np.zeros((2, 2, 1), np.uint8))[:26]
        'data:image/png;base64,iVBO'
    """
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((most, most))
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
