"""A page in the browser: drop two images and see what a run makes of them; search a gallery."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamjax.evaluation.decision import DEFAULT, MEANING
from siamjax.evaluation.explanation import explanation
from siamjax.explain import gradient_map, occlusion_map, patch_and_stride
from siamjax.gallery import Gallery
from siamjax.inference import Comparator

if TYPE_CHECKING:
    from PIL import Image

TOP = 8


class Demo:
    """What the page does, without the page.

    Args:
        comparator: of a run.
        folder: where pictures are written.
        gallery: to begin with; None for an empty one.
    """

    def __init__(
        self,
        comparator: Comparator,
        folder: str | os.PathLike[str],
        gallery: Gallery | None = None,
    ):
        self.comparator = comparator
        self.gallery = Gallery(comparator) if gallery is None else gallery
        self._pictures: dict[str, str] = {}  # of images added on the page, by name
        self._folder = Path(folder)

    def compare(
        self, left: Image.Image | None, right: Image.Image | None, threshold: str = DEFAULT
    ) -> tuple[str, str | None]:
        """A sentence about two images, and the path of a picture of where the network looks."""
        if left is None or right is None:
            return "Drop an image on each side.", None
        said = self.comparator.compare(left, right, threshold=threshold)
        similarity = float(said.similarity[0])
        verdict = "same" if said.same[0] else "different"
        text = (
            f"## {verdict}\n"
            f"similarity **{similarity:.3f}**, threshold {said.threshold:.3f} ({threshold}:"
            f" {MEANING.get(threshold, 'as given')}; {self.comparator.card.source})"
        )
        if said.distance is not None:
            text += f", distance {float(said.distance[0]):.4g}"
        pixels = [self.comparator.pixels(image) for image in (left, right)]
        path = str(self._folder / "why.png")
        explanation(
            pixels,
            occlusion_map(self.comparator, left, right),
            gradient_map(self.comparator, left, right),
            path,
            similarity=similarity,
            threshold=said.threshold,
            names=("left", "right"),
            origin=self.comparator.origin,
            patch=patch_and_stride(pixels[0].shape[:2])[0],
        )
        return text, path

    def add(self, files: Sequence[str] | None) -> str:
        """Adds uploaded files to the gallery: a sentence about what became of each."""
        names = _distinct([Path(file).name for file in files or ()])
        faults: list[str] = []
        if not files:
            return f"The gallery holds {len(self.gallery):,} images."
        added = self.gallery.add(list(files), names=names, faults=faults)
        self._pictures |= dict(zip(names, files, strict=True))
        lines = [f"{len(added.added)} added; the gallery holds {len(self.gallery):,} images."]
        lines += [f"{name} is there already, as {other}." for name, other in added.skipped]
        return "\n\n".join(lines + faults)

    def search(
        self, query: Image.Image | None, threshold: str = DEFAULT
    ) -> tuple[str, list[tuple[str, str]]]:
        """The most alike of the gallery: a sentence, and (path, caption) of those with a file."""
        if query is None or not len(self.gallery):
            return "Fill the gallery, then drop an image.", []
        answer = self.gallery.query(query, top=TOP, threshold=threshold)
        assert not isinstance(answer, list)
        shown = []
        for match in answer.matches:
            path = self._pictures.get(match.name, str(Path(self.gallery.folder) / match.name))
            if Path(path).is_file():
                verdict = "same" if match.same else "different"
                shown.append((path, f"{match.name}: {match.similarity:.3f}, {verdict}"))
        return f"## {answer}", shown


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, those that occur again with a number: files of several folders were dropped.

    Example:
        >>> _distinct(["a.png", "b.png", "a.png"])
        ['a.png', 'b.png', 'a (2).png']
    """
    count: Counter[str] = Counter()
    result = []
    for name in names:
        count[name] += 1
        path = Path(name)
        result.append(name if count[name] == 1 else f"{path.stem} ({count[name]}){path.suffix}")
    return result


def page(demo: Demo) -> Any:
    """The page, a `gradio.Blocks`, not yet served.

    Raises:
        ValueError: if gradio is not installed.
    """
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("the demo needs gradio: pip install 'siamjax[demo]'") from error
    names = list(demo.comparator.card.thresholds)
    with gradio.Blocks(title="siamjax", analytics_enabled=False) as blocks:
        gradio.Markdown(f"# Are these two images the same thing?\n{demo.comparator.origin}")
        threshold = gradio.Dropdown(names, value=DEFAULT, label="Threshold")
        with gradio.Tab("Two images"):
            with gradio.Row():
                left = gradio.Image(type="pil", label="Left", height=280)
                right = gradio.Image(type="pil", label="Right", height=280)
            said = gradio.Markdown()
            why = gradio.Image(label="Where the network looks", interactive=False)
            button = gradio.Button("Compare", variant="primary")
            button.click(demo.compare, [left, right, threshold], [said, why], api_name="compare")
        with gradio.Tab("Gallery"):
            with gradio.Row():
                files = gradio.File(label="Known images", file_count="multiple")
                query = gradio.Image(type="pil", label="Which is this?", height=280)
            state = gradio.Markdown(f"The gallery holds {len(demo.gallery):,} images.")
            files.upload(demo.add, files, state, api_name="add")
            found = gradio.Markdown()
            matches = gradio.Gallery(label="Most alike", columns=4, height="auto")
            search = gradio.Button("Search", variant="primary")
            search.click(demo.search, [query, threshold], [found, matches], api_name="search")
    return blocks
