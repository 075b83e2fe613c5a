import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax import backend


def test_the_compiler_option_is_known_here_or_left_out():
    options = backend.compiler_options()
    assert options in ({}, backend.EIGEN_CONVOLUTIONS)
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(backend.jit(lambda x: x @ x.T)(x), x @ x.T)


def test_an_unknown_option_is_probed_once_and_left_out(monkeypatch):
    monkeypatch.setattr(backend, "EIGEN_CONVOLUTIONS", {"xla_no_such_option": "x"})
    backend.compiler_options.cache_clear()
    try:
        assert backend.compiler_options() == {}
        assert float(backend.jit(lambda x: x + 1)(1.0)) == 2.0
    finally:
        backend.compiler_options.cache_clear()


@pytest.mark.parametrize(("shape", "expected"), [((3, 3, 1, 4), False), ((9, 4), True)])
def test_only_convolutions_keep_out_of_scans_on_a_cpu(shape, expected):
    assert jax.default_backend() == "cpu"
    assert backend.scans_well({"kernel": jnp.zeros(shape), "bias": jnp.zeros(4)}) is expected


def test_keeping_memory_is_safe_where_it_does_nothing(monkeypatch):
    asked = []

    def absent(name):
        asked.append(name)
        raise OSError("no C library")

    monkeypatch.setattr(backend.ctypes, "CDLL", absent)
    backend.keep_memory()
    assert set(asked) == {None}


def test_memory_is_kept_in_one_arena_and_one_step_is_under_way_at_a_time(monkeypatch):
    told = {}
    library = type("Library", (), {"mallopt": staticmethod(told.__setitem__)})
    monkeypatch.setattr(backend.ctypes, "CDLL", lambda name: library)
    before = jax.config.read("jax_cpu_enable_async_dispatch")
    try:
        backend.keep_memory()
        assert not jax.config.read("jax_cpu_enable_async_dispatch")
    finally:
        jax.config.update("jax_cpu_enable_async_dispatch", before)
    arena_max, trim_threshold, map_threshold, top_pad = -8, -1, -3, -2  # of glibc's malloc.h
    assert told[arena_max] == 1
    assert min(told[trim_threshold], told[map_threshold]) >= 2**30
    assert told[top_pad] >= 2**20


def test_what_happens_rarely_gives_memory_back_before_and_after(monkeypatch):
    trims = []
    library = type("Library", (), {"malloc_trim": staticmethod(trims.append)})
    monkeypatch.setattr(backend.ctypes, "CDLL", lambda name: library)

    @backend.own_memory()
    def rare():
        return len(trims)

    assert (rare(), rare(), trims) == (1, 3, [0] * 4)


def test_giving_back_is_safe_where_it_does_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(backend.ctypes, "CDLL", asked.append)  # None: no library with malloc_trim
    with backend.own_memory():
        assert asked == [None]
    assert asked == [None, None]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults of Linux")
def test_steps_fault_no_pages_in_again():
    code = """if True:
        import resource, sys
        from siamjax import backend
        if sys.argv[1] == "keep":
            backend.keep_memory()
        import jax, jax.numpy as jnp
        f = backend.jit(lambda x: jnp.cumsum(x, 0).T @ jnp.sin(x) @ x.T)
        x = jnp.ones((3000, 2000)) * 1e-3
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(5):
                f(x).block_until_ready()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        faults()
        print(faults())
    """
    found = {}
    for way in ("keep", "leave"):
        run = [sys.executable, "-c", code, way]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        found[way] = int(done.stdout)
    assert found["keep"] < found["leave"] / 10


def test_the_cache_goes_where_it_is_told(tmp_path):
    code = "from siamjax import backend; print(backend.enable_compilation_cache())"
    for name, folder in (
        ("JAX_COMPILATION_CACHE_DIR", tmp_path / "a"),
        ("XDG_CACHE_HOME", tmp_path),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PATH": "", "HOME": str(tmp_path), name: str(folder)},
        )  # fmt: skip
        expected = folder if name.startswith("JAX") else tmp_path / "siamjax" / "compiled"
        assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize("shape", [(), (7,), (16,), (3, 3, 8, 6), (48, 5)])
@pytest.mark.parametrize("cpu", [True, False])
def test_the_sum_of_squares_and_its_gradient(shape, cpu, monkeypatch):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    monkeypatch.setattr(backend, "on_cpu", lambda: cpu)
    value, gradient = jax.value_and_grad(lambda x: 3 * backend.sum_of_squares(x))(x)
    np.testing.assert_allclose(value, 3 * np.square(np.asarray(x, np.float64)).sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, 6 * x, rtol=1e-6)


def test_no_squares_are_stored():
    x = jnp.ones((1024, 512))
    program = backend.jit(backend.sum_of_squares).lower(x).compile()
    assert program.memory_analysis().temp_size_in_bytes < x.nbytes / 100


def test_what_is_not_finite_shows_in_the_sum_of_squares():
    for bad in (jnp.nan, jnp.inf):
        assert not jnp.isfinite(backend.sum_of_squares(jnp.ones((4, 16)).at[2, 3].set(bad)))
