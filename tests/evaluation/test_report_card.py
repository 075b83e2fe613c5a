"""An evaluation of a network that is known: every protocol, once, as text and as JSON."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import labelled

from siamjax.evaluation.baselines import BASELINES
from siamjax.evaluation.decision import DecisionCard
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.protocols import DRAWN
from siamjax.evaluation.report_card import Evaluation, Settings, lines, values
from siamjax.evaluation.subject import Subject
from siamjax.models import HEADS, TOWERS, Siamese
from siamjax.types import PairTable

CARD = DecisionCard((8.0, 2.0), {"calibrated": 0.5, "eer": 0.4}, source="fitted on nothing")
FEW = Settings(way=3, trials=12, pairs=60, queries=10)


@pytest.fixture(scope="module")
def encoder():
    import jax

    model = Siamese(tower=TOWERS["mlp"](features=(8, 8)), head=HEADS["cosine"]())
    image = jnp.zeros((1, 12, 12, 1))
    return Encoder(model, model.init(jax.random.key(0), image, image), CARD)


def subject(pairs=None, **kwargs):
    return Subject(labelled(**kwargs), pairs, "made up", "split all", "")


def test_each_image_is_embedded_once_whatever_is_measured(encoder, monkeypatch):
    embedded = []
    original = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda x: (embedded.append(len(x)), original(x))[1])
    evaluation = Evaluation(encoder, subject, None, CARD, FEW)
    for name in (*DRAWN[:2], "verification", "retrieval", "open-set"):
        result = evaluation.run(name)
        text, plain = "\n".join(lines(result)), values(result)
        assert name in text
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert embedded == [48]


def test_similarity_is_the_calibrated_one(encoder):
    evaluation = Evaluation(encoder, subject, None, CARD, FEW)
    found = values(evaluation.run("verification"))
    assert set(found["thresholds"]) == {"calibrated", "eer"}
    assert found["threshold_source"] == "fitted on nothing"
    assert (found["same"], found["different"]) == (30, 30)
    z = evaluation.embeddings
    images = evaluation.subject.images
    worst = found["false_accepts"][0]
    a, b = (int(worst[side].split()[1]) for side in ("left", "right"))
    assert images.labels[a] != images.labels[b]
    assert worst["left"] == f"image {a} ({images.class_names[images.labels[a]]})"
    cosine = z[a] @ z[b] / np.linalg.norm(z[a]) / np.linalg.norm(z[b])
    score = float(encoder.score(z[[a]], z[[b]])[0])
    assert worst["similarity"] == pytest.approx(1 / (1 + np.exp(-(8 * score + 2))), abs=1e-5)
    assert np.sign(score) == np.sign(cosine)
    assert len(found["reliability"][0]) == 15
    assert len(found["roc"][0]) == len(found["det"][0]) > 5


def test_a_curve_of_many_points_is_thinned_and_keeps_its_ends(encoder):
    settings = Settings(pairs=0, balanced=False)
    result = Evaluation(encoder, lambda: subject(classes=20, each=6), None, CARD, settings)
    found = values(result.run("verification"))
    assert len(found["roc"][0]) <= 500
    assert [found["roc"][0][0], found["roc"][1][-1]] == [0.0, 1.0]


def test_a_baseline_has_no_thresholds_and_says_so():
    evaluation = Evaluation(BASELINES["pixel-cosine"], subject, None, None, FEW)
    assert "within-alphabet 3-way 1-shot: " in lines(evaluation.run("within-alphabet"))[0]
    text = lines(evaluation.run("verification"))
    assert text[-1] == "  no threshold and no similarity: nothing was trained"
    assert "not resolved: 30 different pairs, at least 1,000 needed" in text[3]
    json.dumps(values(evaluation.run("verification")), allow_nan=False)
    assert evaluation.run("retrieval").queries == 10
    with pytest.raises(ValueError, match="a baseline has none: use --workdir"):
        evaluation.run("open-set")


@pytest.mark.parametrize("name", [*DRAWN, "retrieval", "open-set"])
def test_data_that_state_pairs_have_no_classes(name, encoder):
    stated = PairTable(np.int32([0, 1]), np.int32([2, 9]), np.array([True, False]))
    evaluation = Evaluation(encoder, lambda: subject(stated), None, CARD, FEW)
    with pytest.raises(ValueError, match=f"{name} needs images with classes; made up states pairs"):
        evaluation.run(name)
    found = evaluation.run("verification")
    assert (found.same, found.different, found.confused) == (1, 1, [])


def test_lakes_runs_must_be_there(encoder):
    with pytest.raises(ValueError, match=r"lake-20runs needs the runs: give all_runs\.zip"):
        Evaluation(encoder, subject, None, CARD).run("lake-20runs")
