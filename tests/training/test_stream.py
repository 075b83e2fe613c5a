"""A streamed run's numbers are a resident one's: same key, same draw, same images."""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shrunk import recipe_file, shrunk
from synthetic import labelled
from test_step import DATA, EIGHT, ONE, SCHEMES, build

from siamjax import run as running
from siamjax.data import load
from siamjax.data.pair_schemes import epoch_order
from siamjax.recipe import assemble
from siamjax.training.feed import Feed
from siamjax.training.parallel import Devices
from siamjax.training.schemes import PairRows, from_table
from siamjax.training.step import step_keys
from siamjax.training.stream import DEPTH, Stream, renumbered, streamed
from siamjax.training.writer import read_rows

TWO = Devices(tuple(jax.devices()[:2]), mapped=True)


def losses(devices, step, state, feed, steps):
    program = devices.compile(step)
    state = devices.put(jax.tree.map(jnp.copy, state))  # the step takes what it is given
    data = feed.start(devices, 0)
    found = []
    for at in range(1, steps + 1):
        state, figures = program(state, data)
        found.append(float(devices.get(figures)["loss"][0]))
        data = feed.turn(data, devices, at)
    return found


@pytest.mark.parametrize(
    ("kind", "devices"),
    [
        ("pairs", ONE),
        ("sets", EIGHT),
        pytest.param("sets", ONE, marks=pytest.mark.slow),
        pytest.param("pairs", EIGHT, marks=pytest.mark.slow),
    ],
    ids=["one-pairs", "eight-sets", "one-sets", "eight-pairs"],
)
def test_losses_are_those_of_resident_images(kind, devices):
    step, state = build(kind, devices.axis)
    resident = Feed(DATA.images, DATA.table, epoch=4)
    stream = streamed(resident, SCHEMES[kind][0], state.rng)
    expected = losses(devices, step, state, resident, 5)
    np.testing.assert_allclose(losses(devices, step, state, stream, 5), expected, rtol=1e-6)


def fixed_pairs():
    """Feeds of a table of 20 pairs in batches of 8, reshuffled after three steps."""
    data, rng = labelled(), np.random.default_rng(0)
    left, right = rng.integers(0, len(data.images), (2, 20)).astype(np.int32)
    order = partial(epoch_order, 20, 8, 3)
    rows = PairRows(left, right, data.labels[left] == data.labels[right], order=order(0))
    return Feed(data.images, rows, epoch=3, order=order)


def test_a_table_is_taken_in_the_order_of_its_epoch():
    feed, key = fixed_pairs(), jax.random.key(0)
    scheme = partial(from_table, pairs=8)
    stream = streamed(feed, scheme, key)
    data = stream.start(ONE, 0)
    for at in range(7):  # over two ends of epochs
        draw = scheme(step_keys(key, at)[0], at, feed.table_at(at))
        np.testing.assert_array_equal(data.images, feed.images[np.asarray(draw.image_index)])
        np.testing.assert_array_equal(data.table.same, draw.same)
        np.testing.assert_array_equal(data.table.weight, draw.weight)
        data = stream.turn(data, ONE, at + 1)
    assert stream.waited > 0


def test_each_device_gets_the_images_of_its_share_only():
    feed, key = fixed_pairs(), jax.random.key(0)
    stream = streamed(feed, partial(from_table, pairs=8), key)
    there, whole = stream.start(TWO, 0), stream.host(0)
    assert there.images.shape == (2, 8, *feed.images.shape[1:])
    second = np.asarray(there.images[1])
    np.testing.assert_array_equal(second[:4], whole.images[4:8])  # left sides of pairs 4 to 7
    np.testing.assert_array_equal(second[4:], whole.images[12:])
    assert np.asarray(there.table.slot[1]).tolist() == [4, 5, 6, 7]


def test_a_bounded_number_of_batches_is_prepared_and_the_wrong_one_is_refused():
    stream = streamed(fixed_pairs(), partial(from_table, pairs=8), jax.random.key(0))
    counted, lock, draw = [], threading.Lock(), stream.draw

    def counting(step, table):
        with lock:
            counted.append(step)
        return draw(step, table)

    stream = Stream(stream.images, stream.table, stream.epoch, stream.order, draw=counting)
    data = stream.start(ONE, 5)
    stream.turn(data, ONE, 6)
    assert set(counted) <= set(range(5, 6 + DEPTH))
    with pytest.raises(RuntimeError, match="after step 9 was asked for, 7 is next"):
        stream.turn(data, ONE, 9)


def test_without_a_cpu_the_remedy_is_named(monkeypatch):
    def local_devices(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", local_devices)
    with pytest.raises(ValueError, match=r"leaves it out: set JAX_PLATFORMS=\w+,cpu"):
        streamed(fixed_pairs(), partial(from_table, pairs=8), jax.random.key(0))


def test_a_draw_over_its_own_images():
    draw = SCHEMES["sets"][0](jax.random.key(0), 0, DATA.table)
    assert renumbered(draw).image_index.tolist() == list(range(32))
    np.testing.assert_array_equal(renumbered(draw).label, draw.label)


def recipe(cache, name, limit, devices=1):
    with shrunk(recipe_file(name), cache).unlocked() as config:
        config.data.resident_limit = limit
        config.model.update(tower="mlp", init="glorot")
        config.model.tower_options = running.configuration.options(features=(8,))
        config.train.update(steps_per_dispatch="2", devices=devices, doctor=True)
    return config


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_whole_run_streams_above_the_limit(devices, tmp_path, tmp_path_factory, monkeypatch):
    for name in ("write_outputs", "write_report"):
        monkeypatch.setattr(running, name, lambda *_, **__: None)
    cache, rows = tmp_path_factory.getbasetemp(), []
    for limit in (4096, 0):
        config, said = recipe(cache, "mnist_mlp", limit, devices), []
        running.train(config, tmp_path / str(limit), said.append)
        assert any("resident_limit (0)" in line for line in said) == (limit == 0)
        rows.append(read_rows(tmp_path / str(limit) / "metrics.jsonl"))
    for a, b in zip(*rows, strict=True):
        assert a["step"] == b["step"]
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-6)
        if a["split"] == "doctor":  # sees one device's share in either
            np.testing.assert_allclose(a["gradient_norms"], b["gradient_norms"], rtol=1e-3)
            assert a["findings"] == b["findings"]
    run = assemble(config, load(config))
    assert isinstance(run.feed, Stream)
    assert run.plan.dispatch == 1
