"""Charts as inline SVG: drawn for the width of a phone, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from siamjax.report.markup import Child, Markup, join, tag

WIDTH, HEIGHT = 400, 290
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 40
COLOURS = 6  # of the style sheet: c1 .. c6
DASHES = (None, "6 3", "2 3", "9 3 2 3", "4 2", "1 2")


def _linear(values: np.ndarray) -> np.ndarray:
    return values


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: with the unit.
        low, high: its ends.
        ticks: values with their texts.
        warp: puts values where lengths are even: the logarithm, say.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    warp: Callable[[np.ndarray], np.ndarray] = _linear

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """0 at the low end, 1 at the high one; what lies outside is put on the end."""
        ends = self.warp(np.array([self.low, self.high], np.float64))
        inside = np.clip(np.asarray(values, np.float64), self.low, self.high)
        return (self.warp(inside) - ends[0]) / (ends[1] - ends[0])


def linear(
    label: str, low: float, high: float, *, percent: bool = False, whole: bool = False
) -> Axis:
    """An even axis with at most about five round ticks.

    Args:
        label: with the unit.
        low: end.
        high: end.
        percent: show shares as per cent.
        whole: have ticks at whole numbers only.

    Example:
        >>> linear("step", 0, 60).ticks
        ((0.0, '0'), (20.0, '20'), (40.0, '40'), (60.0, '60'))
        >>> [text for _, text in linear("accuracy (%)", 0, 1, percent=True).ticks]
        ['0', '20', '40', '60', '80', '100']
    """
    count = 5
    if not high > low:
        low, high = low - 0.5, low + 0.5
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [round(i * step, 12) for i in range(first, last + 1)]
    texts = [_short((100 if percent else 1) * v) for v in values]
    return Axis(label, low, high, tuple(zip(map(float, values), texts, strict=True)))


def _short(value: float) -> str:
    """A tick's text: there is room for four digits."""
    return f"{value / 1000:,.10g}k" if abs(value) >= 10_000 else f"{value:,.10g}"


def logarithmic(label: str, low: float, high: float) -> Axis:
    """A logarithmic axis, with ticks at 1, 2 and 5 or at the powers of ten alone."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    values = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    return Axis(label, low, high, tuple((v, f"{v:g}") for v in values), np.log10)


def deviate(label: str, low: float = 0.0005, high: float = 0.95) -> Axis:
    """The axis of a DET curve: rates spaced as a normal distribution's deviates."""
    shown = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8)
    warp = np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])
    return Axis(label, low, high, tuple((v, f"{100 * v:g}") for v in shown), warp)


class Chart:
    """A chart with its legend, as a figure of the page.

    Args:
        name: makes ids that are the page's only ones.
        title: above it, and read out first.
        description: what it shows, in words and with its figures, for who does not see it.
        x: axis.
        y: axis.
    """

    def __init__(self, name: str, title: str, description: str, x: Axis, y: Axis):
        self._name, self._title, self._description = name, title, description
        self._x, self._y = x, y
        self._drawn: list[Markup] = []
        self._legend: list[Markup] = []

    def line(
        self,
        x: np.ndarray,
        y: np.ndarray,
        label: str | None,
        *,
        colour: int = 1,
        dash: int = 0,
        markers: bool = False,
    ) -> None:
        """A line; points that would fall together on the screen are drawn once."""
        px, py = self._thin(*self._at(x, y))
        if len(px):
            self._drawn.append(_path(_polyline(px, py), f"line c{colour}", DASHES[dash]))
        if markers or len(px) == 1:  # a line of one point would not be seen
            self._drawn.append(_path(_dots(px, py), f"dot c{colour}"))
        if label:
            self._key(_path("M0 6H22", f"line c{colour}", DASHES[dash]), label)

    def dots(self, x: np.ndarray, y: np.ndarray, label: str | None, *, colour: int = 0) -> None:
        """Points; colour 0 is faint."""
        px, py = self._thin(*self._at(x, y))
        self._drawn.append(_path(_dots(px, py), f"dot c{colour}"))
        if label:
            self._key(_path("M11 6h0", f"dot c{colour}"), label)

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: int = 1) -> None:
        """What lies between two lines, faintly."""
        px, above = self._at(x, high)
        _, below = self._at(x, low)
        if len(px) > 1:
            edge = _polyline(np.append(px, px[::-1]), np.append(above, below[::-1]))
            self._drawn.append(_path(edge + "Z", f"area c{colour}"))

    def steps(self, edges: np.ndarray, heights: np.ndarray, label: str, *, colour: int) -> None:
        """A histogram: `m + 1` edges, `m` heights."""
        x = np.repeat(edges, 2)
        y = np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])
        px, py = self._at(x, y)
        shape = _polyline(px, py)
        dash = DASHES[1] if colour > 1 else None
        self._drawn += [
            _path(shape + "Z", f"area c{colour}"),
            _path(shape, f"line c{colour}", dash),
        ]
        self._key(
            join(
                _path("M0 1H22V11H0Z", f"area c{colour}"), _path("M0 1H22", f"line c{colour}", dash)
            ),
            label,
        )

    def mark(self, x: float, letter: str, label: str, row: int) -> None:
        """A vertical line with a letter at its top; `row` keeps letters apart."""
        at = float(self._at(np.array([x]), np.array([self._y.low]))[0][0])
        self._drawn.append(_path(f"M{at:.1f} {TOP}V{HEIGHT - BOTTOM}", "rule", "4 3"))
        y = TOP + 12 + 15 * row
        # Beside the line, on the side with room.
        left = at > WIDTH - 40
        anchor = "end" if left else "start"
        x_text = at - 4 if left else at + 4
        self._drawn.append(_label(x_text, y, letter, anchor, "tick halo strong"))
        self._legend.append(tag("li", tag("b", letter), " ", label))

    def horizontal(self, y: float, label: str) -> None:
        """A reference line."""
        at = float(self._at(np.array([self._x.low]), np.array([y]))[1][0])
        self._drawn.append(_path(f"M{LEFT} {at:.1f}H{WIDTH - RIGHT}", "rule", "2 3"))
        self._key(_path("M0 6H22", "rule", "2 3"), label)

    def word(self, x: float, y: float, word: str) -> None:
        """A name at a point."""
        px, py = self._at(np.array([x]), np.array([y]))
        self._drawn.append(_label(float(px[0]), float(py[0]) + 4, word, "middle", "tick halo"))

    def picture(self, x: float, y: float, uri: str, size: float = 20) -> None:
        """A small picture at a point, `size` wide and high at most."""
        px, py = self._at(np.array([x]), np.array([y]))
        left, top = float(px[0]) - size / 2, float(py[0]) - size / 2
        place = {"x": f"{left:.1f}", "y": f"{top:.1f}", "width": size, "height": size}
        self._drawn += [tag("image", href=uri, **place), tag("rect", class_="frame", **place)]

    def figure(self, *caption: Child) -> Markup:
        """The whole, with a caption below the legend."""
        ids = f"{self._name}-title", f"{self._name}-description"
        svg = tag(
            "svg",
            tag("title", self._title, id=ids[0]),
            tag("desc", self._description, id=ids[1]),
            self._axes(),
            self._drawn,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_labelledby=" ".join(ids),
        )
        legend = tag("ul", self._legend, class_="legend") if self._legend else None
        below = tag("figcaption", legend, tag("p", *caption) if caption else None)
        return tag("figure", tag("h3", self._title), svg, below)

    def _at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * self._x.place(x),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * self._y.place(y),
        )

    @staticmethod
    def _thin(px: np.ndarray, py: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(px):
            return px, py
        cell = np.round(np.stack([px, py]) * 1.25)
        keep = np.concatenate([[True], (np.diff(cell, axis=1) != 0).any(0)])
        keep[-1] = True
        return px[keep], py[keep]

    def _key(self, sample: Markup, label: str) -> None:
        swatch = tag("svg", sample, viewBox="0 0 22 12", class_="key", aria_hidden="true")
        self._legend.append(tag("li", swatch, label))

    def _axes(self) -> Markup:
        parts = []
        for value, text in self._x.ticks:
            at = float(self._at(np.array([value]), np.array([self._y.low]))[0][0])
            parts.append(_path(f"M{at:.1f} {HEIGHT - BOTTOM}v4", "axis"))
            anchor = "end" if at > WIDTH - RIGHT - 10 else "middle"
            at = min(at, WIDTH - RIGHT) + (4 if anchor == "end" else 0)
            parts.append(_label(at, HEIGHT - BOTTOM + 17, text, anchor))
        for value, text in self._y.ticks:
            at = float(self._at(np.array([self._x.low]), np.array([value]))[1][0])
            parts.append(_path(f"M{LEFT} {at:.1f}H{WIDTH - RIGHT}", "grid"))
            parts.append(_label(LEFT - 6, at + 4, text, "end"))
        parts.append(_path(f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", "axis"))
        parts.append(_label(4, 13, self._y.label, "start", "name"))
        parts.append(
            _label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, self._x.label, "middle", "name")
        )
        return join(parts)


def _path(d: str, kind: str, dash: str | None = None) -> Markup:
    return tag("path", d=d, class_=kind, stroke_dasharray=dash)


def _polyline(px: np.ndarray, py: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(px, py, strict=True))


def _dots(px: np.ndarray, py: np.ndarray) -> str:
    """Lines of no length with round ends: one path for any number of points."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(px, py, strict=True)) or "M0 0"


def _label(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)
