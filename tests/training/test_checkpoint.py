import errno
import json
import re
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from siamjax import cluster
from siamjax.training import digest
from siamjax.training.average import averaged, keep_average
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


def test_the_key_of_one_of_several_processes_is_saved_as_words(tmp_path, monkeypatch):
    state = make_state()
    with CheckpointStore(tmp_path) as store:
        with monkeypatch.context() as several:
            several.setattr(cluster, "alone", lambda: False)
            store.save(LATEST, state, {"best": None})
        assert store.about(LATEST) == {"best": None}
        assert_equal(store.restore_state(make_state(step=0)), state)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_two_latest_are_kept_and_best_holds_weights_alone(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for step in (1, 2, 3):
            store.save(LATEST, make_state(step), {})
        store.save(BEST, make_state(2, scale=7.0), {"best": 0.9})
    assert names(tmp_path / "checkpoints" / "latest") == ["2", "3"]
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux' resident memory")
def test_a_save_copies_the_state_and_then_holds_little_more(tmp_path):
    code = """if True:
        import resource, sys
        import jax, jax.numpy as jnp
        from siamjax.training.checkpoint import LATEST, CheckpointStore
        from siamjax.training.state import TrainState

        arrays = jax.random.split(jax.random.key(0), 5)
        params = {str(i): jax.random.normal(k, (10**7,)) for i, k in enumerate(arrays)}
        state = TrainState(jnp.asarray(1), params, {}, {}, jax.random.key(5))
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        with CheckpointStore(sys.argv[1]) as store:
            store.save(LATEST, TrainState(jnp.asarray(0), {}, {}, {}, jax.random.key(5)), {})
            store.close()
            before = peak()
        with CheckpointStore(sys.argv[1]) as store:
            store.save(LATEST, state, {})
        print(peak() - before)
        restored = CheckpointStore(sys.argv[1], read_only=True).restore_state(state)
        assert all((restored.params[k] == params[k]).all() for k in params)
    """
    run = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    assert float(done.stdout) < 1.7 * 5 * 40  # MB: the copy, and no second one


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
        pytest.raises(CheckpointError, match="the latest checkpoint of step 4 is damaged: weights"),
    ):
        store.restore_state(jax.eval_shape(make_state))


def test_the_best_of_a_time_that_a_run_may_go_back_to_is_kept(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for step in (1, 2, 3, 4, 5, 6):
            store.save(BEST, make_state(step), {})
            if step % 2 == 0:
                store.save(LATEST, make_state(step), {})
    assert names(tmp_path / "checkpoints" / "latest") == ["4", "6"]
    assert names(tmp_path / "checkpoints" / "best") == ["4", "5", "6"]


def a_file(folder, part="weights"):
    return max((folder / part).rglob("d/*"), key=lambda p: p.stat().st_size)


def flip(folder):
    path = a_file(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(folder):
    path = a_file(folder, "train")
    path.write_bytes(path.read_bytes()[:-1])


def link(folder):
    path = a_file(folder)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGES = {
    "holds other bytes than were saved": flip,
    "had [0-9,]+ when it was saved": cut,
    "is missing": lambda folder: a_file(folder).unlink(),
    "about/metadata is missing": lambda folder: (folder / "about" / "metadata").unlink(),
    "digest.json is missing": lambda folder: (folder / "digest.json").unlink(),
    "digest.json is damaged": lambda folder: (folder / "digest.json").write_text('{"format": 1'),
    "is not a plain file": link,
}


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, text):
    with CheckpointStore(tmp_path) as store:
        for step in (4, 8):
            store.save(LATEST, make_state(step, scale=step), {"at": step})
    DAMAGES[text](tmp_path / "checkpoints" / "latest" / "8")
    with CheckpointStore(tmp_path) as store:
        assert store.newest(LATEST) == 8
        assert store.about(LATEST) == {"at": 4}
        state = store.restore_state(jax.eval_shape(make_state))
        assert_equal(state, make_state(4, scale=4))
        (note,) = store.notes
        assert re.search(f"latest checkpoint of step 8 is damaged: .*{text}.*back to step 4", note)
        store.forget_after(LATEST, 4)
        store.save(LATEST, make_state(8), {"at": 8})
    assert names(tmp_path / "checkpoints" / "latest") == ["4", "8", "8.damaged"]


def test_where_none_is_whole_the_error_says_what_to_do(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for step in (4, 8):
            store.save(LATEST, make_state(step), {})
            store.save(BEST, make_state(step), {})
    for step in "48":
        flip(tmp_path / "checkpoints" / "latest" / step)
    with CheckpointStore(tmp_path) as store:
        with pytest.raises(CheckpointError, match=r"step 8 .*step 4 .*Put back a copy") as error:
            store.step(LATEST)
        assert 'siamjax.load(run, checkpoint="best")' in str(error.value)
        assert store.step(BEST) == 8


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["digest.json", "about/metadata"])
def test_a_newer_format_is_refused_and_not_taken_for_damage(tmp_path, name):
    with CheckpointStore(tmp_path) as store:
        for step in (4, 8):
            store.save(LATEST, make_state(step), {})
    newest = tmp_path / "checkpoints" / "latest" / "8"
    rewrite(newest / name, format=99)
    if name == "about/metadata":
        (newest / "digest.json").unlink()
        digest.seal(newest)
    with (
        CheckpointStore(tmp_path) as store,
        pytest.raises(CheckpointError, match="format 99, written by a newer siamjax"),
    ):
        store.step(LATEST)


def test_a_checkpoint_from_before_digests_loads_with_a_note(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(LATEST, make_state(4), {"seed": 1})
    folder = tmp_path / "checkpoints" / "latest" / "4"
    (folder / "digest.json").unlink()
    (folder / "about" / "metadata").write_text('{"seed": 1}')
    with CheckpointStore(tmp_path) as store:
        assert store.about(LATEST) == {"seed": 1}
        assert_equal(store.restore_state(jax.eval_shape(make_state)), make_state(4))
        assert "without a digest" in store.notes[0]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError()])
def test_a_full_disk_is_said_and_the_checkpoint_before_is_whole(tmp_path, monkeypatch, error):
    def full(folder):
        raise error

    with CheckpointStore(tmp_path) as store:
        store.save(LATEST, make_state(4), {})
    monkeypatch.setattr(digest, "seal", full)
    store = CheckpointStore(tmp_path)
    store.save(LATEST, make_state(8), {})
    with pytest.raises(CheckpointError, match="step 8 could not be saved"):
        store.close()
    assert names(tmp_path / "checkpoints" / "latest") == ["4"]
    store, first = CheckpointStore(tmp_path), OverflowError()
    store.save(LATEST, make_state(8), {})
    store.__exit__(OverflowError, first, None)  # what came first is what the user has to know
    assert "could not be saved" in first.__notes__[0]
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert store.step(LATEST) == 4


def test_a_checkpoint_that_is_put_away_while_it_is_looked_at_is_no_damage(tmp_path, monkeypatch):
    with CheckpointStore(tmp_path) as store:
        for step in (1, 2):
            store.save(LATEST, make_state(step), {})
    checked, other = digest.fault, CheckpointStore(tmp_path)

    def beaten(folder):
        monkeypatch.setattr(digest, "fault", checked)
        other.forget_after(LATEST, 1)
        return checked(folder)

    with other, CheckpointStore(tmp_path, read_only=True) as store:
        monkeypatch.setattr(digest, "fault", beaten)
        assert store.step(LATEST) == 1
        assert store.notes == []


def test_a_file_that_vanishes_is_a_fault_and_no_traceback(tmp_path, monkeypatch):
    with CheckpointStore(tmp_path) as store:
        store.save(LATEST, make_state(1), {})

    def vanished(folder):
        raise FileNotFoundError(2, "No such file", str(folder / "digest.json"))

    monkeypatch.setattr(digest, "fault", vanished)
    with pytest.raises(CheckpointError, match=r"digest\.json is missing"):
        CheckpointStore(tmp_path, read_only=True).step(LATEST)


def test_with_a_mean_both_kinds_show_it_and_latest_goes_on_from_the_weights(tmp_path):
    def make(step=3):
        params = {"tower": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
        optimizer = optax.chain(optax.sgd(1.0), keep_average(0.9))
        state = optimizer.init(params)
        for _ in range(step):
            updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
            params = optax.apply_updates(params, updates)
        return replace(make_state(step), params=params, opt_state=state)

    state = make()
    mean = averaged(state).params["tower"]["kernel"]
    assert np.abs(mean - state.params["tower"]["kernel"]).max() > 0.1
    with CheckpointStore(tmp_path) as store:
        store.save(BEST, state, {})
        store.save(LATEST, state, {})
    with CheckpointStore(tmp_path, read_only=True) as store:
        template = {"params": state.params, "batch_stats": state.batch_stats}
        for kind in (BEST, LATEST):
            shown = store.restore_weights(kind, template)["params"]["tower"]["kernel"]
            np.testing.assert_array_equal(shown, mean)
        assert_equal(store.restore_state(jax.eval_shape(make)), state)


def test_a_latest_is_not_saved_where_its_best_could_not_be(tmp_path, monkeypatch):
    seal = digest.seal

    def fails_once(folder):
        monkeypatch.setattr(digest, "seal", seal)
        raise OSError(errno.ENOSPC, "No space left on device")

    store = CheckpointStore(tmp_path)
    store.save(LATEST, make_state(1), {})
    store._wait(LATEST)
    monkeypatch.setattr(digest, "seal", fails_once)
    store.save(BEST, make_state(3), {})
    store.save(LATEST, make_state(3), {})
    with pytest.raises(CheckpointError, match=r"latest checkpoint of step 3 was not saved, since"):
        store._wait(LATEST)
    with pytest.raises(CheckpointError, match=r"best checkpoint of step 3 could not be saved"):
        store.close()
    assert names(tmp_path / "checkpoints" / "latest") == ["1"]
