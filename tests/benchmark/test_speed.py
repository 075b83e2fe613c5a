import gzip
import json

import jax
import pytest
from shrunk import recipe_file, shrunk

from siamjax import benchmark
from siamjax.benchmark import speed as speeds
from siamjax.config import options
from siamjax.data import load
from siamjax.training import memory


@pytest.fixture
def config(tmp_path_factory):
    config = shrunk(recipe_file("omniglot_fast"), tmp_path_factory.getbasetemp())
    with config.unlocked():  # another tower: this one takes 10 s to compile
        config.model.update(tower="mlp", init="glorot")
        config.model.tower_options = options(features=(8,))
        config.augment.name = "none"
    return config


def test_both_ways_are_timed_on_the_same_recipe_and_traced(config, tmp_path):
    measured = benchmark.steady_state(
        config, load(config), windows=2, seconds=0.1, profile=tmp_path
    )
    assert set(measured.speeds) == {"resident", "streamed"}
    for speed in measured.speeds.values():
        assert 0 < speed.least <= speed.median <= speed.most
        assert 0 <= speed.waiting <= 1
    assert measured.speeds["resident"].waiting == 0
    assert measured.first_step > measured.first > 0
    assert min(measured.build, measured.compile, measured.compiled_mib) > 0
    (trace,) = tmp_path.rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert len(events) > 10
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_another_way_is_refused(config):
    with pytest.raises(ValueError, match="ways are resident, streamed; got neither"):
        benchmark.steady_state(config, load(config), names=["neither"])


def test_a_step_that_does_not_fit_is_refused_before_it_runs(config, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device, beside: 10_000)
    with pytest.raises(memory.OutOfMemoryError, match=r"with 12 pairs needs .* MiB are free"):
        benchmark.steady_state(config, load(config), windows=1, seconds=0.1, names=["resident"])


def test_what_came_from_the_compilation_cache_is_told():
    with speeds._cache_hits() as hits:
        jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
        jax.monitoring.record_event("/jax/compilation_cache/cache_misses")
    jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
    assert len(hits) == 1
