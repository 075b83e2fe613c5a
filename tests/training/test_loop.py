from types import SimpleNamespace

import numpy as np
import pytest

from siamjax.training import loop
from siamjax.training.loop import Plan, steps_per_dispatch


@pytest.mark.parametrize(
    ("wanted", "scans_well", "expected"), [("auto", True, 20), ("auto", False, 1), ("3", False, 3)]
)
def test_steps_per_dispatch(wanted, scans_well, expected):
    assert steps_per_dispatch(wanted, scans_well, 20, 50, 30) == expected


def dispatches(plan, start=0):
    sizes, at = [], start
    while at < plan.total:
        sizes.append(plan.size(at))
        at += sizes[-1]
    assert at == plan.total
    return sizes


def test_dispatches_are_whole_up_to_the_next_event_and_single_after():
    plan = Plan(total=25, log=10, evaluate=20, checkpoint=100, epoch=7, dispatch=4)
    assert dispatches(plan) == [4, 4, 1, 1, 4, 4, 1, 1, 4, 1]


def test_a_shuffling_run_never_dispatches_across_an_epoch():
    plan = Plan(14, log=100, evaluate=100, checkpoint=100, epoch=7, dispatch=4, shuffles=True)
    assert dispatches(plan) == [4, 1, 1, 1, 4, 1, 1, 1]


@pytest.mark.parametrize("stopped", [4, 8, 9, 14])
def test_a_resumed_run_dispatches_what_an_undisturbed_one_does(stopped):
    plan = Plan(total=25, log=10, evaluate=20, checkpoint=100, epoch=7, dispatch=4)
    whole, at = [], 0
    for size in dispatches(plan):
        whole.append((at, size))
        at += size
    resumed, at = [], stopped
    for size in dispatches(plan, stopped):
        resumed.append((at, size))
        at += size
    assert resumed == [item for item in whole if item[0] >= stopped]


def test_due_at_multiples_and_at_the_end():
    plan = Plan(total=25, log=10, evaluate=20, checkpoint=100, epoch=7)
    assert [step for step in range(1, 26) if plan.due(step, plan.log)] == [10, 20, 25]


def test_what_was_done_before_a_pause_is_no_speed(monkeypatch):
    """A dispatch under way during a validation is fetched at once after it, in no time."""
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    window = loop._Window(
        SimpleNamespace(devices=SimpleNamespace(get=lambda x: x), pairs_per_step=10)
    )

    def dispatch(seconds):
        clock[0] += seconds
        window.add({"loss": np.ones(1)})

    for _ in range(4):  # the first ends with the compiler, of the last only the start was seen
        dispatch(1.0)
    assert window.so_far()["pairs_per_second"] == 10
    clock[0] += 100.0
    window.restart_clock()
    dispatch(0.001)
    assert "pairs_per_second" not in window.so_far()
    for _ in range(2):
        dispatch(1.0)
    assert window.so_far()["pairs_per_second"] == 10
