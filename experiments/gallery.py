"""Which of many known images is this one most like? Or is it none of them?

    python -m experiments.gallery build people --workdir=runs/faces --index=people.gallery
    python -m experiments.gallery query visitor.png --workdir=runs/faces --index=people.gallery
    python -m experiments.gallery add new/ie.png --label=ie --workdir=... --index=...
    python -m experiments.gallery remove anna/1.png --workdir=... --index=...
    python -m experiments.gallery list --index=people.gallery

`build` takes all images under a folder; the folders within are the labels. `query` prints the
`--top` most alike, and `unknown` where none reaches the threshold: one of the run's (`calibrated`,
`accuracy`, `eer`, `far_1`, `far_0.1`) or a similarity. A relational head is slow among many images:
with `--shortlist=200` it compares the 200 whose global vectors are nearest to the query's. The exit
status is 1 if an image could not be read; the rest are answered.
"""

import json
import sys
from pathlib import Path

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
INDEX = flags.DEFINE_string("index", None, "The gallery's file.")
TOP = flags.DEFINE_integer("top", 5, "query: how many matches to give.", lower_bound=1)
THRESHOLD = flags.DEFINE_string("threshold", "calibrated", "query: of the decision.")
SHORTLIST = flags.DEFINE_integer(
    "shortlist", None, "query, relational head: compare so many images only.", lower_bound=1
)
JSON = flags.DEFINE_string("json", None, "query: write the answers here too.")
LABEL = flags.DEFINE_string("label", None, "add: the class of all images given.")

USAGE = "gallery build DIR | add PATH... | remove NAME... | query IMAGE... | list"


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax import backend

    task, rest = (argv[1], argv[2:]) if len(argv) > 1 else ("", [])
    tasks = {"build": build, "add": add, "remove": remove, "query": query, "list": show}
    if task not in tasks:
        sys.exit(f"error: say what to do: {USAGE}")
    if {"build": len(rest) != 1, "list": bool(rest)}.get(task, not rest):
        needs = {"build": "one folder", "list": "nothing", "remove": "names"}.get(task, "images")
        sys.exit(f"error: {task} needs {needs}: {USAGE}")
    if task != "list" and not WORKDIR.value:
        sys.exit(f"error: {task} needs the run: --workdir=RUN")
    backend.enable_compilation_cache()
    tasks[task](rest)


def build(places: list[str]) -> None:
    """A gallery of a folder."""
    import siamjax
    from siamjax.embeddings import image_files
    from siamjax.gallery import Gallery

    for note in image_files(places[0])[1]:
        print(f"NOTE: {note}")
    gallery, faults = Gallery(siamjax.load(str(WORKDIR.value)), places[0]), []
    report(gallery, gallery.add(places[0], faults=faults))
    gallery.save(str(INDEX.value))
    finish(faults)


def add(places: list[str]) -> None:
    """More images into a gallery."""
    gallery, faults = load(), []
    report(gallery, gallery.add(places, labels=LABEL.value, faults=faults))
    gallery.save(str(INDEX.value))
    finish(faults)


def remove(names: list[str]) -> None:
    """Images out of a gallery."""
    gallery = load()
    before = len(gallery)
    gallery.remove(names)
    gallery.save(str(INDEX.value))
    print(f"{INDEX.value}: {before - len(gallery):,} removed, {len(gallery):,} images")


def query(places: list[str]) -> None:
    """Prints the most alike, and writes them if asked."""
    from siamjax.data.splits import printable
    from siamjax.embeddings import embed_stream

    gallery, faults, answers = load(), [], []
    for kept, z in embed_stream(gallery.comparator, places, faults):
        found = gallery.search(z, TOP.value, THRESHOLD.value, SHORTLIST.value)
        answers += zip([places[i] for i in kept], found, strict=True)
    for place, answer in answers:
        print(f"{printable(place)}: {printable(str(answer))}")
        for rank, match in enumerate(answer.matches, 1):
            label = printable(match.label) or "-"
            print(f"  {rank:3}  {match.similarity:.4f}  {label}  {printable(match.name)}")
    if JSON.value:
        rows = [
            {"query": place, "known": answer.known, "label": answer.label,
             "threshold": answer.threshold, "matches": [m._asdict() for m in answer.matches]}
            for place, answer in answers
        ]  # fmt: skip
        Path(JSON.value).write_text(json.dumps(rows, indent=1) + "\n")
    finish(faults)


def show(_: list[str]) -> None:
    """Prints what a gallery holds; the run is not needed."""
    from siamjax.data.splits import printable
    from siamjax.gallery_file import read

    stored = read(str(INDEX.value))
    labels = len({label for label in stored.labels if label})
    print(
        f"{len(stored.names):,} images, {labels:,} labels, of {printable(stored.about['folder'])}"
    )
    print(f"run: {printable(stored.about['origin'])}")
    for name, label in zip(stored.names, stored.labels, strict=True):
        print(f"{printable(label) or '-'}\t{printable(name)}")


def load():
    """The gallery at --index, with the run at --workdir."""
    import siamjax
    from siamjax.gallery import Gallery

    return Gallery.load(str(INDEX.value), siamjax.load(str(WORKDIR.value)))


def report(gallery, outcome) -> None:
    """What became of the images."""
    for name, twin in outcome.skipped:
        print(f"skipped {name}: already in" + (f" as {twin}" if twin != name else ""))
    for name in outcome.replaced:
        print(f"replaced {name}: its file has changed")
    labels = len({label for label in gallery.labels if label})
    print(
        f"{INDEX.value}: {len(outcome.added):,} added, {len(gallery):,} images of {labels:,}"
        f" labels ({gallery.comparator.origin})"
    )


def finish(faults: list[str]) -> None:
    """Names what could not be read, and ends with status 1 if anything could not."""
    for fault in faults:
        print(f"  left out: {fault}", file=sys.stderr)
    if faults:
        sys.exit(f"error: {len(faults):,} images could not be read")


if __name__ == "__main__":
    flags.mark_flags_as_required(["index"])
    command.run(main)
