"""Set before JAX starts: eight simulated devices, shape checks, a compilation cache."""

import os
import tempfile
from pathlib import Path

os.environ["SIAMJAX_TYPECHECK"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8"
    # Less than half the time to compile, and these tests do little else.
    " --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false "
) + os.environ.get("XLA_FLAGS", "")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "siamjax-test-compile-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Decoded images: not the user's own, and drawn once for all tests and their processes.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / "siamjax-test-cache")

import sys

import pytest

for folder in ("", "training"):  # synthetic.py, and test_step.py for test_parallel.py
    sys.path.insert(0, str(Path(__file__).parent / folder))

collect_ignore = ["fuzz/coverage_guided.py"]  # a command of its own, for who has atheris

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with omniglot/ and mnist/; the test is skipped where there is none."""
    for place in (os.environ.get("SIAMJAX_DATA"), ROOT / "data"):
        if place and (Path(place) / "omniglot").is_dir():
            return Path(place)
    pytest.skip("no real data: set SIAMJAX_DATA to a folder with omniglot/ and mnist/")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """The folder of a tiny run of omniglot_fast on glyphs; nobody writes into it."""
    from shrunk import recipe_file, shrunk

    from siamjax import run

    folder = tmp_path_factory.mktemp("trained")
    cache = tmp_path_factory.getbasetemp()
    run.train(shrunk(recipe_file("omniglot_fast"), cache), folder, lambda _: None)
    return folder
