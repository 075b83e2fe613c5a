"""`Comparator`: a trained run, ready to compare images."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from siamjax import config as configuration
from siamjax.config import ConfigDict
from siamjax.data.decode import open_image, reason_of
from siamjax.data.files import read_picture
from siamjax.evaluation.decision import DEFAULT, DecisionCard, probability
from siamjax.evaluation.encoder import Encoder
from siamjax.models import Ensemble, Siamese
from siamjax.preprocess import Preprocess
from siamjax.recipe import build_model
from siamjax.training.checkpoint import BEST, LATEST, CheckpointStore, described
from siamjax.types import Distance

if TYPE_CHECKING:
    from PIL import Image

    OneImage = str | os.PathLike[str] | Image.Image | np.ndarray


class Comparison(NamedTuple):
    """What a run says of n pairs.

    Attributes:
        similarity: `float32 [n]`, in 0..1, large = alike.
        probability: `float32 [n]` that the two are the same, for the prior that was given.
        distance: `float32 [n]` of a head that gives one, else None.
        same: `bool [n]`, similarity at or above the threshold.
        threshold: of the decision, on the similarity.
    """

    similarity: np.ndarray
    probability: np.ndarray
    distance: np.ndarray | None
    same: np.ndarray
    threshold: float


class Comparator:
    """Compares images with the weights and the preprocessing of a run.

    Images may be paths, PIL images or arrays (`[h, w]`, `[h, w, 1 | 3 | 4]`), of any size.

    Args:
        encoder: the model with its weights and its decision card.
        preprocess: of the run.
        config: of the run.
        origin: one line that says which run and step this is, and on what data.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        config: ConfigDict | None = None,
        origin: str = "",
    ):
        self.encoder, self.preprocess = encoder, preprocess
        self.config, self.origin = config, origin

    @property
    def card(self) -> DecisionCard:
        """Calibration and thresholds, with where they were fitted."""
        return self.encoder.card

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of weights and preprocessing: what embeddings must share to be compared."""
        digest = hashlib.sha256(json.dumps(self.preprocess.to_dict(), sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.encoder.weights):
            digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()

    def embed(self, images: Sequence[OneImage] | np.ndarray) -> np.ndarray:
        """Embeddings `float32 [n, d]` of a list of images, or of an array `[n, h, w, c]`.

        Each distinct image object or path is encoded once.
        """
        images = list(images)
        first: dict[Any, int] = {}
        where = [first.setdefault(_identity(image), len(first)) for image in images]
        distinct = {_identity(image): image for image in reversed(images)}
        pixels = np.stack([self.pixels(distinct[key]) for key in first])
        return self.encoder.embed(pixels)[where]

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
        similarity = self.compare(left, right).similarity
        return similarity if _several(left) or _several(right) else float(similarity[0])

    def compare(
        self,
        left: OneImage | Sequence[OneImage],
        right: OneImage | Sequence[OneImage],
        *,
        threshold: str | float = DEFAULT,
        prior: float = 0.5,
    ) -> Comparison:
        """Compares lists of one length, or one image with each of a list.

        Args:
            left: an image, or a list of them.
            right: an image, or a list of them.
            threshold: a name on the decision card, or a similarity.
            prior: share of same pairs where the answer will be used; moves `probability` only.

        Raises:
            ValueError: for lists of different lengths, an image that cannot be read, or a
                threshold that the run does not have.
        """
        left, right = listed(left), listed(right)
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
        return self.compare_embeddings(zl, zr, threshold=threshold, prior=prior)

    def compare_embeddings(
        self,
        left: np.ndarray,
        right: np.ndarray,
        *,
        threshold: str | float = DEFAULT,
        prior: float = 0.5,
    ) -> Comparison:
        """`compare` for embeddings `float32 [n, d]` of `embed`, row by row; only the head runs."""
        cut = self.card.threshold(threshold)
        output = self.encoder.compare(left, right)
        similarity = self.encoder.similarity(output)
        distance = np.asarray(output.value) if isinstance(output, Distance) else None
        likely = probability(similarity, prior)
        return Comparison(similarity, likely, distance, similarity >= cut, cut)

    def rank(
        self, query: OneImage, gallery: Sequence[OneImage], top: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The gallery's images from the most alike to the least.

        Args:
            query: an image.
            gallery: images; for many queries over one gallery, `siamjax.gallery` embeds it once.
            top: how many to give; None: all.

        Returns:
            Positions in the gallery `int [m]`, and their similarities `float32 [m]`; of equal
            ones the first comes first.
        """
        similarity = self.compare(query, listed(gallery)).similarity
        order = np.argsort(-similarity, kind="stable")[:top]
        return order, similarity[order]

    def pixels(self, image: OneImage) -> np.ndarray:
        """What the tower sees of an image: `uint8 [h, w, c]`.

        Raises:
            ValueError: if it cannot be read.
        """
        if not isinstance(image, str | os.PathLike):
            return self.preprocess(image)
        try:
            with open_image(read_picture(Path(image))) as opened:
                return self.preprocess(opened)
        except Exception as error:  # a damaged file may provoke anything in Pillow
            # An error of the system names the file too, which the sentence has already.
            text = error.strerror if isinstance(error, OSError) and error.strerror else None
            text = text or reason_of(error)
            raise ValueError(f"{os.fspath(image)} cannot be read as an image: {text}") from error


def listed(images: OneImage | Sequence[OneImage]) -> list[Any]:
    """The images of a list, of an array `[n, h, w, c]`, or the one image that this is."""
    return list(images) if _several(images) else [images]  # pyright: ignore[reportArgumentType]


def _several(images: Any) -> bool:
    return isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)


def _identity(image: Any) -> Any:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else id(image)


def model_of(config: ConfigDict) -> Siamese | Ensemble:
    """The model of a run: one net, or those of an ensemble (`config.model.members`)."""
    members = tuple(build_model(config) for _ in range(config.model.members))
    return members[0] if len(members) == 1 else Ensemble(members)


def load(workdir: str | os.PathLike[str], checkpoint: str | None = None) -> Comparator:
    """The best weights of a run (the latest where there are no best yet).

    Nothing but the run's folder is needed: the checkpoint describes itself.

    Args:
        workdir: the run's folder.
        checkpoint: "best" or "latest", to have that one and no other.

    Raises:
        CheckpointError: if there is no checkpoint, or it is damaged, or it cannot be read.
        ValueError: for another name of a checkpoint.
    """
    if checkpoint not in (None, BEST, LATEST):
        raise ValueError(f"checkpoint must be {BEST} or {LATEST}; got {checkpoint!r}")
    with (
        CheckpointStore(Path(workdir), read_only=True) as store,
        described(f"the checkpoint in {workdir}"),
    ):
        kind = checkpoint or (BEST if store.step(BEST) is not None else LATEST)
        about = store.about(kind)
        config = configuration.from_json(about["config"])
        preprocess = Preprocess.from_dict(about["preprocess"])
        model = model_of(config)
        image = np.zeros((1, *preprocess.size, preprocess.channels), np.float32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), image, image)
        template = {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
        weights = store.restore_weights(kind, template)
        step = store.step(kind)
        nets = f"{config.model.members} nets as one, " if config.model.members > 1 else ""
        origin = (
            f"{workdir}, {nets}{kind} checkpoint of step {step}, trained on {about['data']['name']}"
        )
        origin = "; ".join([origin, *store.notes])
        card = DecisionCard.from_dict(about["progress"]["card"])
    return Comparator(Encoder(model, weights, card), preprocess, config, origin)
