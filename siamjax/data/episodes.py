"""One-shot trials: which image is to be recognised, and which images it is compared with.

A trial shows one query image and `way` classes with `shot` support images each; exactly one of the
classes is the query's. How hard that is depends on which classes meet and on who drew the images,
so each function here is one protocol, its name travels in `Episodes.protocol`, and numbers of
different protocols must not be compared. The same images and seed give the same trials on every
machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siamjax.types import Episodes, LabelledImages

KOCH_ALPHABETS, KOCH_CHARACTERS, KOCH_RUNS, KOCH_DRAWERS = 10, 20, 2, 4
DRAWS = 1000  # attempts at a trial where some drawers have not drawn every class


@dataclass(frozen=True)
class _Table:
    """The images sorted by class, then drawer, with where each (class, drawer) run begins.

    Where drawers are unknown there is one column of drawers that holds all images of the class.
    """

    order: np.ndarray  # int [n], into the images
    start: np.ndarray  # int [classes, drawers], into `order`
    count: np.ndarray  # int [classes, drawers]
    group: np.ndarray  # int [classes]
    known: bool  # are the drawers known?

    @classmethod
    def of(cls, images: LabelledImages) -> _Table:
        known = bool(len(images)) and bool((images.drawers >= 0).all())
        _, drawer = np.unique(
            images.drawers if known else np.zeros(len(images), int), return_inverse=True
        )
        classes, drawers = len(images.class_names), int(drawer.max(initial=0)) + 1
        cell = images.labels.astype(np.int64) * drawers + drawer
        count = np.bincount(cell, minlength=classes * drawers)
        start = np.concatenate([[0], np.cumsum(count)[:-1]])
        group = np.full(classes, -1)
        group[images.labels] = images.groups
        shape = (classes, drawers)
        order = np.argsort(cell, kind="stable")
        return cls(order, start.reshape(shape), count.reshape(shape), group, known)

    def one_each(
        self, rng: np.random.Generator, classes: np.ndarray, drawers: np.ndarray
    ) -> np.ndarray:
        """An image of each class by each drawer: `int [classes, drawers]`."""
        cells = np.ix_(classes, drawers)
        return self.order[self.start[cells] + rng.integers(self.count[cells])]

    def some(self, rng: np.random.Generator, label: int, how_many: int) -> np.ndarray:
        """Distinct images of a class, by anybody: `int [how_many]`."""
        first, total = self.start[label, 0], self.count[label].sum()
        return self.order[first + rng.choice(total, how_many, replace=False)]


def within_alphabet(
    images: LabelledImages, *, way: int, shot: int, trials: int, seed: int
) -> Episodes:
    """Trials whose classes all belong to one group: characters of one alphabet, by two drawers.

    The groups take turns, so no two of them differ by more than one trial. Where drawers are
    known, the supports of the j-th shot are all by one drawer, each shot by another one, and the
    query by yet another, as in the runs of Lake et al.; a drawer's pen then tells nothing about
    the class. Where drawers are unknown, the query is simply never one of its own supports.

    Args:
        images: what to draw from; every class with too few images (fewer than `shot + 1`, or
            where drawers are known fewer than `shot + 1` drawers) is left out.
        way: classes in a trial, at least 2.
        shot: support images of each class, at least 1.
        trials: how many.
        seed: fixes the trials.

    Returns:
        `trials` episodes, protocol "within-alphabet". Images that have neither groups nor
        drawers (one group, named "all") give "random-class", which is then what it is.

    Raises:
        ValueError: if no group has `way` classes, saying what the largest has.

    References:
        Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic
        program induction" (2015), the one-shot classification task.
    """
    _check(way, shot, trials)
    table = _Table.of(images)
    usable = _usable(table, shot)
    members = [np.flatnonzero(usable & (table.group == g)) for g in range(len(images.group_names))]
    sizes = np.array([len(m) for m in members])
    eligible = np.flatnonzero(sizes >= way)
    if not len(eligible):
        largest = int(sizes.argmax())
        raise ValueError(
            f"{way}-way {shot}-shot trials within a group need {way} classes with"
            f" {_needed(table, shot)}; the largest group, {images.group_names[largest]!r}, has"
            f" {sizes[largest]} of them: {_remedy(int(sizes[largest]), shot, 'random_class')}"
        )
    rng = np.random.default_rng(seed)
    turns = -(-trials // len(eligible))
    groups = np.concatenate([rng.permutation(eligible) for _ in range(turns)])[:trials]
    drawn = [_trial(table, rng, members[g], way, shot, images.group_names[g]) for g in groups]
    ungrouped = images.group_names == ("all",) and not table.known
    return _episodes(drawn, "random-class" if ungrouped else "within-alphabet")


def random_class(
    images: LabelledImages, *, way: int, shot: int, trials: int, seed: int
) -> Episodes:
    """Trials whose classes come from anywhere, by any drawers.

    The usual protocol of the few-shot literature, and an easier one than `within_alphabet`:
    characters of different alphabets differ more, and the query may share its support's drawer.

    Args:
        images: what to draw from; classes with fewer than `shot + 1` images are left out.
        way: classes in a trial, at least 2.
        shot: support images of each class, at least 1.
        trials: how many.
        seed: fixes the trials.

    Returns:
        `trials` episodes, protocol "random-class". The query is never one of its own supports.

    Raises:
        ValueError: if fewer than `way` classes have `shot + 1` images.

    References:
        Vinyals et al., "Matching Networks for One Shot Learning" (2016), section 4.
    """
    _check(way, shot, trials)
    table = _Table.of(images)
    classes = np.flatnonzero(table.count.sum(1) > shot)
    if len(classes) < way:
        raise ValueError(
            f"{way}-way {shot}-shot trials need {way} classes with {shot + 1} images or more; there"
            f" are {len(classes)} of them: {_remedy(len(classes), shot)}"
        )
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(trials):
        chosen = rng.choice(classes, way, replace=False)
        answer = int(rng.integers(way))
        support = np.empty((way, shot), int)
        query = -1
        for i, label in enumerate(chosen):
            picked = table.some(rng, label, shot + (i == answer))
            support[i] = picked[:shot]
            query = picked[-1] if i == answer else query
        drawn.append((query, support, answer))
    return _episodes(drawn, "random-class")


def koch_within(
    images: LabelledImages, *, seed: int, drawers: Sequence[int] | None = None
) -> Episodes:
    """The 400 trials of Koch et al.: ten alphabets, two runs of 20 characters by two drawers.

    In a run, one drawer's 20 characters are the queries and each is compared with the same 20
    characters of another drawer: 20-way, 1-shot. The paper does not say which characters and
    drawers were drawn, so neither this nor any other reading has exactly its trials.

    Args:
        images: the evaluation alphabets. With more than ten that qualify, ten are drawn.
        seed: fixes the trials.
        drawers: the evaluation drawers, of whom each run draws two. None: all of them, or where
            there are more than four, the four with the highest numbers.

    Returns:
        400 episodes, protocol "koch-within": alphabet by alphabet, run by run. All 20 trials of a
        run share their support.

    Raises:
        ValueError: if drawers are unknown, or fewer than ten groups have 20 classes by at least
            two of the evaluation drawers.

    References:
        Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition"
        (2015), section 4.3.
    """
    table = _Table.of(images)
    present = np.unique(images.drawers)
    wanted = present[-KOCH_DRAWERS:] if drawers is None else np.unique(drawers)
    if not table.known or not np.isin(wanted, present).all() or len(wanted) < 2:
        raise ValueError(
            "koch-within needs to know who drew each image, and at least two drawers; the images"
            f" are by drawers {present.tolist()} (-1: unknown), asked for {wanted.tolist()}: use"
            " within_alphabet or random_class"
        )
    columns = np.searchsorted(present, wanted)
    pairs = [(a, b) for a in columns for b in columns if a != b]
    runs = {g: _koch_runs(table, g, pairs) for g in range(len(images.group_names))}
    eligible = [g for g, possible in runs.items() if possible]
    if len(eligible) < KOCH_ALPHABETS:
        raise ValueError(
            f"koch-within needs {KOCH_ALPHABETS} alphabets with {KOCH_CHARACTERS} characters by two"
            f" evaluation drawers; {len(eligible)} of the {len(runs)} groups have that many: use"
            " within_alphabet"
        )
    rng = np.random.default_rng(seed)
    drawn = []
    for group in np.sort(rng.choice(eligible, KOCH_ALPHABETS, replace=False)):
        possible = runs[group]
        # Both orders of two drawers are possible runs, so there are always two different ones.
        for run in rng.choice(len(possible), KOCH_RUNS, replace=False):
            classes, (asker, shower) = possible[run]
            chosen = rng.choice(classes, KOCH_CHARACTERS, replace=False)
            support = table.one_each(rng, chosen, np.array([shower]))
            queries = table.one_each(rng, chosen, np.array([asker]))[:, 0]
            drawn += [(query, support, answer) for answer, query in enumerate(queries)]
    return _episodes(drawn, "koch-within")


def _koch_runs(
    table: _Table, group: int, pairs: list[tuple[int, int]]
) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """The drawer pairs that share 20 characters of a group, with those characters."""
    here = (table.group == group)[:, None] & (table.count > 0)
    both = [(np.flatnonzero(here[:, a] & here[:, b]), (a, b)) for a, b in pairs]
    return [(classes, pair) for classes, pair in both if len(classes) >= KOCH_CHARACTERS]


def _trial(
    table: _Table, rng: np.random.Generator, classes: np.ndarray, way: int, shot: int, name: str
) -> tuple[int, np.ndarray, int]:
    """(query, support [way, shot], answer) with classes of one group."""
    if not table.known:
        chosen = rng.choice(classes, way, replace=False)
        answer = int(rng.integers(way))
        picked = [table.some(rng, c, shot + (i == answer)) for i, c in enumerate(chosen)]
        return picked[answer][-1], np.stack([p[:shot] for p in picked]), answer
    drawn = table.count[classes] > 0
    active = np.flatnonzero(drawn.any(0))
    for _ in range(DRAWS):  # the first attempt serves wherever every drawer drew every class
        asker, *showers = rng.choice(active, shot + 1, replace=False)
        shown = drawn[:, showers].all(1)
        asked = classes[shown & drawn[:, asker]]
        if shown.sum() < way or not len(asked):
            continue
        label = rng.choice(asked)
        others = classes[shown & (classes != label)]
        chosen = rng.permutation(np.append(rng.choice(others, way - 1, replace=False), label))
        support = table.one_each(rng, chosen, np.array(showers))
        query = table.one_each(rng, np.array([label]), np.array([asker]))[0, 0]
        return query, support, int(np.flatnonzero(chosen == label)[0])
    raise ValueError(
        f"group {name!r} has {len(classes)} classes, but in {DRAWS} draws no {shot} drawers shared"
        f" {way} of them: lower eval.way or eval.shot, or use random_class"
    )


def _usable(table: _Table, shot: int) -> np.ndarray:
    """`bool [classes]`: has the class enough drawers, or, where they are unknown, images?"""
    return ((table.count > 0).sum(1) if table.known else table.count[:, 0]) > shot


def _needed(table: _Table, shot: int) -> str:
    return f"images by {shot + 1} drawers or more" if table.known else f"{shot + 1} images or more"


def _remedy(available: int, shot: int, other: str = "") -> str:
    if available < 2:
        return "lower eval.shot, or give more images" if shot > 1 else "give more images"
    return f"set eval.way to at most {available}" + (f", or use {other}" if other else "")


def _check(way: int, shot: int, trials: int) -> None:
    for name, value, least in (("way", way, 2), ("shot", shot, 1), ("trials", trials, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")


def _episodes(drawn: list[tuple[int, np.ndarray, int]], protocol: str) -> Episodes:
    query, support, answer = zip(*drawn, strict=True)
    return Episodes(
        query=np.array(query, np.int32),
        support=np.stack(support).astype(np.int32),
        answer=np.array(answer, np.int32),
        protocol=protocol,
    )
