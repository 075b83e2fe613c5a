"""Siamese networks in JAX: are these two images the same thing?

Example:
    >>> import siamjax
    >>> siamjax.load("runs/omniglot").similarity("a.png", "b.png")  # doctest: +SKIP
    0.97
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siamjax.gallery import Gallery
    from siamjax.inference import Comparator, load

_HOMES = {
    "Comparator": "siamjax.inference",
    "Gallery": "siamjax.gallery",
    "load": "siamjax.inference",
}
__all__ = ["Comparator", "Gallery", "load"]


def __getattr__(name: str) -> Any:
    # Resolved on first use: `import siamjax` alone should not wait for JAX.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'siamjax' has no attribute {name!r}")
