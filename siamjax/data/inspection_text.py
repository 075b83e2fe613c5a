"""An inspection as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from siamjax.data.duplicates import CORRELATION, DISTANCE
from siamjax.data.inspection import Inspection, SplitCounts, Twins
from siamjax.data.splits import name_some, printable

SHOWN = 10  # lines of a list
BAR = 30  # characters of the longest bar


def as_text(found: Inspection) -> str:
    """All of it in some dozens of lines, whatever the number of images."""
    lines = [printable(found.place), f"  layout: {found.layout}"]
    for name, counts in found.splits.items():
        lines += _split(name, counts)
    lines += [f"  {name}: {count:,} pairs" for name, count in found.pairs.items()]
    lines += _files(found)
    lines += _twins("the same picture", found.exact)
    rule = f"hashes of 64 bits differ in {DISTANCE} at most, thumbnails correlate by {CORRELATION}"
    lines += _twins(f"nearly the same picture ({rule})", found.near)
    if not found.near_whole:
        lines.append("  so many are alike that not all of those pairs were compared")
    if found.held_out:
        lines.append(f"  a run would say: {found.held_out}")
    lines += [f"  NOTE: {note}" for note in found.notes]
    lines += [f"  LOOK: {leak.removeprefix('LEAK: ')}" for leak in found.leaks]
    lines += [f"  PROBLEM: {problem}" for problem in found.problems]
    lines.append(_verdict(found))
    return "\n".join(lines)


def _verdict(found: Inspection) -> str:
    if found.cannot_start:
        return "Not ready for training: see PROBLEM above."
    if found.problems or found.leaks or _crossing(found.exact):
        return f"Ready for training (--config.data.source={found.source}), but look at the above."
    return f"Ready for training: --config.data.source={found.source}"


def _split(name: str, counts: SplitCounts) -> Iterator[str]:
    groups = f"{counts.groups:,} groups, " if counts.groups > 1 else ""
    yield f"  {name}: {groups}{counts.classes:,} classes, {counts.images:,} images"
    yield (
        f"    images of a class: {counts.smallest:,} to {counts.largest:,}, median"
        f" {counts.median:,.4g}"
    )
    if len(counts.histogram) > 1:
        most = max(classes for *_, classes in counts.histogram)
        for low, high, classes in counts.histogram:
            span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            bar = "#" * max(1, round(BAR * classes / most))
            yield f"    {span:>14}: {bar} {classes:,}"
        few = name_some([f"{class_name} ({n:,})" for class_name, n in counts.few])
        yield f"    smallest: {few}"
    if counts.singletons:
        yield (
            f"    {len(counts.singletons):,} classes have one image, so no pair of their own:"
            f" {name_some(counts.singletons)}"
        )


def _files(found: Inspection) -> Iterator[str]:
    yield f"  {found.images:,} images can be read, {len(found.unreadable):,} cannot"
    for path, reason in found.unreadable[:SHOWN]:
        yield f"    {printable(path)}: {printable(reason)}"
    if len(found.unreadable) > SHOWN:
        yield f"    ... {len(found.unreadable) - SHOWN:,} more"
    if found.sizes:
        sizes = [f"{h}×{w} ({n:,})" for h, w, n in found.sizes]
        yield f"  sizes: {name_some(sizes)}"
    for word, counted in (("modes", found.kinds), ("formats", found.formats)):
        if counted:
            yield f"  {word}: {', '.join(f'{name} ({n:,})' for name, n in counted.items())}"
    for word, paths in (
        ("named as another format than they are, and read all the same", found.misnamed),
        ("with several frames or pages, of which the first is used", found.moving),
        ("turned upright, as their EXIF says", found.turned),
    ):
        if paths:
            yield f"  {len(paths):,} {word}: {name_some(paths)}"


def _crossing(groups: Sequence[Twins]) -> list[Twins]:
    return [twins for twins in groups if len(twins.classes) > 1]


def _twins(word: str, groups: Sequence[Twins]) -> Iterator[str]:
    if not groups:
        yield f"  no two images show {word}"
        return
    images, crossing = sum(len(twins.paths) for twins in groups), _crossing(groups)
    yield f"  {images:,} images, in {len(groups):,} groups, show {word}:"
    if crossing:
        yield f"    {len(crossing):,} of the groups lie across classes: are they filed right?"
    split = [twins for twins in groups if len(twins.splits) > 1]
    if split:
        yield f"    {len(split):,} of the groups lie across splits"
    # What is across classes or splits is worse, so it comes first.
    for twins in sorted(groups, key=lambda t: (len(t.classes) < 2, len(t.splits) < 2))[:SHOWN]:
        yield f"    {name_some(twins.paths)}"
    if len(groups) > SHOWN:
        yield f"    ... {len(groups) - SHOWN:,} more"
