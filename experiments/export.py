"""Writes a trained run as files that need no siamjax: StableHLO, ONNX, plain arrays.

    python -m experiments.export --workdir=runs/omniglot --out=exported
    python -m experiments.export --workdir=runs/omniglot --out=exported --format=onnx,npz \
        --check=a.png,b.png

The folder holds the tower (images to embeddings), the head (two embeddings to similarity and
score) and the pair (two batches of images to similarity), each for any batch size, with scaling
and calibration inside; about.json; README.txt; and a program for each format that runs its files.
Before the folder appears, every file is run and compared with the live model, on the `--check`
images or on random ones; beyond 1e-5 nothing is written.

onnx needs `pip install 'siamjax[onnx]'`.
"""

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
OUT = flags.DEFINE_string("out", None, "The folder to write; an earlier export is replaced.")
FORMAT = flags.DEFINE_list("format", ["stablehlo"], "Some of stablehlo, onnx, npz.")
CHECK = flags.DEFINE_list("check", [], "Image files to compare on; none: random images.")


def main(argv: list[str]) -> None:
    """Entry point."""
    import siamjax
    from siamjax import backend
    from siamjax.export import export

    backend.enable_compilation_cache()
    comparator = siamjax.load(str(WORKDIR.value))
    images = [*(CHECK.value or []), *argv[1:]]
    exported = export(comparator, str(OUT.value), FORMAT.value or [], images)
    for note in exported.notes:
        print(f"NOTE: {note}")
    print(f"{OUT.value}: {exported.weights:,} weights ({comparator.origin})")
    on = f"{len(images)} images" if images else "random images"
    for kind, found in exported.differences.items():
        print(f"{kind}: largest difference from the run, {on}, batches of 1, 3 and 8:")
        for difference in found:
            relative = "" if difference.output == "similarity" else " of the largest"
            print(f"  {difference.graph} {difference.output}: {difference.largest:.1e}{relative}")
    if "npz" in FORMAT.value:
        print("npz: read again, equal")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "out"])
    command.run(main)
