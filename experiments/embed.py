"""The embeddings of all images under a folder, as a file and as a map.

    python -m experiments.embed photos --workdir=runs/faces --out=photos.npz --map=photos.png

The .npz holds `embeddings` (float32 [n, d]), `paths` (relative to the folder) and `labels` (the
folder each image lies in). The map shows PCA and t-SNE side by side. The exit status is 1 if an
image could not be read; the rest are embedded.
"""

import sys
from pathlib import Path

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
OUT = flags.DEFINE_string("out", None, "The .npz to write.")
MAP = flags.DEFINE_string("map", None, "Draw the map here.")
SEED = flags.DEFINE_integer("seed", 0, "Of the map.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Entry point."""
    import siamjax
    from siamjax import backend
    from siamjax.data.splits import printable
    from siamjax.embeddings import embed_folder, image_files
    from siamjax.evaluation.embedding_map import embedding_map

    if len(argv) != 2:
        sys.exit("error: give one folder of images")
    folder, faults = Path(argv[1]), []
    for note in image_files(folder)[1]:
        print(f"NOTE: {note}")
    backend.enable_compilation_cache()
    comparator = siamjax.load(str(WORKDIR.value))
    found = embed_folder(comparator, folder, faults)
    found.save(str(OUT.value))
    n, d = found.embeddings.shape
    print(f"{OUT.value}: {n:,} images, {d} numbers each ({comparator.origin})")
    if MAP.value:
        embedding_map(
            found.embeddings,
            found.labels,
            MAP.value,
            title=f"{printable(folder.resolve().name)}: {n:,} embeddings of {comparator.origin}",
            seed=SEED.value,
            thumbnail=lambda place: comparator.pixels(folder / found.names[place]),
        )
        print(MAP.value)
    for fault in faults:
        print(f"  left out: {fault}", file=sys.stderr)
    if faults:
        sys.exit(f"error: {len(faults):,} images could not be read")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "out"])
    command.run(main)
