"""Writes report.html: all there is to say of a run, on one page in one file.

    python -m experiments.report --workdir=runs/omniglot
    python -m experiments.report --workdir=runs/omniglot --split=test --out=test.html

The run's own data are measured: its test split if there is one, else its validation split; of
Omniglot the ten validation alphabets, unless --split=test. Where the data or the checkpoint cannot
be had, the page is made from the folder alone, and says so.
"""

import sys

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run, finished or not.")
OUT = flags.DEFINE_string("out", None, "The file to write; report.html in the run's folder.")
SPLIT = flags.DEFINE_enum("split", None, ["train", "validation", "test", "all"], "Which images.")
TRIALS = flags.DEFINE_integer("trials", 400, "One-shot trials.", lower_bound=1)
PAIR_COUNT = flags.DEFINE_integer("num_pairs", 20_000, "Pairs drawn; 0: all.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Of trials, pairs and what the map shows.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax import backend
    from siamjax.report import read, write_report

    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    backend.enable_compilation_cache()
    workdir = str(WORKDIR.value)
    record = read(workdir)
    comparator, measured, missing = measured_run(record)
    if missing:
        print(f"NOTE: {missing}")
    out = write_report(workdir, comparator, measured, OUT.value, missing=missing)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


def measured_run(record):
    """The comparator, what was measured with it, and why it could not be, if so."""
    import siamjax
    from siamjax.data import load
    from siamjax.evaluation.report_card import Evaluation, Settings
    from siamjax.evaluation.subject import own_subject
    from siamjax.report import measure

    if record.checkpoint is None:
        return None, [], "the run has no checkpoint yet, so its network could not be measured."
    comparator = siamjax.load(record.workdir)
    config = record.config
    try:
        splits = load(config)
    except ValueError as error:
        return comparator, [], f"the run's data could not be had: {error}"
    missing = ""
    if splits.fingerprint != record.data.get("fingerprint"):
        missing = (
            f"the data have changed since the training: {record.data.get('summary')} then,"
            f" {splits.summary} now; what this page measured is on the data of now."
        )
    subject = own_subject(splits, SPLIT.value)
    settings = Settings(
        way=config.eval.way,
        shot=config.eval.shot,
        trials=TRIALS.value,
        pairs=PAIR_COUNT.value,
        seed=SEED.value,
    )
    print(f"data: {subject.title}", flush=True)
    evaluation = Evaluation(comparator.encoder, lambda: subject, None, comparator.card, settings)
    measured = measure(evaluation, comparator.origin, trials=config.eval.trials > 0)
    return comparator, [measured], missing


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    command.run(main)
