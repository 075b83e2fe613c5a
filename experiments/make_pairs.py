"""Makes pairs of your images: `python -m experiments.make_pairs --data=DIR --out=OUT --pairs=600`.

DIR is a folder, or a zip, with one folder of images for each class. Writes
OUT/init_data/data/train/1/a.jpg, b.jpg, ..., test/481/..., and annos.csv: half of the pairs are
same, half different. Test pairs show other classes than training pairs where there are enough.
Train on them with --config.data.source=pair_table --config.data.dir=OUT.
"""

import sys
from pathlib import Path

from absl import flags

from experiments import command

DATA = flags.DEFINE_string("data", None, "A folder or zip of class folders; or where Omniglot is.")
OUT = flags.DEFINE_string("out", None, "The folder to make; nothing is overwritten.")
PAIRS = flags.DEFINE_integer("pairs", 600, "How many; a fifth is the test.", lower_bound=10)
SEED = flags.DEFINE_integer("seed", 0, "Chooses the test classes and the pairs.", lower_bound=0)
SOURCE = flags.DEFINE_string("source", "folder", "The data source that reads --data.")
SIZE = flags.DEFINE_integer("size", 105, "Height and width of the images, pixels.", lower_bound=1)
CACHE = flags.DEFINE_string("cache_dir", None, "For decoded images; default: the user's cache.")


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax import data
    from siamjax.config import base
    from siamjax.data.pair_table import write_pair_folder

    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    config = base()
    config.seed = SEED.value
    config.data.update(source=SOURCE.value, dir=DATA.value, cache_dir=CACHE.value, channels=3)
    config.data.size = (SIZE.value, SIZE.value)
    splits = data.load(config)
    for note in splits.notes:
        print(f"NOTE: {note}")
    test = PAIRS.value // 5
    train = PAIRS.value - test
    write_pair_folder(
        Path(str(OUT.value)), (splits.train, train), (splits.validation, test), SEED.value
    )
    print(f"{train} training and {test} test pairs of {splits.summary}: {OUT.value}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["data", "out"])
    command.run(main)
