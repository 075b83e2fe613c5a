"""What users may rely on, whatever the tower and the head."""

import json

import numpy as np
import optax
import pytest
from PIL import Image
from shrunk import SMALL, SMALL_HEADS

from siamjax import config as configuration
from siamjax.evaluation import decision
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.protocols import compare_pairs
from siamjax.gallery import Gallery
from siamjax.inference import Comparator
from siamjax.models import HEADS, TOWERS
from siamjax.predictions import Pair, write_predictions
from siamjax.preprocess import preprocess_of
from siamjax.recipe import build_model
from siamjax.training.state import create_state

RNG = np.random.default_rng(0)
SIDE = {"koch": 65, "vgg": 32, "resnet_v2": 32}
INITS = {"mlp": "glorot", "small_cnn": "glorot", "vgg": "kaiming", "resnet_v2": "keras"}
NONNEGATIVE = ("weighted_l1", "euclidean_dense", "euclidean_norm_dense", "l1_mlp")
CASES = [
    *((tower, "euclidean", {}) for tower in TOWERS if tower != "mlp"),
    *(("mlp", head, SMALL_HEADS.get(head, {})) for head in HEADS),
    *(("mlp", head, {"nonnegative": False}) for head in NONNEGATIVE),
    ("mlp", "l1_mlp", {"activation": "relu"}),
]


def comparator_of(tower, head, options):
    config = configuration.base()
    side = SIDE.get(tower, 16)
    config.data.size = (side, side)
    config.model.update(tower=tower, head=head, init=INITS.get(tower, "he"))
    config.model.tower_options = configuration.options(**SMALL[tower])
    config.model.head_options = configuration.options(**options)
    model = build_model(config)
    state = create_state(model, optax.sgd(1.0), (side, side, 1), seed=1)
    encoder = Encoder(model, {"params": state.params, "batch_stats": state.batch_stats})
    z = encoder.embed(RNG.integers(0, 256, (16, side, side, 1), np.uint8))
    scores = encoder.score(z[:8], z[8:])
    # Any calibration will do; its slope is at least 0 whatever the labels are.
    encoder.card = decision.fit(scores, np.argsort(np.argsort(scores)) >= 4, "made-up pairs")
    return Comparator(encoder, preprocess_of(config), config, "made up")


@pytest.fixture(scope="module", params=CASES, ids=lambda c: "-".join([*c[:2], *c[2]]))
def case(request, tmp_path_factory):
    tower, head, options = request.param
    comparator = comparator_of(tower, head, options)
    folder = tmp_path_factory.mktemp("images")
    side = SIDE.get(tower, 16)
    paths = []
    for i, pixels in enumerate(RNG.integers(0, 256, (6, side, side), np.uint8)):
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return comparator, paths, options


def test_similarity_is_symmetric_and_in_0_1(case):
    comparator, paths, *_ = case
    left, right = paths[:3] + paths[:1], paths[3:] + paths[:1]
    there, back = comparator.similarity(left, right), comparator.similarity(right, left)
    np.testing.assert_allclose(there, back, atol=1e-6)
    assert there.min() >= 0
    assert there.max() <= 1


def test_a_pair_does_not_see_its_neighbours(case):
    comparator, paths, *_ = case
    together = comparator.similarity(paths[:5], paths[1:])
    for i in range(5):
        assert comparator.similarity(paths[i], paths[i + 1]) == pytest.approx(together[i], abs=1e-5)


def test_nothing_is_more_alike_than_an_image_and_itself(case):
    comparator, paths, options = case
    if not options.get("nonnegative", True) or options in SMALL_HEADS.values():
        pytest.skip("a learned head without the non-negative option promises nothing")
    table = np.array([comparator.similarity(path, paths) for path in paths])
    assert (np.diag(table)[:, None] >= table - 1e-6).all()


def test_every_way_to_ask_gives_the_same_answer(case, tmp_path):
    comparator, paths, *_ = case
    expected = comparator.similarity(paths[0], paths)
    pairs = [Pair(paths[0], path) for path in paths]
    write_predictions(comparator, pairs, tmp_path / "out.jsonl", chunk=4)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["similarity"] for row in rows], expected, atol=1e-5)
    z = comparator.embed(paths)
    _, similarity = compare_pairs(comparator.encoder, z, np.zeros(6, int), np.arange(6))
    np.testing.assert_allclose(similarity, expected, atol=1e-5)
    answer = Gallery.build(comparator, paths[0].parent).query(paths[0], top=6)
    found = {match.name: match.similarity for match in answer.matches}
    np.testing.assert_allclose([found[path.name] for path in paths], expected, atol=1e-5)
