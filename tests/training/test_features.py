import jax
import numpy as np
import pytest
from shrunk import recipe_file, shrunk

import siamjax
from siamjax import run
from siamjax.data import load
from siamjax.recipe import assemble
from siamjax.training import memory
from siamjax.training.features import resident_bytes, use_features


def recipe(folder, **changes):
    config = shrunk(recipe_file("image_pairs"), folder)
    with config.unlocked():
        # Adam's first steps follow the signs of gradients, and turn rounding into differences.
        config.optimizer.name = "sgd"
        config.update_from_flattened_dict(changes)
        config.train.log_every = 1
    return config


def params_after(config, steps=3):
    prepared = assemble(config, load(config))
    use_features(prepared)
    state, data = prepared.state, prepared.feed.host(0)
    for _ in range(steps):
        state, figures = jax.jit(prepared.step)(state, data)
    prepared.encoder.weights = {"params": state.params, "batch_stats": state.batch_stats}
    validated = prepared.validation(prepared.encoder)
    return prepared, state, figures, validated


def test_training_on_features_is_training_on_images(tmp_path):
    quick = params_after(recipe(tmp_path))
    slow = params_after(recipe(tmp_path, **{"model.cache_features": False}))
    assert quick[0].front is not None
    assert slow[0].front is None
    assert quick[0].feed.images.shape[1:3] == (1, 1)
    for mine, theirs in zip(*(jax.tree.leaves(r[1].params) for r in (quick, slow)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-6)
    for name in quick[2]:
        np.testing.assert_allclose(quick[2][name], slow[2][name], rtol=1e-4)
    np.testing.assert_allclose(quick[3].similarity, slow[3].similarity, atol=1e-4)
    start, end = quick[0].state.params["tower"], quick[1].params["tower"]
    assert (start["dense"]["kernel"] != end["dense"]["kernel"]).any()
    jax.tree.map(np.testing.assert_array_equal, start["backbone"], end["backbone"])


@pytest.mark.parametrize(
    "changes",
    [
        {"augment.name": "affine"},
        pytest.param({"optimizer.frozen": ()}, marks=pytest.mark.slow),
        {"model.cache_features": False},
        pytest.param({"model.tower_options.frozen": False}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_tower_runs_in_the_step_where_it_must(tmp_path, changes):
    config = recipe(tmp_path, **changes)
    assert assemble(config, load(config)).front is None


@pytest.mark.parametrize("cached", [True, False])
def test_steps_are_scanned_where_no_convolution_is_in_them(tmp_path, cached):
    config = recipe(tmp_path, **{"model.cache_features": cached})
    config.train.log_every = config.checkpoint.every = 2
    plan = assemble(config, load(config)).plan
    assert plan.evaluate >= 2
    assert plan.dispatch == (2 if cached else 1)


def test_what_goes_to_the_device_decides_whether_it_is_streamed(tmp_path):
    config = recipe(tmp_path)
    splits = load(config)
    images = splits.train.images
    prepared = assemble(config, splits)
    size = resident_bytes(prepared.front, prepared.state, images)
    assert resident_bytes(None, prepared.state, images) == images.nbytes
    use_features(prepared)
    assert size == prepared.feed.images.nbytes > 0


def test_missing_memory_names_a_batch_for_features_too(tmp_path, monkeypatch):
    config = recipe(tmp_path)
    splits = load(config)
    prepared = assemble(config, splits)
    use_features(prepared)
    monkeypatch.setattr(memory, "available", lambda _: 2**40)
    half = config.batch_size // 2
    text = run.smaller_batch(config, splits, prepared, MemoryError())
    assert f"--config.batch_size={half} (" in text
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # who can't search by itself
    text = run.smaller_batch(config, splits, prepared, MemoryError())
    assert f"try --config.batch_size={half}, or less" in text


def test_a_run_on_features_is_loaded_and_used_like_any_other(tmp_path):
    config, said = recipe(tmp_path), []
    run.train(config, tmp_path, said.append)
    assert any("features are computed once" in line for line in said)
    splits = load(config)
    comparator = siamjax.load(tmp_path)
    images = list(splits.validation.images[:4])
    similarity = comparator.similarity(images[:2], images[2:])
    assert np.isfinite(similarity).all()
