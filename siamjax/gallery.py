"""`Gallery`: which of many known images is this one most like, or is it none of them?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from siamjax import gallery_file
from siamjax.distances import unit
from siamjax.embeddings import embed_stream
from siamjax.evaluation.decision import DEFAULT
from siamjax.evaluation.nearest import Nearest
from siamjax.gallery_file import GalleryError, Stored
from siamjax.gallery_items import Item, digest, items, name_of
from siamjax.inference import Comparator, listed
from siamjax.models import Ensemble
from siamjax.models.heads import Cosine, Euclidean
from siamjax.models.relational import Relational

if TYPE_CHECKING:
    from siamjax.inference import OneImage

CHUNK = 1 << 14  # rows that a head compares at a time


class Match(NamedTuple):
    """An image of a gallery, compared with a query.

    Attributes:
        name: of the image.
        label: its class, "" where it has none.
        similarity: in 0..1.
        same: similarity at or above the threshold.
    """

    name: str
    label: str
    similarity: float
    same: bool


class Answer(NamedTuple):
    """What a gallery says of a query.

    Attributes:
        matches: the most alike first; of equal ones, the one that came into the gallery first.
        threshold: of the decision, on the similarity.
    """

    matches: list[Match]
    threshold: float

    @property
    def known(self) -> bool:
        """Whether the best match reaches the threshold."""
        return self.matches[0].same

    @property
    def label(self) -> str | None:
        """The class of the best match, or None for an unknown query."""
        return self.matches[0].label if self.known else None

    def __str__(self) -> str:
        best = self.matches[0]
        if self.known:
            return f"{best.label or best.name} ({best.name} at {best.similarity:.2f})"
        similarity, cut = _apart(best.similarity, self.threshold)
        return f"unknown (best {best.name} at {similarity} < {cut})"


class Added(NamedTuple):
    """What became of images offered to a gallery, by name.

    Attributes:
        added: new.
        replaced: of a name that was there, with another image.
        skipped: name, and the name under which the very same image is there already.
    """

    added: list[str]
    replaced: list[str]
    skipped: list[tuple[str, str]]


class Gallery:
    """Embeddings of known images; queries are compared with all of them.

    Each image goes through the tower once, when it is added. The search is exact: for the
    Euclidean and the cosine head of one net in one view a matrix product proposes candidates
    (`Nearest`), for others all are candidates; the head ranks them, so a similarity is that of
    `comparator.similarity`. For the relational head, whose comparisons cost most, a query may be
    content with a shortlist.

    Args:
        comparator: of a run.
        folder: what the names of files are relative to; None: the present folder.

    Example:
        >>> gallery = Gallery.build(siamjax.load("runs/faces"), "people")  # doctest: +SKIP
        >>> gallery.query("visitor.png").label  # doctest: +SKIP
        'anna'
    """

    def __init__(self, comparator: Comparator, folder: str | os.PathLike[str] | None = None):
        self.comparator, self.folder = comparator, os.path.abspath(folder or ".")
        self.embeddings = np.zeros((0, 0), np.float32)
        self.names: list[str] = []
        self.labels: list[str] = []
        self._digests: list[bytes] = []
        self._forget()

    def _forget(self) -> None:
        """What was derived from the embeddings."""
        self._nearest: Nearest | None = None
        self._outlines: Nearest | None = None

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def build(
        cls,
        comparator: Comparator,
        folder: str | os.PathLike[str],
        faults: list[str] | None = None,
    ) -> Gallery:
        """A gallery of all images under a folder; folders within are the labels.

        Args:
            comparator: of a run.
            folder: searched with all folders in it.
            faults: takes a sentence for each image that cannot be read; without it the first such
                image is an error.

        Raises:
            ValueError: if there is no image, or one cannot be read.
        """
        gallery = cls(comparator, folder)
        gallery.add(folder, faults=faults)
        return gallery

    def add(
        self,
        images: OneImage | Sequence[OneImage],
        names: Sequence[str] | None = None,
        labels: Sequence[str] | str | None = None,
        faults: list[str] | None = None,
    ) -> Added:
        """Adds images; one that is there already, byte for byte, is skipped.

        Args:
            images: an image or a list: paths of files or folders, arrays or PIL images.
            names: one for each image. None, for files: the path, relative to `folder` if it lies
                there.
            labels: one for each, or one for all. None: the folders a file lies in, below `folder`
                or below the folder given.
            faults: takes a sentence for each image that cannot be read; without it the first such
                image is an error, and nothing is added.

        Raises:
            ValueError: if an image cannot be read, or names or labels do not fit.
        """
        offered: list[tuple[bytes, Item]] = []
        for item in items(listed(images), names, labels, self.folder):
            try:
                offered.append((digest(self.comparator, item.image), item))
            except ValueError as error:
                if faults is None:
                    raise
                faults.append(str(error))
        now = {item.name: key for key, item in offered}
        held = dict(zip(self.names, self._digests, strict=True))
        changed = {name for name, key in now.items() if held.get(name, key) != key}
        there = {key: name for name, key in held.items() if name not in changed}
        new: dict[bytes, Item] = {}
        for key, item in offered:
            if key not in there:
                new.setdefault(key, item)
        outcome = self._store(new, faults)
        there = dict(zip(self._digests, self.names, strict=True))
        for key, item in offered:
            if new.get(key) is item:
                continue
            if key in there:
                outcome.skipped.append((item.name, there[key]))
                if item.name in changed:  # what it was is no more, what it is has another name
                    self.remove(item.name)
            elif faults is not None:
                faults.append(f"{item.name} cannot be read either: it is the same file")
        return outcome

    def _store(self, new: dict[bytes, Item], faults: list[str] | None) -> Added:
        """Embeds, and only then changes anything."""
        keys, offered = list(new), list(new.values())
        kept: list[int] = []
        parts: list[np.ndarray] = []
        for places, z in embed_stream(self.comparator, (item.image for item in offered), faults):
            kept += places
            parts.append(z)
        old, names = set(self.names), [offered[i].name for i in kept]
        replaced = [name for name in names if name in old]
        if replaced:
            self.remove(replaced)
        if kept:
            self.embeddings = np.concatenate([self.embeddings, *parts] if len(self) else parts)
            self.names += names
            self.labels += [offered[i].label for i in kept]
            self._digests += [keys[i] for i in kept]
            self._forget()
        return Added([name for name in names if name not in old], replaced, [])

    def remove(self, names: str | Sequence[str]) -> None:
        """Removes images by name, or by the path that gave them their name.

        Raises:
            GalleryError: if there is no such name; nothing is removed then.
        """
        place = {name: i for i, name in enumerate(self.names)}
        gone = set()
        for name in [names] if isinstance(names, str) else names:
            found = name if name in place else name_of(name, self.folder)
            if found not in place:
                near = get_close_matches(name, self.names, 1, 0.4)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise GalleryError(f"the gallery has no image {name!r}{hint}")
            gone.add(place[found])
        keep = [i for i in range(len(self)) if i not in gone]
        self.embeddings = self.embeddings[keep]
        self.names = [self.names[i] for i in keep]
        self.labels = [self.labels[i] for i in keep]
        self._digests = [self._digests[i] for i in keep]
        self._forget()

    def query(
        self,
        images: OneImage | Sequence[OneImage],
        top: int = 5,
        threshold: str | float = DEFAULT,
        shortlist: int | None = None,
    ) -> Answer | list[Answer]:
        """The images most like each query.

        Args:
            images: an image or a list, of paths, arrays or PIL images.
            top: how many matches at most.
            threshold: a name on the run's decision card, or a similarity.
            shortlist: with a relational head, how many images it compares with a query: those whose
                global vectors have the largest cosine with the query's. None: all of them.

        Returns:
            An `Answer`, or a list of them for a list.

        Raises:
            ValueError: if an image cannot be read, or the gallery is empty.
        """
        queries, answers = listed(images), []
        for _, z in embed_stream(self.comparator, queries):
            answers += self.search(z, top, threshold, shortlist)
        return answers[0] if len(queries) == 1 and queries[0] is images else answers

    def search(
        self,
        embeddings: np.ndarray,
        top: int = 5,
        threshold: str | float = DEFAULT,
        shortlist: int | None = None,
    ) -> list[Answer]:
        """`query` for embeddings `float32 [q, d]` of the same run.

        Raises:
            GalleryError: if the gallery is empty, `top` is below 1, d is not the gallery's, or a
                shortlist is shorter than `top` or asked of a head that has none.
            ValueError: if the run has no such threshold.
        """
        if not len(self):
            raise GalleryError("the gallery is empty: add images first")
        if top < 1:
            raise GalleryError(f"top is how many matches to give, at least 1; got {top}")
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            raise GalleryError(
                f"the gallery holds embeddings of {self.embeddings.shape[1]} numbers; the query's"
                f" have the shape {list(embeddings.shape)}"
            )
        embeddings = embeddings.astype(np.float32, copy=False)
        answers = []
        for start in range(0, len(embeddings), 32):
            part = embeddings[start : start + 32]
            rows = self._candidates(part, top, shortlist)
            answers += [self._rank(z, r, top, threshold) for z, r in zip(part, rows, strict=True)]
        return answers

    def _candidates(self, z: np.ndarray, top: int, shortlist: int | None) -> list[np.ndarray]:
        """For each query the rows to rank."""
        if shortlist is not None:
            if shortlist < top:
                raise GalleryError(
                    f"a shortlist of {shortlist} has no {top} best: give at least top"
                )
            if self._outlines is None:
                self._outlines = Nearest(outlines(self.comparator, self.embeddings), cosine=True)
            return self._outlines.candidates(outlines(self.comparator, z), shortlist)
        self._nearest = self._nearest or nearest(self.comparator, self.embeddings)
        if self._nearest is not None:
            return self._nearest.candidates(z, top)
        return [np.arange(len(self))] * len(z)

    def _rank(self, z: np.ndarray, rows: np.ndarray, top: int, threshold: str | float) -> Answer:
        """The best of some rows, as the head has them."""
        score = self.comparator.encoder.score
        parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        scores = [score(_repeated(z, len(part)), self.embeddings[part]) for part in parts]
        best = rows[np.argsort(-np.concatenate(scores), kind="stable")[:top]]
        said = self.comparator.compare_embeddings(
            _repeated(z, len(best)), self.embeddings[best], threshold=threshold
        )
        matches = [
            Match(self.names[i], self.labels[i], float(similarity), bool(same))
            for i, similarity, same in zip(best, said.similarity, said.same, strict=True)
        ]
        return Answer(matches, float(said.threshold))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, at once or not at all."""
        about = {
            "fingerprint": self.comparator.fingerprint,
            "origin": self.comparator.origin,
            "folder": self.folder,
        }
        stored = Stored(self.embeddings, self._digests, self.names, self.labels, about)
        gallery_file.write(path, stored)

    @classmethod
    def load(cls, path: str | os.PathLike[str], comparator: Comparator) -> Gallery:
        """The gallery that was saved.

        Raises:
            GalleryError: if it cannot be read, or its embeddings are another run's.
        """
        stored = gallery_file.read(path)
        if stored.about["fingerprint"] != comparator.fingerprint:
            raise GalleryError(
                f"the gallery {path} was made by another run ({stored.about['origin']}), whose"
                f" embeddings mean nothing to this one ({comparator.origin}): build it again"
            )
        gallery = cls(comparator, stored.about["folder"])
        gallery.embeddings, gallery._digests = stored.embeddings, stored.digests
        gallery.names, gallery.labels = stored.names, stored.labels
        return gallery


def nearest(comparator: Comparator, embeddings: np.ndarray) -> Nearest | None:
    """The matrix-product search, for a head that has one; None where it must see all rows."""
    model = comparator.encoder.model
    if isinstance(model, Ensemble) or model.views > 1:
        return None  # a mean of comparisons is not the comparison of one vector
    head = model.head
    if isinstance(head, Cosine):
        return Nearest(embeddings, cosine=True)
    if isinstance(head, Euclidean) and head.p == 2:
        return Nearest(embeddings, floor=head.epsilon)
    return None


def outlines(comparator: Comparator, embeddings: np.ndarray) -> np.ndarray:
    """The global vectors in embeddings `[n, d]` of a relational head, all views' side by side.

    Each view's has length 1, so the cosine of two rows is the mean of the views' cosines.

    Raises:
        GalleryError: for another head.
    """
    model = comparator.encoder.model
    if isinstance(model, Ensemble) or not isinstance(model.head, Relational):
        raise GalleryError(
            "a shortlist is for one net with a relational head; this search compares with all"
            " images as it is: leave shortlist out"
        )
    vectors = embeddings.reshape(len(embeddings), model.views, -1)[..., : model.head.embedding]
    return np.asarray(unit(jnp.asarray(vectors))).reshape(len(embeddings), -1)


def _repeated(z: np.ndarray, n: int) -> np.ndarray:
    return np.broadcast_to(z, (n, len(z)))


def _apart(below: float, above: float) -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart: 0.499 < 0.5, not 0.50 < 0.5."""
    for digits in range(2, 9):
        text = f"{below:.{digits}f}"
        if float(text) < above:
            return text, f"{above:g}"
    return repr(below), repr(above)
