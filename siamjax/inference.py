"""`Comparator`: a trained run, ready to compare images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from siamjax import config as configuration
from siamjax.evaluation.encoder import Encoder
from siamjax.preprocess import Preprocess
from siamjax.recipe import build_model
from siamjax.training.checkpoint import BEST, LATEST, CheckpointStore
from siamjax.types import Distance

if TYPE_CHECKING:
    from PIL import Image

    OneImage = str | os.PathLike[str] | Image.Image | np.ndarray


THRESHOLD = 0.5  # of the similarity


class Comparison(NamedTuple):
    """What a run says of n pairs.

    Attributes:
        similarity: `float32 [n]`, in 0..1, large = alike.
        same: `bool [n]`, similarity above the threshold.
        distance: `float32 [n]` of a head that gives one, else None.
        threshold: of the decision.
    """

    similarity: np.ndarray
    same: np.ndarray
    distance: np.ndarray | None
    threshold: float = THRESHOLD


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
        pixels = np.stack([self.pixels(distinct[key]) for key in first])
        return self._encoder.embed(pixels)[where]

    def similarity(
        self, left: OneImage | Sequence[OneImage], right: OneImage | Sequence[OneImage]
    ) -> float | np.ndarray:
        """How alike two images are, in 0..1, 1 = alike.

        Calibrated on the run's validation pairs: at 0.5 it is as likely that two images of one
        class are called different as the other way round.

        Args:
            left: an image, or a list of them.
            right: an image, or a list of the same length; one image against a list is compared
                with each of it.

        Returns:
            A float for two images, else `float32 [n]`.

        Raises:
            ValueError: for lists of different lengths, or an image that cannot be read.
        """
        similarity = self.compare(_listed(left), _listed(right)).similarity
        single = not isinstance(left, list | tuple) and not isinstance(right, list | tuple)
        return float(similarity[0]) if single else similarity

    def compare(self, left: Sequence[OneImage], right: Sequence[OneImage]) -> Comparison:
        """Compares lists of one length, or one image with each of a list.

        Raises:
            ValueError: for lists of different lengths, or an image that cannot be read.
        """
        sizes = len(left), len(right)
        n = max(sizes)
        if not all(size in (1, n) for size in sizes) or not min(sizes):
            raise ValueError(
                f"images are compared in lists of one length, or one with a list; got {sizes[0]}"
                f" and {sizes[1]} images"
            )
        z = self.embed([*left, *right])
        zl = np.broadcast_to(z[: len(left)], (n, z.shape[1]))
        zr = np.broadcast_to(z[len(left) :], (n, z.shape[1]))
        output = self._encoder.compare(zl, zr)
        similarity = self._encoder.similarity(output)
        distance = np.asarray(output.value) if isinstance(output, Distance) else None
        return Comparison(similarity, similarity > THRESHOLD, distance)

    def pixels(self, image: OneImage) -> np.ndarray:
        """What the tower sees of an image: `uint8 [h, w, c]`.

        Raises:
            ValueError: if it cannot be read.
        """
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
    encoder = Encoder(model, weights, about["progress"]["calibration"])
    return Comparator(encoder, preprocess, origin)
