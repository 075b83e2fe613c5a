"""Handwriting: a character, as strokes of a pen, drawn by twenty hands.

Each drawer has a hand of their own (slant, size, aspect, steadiness, overshoot at the ends, now
and then a finer pen), and each drawing its own slips (strokes misplaced, points moved, a tremor).
The pen's path is sampled as coarsely as a mouse samples it and drawn 5 pixels wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIDE = 105  # pixels
DRAWERS = 20
HALF_HEIGHT = 34.0  # pixels from the middle of a character of ordinary size to its top
SAMPLE_EVERY = 5.0  # pixels between the points at which the pen's path is sampled
SUBSTEPS = 10  # points drawn between two samples; keeps them less than 1 pixel apart

HANDS, ALPHABET = 0, 1  # the first number of a generator's spawn key

# Row p: what u ** p adds to the weights of the control points before, at, after and beyond.
CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
LINE = np.array([[0, 1, 0, 0], [0, -1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@dataclass(frozen=True)
class Stroke:
    """Control points `[k, 2]` (x, y; a character spans about -1..1) and how round they are."""

    points: np.ndarray
    roundness: float


Character = list[Stroke]


def generator(seed: int, *spawn_key: int) -> np.random.Generator:
    """The random numbers of one thing: a hand, an alphabet, a character or a drawing."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=spawn_key)))


def basis(t: np.ndarray, k: int, roundness: float) -> np.ndarray:
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


def along(stroke: Stroke, step: float) -> np.ndarray:
    """Positions on a stroke, 0..k-1, that are about `step` apart on the paper."""
    k = len(stroke.points)
    t = np.linspace(0, k - 1, 6 * (k - 1) + 1)
    curve = basis(t, k, stroke.roundness) @ stroke.points
    length = np.r_[0.0, np.cumsum(np.hypot(*np.diff(curve, axis=0).T))]
    return np.interp(np.linspace(0, length[-1], 2 + int(length[-1] / step)), length, t)


def outline(character: Character) -> np.ndarray:
    """Points every 0.12 along the strokes `[m, 2]`, by which characters are compared."""
    return np.concatenate(
        [basis(along(s, 0.12), len(s.points), s.roundness) @ s.points for s in character]
    )


def signature(points: np.ndarray) -> np.ndarray:
    """An outline thinned or repeated to 40 points, so that many compare at once."""
    return points[np.linspace(0, len(points) - 1, 40).astype(int)]


def crowding(points: np.ndarray) -> float:
    """The share of an outline that lies close to another part of it."""
    order = np.arange(len(points))
    elsewhere = np.abs(order[:, None] - order) > 4
    return float(((gaps(points, points) < 0.25) & elsewhere).any(1).mean())


def nearest(own: np.ndarray, others: list[np.ndarray]) -> float:
    """The distance from one signature to the most similar of the others.

    Of two outlines it is the mean distance from a point of either to the other outline, taken
    the way in which it is larger.
    """
    if not others:
        return np.inf
    apart = gaps(own, np.stack(others))
    return float(np.maximum(apart.min(1).mean(1), apart.min(2).mean(1)).min())


def gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances `[..., i, j]` between the points `a [i, 2]` and `b [..., j, 2]`."""
    return np.hypot(a[:, None, 0] - b[..., None, :, 0], a[:, None, 1] - b[..., None, :, 1])


# ------------------------------------------------------------------------------ hands and drawings


def hands(seed: int) -> dict[str, np.ndarray]:
    """What is each drawer's own: the same in every character of every alphabet.

    Args:
        seed: the data's seed.

    Returns:
        By name, a number for each drawer `[20, 1]`.
    """
    rngs = [generator(seed, HANDS, d) for d in range(DRAWERS)]

    def each(drawn: Callable[[np.random.Generator], float]) -> np.ndarray:
        return np.array([drawn(rng) for rng in rngs])[:, None]

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


def draw(
    character: Character, hands: dict[str, np.ndarray], rngs: list[np.random.Generator]
) -> np.ndarray:
    """One drawing by each drawer.

    Args:
        character: its strokes.
        hands: what `hands` gives.
        rngs: a generator for each of the 20 drawings.

    Returns:
        `uint8 [20, 105, 105]`, ink 0 on paper 255.
    """
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
    to_path = basis(along(stroke, SAMPLE_EVERY / HALF_HEIGHT), k, stroke.roundness)
    noise = hands["slips"][..., None] * np.stack([r.standard_normal((2, k + 3)) for r in rngs])
    # A small stroke is as carefully made as it is small; a dot must stay a dot.
    care = min(1.0, float(np.ptp(stroke.points, axis=0).max()))
    middle = stroke.points.mean(0)[:, None]
    points = (stroke.points.T - middle) * np.exp(0.12 * noise[..., :1])
    points = middle + points + 0.07 * noise[..., 1:2] + 0.06 * care * noise[..., 3:]
    path = np.einsum("dak,mk->adm", points, to_path)
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
