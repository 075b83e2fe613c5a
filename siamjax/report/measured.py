"""What an evaluation found, in the form that a report needs: figures, a few images, a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from siamjax.evaluation.embedding_map import pca
from siamjax.evaluation.lake_runs import PROTOCOL as LAKE
from siamjax.evaluation.one_shot import OneShotResult
from siamjax.evaluation.protocols import LakeResult
from siamjax.evaluation.report_card import Evaluation
from siamjax.evaluation.validation import Validated, Validation
from siamjax.evaluation.verification import Error, Verification, verify
from siamjax.types import LabelledImages

SHOWN = 12  # errors of each kind that are drawn
MOST_DOTS = 1000  # images on the map
MOST_CLASSES = 20  # named on the map
THUMBNAILS = 60  # on the map, where classes are too many to be named
APART = (0.065, 0.1)  # of the map's width and height, on one of them
NO_CLASSES = (
    "these data state pairs, not classes, so there are no classes to draw trials or lists of"
    " confused classes from"
)


@dataclass(frozen=True)
class EmbeddingMap:
    """Embeddings in two dimensions.

    Attributes:
        at: `[n, 2]`.
        shares: of the whole variance, along each.
        labels: the class of each, "" for none.
        total: how many images there are, of which n are drawn.
        thumbnails: some images by their place in `at`.
    """

    at: np.ndarray
    shares: tuple[float, float]
    labels: Sequence[str]
    total: int
    thumbnails: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """An evaluation of a run on one set of data.

    Attributes:
        of: which weights.
        data: one line: the data, the split, whether training saw the classes.
        notes: sentences the reader must see.
        one_shot: accuracies by protocol.
        verification: of pairs.
        absent: what was not measured, and why.
        images: `uint8 [h, w, c]` of the pairs decided wrong, by name.
        map: of the embeddings.
        final: False for the weights of a training under way, which are not those that are kept.
    """

    of: str
    data: str
    notes: tuple[str, ...] = ()
    one_shot: tuple[OneShotResult | LakeResult, ...] = ()
    verification: Verification | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    map: EmbeddingMap | None = None
    final: bool = True


def measure(evaluation: Evaluation, of: str, *, trials: bool = True) -> Measured:
    """Runs every protocol that fits the data, and draws the map.

    Args:
        evaluation: network, data, decision card and settings; with Lake's runs where they are
            there.
        of: which weights, in one line.
        trials: whether one-shot trials are wanted; Lake's runs always are.
    """
    subject, images = evaluation.subject, evaluation.subject.images
    one_shot, absent = [], {}
    names = [LAKE] if evaluation.runs is not None else []
    if subject.pairs is not None:
        absent["one-shot"] = NO_CLASSES
    elif not trials:
        absent["one-shot"] = "the run's config asks for no one-shot trials (config.eval.trials=0)"
    else:
        names += ["within-alphabet"] * (len(images.group_names) > 1) + ["random-class"]
    for name in names:
        try:
            one_shot.append(evaluation.run(name))
        except ValueError as error:
            absent[name] = str(error)
    verification = None
    try:
        verification = evaluation.run("verification")
    except ValueError as error:
        absent["verification"] = str(error)
    assert verification is None or isinstance(verification, Verification)
    labels = [""] * len(images)
    if subject.pairs is None:
        labels = [images.class_names[label] for label in images.labels]
    return Measured(
        of=of,
        data=subject.title,
        notes=tuple(subject.notes),
        one_shot=tuple(one_shot),
        verification=verification,
        absent=absent,
        images=images_of_errors(verification, images),
        map=map_of(evaluation.embeddings, labels, images.images, evaluation.settings.seed),
    )


def of_validation(
    validation: Validation, validated: Validated, *, of: str, data: str, notes: Sequence[str] = ()
) -> Measured:
    """What a validation during training found; nothing is embedded again.

    Args:
        validation: its images and pairs.
        validated: what it found.
        of: which weights, in one line.
        data: one line.
        notes: sentences the reader must see.
    """
    images, pairs = validation.images, validation.pairs
    names = image_names(images)
    sides = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    classes = None
    if validated.one_shot is not None:
        classes = images.labels[pairs.left], images.labels[pairs.right], images.class_names
    verification = verify(
        validated.similarity,
        np.asarray(pairs.same),
        validated.similarity,
        validated.card,
        pairs="the run's validation pairs, to which calibration and thresholds were fitted",
        names=[(names[a], names[b]) for a, b in sides],
        classes=classes,
    )
    absent = {} if validated.one_shot else {"one-shot": "this validation has no one-shot trials"}
    return Measured(
        of=of,
        data=data,
        notes=tuple(notes),
        one_shot=(validated.one_shot,) if validated.one_shot else (),
        verification=verification,
        absent=absent,
        images=images_of_errors(verification, images),
        final=False,
    )


def image_names(images: LabelledImages) -> list[str]:
    """What reports call the images: their paths, or else a number and the class."""
    return list(images.paths) or [
        f"image {i} ({images.class_names[label]})" for i, label in enumerate(images.labels)
    ]


def shown_errors(verification: Verification | None) -> tuple[list[Error], list[Error]]:
    """The false accepts and the false rejects that a report draws."""
    if verification is None:
        return [], []
    return verification.false_accepts[:SHOWN], verification.false_rejects[:SHOWN]


def images_of_errors(
    verification: Verification | None, images: LabelledImages
) -> dict[str, np.ndarray]:
    """The images of the errors that are drawn, by their names."""
    accepts, rejects = shown_errors(verification)
    wanted = {name for error in (*accepts, *rejects) for name in (error.left, error.right)}
    if not wanted:
        return {}
    return {
        name: np.asarray(images.images[i])
        for i, name in enumerate(image_names(images))
        if name in wanted
    }


def map_of(
    embeddings: np.ndarray, labels: Sequence[str], images: np.ndarray, seed: int = 0
) -> EmbeddingMap | None:
    """The PCA of at most `MOST_DOTS` embeddings, drawn by `seed`; None for fewer than two.

    Up to `MOST_CLASSES` classes are to be named on the map; of more, or of images without
    classes, some images themselves are given, far enough apart to be seen.
    """
    total = len(embeddings)
    if total < 2:
        return None
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(total, min(total, MOST_DOTS), replace=False))
    rows = np.asarray(embeddings[chosen], np.float64)
    if rows.shape[1] > len(rows):
        # The same distances in fewer dimensions: the PCA of 4,096 would take a minute.
        rows = np.linalg.qr(rows.T)[1].T
    at, shares = pca(rows)
    named = [labels[int(i)] for i in chosen]
    thumbnails = {}
    if not 1 < len(set(named)) <= MOST_CLASSES:
        thumbnails = {place: np.asarray(images[chosen[place]]) for place in _apart(at, rng)}
    return EmbeddingMap(at, (float(shares[0]), float(shares[1])), named, total, thumbnails)


def _apart(at: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Places chosen at random, far enough from each other for a thumbnail each."""
    reach = np.ptp(at, 0)
    reach[reach == 0] = 1
    chosen: list[int] = []
    for place in rng.permutation(len(at)).tolist():
        if (np.abs(at[chosen] - at[place]) > reach * APART).any(1).all():
            chosen.append(place)
        if len(chosen) == THUMBNAILS:
            break
    return chosen
