"""Every recipe's step for CUDA, lowered where there is no GPU: what it would be given there.

Lowering says nothing of speed, and compiling for CUDA needs a GPU.
"""

import re

import jax
import numpy as np
import pytest
from shrunk import CONFIGS, recipe_file, shrunk

from siamjax import backend
from siamjax.data import load
from siamjax.recipe import assemble
from siamjax.training.features import use_features

# What JAX lowers to by itself for CUDA: its random bits, and a hint where arrays lie.
KNOWN_CALLS = {"cu_threefry2x32_ffi", "Sharding"}


def lowered(config, platform):
    run = assemble(config, load(config))
    use_features(run)
    program = jax.jit(run.step, donate_argnums=0).trace(run.state, run.feed.host(0))
    return program.lower(lowering_platforms=(platform,)).as_text(), run


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_step_lowers_for_cuda_without_a_detour_or_a_way_back_to_the_host(
    path, tmp_path_factory
):
    with backend.as_on_gpu():
        text, run = lowered(shrunk(path, tmp_path_factory.getbasetemp()), "cuda")
    calls = set(re.findall(r"stablehlo\.custom_call @(\w+)", text))
    assert calls <= KNOWN_CALLS
    assert "callback" not in text
    kernels = [leaf for leaf in jax.tree.leaves(run.state.params["tower"]) if leaf.ndim == 4]
    if run.front is None:  # else features come in, and the tower's convolutions stay outside
        # Forward and to the weights, each; the first needs no gradient of its images.
        assert text.count("stablehlo.convolution") >= 2 * len(kernels)
    assert ("jax.buffer_donor = true" in text) or ("tf.aliasing_output" in text)


def koch(tmp_path_factory):
    config = shrunk(recipe_file("omniglot"), tmp_path_factory.getbasetemp())
    with config.unlocked():
        config.model.tower_options.features = (64, 128, 128, 256)  # wide enough for the detour
        config.data.size, config.batch_size = (105, 105), 32
    return config


def test_a_cpu_takes_the_detour_that_a_gpu_does_not(tmp_path_factory):
    """As many more convolutions on the GPU as products of matrices on the CPU stand for."""
    here, _ = lowered(koch(tmp_path_factory), "cpu")
    with backend.as_on_gpu():
        there, _ = lowered(koch(tmp_path_factory), "cuda")
    assert there.count("stablehlo.convolution") == 4 * 3 - 1
    assert here.count("stablehlo.convolution") < there.count("stablehlo.convolution")
    assert here.count("stablehlo.dot_general") > there.count("stablehlo.dot_general")


@pytest.fixture
def fast(tmp_path_factory):
    config = shrunk(recipe_file("mnist_cnn"), tmp_path_factory.getbasetemp())
    return assemble(config, load(config))


def test_a_dispatch_takes_what_is_on_the_device_and_nothing_else(fast):
    program = fast.devices.compile(fast.step)
    state, data = fast.devices.put((fast.state, fast.feed.host(0)))
    state, _ = program(state, data)
    with pytest.raises(RuntimeError, match="Disallowed host-to-device transfer"):
        program(state, fast.feed.host(0))


def test_the_state_is_given_away_and_its_memory_used_again(fast):
    state, data = fast.devices.put((fast.state, fast.feed.host(0)))
    compiled = fast.devices.program(fast.step).lower(state, data).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state)))
    assert compiled.memory_analysis().alias_size_in_bytes >= size
    after, _ = fast.devices.compile(fast.step)(state, data)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert int(after.step) == 1


@pytest.mark.parametrize("name", ["mnist_cnn", "omniglot_vgg"])
def test_bfloat16_is_of_the_computation_alone(name, tmp_path_factory):
    config = shrunk(recipe_file(name), tmp_path_factory.getbasetemp())
    with config.unlocked():
        config.dtype = "bfloat16"
    text, run = lowered(config, "cpu")
    assert "bf16" in text
    after, figures = jax.eval_shape(run.step, run.state, run.feed.host(0))
    for leaf in jax.tree.leaves((after.params, after.opt_state, after.batch_stats)):
        assert leaf.dtype in (np.float32, np.int32)
    assert {figure.dtype for figure in figures.values()} == {np.dtype(np.float32)}
