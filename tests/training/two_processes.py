"""Run by test_parallel.py twice, as process 0 and 1: three steps of the tiny recipe, then save."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "").replace("_count=8", "_count=1")

import jax
import numpy as np


def main(process: int, port: str, out: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
    from test_step import DATA, build

    from siamjax.training.parallel import choose_devices

    devices = choose_devices()
    assert devices.mapped
    assert devices.count == 2
    step, state = build("pairs", devices.axis)
    program = devices.compile(step)
    state, data = devices.put(state), devices.put(DATA)
    for _ in range(4):
        state, figures = program(state, data)
        jax.block_until_ready(figures)
    leaves = [np.asarray(x) for x in jax.tree.leaves(devices.get(state).params)]
    np.savez(out, *leaves, loss=np.asarray(devices.get(figures)["loss"]))


if __name__ == "__main__":
    sys.path[:0] = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
