"""Glyphs: alphabets that nobody has written, drawn from a seed, with nothing on disk.

They stand in for Omniglot where it cannot be had: 105x105, black ink on white paper, alphabets
of 14 to 40 characters, each drawn once by the same 20 drawers. The model has three levels:

- An **alphabet** is a style: a vocabulary of five to nine stroke shapes (bars, arcs, hooks,
  rings, zigzags, ...), how round or angular they are, how many strokes a character takes, whether
  strokes are joined without lifting the pen, how common dots and head lines are.
- A **character** is a few strokes of that vocabulary, each set on a start, middle or end of an
  earlier one; or an earlier character of the alphabet with one thing changed, as real alphabets
  have them. A stroke is a few control points and a roundness, which blends the polyline through
  them (0) with the Catmull-Rom spline through them (1).
- A **drawing** disturbs it, by the drawer's hand and by its own slips: see `handwriting`.

Every alphabet, character and drawing has its own generator, spawned from the seed by its number,
so alphabet 7 is the same however many alphabets are asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from siamjax.config import ConfigDict
from siamjax.data import handwriting
from siamjax.data.cache import Collected, Decoded, Entry, Write, cache_directory, cache_key, cached
from siamjax.data.handwriting import Character, Stroke
from siamjax.data.splits import joined
from siamjax.preprocess import Preprocess, preprocess_of
from siamjax.types import DataSplits

VERSION = 1  # raised whenever the drawings of a seed change: part of the cache key
CHARACTERS = (14, 40)  # fewest and most in an alphabet
CROWDED = 0.3  # largest share of a character's ink that may lie close to other ink
DISTINCT = 0.11  # least mean distance between two characters, in half heights

SHAPES: dict[str, tuple[float, list[tuple[float, float]]]] = {
    # name: (roundness, control points in -1..1, x to the right, y down)
    "bar": (1.0, [(0, -1), (0.06, 0), (0, 1)]),
    "slash": (1.0, [(-0.6, -0.9), (0.05, 0), (0.6, 0.9)]),
    "bow": (1.0, [(0.5, -1), (-0.25, -0.45), (-0.25, 0.45), (0.5, 1)]),
    "cup": (1.0, [(0.8, -0.7), (0, -1), (-0.8, -0.5), (-0.9, 0.3), (-0.2, 1), (0.8, 0.7)]),
    "arch": (0.9, [(-0.8, 1), (-0.8, -0.4), (-0.3, -1), (0.4, -0.95), (0.8, -0.3), (0.8, 1)]),
    "hook": (0.9, [(0, -1), (0, 0.4), (0.1, 0.85), (0.5, 1), (0.8, 0.6)]),
    "cane": (0.9, [(-0.7, -0.6), (-0.3, -1), (0.2, -0.9), (0.3, -0.3), (0.3, 1)]),
    "corner": (0.1, [(-0.7, -1), (-0.7, 0.9), (0.8, 0.9)]),
    "chevron": (0.1, [(-0.8, -0.8), (0.1, 0.9), (0.8, -0.9)]),
    "zigzag": (0.1, [(-0.9, -0.7), (-0.3, 0.7), (0.3, -0.7), (0.9, 0.7)]),
    "zed": (0.1, [(-0.8, -0.9), (0.8, -0.9), (-0.8, 0.9), (0.8, 0.9)]),
    "ess": (1.0, [(0.7, -0.8), (0, -1), (-0.6, -0.6), (0, 0), (0.6, 0.5), (0, 1), (-0.7, 0.8)]),
    "wave": (1.0, [(-1, 0.3), (-0.6, -0.4), (-0.1, 0), (0.3, 0.4), (0.7, 0.1), (1, -0.4)]),
    "three": (0.8, [(-0.6, -0.9), (0.4, -1), (0.6, -0.5),
        (-0.1, -0.1), (0.7, 0.3), (0.4, 1), (-0.7, 0.9)]),
    "ring": (1.0, [(0.1, -0.8), (-0.6, -0.6), (-0.8, 0.1), (-0.3, 0.8),
        (0.5, 0.7), (0.8, 0), (0.5, -0.7), (-0.1, -0.85)]),
    "box": (0.05, [(-0.8, -0.8), (-0.8, 0.8), (0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)]),
    "bracket": (0.1, [(0.7, -0.9), (-0.6, -0.9), (-0.6, 0.9), (0.7, 0.9)]),
    "triangle": (0.05, [(0, -0.9), (-0.8, 0.7), (0.8, 0.7), (0, -0.9)]),
    "bowl": (0.9, [(-0.5, -0.8), (0.3, -0.8), (0.7, -0.2), (0.3, 0.5), (-0.5, 0.6)]),
    "loop": (1.0, [(-1, 0.6), (0, 0.5), (0.6, -0.3),
        (0.1, -0.9), (-0.4, -0.3), (0.1, 0.5), (1, 0.6)]),
    "curl": (1.0, [(0.1, 0), (0.3, -0.3), (-0.2, -0.5), (-0.6, 0),
        (-0.2, 0.6), (0.6, 0.5), (0.9, -0.2), (0.6, -0.9)]),
    "maze": (0.05, [(0, 0.2), (0.3, 0.2), (0.3, -0.3),
        (-0.5, -0.3), (-0.5, 0.7), (0.8, 0.7), (0.8, -0.9)]),
}  # fmt: skip
DOT = np.array([(-0.04, 0.02), (0.04, -0.02)])


@dataclass(frozen=True)
class Style:
    """What the characters of one alphabet have in common."""

    vocabulary: list[Stroke]
    weights: np.ndarray  # how often each shape of the vocabulary is used
    strokes: np.ndarray  # probability of 1, 2, 3, 4 strokes
    join: float  # probability that a stroke goes on from the last one's end, pen down
    variant: float  # probability that a character is an earlier one with one thing changed
    dots: float  # probability of dots
    head_line: float  # probability of a bar over the character
    aspect: float  # width over height
    size: float


def glyphs(config: ConfigDict) -> DataSplits:
    """Draws the training and the validation alphabets, or takes them from the cache.

    Args:
        config: reads `data.glyph_seed`, `data.glyph_alphabets` (training, validation),
            `data.split`, `data.cache_dir` and the preprocessing. Training takes alphabets
            `0 .. training - 1` and validation the next ones, so no character is in both. With
            `data.split` "drawer" no drawer is in both either: 1-12 train, 13-16 validate.

    Returns:
        Images uint8 `[n, h, w, c]`, `n` = characters x 20; groups are alphabets, drawers 1..20.

    Raises:
        ValueError: if `glyph_alphabets` is not two positive numbers.
    """
    counts = tuple(config.data.glyph_alphabets)
    if len(counts) != 2 or not all(isinstance(n, int) and n > 0 for n in counts):
        raise ValueError(
            "config.data.glyph_alphabets must be two positive integers, training and validation"
            f" alphabets, such as (30, 10); got {counts!r}"
        )
    sets = [_drawn(config, range(counts[0])), _drawn(config, range(counts[0], sum(counts)))]
    train, validation = (s.images for s in sets)
    notes = list(dict.fromkeys(note for s in sets for note in s.notes))
    if config.data.split == "drawer":
        train = train.select(train.drawers <= 12)
        validation = validation.select((validation.drawers > 12) & (validation.drawers <= 16))
        notes.append(
            "drawers: 1-12 train, 13-16 validate; 17-20 are left out, as Koch et al. keep them for"
            " the test"
        )
    keys = "".join(s.key for s in sets) + config.data.split
    return DataSplits(
        train=train,
        validation=validation,
        test=None,
        name="glyphs",
        summary=(
            f"glyphs (drawn, seed {config.data.glyph_seed}): {counts[0]} + {counts[1]} alphabets,"
            f" {len(train.class_names)} + {len(validation.class_names)} characters,"
            f" {len(train):,} + {len(validation):,} images"
        ),
        notes=tuple(notes),
        fingerprint=hashlib.sha256(keys.encode()).hexdigest(),
    )


def beside(config: ConfigDict, splits: DataSplits) -> DataSplits:
    """The splits, with `data.drawn_alphabets` more alphabets to train on, all of them drawn.

    They are none of those of the source `glyphs`. Validation and test stay what they were.

    Raises:
        ValueError: if the data are fixed pairs, which other images cannot join.
    """
    how_many = config.data.drawn_alphabets
    if splits.pairs:
        raise ValueError(
            f"{splits.name} trains on fixed pairs, which drawn alphabets cannot join: set"
            " config.data.drawn_alphabets to 0"
        )
    first = sum(config.data.glyph_alphabets)
    more = _drawn(config, range(first, first + how_many))
    keys = splits.fingerprint + more.key
    drawn = (
        f"{how_many} drawn alphabets (seed {config.data.glyph_seed}) train beside them:"
        f" {len(more.images.class_names)} characters, {len(more.images):,} images"
    )
    return replace(
        splits,
        train=joined(splits.train, more.images),
        summary=f"{splits.summary}; {drawn}",
        notes=tuple(dict.fromkeys([*splits.notes, *more.notes])),
        fingerprint=hashlib.sha256(keys.encode()).hexdigest(),
    )


def _drawn(config: ConfigDict, alphabets: range) -> Decoded:
    seed, preprocess = config.data.glyph_seed, preprocess_of(config)
    source = json.dumps([VERSION, seed, alphabets.start, alphabets.stop])
    key = cache_key("glyphs", source, preprocess)
    name = f"glyphs-{alphabets.start}-{alphabets.stop}"
    collect = partial(_collect, seed, alphabets, preprocess)
    return cached(cache_directory(config), name, key, preprocess, collect)


def _collect(seed: int, alphabets: range, preprocess: Preprocess, write: Write) -> Collected:
    own = handwriting.hands(seed)
    entries = []
    for alphabet in alphabets:
        group = f"glyphs-{alphabet:03d}"
        for number, character in enumerate(make_alphabet(seed, alphabet)):
            name = f"{group}/character{number + 1:02d}"
            rngs = [
                handwriting.generator(seed, handwriting.ALPHABET, alphabet, number, d)
                for d in range(handwriting.DRAWERS)
            ]
            for drawer, image in enumerate(handwriting.draw(character, own, rngs), start=1):
                write(preprocess(image))
                entries.append(Entry(f"{name}/{drawer:02d}", name, group, drawer))
    return Collected(entries, (), f"{handwriting.SIDE}×{handwriting.SIDE}")


# ------------------------------------------------------------------------ alphabets and characters


def make_alphabet(seed: int, number: int) -> list[Character]:
    """The characters of the `number`-th alphabet, all of them different.

    Args:
        seed: the data's seed.
        number: which alphabet, from 0.

    Returns:
        14 to 40 characters.

    Example:
        >>> characters = make_alphabet(seed=0, number=7)
        >>> len(characters), [len(strokes) for strokes in characters[:6]]
        (26, [2, 2, 2, 3, 2, 2])
    """
    rng = handwriting.generator(seed, handwriting.ALPHABET, number)
    style = _style(rng)
    characters: list[Character] = []
    signatures: list[np.ndarray] = []
    for index in range(rng.integers(CHARACTERS[0], CHARACTERS[1] + 1)):
        own = handwriting.generator(seed, handwriting.ALPHABET, number, index)
        best, best_signature, best_score = [], np.zeros((0, 2)), -np.inf
        for _ in range(20):  # mostly one of the first will do
            character = _character(own, style, characters)
            points = handwriting.outline(character)
            own_signature = handwriting.signature(points)
            distance = handwriting.nearest(own_signature, signatures)
            score = min(0.0, distance - DISTINCT) - max(0.0, handwriting.crowding(points) - CROWDED)
            if score > best_score:
                best, best_signature, best_score = character, own_signature, score
            if score == 0.0:
                break
        characters.append(best)
        signatures.append(best_signature)
    return characters


def _style(rng: np.random.Generator) -> Style:
    names = rng.choice(list(SHAPES), size=rng.integers(5, 10), replace=False)
    if not {"bar", "slash", "bow"} & set(names):
        names[0] = "bar"
    angular = rng.random() < 0.35
    gain = rng.uniform(0.0, 0.3) if angular else rng.uniform(0.7, 1.0)
    upright = rng.random() < 0.6  # a shape keeps one position in upright alphabets
    vocabulary = []
    for name in names:
        roundness, points = SHAPES[str(name)]
        for _ in range(1 if upright else 2):
            turned = _placed(rng, np.array(points, float), quarter=int(rng.integers(4)))
            lift = 0.0 if angular else 0.3 * rng.random()  # some alphabets round their corners
            vocabulary.append(Stroke(turned, min(1.0, roundness * gain + lift)))
    mean = rng.uniform(1.4, 3.0)
    strokes = np.exp(-((np.arange(1, 5) - mean) ** 2) / 0.9)
    return Style(
        vocabulary=vocabulary,
        weights=rng.dirichlet(np.full(len(vocabulary), 2.0)),
        strokes=strokes / strokes.sum(),
        join=rng.choice([0.05, 0.25, 0.6]),
        variant=rng.uniform(0.1, 0.45),
        dots=rng.choice([0.0, 0.05, 0.25]),
        head_line=rng.choice([0.0, 0.0, 0.0, 0.0, 0.7]),
        aspect=rng.uniform(0.7, 1.15),
        size=rng.uniform(0.85, 1.1),
    )


def _placed(rng: np.random.Generator, points: np.ndarray, quarter: int) -> np.ndarray:
    """Turned by quarters, perhaps mirrored, stretched along one axis."""
    for _ in range(quarter):
        points = points[:, ::-1] * (1, -1)
    if rng.random() < 0.3:
        points = points * (-1, 1)
    return points * (rng.choice([0.6, 0.8, 1.0]), 1.0)


def _character(rng: np.random.Generator, style: Style, earlier: list[Character]) -> Character:
    if len(earlier) >= 4 and rng.random() < style.variant:
        strokes = _changed(rng, style, earlier[rng.integers(len(earlier))])
    else:
        strokes = [_pick(rng, style)]
        for _ in range(rng.choice(4, p=style.strokes)):
            strokes = _added(rng, style, strokes)
    strokes = _fitted(rng, style, strokes)
    if rng.random() < style.head_line:
        strokes = [*strokes, Stroke(np.array([(-0.75, -0.9), (0, -0.92), (0.75, -0.9)]), 1.0)]
    if rng.random() < style.dots:
        strokes = strokes + _dots(rng, strokes)
    return strokes


def _pick(rng: np.random.Generator, style: Style) -> Stroke:
    return style.vocabulary[rng.choice(len(style.vocabulary), p=style.weights)]


def _changed(rng: np.random.Generator, style: Style, character: Character) -> Character:
    """A sister character: one more stroke, one stroke mirrored, or one replaced by another."""
    change = rng.integers(3)
    if change == 0 and len(character) < 4:
        return _added(rng, style, character)
    i = rng.integers(len(character))
    old = character[i]
    middle = (old.points.min(0) + old.points.max(0)) / 2
    if change == 1:
        mirror = (-1, 1) if rng.random() < 0.5 else (1, -1)
        new = Stroke((old.points - middle) * mirror + middle, old.roundness)
    else:
        other = _pick(rng, style)
        size = max(0.3, float(np.abs(old.points - middle).max()))
        new = Stroke(other.points * size + middle, other.roundness)
    return [*character[:i], new, *character[i + 1 :]]


def _added(rng: np.random.Generator, style: Style, strokes: Character) -> Character:
    """One more stroke, set on an earlier one or drawn on from its end; not on top of another."""
    for _ in range(10):
        picked = _pick(rng, style)
        points = picked.points * rng.choice([0.55, 0.8, 1.0])
        joined = rng.random() < style.join
        base = strokes[-1] if joined else strokes[rng.integers(len(strokes))]
        there = (
            base.points[-1] if joined else _at(base.points, rng.choice([0.0, 0.25, 0.5, 0.75, 1.0]))
        )
        here = points[0] if joined else _at(points, rng.choice([0.0, 0.0, 0.5, 1.0]))
        points = points + (there - here)
        if not joined and rng.random() < 0.2:  # beside it, not touching
            points = points + rng.choice([(0.45, 0.0), (-0.45, 0.0), (0.0, 0.45), (0.0, -0.45)])
        gaps = handwriting.gaps(
            handwriting.outline([Stroke(points, picked.roundness)]), handwriting.outline(strokes)
        )
        if (gaps.min(1) < 0.3).mean() < 0.35:
            break
    if joined:
        roundness = (base.roundness + picked.roundness) / 2
        return [*strokes[:-1], Stroke(np.concatenate([base.points, points[1:]]), roundness)]
    return [*strokes, Stroke(points, picked.roundness)]


def _at(points: np.ndarray, where: float) -> np.ndarray:
    """The point `where` (0..1) along the polyline, by number of control points."""
    return handwriting.basis(np.array([where * (len(points) - 1)]), len(points), 0.0)[0] @ points


def _fitted(rng: np.random.Generator, style: Style, strokes: Character) -> Character:
    """Moved to the middle and scaled towards the alphabet's box, thin shapes staying thin."""
    points = np.concatenate([s.points for s in strokes])
    low, high = points.min(0), points.max(0)
    half = np.maximum((high - low) / 2, 1e-3)
    target = np.array([style.aspect, 1.0]) * style.size * rng.uniform(0.75, 1.05)
    scale = target / half
    even = scale.min()
    scale = even * np.clip(scale / even, 1.0, 1.35)
    return [Stroke((s.points - (low + high) / 2) * scale, s.roundness) for s in strokes]


def _dots(rng: np.random.Generator, strokes: Character) -> Character:
    points = np.concatenate([s.points for s in strokes])
    low, high = points.min(0), points.max(0)
    (x, y), (w, h) = (low + high) / 2, (high - low) / 2
    spot = np.array([(x, y - h - 0.3), (x, y + h + 0.3), (x + w + 0.3, y), (x, y)][rng.integers(4)])
    aside = np.array([0.25, 0.0])
    spots = [spot] if rng.random() < 0.6 else [spot - aside, spot + aside]
    return [Stroke(DOT + s, 0.0) for s in spots]
