"""Measures a trained run, or a baseline, by named protocols.

    python -m experiments.evaluate --workdir=runs/omniglot --protocol=within-alphabet,verification
    python -m experiments.evaluate --workdir=RUN --protocol=lake-20runs --data=all_runs.zip
    python -m experiments.evaluate --baseline=hausdorff --protocol=koch-within --data=data

One-shot: lake-20runs (Lake's official runs), koch-within (Koch's 400 trials), within-alphabet,
random-class. Pairs: verification. One among many: retrieval, open-set.

Without --data the run's own data are used: its test split if there is one, else its validation
split; of Omniglot the ten validation alphabets, unless --split=test. Each image is embedded once.
"""

import json
import sys
from pathlib import Path

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
BASELINE = flags.DEFINE_string("baseline", None, "pixel-cosine, pixel-l2 or hausdorff: no run.")
PROTOCOL = flags.DEFINE_list("protocol", None, "One or more, separated by commas.")
DATA = flags.DEFINE_string(
    "data", None, "Other data: a folder, a zip, a CSV of pairs, Lake's runs."
)
SPLIT = flags.DEFINE_enum("split", None, ["train", "validation", "test", "all"], "Which images.")
SOURCE = flags.DEFINE_string("source", "omniglot", "With --baseline: the kind of data.")
SIZE = flags.DEFINE_integer("size", 105, "With --baseline: pixels to a side.")
INVERT = flags.DEFINE_bool("invert", False, "With --baseline: the ink of the files is white.")
JSON = flags.DEFINE_string("json", None, "Write all figures and curves here.")
WAY = flags.DEFINE_integer("way", 20, "Classes in a trial.")
SHOT = flags.DEFINE_integer("shot", 1, "Support images of each class.")
TRIALS = flags.DEFINE_integer("trials", 400, "How many.")
PAIR_COUNT = flags.DEFINE_integer("num_pairs", 20_000, "verification: pairs drawn; 0: all.")
BALANCED = flags.DEFINE_bool("balanced", True, "verification: half of the pairs are the same.")
QUERIES = flags.DEFINE_integer("queries", 1000, "retrieval: images looked up; 0: all.")
SEED = flags.DEFINE_integer("seed", 0, "Of trials, pairs and queries.")


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax import backend
    from siamjax.evaluation.protocols import check_names
    from siamjax.evaluation.report_card import Evaluation, Settings, lines, values

    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    if bool(WORKDIR.value) == bool(BASELINE.value):
        sys.exit("error: give a run (--workdir) or a baseline (--baseline)")
    names = [name.strip() for name in PROTOCOL.value or []]
    check_names(names)
    backend.enable_compilation_cache()
    scorer, config, card, origin = what_is_measured()
    place = None if DATA.value is None else Path(str(DATA.value)).expanduser()
    runs = find_lake(config, place) if "lake-20runs" in names else None
    settings = Settings(
        way=WAY.value,
        shot=SHOT.value,
        trials=TRIALS.value,
        pairs=PAIR_COUNT.value,
        balanced=BALANCED.value,
        queries=QUERIES.value,
        seed=SEED.value,
    )
    evaluation = Evaluation(scorer, lambda: subject(config, place, runs), runs, card, settings)
    print(origin)
    results = []
    for name in names:
        data, notes = data_of(evaluation, name)
        if not results or results[-1]["data"] != data:
            print("\n".join([*(f"NOTE: {note}" for note in notes), f"data: {data}"]))
        result = evaluation.run(name)
        print("\n".join(lines(result)), flush=True)
        results.append({"protocol": name, "data": data, "notes": list(notes), **values(result)})
    if JSON.value:
        out = {"of": origin, "seed": SEED.value, "results": results}
        Path(JSON.value).write_text(json.dumps(out, indent=1, allow_nan=False) + "\n")


def what_is_measured():
    """The scorer, its config, its decision card and one line that says what it is."""
    import siamjax
    from siamjax import config as configuration
    from siamjax.evaluation.baselines import BASELINES

    if WORKDIR.value:
        comparator = siamjax.load(WORKDIR.value)
        return comparator.encoder, comparator.config, comparator.card, comparator.origin
    if BASELINE.value not in BASELINES:
        sys.exit(f"error: no baseline {BASELINE.value!r}; there are {', '.join(BASELINES)}")
    config = configuration.base()
    config.data.source, config.data.invert = SOURCE.value, INVERT.value
    config.data.size = (SIZE.value, SIZE.value)
    origin = f"baseline {BASELINE.value}, {SIZE.value}x{SIZE.value} pixels"
    return BASELINES[BASELINE.value], config, None, origin


def find_lake(config, place: Path | None):
    """Lake's runs at --data, or beside the run's data."""
    from siamjax.data.splits import data_root
    from siamjax.evaluation.lake_runs import find_runs, read_runs
    from siamjax.preprocess import preprocess_of

    root = place or data_root(config)
    found = find_runs(root)
    return read_runs(found or root, preprocess_of(config)) if found or place else None


def subject(config, place: Path | None, runs):
    """The data of every protocol but Lake's."""
    from siamjax.data import load
    from siamjax.evaluation.lake_runs import find_runs
    from siamjax.evaluation.subject import other_subject, own_subject

    trained = bool(WORKDIR.value)
    if place is None or (runs is not None and find_runs(place) == place):  # that is for Lake's
        return own_subject(load(config), SPLIT.value, trained=trained)
    training_classes = None
    if trained:
        try:
            training_classes = load(config).train.class_names
        except ValueError:  # the run's own data are no longer here: it is said, not needed
            training_classes = None
    return other_subject(
        config, place, SPLIT.value, training_classes=training_classes, trained=trained
    )


def data_of(evaluation, protocol: str) -> tuple[str, tuple[str, ...]]:
    """What a protocol looks at: one line, and sentences the user must see."""
    if protocol != "lake-20runs":
        return evaluation.subject.title, evaluation.subject.notes
    runs = evaluation.runs
    found = "none" if runs is None else f"{len(runs.run_names)}, {len(runs.images):,} images"
    return f"Lake's runs: {found}", ()


if __name__ == "__main__":
    flags.mark_flags_as_required(["protocol"])
    command.run(main)
