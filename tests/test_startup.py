"""What an import costs: the slow libraries wait until they are used."""

import json
import subprocess
import sys

import pytest

SLOW = (
    "tensorflow_datasets",
    "tensorflow",
    "matplotlib",
    "sklearn",
    "PIL",
    "pooch",
    "tqdm",
    "scipy",
)
CODE = """
import json, sys, time
start = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - start, sorted(sys.modules)]))
"""


def imported(module):
    """Seconds, and the names of all that was imported, in a process of its own."""
    line = [sys.executable, "-c", CODE.format(module=module)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    seconds, names = json.loads(done.stdout)
    return seconds, set(names)


def test_the_package_alone_needs_nothing():
    seconds, names = imported("siamjax")
    assert not names & {*SLOW, "jax", "flax", "numpy"}
    assert seconds < 1.5  # 0.01 on a quiet machine


@pytest.mark.parametrize("module", ["siamjax.inference", "siamjax.run"])
def test_what_is_slow_waits_until_it_is_used(module, record_property):
    seconds, names = imported(module)
    record_property("seconds", seconds)
    assert not names & set(SLOW[:-1])
