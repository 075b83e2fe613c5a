"""Breaks the code in one place, again and again, and asks the tests whether they notice.

    pip install cosmic-ray
    python tests/mutants.py --modules=losses,distances --out=survivors.txt

Each mutant is a module with one operator, comparison or number changed (by cosmic-ray's operators),
seen by the module's own tests only. It is killed if one of them fails; one that survives is written
to `--out` as a diff, to be looked at: a test is missing, or the change changes nothing. No file of
the project is written.

Each mutant runs in a fork of a process that has imported everything else and started nothing of
JAX; what it compiles is kept for the others.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What is under test, and the tests that are to notice.
MODULES = {
    "losses": ("losses", ["test_losses.py", "test_properties.py", "training/test_objective.py"]),
    "distances": ("distances", ["test_distances.py", "test_properties.py", "test_losses.py"]),
    "metrics": ("metrics", ["test_metrics.py"]),
    "pairs": ("data/pairs", ["data/test_pairs.py", "data/test_pair_schemes.py"]),
    "pair_schemes": ("data/pair_schemes", ["data/test_pair_schemes.py", "data/test_pair_table.py"]),
    "schemes": ("training/schemes", ["training/test_schemes.py"]),
    "episodes": ("data/episodes", ["data/test_episodes.py"]),
    "one_shot": ("evaluation/one_shot", ["evaluation/test_one_shot.py"]),
    "decision": ("evaluation/decision", ["evaluation/test_decision.py"]),
    "verification": ("evaluation/verification", ["evaluation/test_verification.py"]),
}
# One replacement for each binary operator and comparison: cosmic-ray's 130 repeat themselves.
OPERATORS = (
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "FloorDiv_Mul", "Mod_FloorDiv"),
    *("BitAnd_BitOr", "LShift_RShift"),
)
OPERATORS = [f"core/ReplaceBinaryOperator_{name}" for name in OPERATORS]
OPERATORS += [
    f"core/ReplaceComparisonOperator_{name}"
    for name in ("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Is_IsNot")
]
OPERATORS += [
    "core/ReplaceUnaryOperator_USub_UAdd",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/AddNot",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/NumberReplacer",
    "core/ZeroIterationForLoop",
]


def mutants(source: str) -> Iterator[str]:
    """The source with each one change that an operator knows."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    for name in OPERATORS:
        operator, occurrence = get_operator(name)(), 0
        while (mutant := mutate_code(source, operator, occurrence)) is not None:
            occurrence += 1
            if mutant != source:
                yield mutant


class Mutated(MetaPathFinder, Loader):
    """Imports one module from the given text instead of its file."""

    def __init__(self, name: str, path: Path, source: str):
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        return spec_from_loader(fullname, self, origin=str(self.path))

    def exec_module(self, module):
        module.__file__ = str(self.path)
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def outcome(name: str, path: Path, source: str, tests: list[str], seconds: float) -> str:
    """Runs the tests on one mutant in a fork: "killed", "survived" or "too slow"."""
    child = os.fork()
    if not child:
        os.setsid()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_AS, (32 << 30,) * 2)
        status = 1
        try:
            sys.meta_path.insert(0, Mutated(name, path, source))
            options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
            status = int(pytest.main([*options, *(str(ROOT / "tests" / t) for t in tests)]))
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "killed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "too slow"


def change(source: str, mutant: str) -> str:
    """The lines that differ, with their number."""
    lines = source.splitlines()
    differ = difflib.SequenceMatcher(None, lines, mutant.splitlines(), autojunk=False)
    _, start, end, new, last = next(o for o in differ.get_opcodes() if o[0] != "equal")
    old = "\n".join(f"- {line}" for line in lines[start:end])
    return f"line {start + 1}\n{old}\n" + "\n".join(
        f"+ {line}" for line in mutant.splitlines()[new:last]
    )


def main() -> int:
    """Prints a line for each module; 0 if its tests pass without a change and some mutant died."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--modules", default=",".join(MODULES), help=", ".join(MODULES))
    parser.add_argument("--at_most", type=int, default=10**9, help="mutants of a module, drawn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120, help="for the tests of a mutant")
    parser.add_argument("--out", type=Path, default=Path("survivors.txt"))
    arguments = parser.parse_args()
    unknown = set(arguments.modules.split(",")) - set(MODULES)
    if unknown:
        parser.error(f"no module {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")

    cache = tempfile.mkdtemp(prefix="siamjax-mutants-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PLATFORMS": "cpu",
    }
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    for slow in ("jax", "jax.numpy", "optax", "ml_collections", "scipy.stats", "sklearn.metrics"):
        __import__(slow)

    fine = True
    with arguments.out.open("w") as out, ThreadPoolExecutor(arguments.workers) as pool:
        for module in arguments.modules.split(","):
            place, tests = MODULES[module]
            path = ROOT / "siamjax" / f"{place}.py"
            name, source = f"siamjax.{place.replace('/', '.')}", path.read_text()
            if outcome(name, path, source, tests, 10 * arguments.seconds) != "survived":
                print(f"{module}: its tests fail without a change", flush=True)
                fine = False
                continue
            every = list(mutants(source))
            random.Random(0).shuffle(every)
            every = every[: arguments.at_most]

            def run(mutant, name=name, path=path, tests=tests):
                return outcome(name, path, mutant, tests, arguments.seconds)

            counts = Counter()
            for mutant, end in zip(every, pool.map(run, every), strict=True):
                counts[end] += 1
                if end == "survived":
                    out.write(f"{path.relative_to(ROOT)}, {change(source, mutant)}\n\n")
                    out.flush()
            print(f"{module}: {len(every)} mutants, {dict(counts)}", flush=True)
            fine &= counts["killed"] > 0
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
