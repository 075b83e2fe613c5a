from types import SimpleNamespace

import jax
import pytest

from siamjax import benchmark
from siamjax.training import memory


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_of_matrices_runs_at_some_speed(dtype, monkeypatch):
    assert benchmark.matmul_ceiling(dtype, jax.devices()[0], seconds=0.01) > 1e8


def test_memory_of_a_gpu_is_what_it_says():
    stats = {"peak_bytes_in_use": 2**22, "bytes_limit": 2**30, "bytes_in_use": 2**20}
    device = SimpleNamespace(memory_stats=lambda: stats, platform="gpu")
    assert benchmark.device_peak(device) == 4
    assert memory.available(device, beside=True) == 1023 * 2**20


def test_memory_of_a_cpu_is_the_machines():
    device = jax.devices("cpu")[0]
    assert benchmark.device_peak(device) is None
    assert (memory.available(device) or 1) > 0
    assert benchmark.process_peak() > 10


def test_versions_name_what_decides():
    assert {"jax", "jaxlib", "python", "siamjax"} <= benchmark.versions().keys()
