"""Compares two images: `python -m experiments.predict --workdir=runs/omniglot a.png b.png`.

Prints the similarity in 0..1 (1: alike) and the decision at 0.5. Size, channels and colour are
those of the run; no flag has to repeat them.
"""

import sys

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.", required=True)


def main(argv: list[str]) -> None:
    """Entry point."""
    import siamjax
    from siamjax import backend

    if len(argv) != 3:
        sys.exit("error: give two images: python -m experiments.predict --workdir=RUN a.png b.png")
    backend.enable_compilation_cache()
    comparator = siamjax.load(WORKDIR.value)
    similarity = comparator.similarity(argv[1], argv[2])
    verdict = "same" if similarity > 0.5 else "different"
    print(f"similarity {similarity:.4f}: {verdict} (threshold 0.5, {comparator.origin})")


if __name__ == "__main__":
    command.run(main)
