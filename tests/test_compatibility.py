"""A checkpoint of format 1, committed, that every later version has to read."""

import json
from pathlib import Path

import numpy as np
import pytest

import siamjax
from siamjax import recipe
from siamjax.inference import load
from siamjax.report import record
from siamjax.training.checkpoint import LATEST, CheckpointStore
from siamjax.training.digest import fault

RUN = Path(__file__).parent / "fixtures" / "run_v1"
EXPECTED = json.loads((RUN / "expected.json").read_text())["similarity"]
IMAGES = (np.arange(8 * 12 * 12) * 37 % 256).reshape(8, 12, 12, 1).astype(np.uint8)


def test_the_fixture_is_as_it_was_committed():
    folders = sorted(path.parent for path in RUN.glob("checkpoints/*/*/about"))
    assert [folder.parent.name for folder in folders] == ["best", "latest"]
    assert [fault(folder) for folder in folders] == [None, None]
    size = sum(path.stat().st_size for path in RUN.rglob("*") if path.is_file())
    assert size < 300_000


@pytest.mark.parametrize("kind", ["best", "latest"])
def test_it_loads_and_gives_the_recorded_similarities(kind):
    comparator = load(RUN, kind)
    found = comparator.similarity(IMAGES[:4], IMAGES[4:])
    np.testing.assert_allclose(found, EXPECTED[kind], atol=1e-5)


def test_its_training_state_can_be_gone_on_from():
    config = siamjax.config.from_json((RUN / "config.json").read_text())
    model = recipe.build_model(config)
    optimizer = recipe.create_optimizer(config.optimizer, config.train.steps)
    template = recipe.create_state(model, optimizer, (*config.data.size, 1), seed=1)
    with CheckpointStore(RUN, read_only=True) as store:
        state = store.restore_state(template)
        assert store.about(LATEST)["progress"]["best"] is not None
        assert store.notes == []
    assert int(state.step) == 20


def test_its_record_reads():
    found = record.read(RUN)
    assert found.checkpoint == ("best", 20)
    assert found.rows[-1]["step"] == 20
