"""Lake's twenty one-shot runs: the fixed trials that people and programs were compared on.

A run is a folder: twenty training images, one of each character of an alphabet by one drawer;
twenty test images, the same characters by another drawer; and a list that says which is which.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamjax.data.cache import Entry
from siamjax.data.decode import decode_files
from siamjax.data.files import FileSet, Read, natural, open_files
from siamjax.data.splits import name_some
from siamjax.preprocess import Preprocess
from siamjax.types import Episodes

PROTOCOL = "lake-20runs"
RUNS, WAY = 20, 20
LABELS = "class_labels.txt"
IMAGE = re.compile(r"(?P<root>(?:.*/)?)(?P<run>run\d+)/(?:training|test)/[^/]+")
PLACES = ("all_runs.zip", "all_runs", "omniglot/all_runs.zip", "omniglot/all_runs", "")
LAYOUT = """\
  all_runs.zip, or its folder:
    run01/class_labels.txt        lines such as: run01/test/item01.png run01/training/class12.png
    run01/training/class01.png    ... class20.png
    run01/test/item01.png         ... item20.png
    run02/ ... run20/"""


@dataclass(frozen=True)
class LakeRuns:
    """The images and trials of the runs.

    Attributes:
        images: `uint8 [800, h, w, c]`, as the preprocessing makes them.
        episodes: 400 trials of 20 classes, 20 of a run after the other.
        run: `int32 [400]`, the run of each trial, from 0.
        run_names: "run01", ...
        paths: of the images.
    """

    images: np.ndarray
    episodes: Episodes
    run: np.ndarray
    run_names: tuple[str, ...]
    paths: tuple[str, ...]

    def of_run(self, run: int) -> Episodes:
        """The trials of one run."""
        chosen, e = self.run == run, self.episodes
        return Episodes(e.query[chosen], e.support[chosen], e.answer[chosen], e.protocol)


def find_runs(root: Path) -> Path | None:
    """The runs at or in a folder, as `all_runs.zip` or unpacked; None where there are none."""
    for place in PLACES:
        path = root / place
        if path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip"):
            files = open_files(path)
            if any(IMAGE.fullmatch(image) for image in files.listing().images):
                return path
    return None


def read_runs(place: Path, preprocess: Preprocess) -> LakeRuns:
    """Reads Lake's runs.

    A folder around the runs and the files that macOS adds are passed over. Supports are the
    training images that the list names, in natural order; as in Lake's demo all twenty trials of
    a run share them.

    Args:
        place: `all_runs.zip`, or its folder.
        preprocess: of the run that is evaluated.

    Returns:
        Images and trials.

    Raises:
        ValueError: if these are not twenty runs of twenty, or an image is missing or cannot be
            read: with what was wanted and what was found.

    References:
        Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic
        program induction" (2015); github.com/brendenlake/omniglot, one-shot classification.
    """
    files = open_files(place)
    paths = files.listing().images
    root, names = _runs(place, paths)
    known = set(paths)
    trials: dict[str, dict[str, str]] = {}
    with files.reading() as read:
        for name in names:
            text = _labels(place, files, read, f"{root}{name}/{LABELS}")
            trials[name] = _answers(f"{place}, {name}/{LABELS}", text, root, name, known)
        wanted = [path for pairs in trials.values() for path in _images(pairs)]
        pixels: list[np.ndarray] = []
        entries = [Entry(path, "character") for path in wanted]
        found = decode_files(read, entries, preprocess, pixels.append)
    if len(pixels) < len(wanted):
        raise ValueError(f"{place}: {'; '.join(found.notes)}")
    return _assemble(np.stack(pixels), wanted, trials)


def _runs(place: Path, paths: tuple[str, ...]) -> tuple[str, list[str]]:
    """The folder that holds the runs ("" or ending in "/"), and their names in order."""
    by_root: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        if match := IMAGE.fullmatch(path):
            by_root[match["root"]].add(match["run"])
    if len(by_root) != 1 or len(names := next(iter(by_root.values()))) != RUNS:
        found = [f"{len(runs)} in {root or 'the top folder'}" for root, runs in by_root.items()]
        raise ValueError(
            f"{PROTOCOL} needs {RUNS} runs in one place; {place} holds"
            f" {name_some(found) or 'none'}. Expected:\n{LAYOUT}"
        )
    return next(iter(by_root)), sorted(names, key=natural)


def _labels(place: Path, files: FileSet, read: Read, path: str) -> str:
    try:
        return read(path).decode("utf-8-sig")
    except (KeyError, OSError) as error:
        raise ValueError(
            f"{place} holds no {path}, which says what the test images show. Expected:\n{LAYOUT}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}, {path} is not text ({error})") from error


def _answers(where: str, text: str, root: str, name: str, known: set[str]) -> dict[str, str]:
    """From each test image of a run to its training image."""
    lines = [line.replace("\\", "/").split() for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        folders = (f"{name}/test/", f"{name}/training/")
        if len(line) != 2 or not all(map(str.startswith, line, folders)):
            raise ValueError(
                f"{where}, line {number}: expected {name}/test/item01.png"
                f" {name}/training/class12.png; got {' '.join(line)[:80]!r}"
            )
    answers = {root + test: root + training for test, training in lines}
    unknown = [path for path in _images(answers) if path not in known]
    if unknown:
        raise ValueError(f"{where} names images that are not there: {name_some(unknown)}")
    counts = len(lines), len(answers), len(set(answers.values()))
    if counts != (WAY, WAY, WAY):
        raise ValueError(
            f"{where} must pair {WAY} test images with {WAY} training images; it has {counts[0]}"
            f" lines with {counts[1]} test and {counts[2]} training images"
        )
    return answers


def _images(pairs: dict[str, str]) -> list[str]:
    return sorted(pairs, key=natural) + sorted(set(pairs.values()), key=natural)


def _assemble(pixels: np.ndarray, paths: list[str], trials: dict[str, dict[str, str]]) -> LakeRuns:
    place = {path: i for i, path in enumerate(paths)}
    query, support, answer = [], [], []
    for pairs in trials.values():
        shown = sorted(pairs.values(), key=natural)
        for test in sorted(pairs, key=natural):
            query.append(place[test])
            support.append([[place[path]] for path in shown])
            answer.append(shown.index(pairs[test]))
    arrays = (np.array(indices, np.int32) for indices in (query, support, answer))
    episodes = Episodes(*arrays, protocol=PROTOCOL)
    run = np.repeat(np.arange(len(trials), dtype=np.int32), WAY)
    return LakeRuns(pixels, episodes, run, tuple(trials), tuple(paths))
