"""`Comparator`: a trained run, ready to compare images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from siamjax import config as configuration
from siamjax.evaluation.encoder import Encoder
from siamjax.preprocess import Preprocess
from siamjax.recipe import build_model
from siamjax.training.checkpoint import BEST, LATEST, CheckpointStore

if TYPE_CHECKING:
    from PIL import Image

    OneImage = str | os.PathLike[str] | Image.Image | np.ndarray


class Comparator:
    """Compares images with the weights and the preprocessing of a run.

    Images may be paths, PIL images or arrays (`[h, w]`, `[h, w, 1 | 3 | 4]`), of any size.

    Args:
        encoder: the model with its weights.
        preprocess: of the run.
        origin: one line that says which run and step this is, and on what data.
    """

    def __init__(self, encoder: Encoder, preprocess: Preprocess, origin: str = ""):
        self._encoder, self.preprocess, self.origin = encoder, preprocess, origin

    def embed(self, images: Sequence[OneImage] | np.ndarray) -> np.ndarray:
        """Embeddings `float32 [n, d]` of a list of images, or of an array `[n, h, w, c]`.

        Each distinct image object or path is encoded once.
        """
        images = list(images)
        first: dict[Any, int] = {}
        where = [first.setdefault(_identity(image), len(first)) for image in images]
        distinct = {_identity(image): image for image in reversed(images)}
        pixels = np.stack([self._pixels(distinct[key]) for key in first])
        return self._encoder.embed(pixels)[where]

    def similarity(
        self, left: OneImage | Sequence[OneImage], right: OneImage | Sequence[OneImage]
    ) -> float | np.ndarray:
        """How alike two images are, in 0..1, 1 = alike.

        Args:
            left: an image, or a list of images.
            right: the same. Lists have one length; a single image is compared with each image
                of a list.

        Returns:
            A float for two images, else `float32 [n]`.

        Raises:
            ValueError: for lists of different lengths, or an image that cannot be read.
        """
        lefts, rights = _listed(left), _listed(right)
        single = not isinstance(left, list | tuple) and not isinstance(right, list | tuple)
        n = max(len(lefts), len(rights))
        if not all(len(side) in (1, n) for side in (lefts, rights)) or not min(
            len(lefts), len(rights)
        ):
            raise ValueError(
                f"similarity compares lists of one length, or one image with a list; got"
                f" {len(lefts)} and {len(rights)} images"
            )
        z = self.embed([*lefts, *rights])
        zl = np.broadcast_to(z[: len(lefts)], (n, z.shape[1]))
        zr = np.broadcast_to(z[len(lefts) :], (n, z.shape[1]))
        similarity = np.asarray(self._encoder.compare(zl, zr).similarity)
        return float(similarity[0]) if single else similarity

    def _pixels(self, image: OneImage) -> np.ndarray:
        if not isinstance(image, str | os.PathLike):
            return self.preprocess(image)
        from PIL import Image

        try:
            with Image.open(image) as opened:
                return self.preprocess(opened)
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{os.fspath(image)} cannot be read as an image: {error}") from error


def _listed(images: Any) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]


def _identity(image: Any) -> Any:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else id(image)


def load(workdir: str | os.PathLike[str]) -> Comparator:
    """The best weights of a run (the latest where there are no best yet).

    Nothing but the run's folder is needed: the checkpoint describes itself.

    Raises:
        CheckpointError: if there is no checkpoint, or it cannot be read.
    """
    with CheckpointStore(Path(workdir), read_only=True) as store:
        kind = BEST if store.step(BEST) is not None else LATEST
        about = store.about(kind)
        config = configuration.from_json(about["config"])
        preprocess = Preprocess.from_dict(about["preprocess"])
        model = build_model(config)
        image = np.zeros((1, *preprocess.size, preprocess.channels), np.float32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), image, image)
        template = {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
        weights = store.restore_weights(kind, template)
        step = store.step(kind)
    origin = f"{workdir}, {kind} checkpoint of step {step}, trained on {about['data']['name']}"
    return Comparator(Encoder(model, weights), preprocess, origin)
