"""What the peers share: their command line, random images, and the clock. NumPy only."""

import argparse
import json
import resource
import sys
import time

import numpy as np

# recipe: batch, image
RECIPES = {
    "mnist_mlp": (128, (28, 28, 1)),
    "mnist_cnn": (64, (28, 28, 1)),
    "omniglot": (32, (105, 105, 1)),
    "omniglot_vgg": (8, (105, 105, 3)),
    "image_pairs": (64, (64, 64, 3)),
}
BATCHES = 8  # of pairs, in memory


def arguments(variants):
    """Of the command line: recipe, variant, windows and their length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    return parser.parse_args()


def pairs(recipe):
    """Random images and labels for all batches, float32 in 0..1."""
    batch, shape = RECIPES[recipe]
    rng = np.random.default_rng(0)
    left, right = (rng.random((BATCHES * batch, *shape), np.float32) for _ in range(2))
    return left, right, rng.integers(0, 2, BATCHES * batch).astype(np.float32)


def measure(name, recipe, steps, started, windows, seconds):
    """Runs `steps(n)`, which takes n steps and waits for them, and prints a line of JSON.

    Args:
        name: of the peer.
        recipe: of `RECIPES`.
        steps: a function of a number of steps.
        started: `time.perf_counter()` at the start of the program.
        windows: measured windows after warm-up.
        seconds: their length, about.
    """
    steps(1)
    first = time.perf_counter() - started
    begun = time.perf_counter()
    steps(2)
    count = max(1, round(seconds / ((time.perf_counter() - begun) / 2)))
    speeds = []
    for _ in range(windows):
        begun = time.perf_counter()
        steps(count)
        speeds.append(count * RECIPES[recipe][0] / (time.perf_counter() - begun))
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(json.dumps({
        "name": name, "recipe": recipe, "pairs_per_second": speeds, "first_step_s": first,
        "peak_mb": peak,
    }))  # fmt: skip
