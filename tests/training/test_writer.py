"""The metrics file through kills and rewinds, the tutorial's curve file, and what is printed."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.training.writer import (
    MetricsLog,
    Progress,
    TensorBoardLog,
    duration,
    open_logs,
    write_train_curves,
)

# ----------------------------------------------------------------------------------- metrics.jsonl


def steps(log):
    return [row["step"] for row in log.rows()]


def test_a_row_has_step_epoch_split_time_and_figures(tmp_path):
    with MetricsLog(tmp_path / "new" / "run") as log:
        log.write(20, "train", {"loss": np.float32(0.5), "bce": jnp.float32(0.25)}, epoch=0.5)
        log.write(np.int64(40), "validation", {"auc": 1, "protocol": "koch-within", "ok": True})
        first, second = log.rows()
    assert list(first) == ["step", "epoch", "split", "time", "loss", "bce"]
    assert first | {"time": 0} == {
        "step": 20, "epoch": 0.5, "split": "train", "time": 0, "loss": 0.5, "bce": 0.25,
    }  # fmt: skip
    assert second["epoch"] is None
    assert (second["step"], second["auc"], second["ok"]) == (40, 1, True)
    assert second["protocol"] == "koch-within"
    assert 0 <= first["time"] <= second["time"] < 60


def test_a_row_is_one_line_of_strict_json(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {"loss": float("nan"), "norm": np.float32(np.inf), "text": "a\nb"})
        log.write(2, "train", {"losses": [1.5, float("-inf"), np.float32(2)], "count": np.int32(3)})
    lines = log.path.read_text().splitlines()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert (first["loss"], first["norm"], first["text"]) == (None, None, "a\nb")
    assert second["losses"] == [1.5, None, 2.0]
    assert lines[1].endswith('"count": 3}')


def test_names_of_every_row_are_taken(tmp_path):
    with (
        MetricsLog(tmp_path) as log,
        pytest.raises(ValueError, match=r"may not be called \['step', 'time'\]"),
    ):
        log.write(1, "train", {"time": 1.0, "loss": 1.0, "step": 2})


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0})
        log.write(2, "train", {"loss": 2.0})
        whole = log.path.read_bytes()
        for torn in (b'{"step": 3, "ep', b"\0\0\0\0", b'{"step": 3}x\n', b"null\n"):
            log.path.write_bytes(whole + torn)
            assert steps(log) == [1, 2]
            with MetricsLog(tmp_path) as again:
                assert log.path.read_bytes() == whole
                again.write(3, "train", {})
                assert steps(again) == [1, 2, 3]


def test_a_broken_line_elsewhere_is_an_error(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.path.write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
        with pytest.raises(ValueError, match=r"line 2: not a row of metrics .*mend or remove"):
            log.rows()
        log.path.write_text('{"step": 1}\nrubbish\n{"step": 2, ')
        with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
            MetricsLog(tmp_path)


def test_rewind_forgets_later_rows_and_goes_on(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (10, 20, 20, 30, 40):
            log.write(step, "train", {"loss": step / 3})
        before = log.rows()
        log.rewind(20)
        assert log.rows() == before[:3]
        log.write(25, "train", {"loss": 1.0})
        assert steps(log) == [10, 20, 20, 25]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl"]
    with MetricsLog(tmp_path) as log:
        log.rewind(-1)
        assert log.rows() == []


def test_rewind_replaces_the_file_in_one_move(tmp_path, monkeypatch):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {})
        log.write(2, "train", {})
        whole = log.path.read_bytes()

        def killed(source, target):
            assert log.path.read_bytes() == whole, "the old file is there until the new one is"
            assert os.path.getsize(source) < len(whole)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            log.rewind(1)
        assert log.path.read_bytes() == whole


def test_time_goes_on_over_restarts(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with MetricsLog(tmp_path) as log:
        now[0] += 10
        log.write(1, "train", {})
        now[0] += 10
        log.write(2, "train", {})
    now[0] = 5.0  # another boot, another clock
    with MetricsLog(tmp_path) as log:
        now[0] += 1
        log.write(3, "train", {})
        log.rewind(1)
        now[0] += 2
        log.write(2, "train", {})
        assert [row["time"] for row in log.rows()] == [10, 12]


def test_rows_survive_sigkill(tmp_path):
    code = f"""
from siamjax.training.writer import MetricsLog
log = MetricsLog({str(tmp_path)!r})
log.write(1, "train", {{"loss": 0.5}})
print("written", flush=True)
import time; time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    with MetricsLog(tmp_path) as log:
        assert steps(log) == [1]


# ------------------------------------------------------------------------------------- tensorboard


def test_tensorboard_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install 'siamjax\[tensorboard\]'"):
        open_logs(tmp_path, tensorboard=True)
    with open_logs(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0})


class Recorder:
    """Stands where tensorboardX's SummaryWriter would."""

    calls: list = []  # noqa: RUF012

    def __init__(self, logdir, **options):
        self.calls.append(("open", logdir, options))

    def add_scalar(self, *arguments):
        self.calls.append(arguments)

    def close(self):
        self.calls.append("close")


def test_tensorboard_gets_the_numbers(tmp_path, monkeypatch):
    module = type(sys)("tensorboardX")
    module.SummaryWriter = Recorder  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    monkeypatch.setattr(Recorder, "calls", [])
    with open_logs(tmp_path, tensorboard=True) as log:
        log.write(20, "train", {"loss": 0.5, "nan": np.nan, "text": "x", "losses": [1.0]}, epoch=2)
        log.rewind(10)
    folder = str(tmp_path / "tensorboard")
    assert Recorder.calls == [
        ("open", folder, {}),
        ("train/epoch", 2, 20),
        ("train/loss", 0.5, 20),
        "close",
        ("open", folder, {"purge_step": 11}),
        "close",
    ]


def test_tensorboard_writes_events(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TensorBoardLog(tmp_path)
    log.write({"step": 1, "split": "train", "time": 0.0, "loss": 0.5})
    log.close()
    assert any(p.name.startswith("events") for p in (tmp_path / "tensorboard").iterdir())


# ------------------------------------------------------------------------------- train_curves.txt


def tutorial(path, train_loss, valid_accs):
    """The loop of the tutorial, letter for letter."""
    with open(path, "w") as f:
        f.write("[train_loss]\n")
        for loss in train_loss:
            f.write("{:.4f},".format(loss))  # noqa: UP032

        f.write("\n[valid_accs]\n")
        for acc in valid_accs:
            f.write("{:.2f},".format(acc))  # noqa: UP032


@pytest.mark.parametrize(("losses", "accuracies"), [([0.69314, 12.5, 1e-5], [40, 87.5]), ([], [])])
def test_train_curves_are_the_tutorials(tmp_path, losses, accuracies):
    write_train_curves(tmp_path / "ours.txt", (np.float32(x) for x in losses), accuracies)
    tutorial(tmp_path / "theirs.txt", losses, accuracies)
    assert (tmp_path / "ours.txt").read_bytes() == (tmp_path / "theirs.txt").read_bytes()


def test_train_curves_by_hand(tmp_path):
    write_train_curves(tmp_path / "c.txt", [0.69314, 0.5], [40.0, 60.0])
    text = "[train_loss]\n0.6931,0.5000,\n[valid_accs]\n40.00,60.00,"
    assert (tmp_path / "c.txt").read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["c.txt"]


# ---------------------------------------------------------------------------------------- progress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def plain(total=1000, start=0, **options):
    clock, stream = Clock(), io.StringIO()
    return clock, stream, Progress(total, start, stream=stream, clock=clock, **options)


def test_plain_lines_every_few_seconds_and_the_last():
    clock, stream, progress = plain(total=900)
    with progress:
        for step in range(100, 901, 100):
            progress.update(step, loss=1 / step, pairs_per_second=1234.4)
            clock.now += 2
        shown = stream.getvalue()
    assert shown == stream.getvalue(), "the last step is shown at once, and only once"
    assert shown.splitlines() == [
        "step 100/900  loss 0.0100  1,234 pairs/s",
        "step 400/900  loss 0.0025  1,234 pairs/s  10 s left",
        "step 700/900  loss 0.0014  1,234 pairs/s  4 s left",
        "step 900/900  loss 0.0011  1,234 pairs/s",
    ]


def test_the_last_update_is_shown_when_training_stops_early():
    clock, stream, progress = plain()
    with progress:
        for step in (1, 2, 3):
            progress.update(step, loss=0.5)
            clock.now += 1
    assert stream.getvalue().splitlines()[-1] == "step 3/1000  loss 0.5000  16 min 37 s left"


def test_time_left_leaves_out_compilation_and_the_steps_before_a_restart():
    clock, stream, progress = plain(total=1000, start=500, every=0)
    clock.now += 300  # compiling
    progress.update(510)
    clock.now += 10
    progress.update(520)
    assert stream.getvalue().splitlines() == ["step 510/1000", "step 520/1000  8 min 00 s left"]


def test_time_left_follows_the_recent_rate():
    clock, stream, progress = plain(total=100_000, every=0)
    for step in range(1, 500):  # slow at first: one step in 10 s
        progress.update(step)
        clock.now += 10
    for step in range(500, 40_500, 100):  # then 100 a second
        progress.update(step)
        clock.now += 1
    assert stream.getvalue().splitlines()[-1] == "step 40400/100000  9 min 56 s left"


def test_many_updates_a_second_do_not_shorten_the_memory():
    clock, stream, progress = plain(total=10_000, every=0)
    for step in range(1, 1001):
        progress.update(step)
        clock.now += 0.01 if step % 100 else 9.01  # a validation every hundred steps: 10 s in all
    progress.update(1001)
    assert stream.getvalue().splitlines()[-1] == "step 1001/10000  15 min 00 s left"


def test_another_unit_and_slow_rates():
    _, stream, progress = plain(unit="images")
    progress.update(1000, pairs_per_second=2.34)
    assert stream.getvalue() == "step 1000/1000  2.3 images/s\n"


def test_say_prints_a_line(capsys):
    with Progress(10, interactive=False) as progress:
        progress.say("step 5: koch-within 20-way 1-shot")
    assert capsys.readouterr().err == "step 5: koch-within 20-way 1-shot\n"


def test_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock, stream = Clock(), Terminal()
    with Progress(200, 100, stream=stream, clock=clock) as progress:
        progress.update(110, loss=0.53124, pairs_per_second=312)
        clock.now += 2
        progress.update(120, loss=0.5, pairs_per_second=312)
        progress.say("a line of its own")
        progress.update(150, loss=0.4, pairs_per_second=312)
    text = stream.getvalue()
    assert text.lstrip("\r").startswith(" 50% "), "a resumed run begins where it was"
    assert "\ra line of its own\n" in text
    last = text.rstrip("\n").split("\r")[-1]
    assert last.startswith(" 75% ")
    assert "150/200" in last
    assert "loss 0.4000  312 pairs/s  2 s left" in last


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"),
        (3599.9, "1 h 00 min"), (7320, "2 h 02 min"), (86400, "1 d 0 h"), (190000, "2 d 4 h"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text
