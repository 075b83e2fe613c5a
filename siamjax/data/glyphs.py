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
- A **drawing** disturbs it: each drawer has a hand (slant, size, aspect, roundness, steadiness,
  overshoot at the ends) and each drawing its own slips (strokes misplaced, points moved, a
  tremor). The pen's path is sampled as coarsely as a mouse samples it and drawn 5 pixels wide.

Every alphabet, character and drawing has its own generator, spawned from the seed by its number,
so alphabet 7 is the same however many alphabets are asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict

from siamjax.types import DataSplits, LabelledImages

VERSION = 1  # raised whenever the drawings of a seed change: part of the fingerprint
SIDE = 105  # pixels
DRAWERS = 20
CHARACTERS = (14, 40)  # fewest and most in an alphabet
HALF_HEIGHT = 34.0  # pixels from the middle of a character of ordinary size to its top
SAMPLE_EVERY = 5.0  # pixels between the points at which the pen's path is sampled
SUBSTEPS = 10  # points drawn between two samples; keeps them less than 1 pixel apart
CROWDED = 0.3  # largest share of a character's ink that may lie close to other ink
DISTINCT = 0.11  # least mean distance between two characters, in half heights

HANDS, ALPHABET = 0, 1  # first number of a spawn key

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
# Row p: what u ** p adds to the weights of the control points before, at, after and beyond.
CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
LINE = np.array([[0, 1, 0, 0], [0, -1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
DOT = np.array([(-0.04, 0.02), (0.04, -0.02)])


@dataclass(frozen=True)
class Stroke:
    """Control points `[k, 2]` (x, y; a character spans about -1..1) and how round they are."""

    points: np.ndarray
    roundness: float


Character = list[Stroke]


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
    """Draws the training and the validation alphabets.

    Args:
        config: `seed`, `data.glyph_alphabets` (training, validation) and the preprocessing
            (`data.size`, `fit`, `channels`, `invert`) are read. Training takes alphabets
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
    train = _draw_split(config, range(counts[0]))
    validation = _draw_split(config, range(counts[0], sum(counts)))
    notes = []
    if config.data.split == "drawer":
        train = train.select(train.drawers <= 12)
        validation = validation.select((validation.drawers > 12) & (validation.drawers <= 16))
        notes = ["drawers: 1-12 train, 13-16 validate; 17-20 are left out, as Koch et al. keep them"
                 " for the test"]  # fmt: skip
    classes = [len(split.class_names) for split in (train, validation)]
    return DataSplits(
        train=train,
        validation=validation,
        test=None,
        name="glyphs",
        summary=(
            f"glyphs (drawn, seed {config.seed}): {counts[0]} + {counts[1]} alphabets,"
            f" {classes[0]} + {classes[1]} characters, {len(train):,} + {len(validation):,} images"
        ),
        notes=tuple(notes),
        fingerprint=_fingerprint(config),
    )


def _fingerprint(config: ConfigDict) -> str:
    data = config.data
    parts = ["glyphs", VERSION, config.seed, list(data.glyph_alphabets)]
    parts += [list(data.size), data.fit, data.channels, data.invert, data.split]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _draw_split(config: ConfigDict, alphabets: range) -> LabelledImages:
    hands = _hands(config.seed)
    drawn, groups, class_names, group_names = [], [], [], []
    for group, alphabet in enumerate(alphabets):
        group_names.append(f"glyphs-{alphabet:03d}")
        characters = make_alphabet(config.seed, alphabet)
        for number, character in enumerate(characters):
            rngs = [_rng(config.seed, ALPHABET, alphabet, number, d) for d in range(DRAWERS)]
            drawn.append(_draw(character, hands, rngs))
            groups.append(group)
            class_names.append(f"{group_names[-1]}/character{number + 1:02d}")
    classes = len(drawn)
    return LabelledImages(
        images=_preprocess(np.concatenate(drawn), config),
        labels=np.repeat(np.arange(classes, dtype=np.int32), DRAWERS),
        groups=np.repeat(np.array(groups, np.int32), DRAWERS),
        drawers=np.tile(np.arange(1, DRAWERS + 1, dtype=np.int32), classes),
        class_names=tuple(class_names),
        group_names=tuple(group_names),
    )


def _preprocess(images: np.ndarray, config: ConfigDict) -> np.ndarray:
    """Greys `[n, 105, 105]` to the config's `[n, h, w, c]`."""
    data = config.data
    if tuple(data.size) != (SIDE, SIDE):
        from siamjax.preprocess import Preprocess

        preprocess = Preprocess(tuple(data.size), data.fit, data.channels, data.invert)
        return np.stack([preprocess(image) for image in images])
    if data.invert:  # at their own size the images need no resampling: all at once
        images = 255 - images
    return np.broadcast_to(images[..., None], (*images.shape, data.channels))


def _rng(seed: int, *spawn_key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=spawn_key)))


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
    rng = _rng(seed, ALPHABET, number)
    style = _style(rng)
    characters: list[Character] = []
    signatures: list[np.ndarray] = []
    for index in range(rng.integers(CHARACTERS[0], CHARACTERS[1] + 1)):
        own = _rng(seed, ALPHABET, number, index)
        best, best_signature, best_score = [], np.zeros((0, 2)), -np.inf
        for _ in range(20):  # mostly one of the first will do
            character = _character(own, style, characters)
            outline = _outline(character)
            signature = _signature(outline)
            distance = _nearest(signature, signatures)
            score = min(0.0, distance - DISTINCT) - max(0.0, _crowding(outline) - CROWDED)
            if score > best_score:
                best, best_signature, best_score = character, signature, score
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
        gaps = _gaps(_outline([Stroke(points, picked.roundness)]), _outline(strokes))
        if (gaps.min(1) < 0.3).mean() < 0.35:
            break
    if joined:
        roundness = (base.roundness + picked.roundness) / 2
        return [*strokes[:-1], Stroke(np.concatenate([base.points, points[1:]]), roundness)]
    return [*strokes, Stroke(points, picked.roundness)]


def _at(points: np.ndarray, where: float) -> np.ndarray:
    """The point `where` (0..1) along the polyline, by number of control points."""
    return _basis(np.array([where * (len(points) - 1)]), len(points), 0.0)[0] @ points


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


def _along(stroke: Stroke, step: float) -> np.ndarray:
    """Positions on a stroke, 0..k-1, that are about `step` apart on the paper."""
    k = len(stroke.points)
    t = np.linspace(0, k - 1, 6 * (k - 1) + 1)
    curve = _basis(t, k, stroke.roundness) @ stroke.points
    length = np.r_[0.0, np.cumsum(np.hypot(*np.diff(curve, axis=0).T))]
    return np.interp(np.linspace(0, length[-1], 2 + int(length[-1] / step)), length, t)


def _outline(character: Character) -> np.ndarray:
    """Points every 0.12 along the strokes `[m, 2]`, by which characters are compared."""
    return np.concatenate(
        [_basis(_along(s, 0.12), len(s.points), s.roundness) @ s.points for s in character]
    )


def _signature(outline: np.ndarray) -> np.ndarray:
    """An outline thinned or repeated to 40 points, so that many compare at once."""
    return outline[np.linspace(0, len(outline) - 1, 40).astype(int)]


def _crowding(outline: np.ndarray) -> float:
    """The share of the ink that lies close to ink of another part of the character."""
    order = np.arange(len(outline))
    elsewhere = np.abs(order[:, None] - order) > 4
    return ((_gaps(outline, outline) < 0.25) & elsewhere).any(1).mean()


def _nearest(signature: np.ndarray, others: list[np.ndarray]) -> float:
    """The distance to the most similar of the others.

    Of two outlines it is the mean distance from a point of either to the other outline, taken
    the way in which it is larger.
    """
    if not others:
        return np.inf
    gaps = _gaps(signature, np.stack(others))
    return np.maximum(gaps.min(1).mean(1), gaps.min(2).mean(1)).min()


def _gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances `[..., i, j]` between the points `a [i, 2]` and `b [..., j, 2]`."""
    return np.hypot(a[:, None, 0] - b[..., None, :, 0], a[:, None, 1] - b[..., None, :, 1])


# ------------------------------------------------------------------------------ hands and drawings


def _hands(seed: int) -> dict[str, np.ndarray]:
    """What is each drawer's own, `[20, 1]` each: the same in every character of every alphabet."""
    rngs = [_rng(seed, HANDS, d) for d in range(DRAWERS)]

    def each(draw):
        return np.array([draw(rng) for rng in rngs])[:, None]

    return {
        "slant": each(lambda r: r.normal(0, 0.09)),
        "turn": each(lambda r: r.normal(0, 0.04)),
        "size": each(lambda r: r.uniform(0.72, 1.12)),
        "aspect": each(lambda r: np.exp(r.normal(0, 0.1))),
        "slips": each(lambda r: r.uniform(0.7, 1.8)),
        "tremor": each(lambda r: r.uniform(0.1, 0.7)),
        "fine_pen": each(lambda r: r.random() < 0.2),
        "overshoot": each(lambda r: r.normal(0.1, 0.4)),
    }


def _basis(t: np.ndarray, k: int, roundness: float) -> np.ndarray:
    """The matrix `[m, k]` that takes `k` control points to a stroke's points at `t` in 0..k-1."""
    i = np.minimum(t.astype(int), k - 2)
    u = (t - i)[:, None]
    powers = np.concatenate([u**0, u, u**2, u**3], axis=1)
    weights = powers @ (roundness * CATMULL_ROM + (1 - roundness) * LINE)
    matrix = np.zeros((len(t), k + 2))
    matrix[np.arange(len(t))[:, None], i[:, None] + np.arange(4)] = weights
    matrix[:, 1] += matrix[:, 0]  # beyond an end the end point is repeated
    matrix[:, -2] += matrix[:, -1]
    return matrix[:, 1:-1]


def _draw(
    character: Character, hands: dict[str, np.ndarray], rngs: list[np.random.Generator]
) -> np.ndarray:
    """One drawing by each drawer, `uint8 [20, 105, 105]`, ink 0 on paper 255."""
    layout = np.stack([r.standard_normal(10) for r in rngs])
    scale = HALF_HEIGHT * hands["size"] * np.exp(0.1 * layout[:, :1])
    stretch = hands["aspect"] * np.exp(0.1 * layout[:, 1:2])
    turn = hands["turn"] + 0.06 * layout[:, 2:3]
    slant = hands["slant"] + 0.08 * layout[:, 3:4]
    bend = 0.07 * layout[:, 4:6]
    middle = (SIDE - 1) / 2 + 4.0 * layout[:, 6:8]
    ink = np.zeros((DRAWERS, SIDE, SIDE), bool)
    for stroke in character:
        x, y = _pen_path(stroke, hands, rngs)
        x, y = x + bend[:, :1] * y * y, y + bend[:, 1:] * x * x
        x = (x + slant * -y) * stretch
        x, y = x - turn * y, y + turn * x
        tremor = np.stack([r.standard_normal((2, x.shape[1])) for r in rngs], 1)
        x, y = (
            centre + scale * v + hands["tremor"] * t
            for v, t, centre in zip((x, y), tremor, (middle[:, :1], middle[:, 1:]), strict=True)
        )
        _mark(ink, x, y)
    return np.where(_thicken(ink, hands["fine_pen"][:, 0]), 0, 255).astype(np.uint8)


def _pen_path(
    stroke: Stroke, hands: dict[str, np.ndarray], rngs: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each drawer's pen goes, sampled every few pixels: x and y `[20, m]`."""
    k = len(stroke.points)
    basis = _basis(_along(stroke, SAMPLE_EVERY / HALF_HEIGHT), k, stroke.roundness)
    noise = hands["slips"][..., None] * np.stack([r.standard_normal((2, k + 3)) for r in rngs])
    # A small stroke is as carefully made as it is small; a dot must stay a dot.
    care = min(1.0, float(np.ptp(stroke.points, axis=0).max()))
    middle = stroke.points.mean(0)[:, None]
    points = (stroke.points.T - middle) * np.exp(0.12 * noise[..., :1])
    points = middle + points + 0.07 * noise[..., 1:2] + 0.06 * care * noise[..., 3:]
    path = np.einsum("dak,mk->adm", points, basis)
    reach = 1 + np.clip(hands["overshoot"][:, 0] + 0.4 * noise[:, :, 2].T, -0.5, 1.0)
    first, last = path[..., 1] - path[..., 0], path[..., -1] - path[..., -2]
    path[..., 0] = path[..., 1] - reach[0] * first
    path[..., -1] = path[..., -2] + reach[1] * last
    return path[0], path[1]


def _mark(ink: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Sets the pixels under straight lines between the samples, in place."""
    u = np.arange(SUBSTEPS) / SUBSTEPS
    dense = []
    for v in (x, y):
        between = v[:, :-1, None] * (1 - u) + v[:, 1:, None] * u
        dense.append(np.concatenate([between.reshape(len(v), -1), v[:, -1:]], axis=1))
    # Three pixels of margin: the pen's width stays on the paper.
    columns, rows = (np.clip(np.rint(v), 3, SIDE - 4).astype(int) for v in dense)
    ink[np.arange(len(ink))[:, None], rows, columns] = True


def _thicken(ink: np.ndarray, fine_pen: np.ndarray) -> np.ndarray:
    """A round pen of 5 pixels, Omniglot's; a fine pen has 4."""
    square = np.where(
        fine_pen[:, None, None],
        _spread(_spread(ink, 1, (1,)), 2, (1,)),
        _spread(_spread(ink, 1, (1, -1)), 2, (1, -1)),
    )
    return _spread(square, 1, (1, -1)) | _spread(square, 2, (1, -1))


def _spread(ink: np.ndarray, axis: int, steps: tuple[int, ...]) -> np.ndarray:
    """Every pixel and its neighbours along the axis; `_mark` leaves `roll` the margin it needs."""
    return np.logical_or.reduce([ink, *(np.roll(ink, step, axis) for step in steps)])
