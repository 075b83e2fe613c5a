"""Training end to end over devices and processes: the numbers are those of one device."""

import importlib.util
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, command, together

from siamjax import run
from siamjax.training.workdir import locked
from siamjax.training.writer import read_rows

TINY = Path(__file__).with_name("tiny_config.py")
MAIN = "experiments.main"


def tiny(cache, **changes):
    spec = importlib.util.spec_from_file_location("tiny_config", TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.data.cache_dir = str(cache)
    config.update_from_flattened_dict(changes)
    return config.lock()


def arguments(cache, workdir, **changes):
    changes = {"data.cache_dir": cache, "train.devices": 1} | changes
    return [
        f"--config={TINY.relative_to(ROOT)}", f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in changes.items()),
    ]  # fmt: skip


def figures(workdir):
    # The doctor sees one device's share, so what it says depends on how many there are.
    return [
        {k: v for k, v in row.items() if k not in ("time", "pairs_per_second")}
        for row in read_rows(Path(workdir) / "metrics.jsonl")
        if row["split"] != "doctor"
    ]


def assert_equal(mine, theirs):
    assert [list(row) for row in mine] == [list(row) for row in theirs]
    for a, b in zip(mine, theirs, strict=True):
        for name, value in a.items():
            if isinstance(value, str) or value is None:
                assert value == b[name]
            else:
                np.testing.assert_allclose(value, b[name], rtol=2e-4, atol=2e-4, err_msg=name)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def trained(cache, folder, devices):
    """What a run on so many devices said, without its pictures."""
    said = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_outputs", "write_report"):
            patch.setattr(run, name, lambda *_, **__: None)
        run.train(tiny(cache, **{"train.devices": devices}), folder, said.append)
    return said


@pytest.fixture(scope="module")
def one(cache, tmp_path_factory):
    """The figures of a run on one device."""
    folder = tmp_path_factory.mktemp("one")
    trained(cache, folder, 1)
    return figures(folder)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_two_and_eight_devices_give_the_figures_of_one(cache, one, tmp_path, devices):
    assert one[-1]["step"] == 8
    assert any(f"{devices} x cpu" in line for line in trained(cache, tmp_path, devices))
    assert_equal(figures(tmp_path), one)


def finished(workers, timeout=150):
    """Output and errors of each, all of which must end well."""
    texts = [worker.communicate(timeout=timeout) for worker in workers]
    for worker, (_, errors) in zip(workers, texts, strict=True):
        assert worker.returncode == 0, errors
    return texts


@pytest.fixture
def start():
    """As `commands.together`; what still runs at the end is killed."""
    started = []

    def begin(*arguments, each=None):
        started.extend(together(MAIN, 2, *arguments, each=each))
        return started[-2:]

    yield begin
    for worker in started:
        worker.kill()
        worker.communicate()


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one_and_go_on_as_one(cache, one, start, tmp_path):
    texts = finished(start(*arguments(cache, tmp_path, **{"train.steps": 4})))
    assert "2 x cpu" in texts[0][0]
    said = [line for line in texts[1][0].splitlines() if not line.startswith("[Gloo]")]
    assert said == []  # the second writes nothing, and says nothing
    assert_equal(figures(tmp_path), [row for row in one if row["step"] <= 4])
    assert (tmp_path / "report.html").exists()
    # Two processes go on where two stopped, one goes on where two did: 8 steps, then a ninth.
    texts = finished(start(*arguments(cache, tmp_path)))
    assert "resuming at step 4 of 8" in texts[0][0]
    assert_equal(figures(tmp_path), one)
    done = command(MAIN, *arguments(cache, tmp_path, **{"train.steps": 9}))
    assert "resuming at step 8 of 9" in done.stdout, done.stderr


def until_step(workdir, step):
    deadline = time.monotonic() + 100
    path = workdir / "metrics.jsonl"
    while time.monotonic() < deadline:
        rows = read_rows(path)
        if rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.1)
    raise AssertionError("no step was taken")


@pytest.mark.slow
def test_when_the_folder_is_in_use_both_processes_end_soon(cache, start, tmp_path):
    with locked(tmp_path):
        workers = start(*arguments(cache, tmp_path))
        errors = [worker.communicate(timeout=80)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1]
    assert "error: another run is using" in errors[0]
    assert "error: process 0 of this run can't use" in errors[1]


@pytest.mark.slow
def test_processes_with_other_settings_are_refused_before_the_first_step(cache, start, tmp_path):
    first = start(*arguments(cache, tmp_path), each=[(), ("--config.train.steps=6",)])
    errors = [worker.communicate(timeout=80)[1] for worker in first]
    assert [worker.returncode for worker in first] == [1, 1]
    assert "do not start from the same place" in errors[0] + errors[1]


LONG = {"train.steps": 1_000_000, "eval.every": 1_000_000, "checkpoint.every": 1_000_000}


@pytest.mark.slow
def test_sigterm_for_one_process_stops_both_at_the_same_step(cache, start, tmp_path):
    workers = start(*arguments(cache, tmp_path, **LONG))
    until_step(tmp_path, 4)
    workers[1].send_signal(signal.SIGTERM)
    texts = finished(workers, timeout=60)
    assert "saved; the same command goes on from there" in texts[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_when_a_process_dies_the_other_ends_too(cache, start, tmp_path, dies):
    workers = start(*arguments(cache, tmp_path, **LONG), "--heartbeat=10")
    until_step(tmp_path, 4)
    workers[dies].kill()
    workers[1 - dies].communicate(timeout=60)
    assert workers[1 - dies].returncode != 0
