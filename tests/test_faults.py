"""What can happen to a run from outside: kills, full disks, a second run, missing memory."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import get_config

from siamjax import run
from siamjax.training import memory
from siamjax.training.checkpoint import LATEST, CheckpointError, CheckpointStore
from siamjax.training.parallel import Devices
from siamjax.training.stream import Stream
from siamjax.training.workdir import WorkdirError, locked, writing
from siamjax.training.writer import MetricsLog, Progress, read_rows

ROOT = Path(__file__).resolve().parent.parent


def kills(count):
    done = subprocess.run(
        [sys.executable, "tests/kills.py", f"--kills={count}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=3000,
        env=os.environ | {"XLA_FLAGS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_killed_run_ends_as_if_nothing_had_happened():
    found = kills(2)
    assert found["kills"] == 2
    assert found["ends_equal"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_kills_change_nothing():
    found = kills(100)
    assert found["kills"] == 100
    assert found["in_a_save"] > 0


@pytest.fixture
def no_pictures(monkeypatch):
    for name in ("curves", "pair_grid"):
        monkeypatch.setattr(run.plots, name, lambda *_, **__: None)
    monkeypatch.setattr(run, "write_report", lambda *_: None)


def quiet(_):
    """Takes what a run says."""


def losses(workdir):
    """Of every step."""
    return [x for row in read_rows(workdir / "metrics.jsonl") for x in row.get("losses", [])]


def test_a_second_run_in_one_folder_is_refused(tmp_path):
    refused = pytest.raises(WorkdirError, match=f"is using .*process {os.getpid()} on .*, since")
    with locked(tmp_path), refused:
        run.train(get_config(), tmp_path, quiet)
    with locked(tmp_path):
        pass


def test_a_killed_run_holds_its_folder_no_longer(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from siamjax.training.workdir import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(WorkdirError, match=f"process {holder.pid} on"), locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path):
        pass


def test_without_locks_the_user_is_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path, said.append), locked(tmp_path, said.append):
        pass
    assert "this platform has no file locks" in said[0]


@pytest.fixture
def small_files():
    """A limit on the size of files: the system then refuses to write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)


# Orbax's own threads complain to nobody when a save is cut short.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("no_pictures")
def test_a_disk_that_fills_up_costs_the_steps_since_the_last_checkpoint_alone(
    tmp_path, small_files
):
    half, whole = get_config(), get_config()
    half.train.steps = 8
    run.train(half, tmp_path / "run", quiet)
    small_files(3000)
    # Whichever file is refused first; the sentence says the same.
    with pytest.raises((CheckpointError, WorkdirError), match=r"(before it|finished) are whole"):
        run.train(whole, tmp_path / "run", quiet)
    small_files(None)
    with CheckpointStore(tmp_path / "run", read_only=True) as store:
        assert store.step(LATEST) == 8
        assert store.notes == []
    assert run.train(whole, tmp_path / "run", quiet)
    assert not list(tmp_path.rglob("*.unfinished*"))
    assert run.train(whole, tmp_path / "undisturbed", quiet)
    assert losses(tmp_path / "run") == losses(tmp_path / "undisturbed")


@pytest.mark.usefixtures("no_pictures")
def test_when_the_thread_that_gathers_batches_dies_the_run_ends_and_can_go_on(tmp_path):
    config = get_config()
    config.data.resident_limit = 0
    gathered = Stream._drawn

    def dies(stream, step):
        if step == 14:
            raise OSError("the disk with the images is gone")
        return gathered(stream, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "_drawn", dies)
        with pytest.raises(OSError, match="with the images is gone"):
            run.train(config, tmp_path / "run", quiet)
    with CheckpointStore(tmp_path / "run", read_only=True) as store:
        assert store.step(LATEST) == 12
    assert run.train(config, tmp_path / "run", quiet)
    assert run.train(config, tmp_path / "undisturbed", quiet)
    assert len(losses(tmp_path / "run")) == 24
    assert losses(tmp_path / "run") == losses(tmp_path / "undisturbed")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_is_a_sentence(tmp_path, number):
    sentence = f"cannot be written: {os.strerror(number)}. Check"
    with pytest.raises(WorkdirError, match=sentence), writing(tmp_path):
        raise OSError(number, os.strerror(number))


def test_errors_of_other_files_pass(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/image.png")


def test_a_file_in_place_of_the_folder_is_a_sentence(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(WorkdirError, match="cannot be written: File exists"):
        run.train(get_config(), tmp_path / "run", quiet)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WorkdirError, match="cannot be written: Permission denied"):
        run.train(get_config(), tmp_path / "run", quiet)


@pytest.mark.usefixtures("no_pictures")
def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    moments = iter(range(10**6, 0, -7))
    monkeypatch.setattr(time, "time", lambda: float(next(moments)))
    config = get_config()
    config.train.steps = 8
    assert run.train(config, tmp_path, quiet)
    times = [row["time"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert times == sorted(times)
    assert times[0] >= 0


def test_the_time_left_is_never_negative(capsys):
    moments = iter((100.0, 50.0, 20.0, 0.0))
    with Progress(
        10, 0, interactive=False, stream=sys.stdout, every=0, clock=lambda: next(moments)
    ) as p:
        for step in (1, 2, 3):
            p.update(step)
    assert "-" not in capsys.readouterr().out


def test_a_row_without_a_time_does_not_stop_a_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train"}\n')
    with MetricsLog(tmp_path) as log:
        log.write(2, "train", {})
        assert log.rows()[-1]["time"] >= 0


@pytest.mark.usefixtures("no_pictures")
def test_a_data_folder_that_changes_under_a_run_is_found(tmp_path):
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in "abcdefghij":
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    config = get_config()
    config.data.source, config.data.dir = "folder", str(tmp_path / "data")
    config.data.cache_dir = str(tmp_path / "cache")
    config.eval.way, config.train.steps, config.data.holdout = 2, 8, 0.3
    run.train(config, tmp_path / "run", quiet)
    changed = generator.integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(changed).save(tmp_path / "data" / "a" / "0.png")
    config.train.steps = 12
    with pytest.raises(ValueError, match="other settings:\n  the data: "):
        run.train(config, tmp_path / "run", quiet)


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")]
)
def test_missing_memory_names_the_batch_that_fits(tmp_path, monkeypatch, error):
    def call(state, data):
        raise error

    monkeypatch.setattr(Devices, "compile", lambda devices, step, steps=1: call)
    monkeypatch.setattr(memory, "available", lambda _: 2_200_000)
    config = get_config()
    config.batch_size = 256
    with pytest.raises(
        memory.OutOfMemoryError, match=r"with config\.batch_size = 256 .*fits is --config"
    ):
        run.train(config, tmp_path, quiet)


def test_the_batch_is_halved_until_it_fits():
    sizes = {64: 900, 32: None}
    assert memory.largest_batch(sizes.get, 128, 1000) == (64, 900)
    assert memory.largest_batch(sizes.get, 128, 800) is None
    assert memory.largest_batch(sizes.get, 128, None) is None

    def odd(batch):
        if batch > 8:
            raise ValueError("not a multiple")
        return batch

    assert memory.largest_batch(odd, 100, 1000) == (6, 6)
    assert "--config.batch_size=6 (" in memory.advice(100, (6, 6), MemoryError("x"))
    assert "try --config.batch_size=50, or less" in memory.advice(100, None, MemoryError())


def test_other_errors_of_the_device_are_not_taken_for_missing_memory():
    assert memory.exhausted(MemoryError())
    assert not memory.exhausted(jax.errors.JaxRuntimeError("INTERNAL: a fault of ours"))
    assert not memory.exhausted(ValueError("RESOURCE_EXHAUSTED"))


def test_memory_is_known_here():
    compiled = jax.jit(lambda x: x @ x).lower(np.ones((64, 64), np.float32)).compile()
    assert memory.needed(compiled) >= 2 * 64 * 64 * 4
    assert memory.available(jax.devices()[0]) > 2**20
