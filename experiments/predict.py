"""Compares images with a trained run.

Two images, printed, and as a picture on request:

    python -m experiments.predict --workdir=runs/omniglot a.png b.png --picture=out.png

A table of pairs (a CSV with columns left,right, or a folder of folders with two images each):

    python -m experiments.predict --workdir=runs/omniglot --pairs=pairs.csv --out=result.csv

The similarity lies in 0..1 (1: alike). Size, channels and colour are those of the run; no flag has
to repeat them. `--threshold` says from which similarity on a pair is the same: a name on the run's
decision card (calibrated, accuracy, eer, far_1, far_0.1) or a number; `--prior` what share of your
pairs is the same, which moves the probability. The exit status is 1 if any row could not be
answered.
"""

import json
import sys

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
PICTURE = flags.DEFINE_string("picture", None, "Draw the two images and the figure here.")
PAIRS = flags.DEFINE_string("pairs", None, "A CSV or a folder of pairs.")
OUT = flags.DEFINE_string("out", None, "With --pairs: the file to write, .csv or .jsonl.")
JSON = flags.DEFINE_bool("json", False, "Print the answer of two images as JSON.")
THRESHOLD = flags.DEFINE_string("threshold", "calibrated", "A name or a similarity in 0..1.")
CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", None, ("best", "latest"), "Whose weights; the best where there are any."
)
PRIOR = flags.DEFINE_float("prior", 0.5, "Share of same pairs where the answer is used.")


def main(argv: list[str]) -> None:
    """Entry point."""
    import siamjax
    from siamjax import backend

    images = argv[1:]
    if bool(PAIRS.value) == bool(images) or (images and len(images) != 2):
        sys.exit("error: give two images (a.png b.png), or --pairs=TABLE --out=RESULT.csv")
    if bool(PAIRS.value) != bool(OUT.value):
        sys.exit("error: --pairs and --out go together")
    backend.enable_compilation_cache()
    comparator = siamjax.load(str(WORKDIR.value), CHECKPOINT.value)
    if PAIRS.value:
        predict_table(comparator)
    else:
        predict_two(comparator, images[0], images[1])


def predict_two(comparator, left: str, right: str) -> None:
    """Prints, and draws if asked."""
    from siamjax.evaluation.picture import side_by_side

    compared = comparator.compare(left, right, threshold=THRESHOLD.value, prior=PRIOR.value)
    similarity, likely = float(compared.similarity[0]), float(compared.probability[0])
    answer = {
        "similarity": similarity,
        "probability": likely,
        "distance": None if compared.distance is None else float(compared.distance[0]),
        "same": bool(compared.same[0]),
        "threshold": compared.threshold,
        "threshold_name": THRESHOLD.value,
        "threshold_source": comparator.card.source,
        "run": comparator.origin,
    }
    if JSON.value:
        print(json.dumps(answer))
    else:
        verdict = "same" if answer["same"] else "different"
        at = f"threshold {compared.threshold:.4g}, {THRESHOLD.value}, {comparator.card.source}"
        print(f"similarity {similarity:.4f}: {verdict} ({at}; {comparator.origin})")
        if PRIOR.value != 0.5:
            print(f"probability {likely:.4f} where {PRIOR.value:.4g} of all pairs are the same")
    if PICTURE.value:
        pixels = comparator.pixels(left), comparator.pixels(right)
        side_by_side(*pixels, similarity, PICTURE.value, names=(left, right))


def predict_table(comparator) -> None:
    """Writes the result and reports the rows that failed."""
    from siamjax.predictions import read_pairs, write_predictions

    written = write_predictions(
        comparator,
        read_pairs(str(PAIRS.value)),
        str(OUT.value),
        threshold=THRESHOLD.value,
        prior=PRIOR.value,
    )
    print(f"{OUT.value}: {written.answered:,} pairs ({comparator.origin})")
    for fault in written.faults[:20]:
        print(f"  not answered: {fault}", file=sys.stderr)
    if written.failed:
        sys.exit(f"error: {written.failed:,} pairs could not be answered")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    command.run(main)
