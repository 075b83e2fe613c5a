import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from siamjax.training.checkpoint import BEST, LATEST, CheckpointError, CheckpointStore
from siamjax.training.state import TrainState


def make_state(step=3, scale=1.0):
    params = {"tower": {"kernel": scale * jnp.arange(6.0).reshape(2, 3)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats={"norm": {"mean": jnp.ones(2)}},
        opt_state=optimizer.init(params),
        rng=jax.random.key(5),
    )


def assert_equal(a, b):
    def leaves(state):
        rest = (state.step, state.params, state.batch_stats, state.opt_state)
        return [*jax.tree.leaves(rest), jax.random.key_data(state.rng)]

    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_latest_comes_back_bit_for_bit_and_describes_itself(tmp_path):
    state = make_state()
    with CheckpointStore(tmp_path) as store:
        store.save(LATEST, state, {"config": {"seed": 1}, "best": None})
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert store.step(LATEST) == 3
        assert store.about(LATEST) == {"config": {"seed": 1}, "best": None}
        assert_equal(store.restore_state(jax.eval_shape(make_state)), state)


def test_only_the_newest_is_kept_and_best_holds_weights_alone(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for step in (1, 2, 3):
            store.save(LATEST, make_state(step), {})
        store.save(BEST, make_state(2, scale=7.0), {"best": 0.9})
    assert sorted(p.name for p in (tmp_path / "checkpoints" / "latest").iterdir()) == ["3"]
    assert not (tmp_path / "checkpoints" / "best" / "2" / "train").exists()
    with CheckpointStore(tmp_path, read_only=True) as store:
        state = make_state()
        template = {"params": state.params, "batch_stats": state.batch_stats}
        weights = store.restore_weights(BEST, template)
        np.testing.assert_array_equal(
            weights["params"]["tower"]["kernel"], 7.0 * np.arange(6.0).reshape(2, 3)
        )


def test_a_save_survives_the_donation_of_what_it_saves(tmp_path):
    state = make_state()
    expected = np.asarray(state.params["tower"]["kernel"]).copy()
    double = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s), donate_argnums=0)
    with CheckpointStore(tmp_path) as store:
        store.save(LATEST, state, {})
        for _ in range(20):
            state = TrainState(state.step, double(state.params), {}, {}, state.rng)
    with CheckpointStore(tmp_path, read_only=True) as store:
        restored = store.restore_state(jax.eval_shape(make_state))
    np.testing.assert_array_equal(restored.params["tower"]["kernel"], expected)


def test_forget_after(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(BEST, make_state(8), {})
        store.forget_after(BEST, 8)
        assert store.step(BEST) == 8
        store.forget_after(BEST, 7)
        assert store.step(BEST) is None


def test_leftovers_of_a_kill_are_swept(tmp_path):
    torn = tmp_path / "checkpoints" / "latest" / "9.orbax-checkpoint-tmp"
    torn.mkdir(parents=True)
    (torn / "half").write_bytes(b"x")
    with CheckpointStore(tmp_path) as store:
        assert store.step(LATEST) is None
        store.save(LATEST, make_state(9), {})
    assert not torn.exists()


def test_a_missing_and_a_damaged_checkpoint_say_so(tmp_path):
    with (
        CheckpointStore(tmp_path, read_only=True) as store,
        pytest.raises(CheckpointError, match=r"no checkpoint in .*is this the folder of a run"),
    ):
        store.about(BEST)
    with CheckpointStore(tmp_path) as store:
        store.save(LATEST, make_state(4), {})
    for part in (tmp_path / "checkpoints" / "latest" / "4" / "weights").rglob("d/*"):
        part.unlink()
    with (
        CheckpointStore(tmp_path, read_only=True) as store,
        pytest.raises(CheckpointError, match="latest/4 cannot be read"),
    ):
        store.restore_state(jax.eval_shape(make_state))
