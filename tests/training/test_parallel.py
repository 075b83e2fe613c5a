import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.training.parallel import Devices, choose_devices

EIGHT = Devices(tuple(jax.devices()[:8]), mapped=True)
HERE = Path(__file__).parent


def test_put_copies_to_every_device_and_get_brings_one_back():
    tree = {"a": np.arange(6.0).reshape(2, 3), "key": jax.random.key(7)}
    there = EIGHT.put(tree)
    assert there["a"].shape == (8, 2, 3)
    assert len({shard.device for shard in there["a"].addressable_shards}) == 8
    back = EIGHT.get(there)
    np.testing.assert_array_equal(back["a"], tree["a"])
    assert jax.random.key_data(back["key"]).tolist() == jax.random.key_data(tree["key"]).tolist()


def test_the_original_outlives_a_donated_copy():
    original = {"a": jnp.arange(4.0), "key": jax.random.key(1)}
    program = EIGHT.compile(lambda state, data: (jax.tree.map(lambda x: x, state), {"loss": data}))
    program(EIGHT.put(original), EIGHT.put(jnp.zeros(())))
    assert original["a"].tolist() == [0, 1, 2, 3]


def test_choose_devices():
    assert choose_devices(1) == Devices((jax.devices()[0],), mapped=False)
    assert choose_devices(0).count == len(jax.devices())
    with pytest.raises(ValueError, match=r"train\.devices = 99, but this process has \d+ cpu"):
        choose_devices(99)


def test_two_processes_equal_one_device(tmp_path):
    """jax.distributed over gloo, one device each: what several hosts do."""
    from test_step import ONE, run

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    outs = [tmp_path / f"{i}.npz" for i in (0, 1)]
    command = [sys.executable, str(HERE / "two_processes.py")]
    workers = [
        subprocess.Popen([*command, str(i), str(port), str(out)], stderr=subprocess.PIPE, text=True)
        for i, out in enumerate(outs)
    ]
    try:
        for worker in workers:
            _, stderr = worker.communicate(timeout=150)
            assert worker.returncode == 0, stderr
    finally:
        for worker in workers:
            worker.kill()
    state, figures = run("pairs", ONE, steps=4, dispatch=1)
    for out in outs:
        saved = np.load(out)
        for i, leaf in enumerate(jax.tree.leaves(state.params)):
            np.testing.assert_allclose(saved[f"arr_{i}"], leaf, atol=1e-5)
        np.testing.assert_allclose(saved["loss"][0], figures["loss"][-1], rtol=1e-4)
