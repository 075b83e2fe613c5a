"""The commands as a user runs them: what they print, and how they end."""

import pytest
from commands import command


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--config.batchsize=3"], 'Did you mean "batch_size"'),
        (["--config.batch_size=0", "--config.dtype=half"], "the config has 2 fault(s)"),
        (["--config.batchsize=3", "--config.model.tower_options.width=3"], 'of "batchsize"?\n'),
        (["--config.model.tower_options.width=3"], "in a recipe of one's own: c.model.tower_opt"),
        (["surplus"], "unexpected arguments: surplus"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_status_1(flags, text, tmp_path):
    done = command(
        "experiments.main", "--config=configs/omniglot.py", f"--workdir={tmp_path}", *flags
    )
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


def test_predict_asks_for_two_images_and_a_run(tmp_path):
    done = command("experiments.predict", f"--workdir={tmp_path}", "one.png")
    assert done.returncode == 1
    assert "give two images" in done.stderr
    done = command("experiments.predict", f"--workdir={tmp_path}", "a.png", "b.png")
    assert done.returncode == 1
    assert "is this the folder of a run" in done.stderr
    assert "Traceback" not in done.stderr
