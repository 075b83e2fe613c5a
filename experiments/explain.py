"""Where does the network look when it compares two images?

    python -m experiments.explain a.png b.png --workdir=runs/omniglot --out=why.png

For each image: what the score loses when a patch of it is covered with background (red: what lies
there makes the two alike, blue: it tells them apart), and how fast the score changes with each
pixel.
"""

import sys

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
OUT = flags.DEFINE_string("out", None, "The picture to write.")
PATCH = flags.DEFINE_integer("patch", None, "Side of the patch in pixels; a sixth of the image.")
STRIDE = flags.DEFINE_integer("stride", None, "Pixels between patches; a third of the patch.")
SMOOTH = flags.DEFINE_float("smooth", 1.0, "Blur of the gradient in pixels; 0: none.")
THRESHOLD = flags.DEFINE_string("threshold", "calibrated", "Of the decision.")


def main(argv: list[str]) -> None:
    """Entry point."""
    import siamjax
    from siamjax import backend
    from siamjax.evaluation.explanation import explanation
    from siamjax.explain import gradient_map, occlusion_map, patch_and_stride

    images = argv[1:]
    if len(images) != 2:
        sys.exit("error: give two images (a.png b.png)")
    backend.enable_compilation_cache()
    comparator = siamjax.load(str(WORKDIR.value))
    left, right = (comparator.pixels(image) for image in images)
    patch, stride = patch_and_stride(left.shape[:2], PATCH.value, STRIDE.value)
    said = comparator.compare(*images, threshold=str(THRESHOLD.value))
    explanation(
        [left, right],
        occlusion_map(comparator, *images, patch=patch, stride=stride),
        gradient_map(comparator, *images, smooth=SMOOTH.value),
        str(OUT.value),
        similarity=float(said.similarity[0]),
        threshold=said.threshold,
        names=images,
        origin=comparator.origin,
        patch=patch,
    )
    verdict = "same" if said.same[0] else "different"
    print(f"{OUT.value}: similarity {said.similarity[0]:.4f}: {verdict} ({comparator.origin})")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "out"])
    command.run(main)
