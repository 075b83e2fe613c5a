"""Properties of every trial, the balance of the draws, and the texts of the errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamjax.data.episodes import koch_within, random_class, within_alphabet
from siamjax.types import LabelledImages


def drawn(
    classes_per_group=(6, 9, 4), drawers=7, each=1, known=True, named=None, missing=()
) -> LabelledImages:
    """Every drawer draws every class `each` times, but for the `missing` (label, drawer)."""
    rows = [
        (label, group, drawer)
        for label, group in enumerate(np.repeat(range(len(classes_per_group)), classes_per_group))
        for drawer in range(drawers)
        for _ in range(each)
        if (label, drawer) not in missing
    ]
    rng = np.random.default_rng(3)  # the order of the images must not matter
    labels, groups, who = np.array(rows, np.int32)[rng.permutation(len(rows))].T
    return LabelledImages(
        images=np.zeros((len(rows), 2, 2, 1), np.uint8),
        labels=labels,
        groups=groups,
        drawers=who if known else np.full_like(who, -1),
        class_names=tuple(f"c{i}" for i in range(sum(classes_per_group))),
        group_names=named or tuple(f"g{i}" for i in range(len(classes_per_group))),
    )


def check_trials(images, e, way, shot, trials):
    """What holds under every protocol."""
    assert e.query.dtype == e.support.dtype == e.answer.dtype == np.int32
    assert e.query.shape == e.answer.shape == (trials,)
    assert e.support.shape == (trials, way, shot)
    for query, support, answer in zip(e.query, e.support, e.answer, strict=True):
        labels = images.labels[support]
        assert (labels == labels[:, :1]).all(), "the supports of a class are of that class"
        assert len(set(labels[:, 0])) == way, "the classes are distinct"
        assert images.labels[query] == labels[answer, 0], "the answer is the query's class"
        assert len(set(support.ravel())) == way * shot, "no image twice"
        assert query not in support, "the query is not its own support"


@pytest.mark.parametrize("known", [True, False])
@given(
    way=st.integers(2, 6), shot=st.integers(1, 4), each=st.integers(1, 3), seed=st.integers(0, 99)
)
@settings(max_examples=25, deadline=None)
def test_within_alphabet_trials(known, way, shot, each, seed):
    images = drawn(each=each, known=known)
    e = within_alphabet(images, way=way, shot=shot, trials=12, seed=seed)
    check_trials(images, e, way, shot, 12)
    assert e.protocol == "within-alphabet"
    for query, support in zip(e.query, e.support, strict=True):
        assert set(images.groups[support.ravel()]) == {images.groups[query]}
        if known:
            by = images.drawers[support]
            assert (by == by[:1]).all(), "the j-th shot of every class is by one drawer"
            assert len({images.drawers[query], *by[0]}) == shot + 1


@given(way=st.integers(2, 19), shot=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_random_class_trials(way, shot, seed):
    images = drawn()
    e = random_class(images, way=way, shot=shot, trials=12, seed=seed)
    check_trials(images, e, way, shot, 12)
    assert e.protocol == "random-class"


def test_random_class_mixes_groups_and_drawers():
    images = drawn()
    e = random_class(images, way=4, shot=1, trials=200, seed=0)
    groups = images.groups[e.support[:, :, 0]]
    assert (groups != groups[:, :1]).any(1).mean() > 0.8
    own = e.support[np.arange(200), e.answer, 0]
    assert len(set(images.drawers[e.support[:, :, 0]].ravel())) == 7
    assert (images.drawers[own] != images.drawers[e.query]).all(), "one image a drawer and class"


def test_groups_take_turns_and_those_too_small_are_left_out():
    images = drawn((6, 9, 4, 6))
    e = within_alphabet(images, way=5, shot=1, trials=100, seed=1)
    counts = np.bincount(images.groups[e.query], minlength=4)
    assert counts[2] == 0
    assert sorted(counts) == [0, 33, 33, 34]
    first = np.bincount(images.groups[e.query[:9]], minlength=4)
    assert sorted(first) == [0, 3, 3, 3], "the first trials are as balanced as all of them"


@pytest.mark.parametrize("protocol", [within_alphabet, random_class])
def test_answers_classes_and_drawers_are_uniform(protocol):
    images = drawn((5,), drawers=4)
    e = protocol(images, way=5, shot=1, trials=4000, seed=2)
    by_answer = np.bincount(e.answer, minlength=5)
    by_class = np.bincount(images.labels[e.query], minlength=5)
    by_drawer = np.bincount(images.drawers[e.query], minlength=4)
    both = np.bincount(e.answer * 5 + images.labels[e.query], minlength=25)
    for counts in (by_answer, by_class, by_drawer, both):
        expected = 4000 / len(counts)
        assert (abs(counts - expected) < 5 * np.sqrt(expected)).all(), counts


@pytest.mark.parametrize("protocol", [within_alphabet, random_class])
def test_seed_decides_and_global_state_does_not(protocol):
    images = drawn()
    np.random.seed(0)
    first = protocol(images, way=4, shot=2, trials=20, seed=5)
    np.random.seed(1)
    again = protocol(images, way=4, shot=2, trials=20, seed=5)
    other = protocol(images, way=4, shot=2, trials=20, seed=6)
    for name in ("query", "support", "answer"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.support, other.support)


def test_trials_of_a_seed_stay_what_they_were():
    e = within_alphabet(drawn(), way=3, shot=1, trials=2, seed=0)
    images = drawn()
    assert images.labels[e.query].tolist() == [15, 3]
    assert images.drawers[e.query].tolist() == [0, 3]
    assert images.labels[e.support[..., 0]].tolist() == [[16, 15, 18], [3, 5, 2]]


def test_a_drawer_who_missed_some_classes_is_worked_around():
    missing = {(label, drawer) for drawer in range(1, 6) for label in (drawer, drawer + 1)}
    images = drawn((8,), drawers=6, missing=missing)
    e = within_alphabet(images, way=5, shot=2, trials=60, seed=0)
    check_trials(images, e, 5, 2, 60)
    by = images.drawers[e.support]
    assert (by == by[:, :1]).all()
    assert (images.drawers[e.query][:, None] != by[:, 0]).all()


def test_no_common_drawers_is_an_error():
    missing = {(label, drawer) for label in range(4) for drawer in range(8) if drawer // 2 != label}
    with pytest.raises(ValueError, match=r"group 'g0' has 4 classes, .* no 1 drawers shared 3 of"):
        within_alphabet(drawn((4,), drawers=8, missing=missing), way=3, shot=1, trials=1, seed=0)


def test_ungrouped_images_say_random_class():
    plain = drawn((8,), known=False, named=("all",))
    assert within_alphabet(plain, way=5, shot=1, trials=1, seed=0).protocol == "random-class"
    one_alphabet = drawn((8,), known=False, named=("Greek",))
    e = within_alphabet(one_alphabet, way=5, shot=1, trials=1, seed=0)
    assert e.protocol == "within-alphabet"


def test_classes_with_too_few_images_are_left_out():
    images = drawn((5,), drawers=3, known=False, missing={(2, 1), (2, 2)})
    for protocol in (within_alphabet, random_class):
        e = protocol(images, way=4, shot=1, trials=30, seed=0)
        assert 2 not in images.labels[e.support]


def test_two_images_by_one_drawer_are_no_two_drawers():
    images = drawn((5,), drawers=3, each=2, missing={(2, 1), (2, 2)})
    e = within_alphabet(images, way=4, shot=1, trials=30, seed=0)
    assert 2 not in images.labels[e.support]
    with pytest.raises(ValueError, match="'g0', has 4 of them"):
        within_alphabet(images, way=5, shot=1, trials=1, seed=0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: within_alphabet(drawn(), way=10, shot=1, trials=1, seed=0),
            r"10 classes with images by 2 drawers or more; the largest group, 'g1', has 9 of them:"
            r" set eval\.way to at most 9, or use random_class",
        ),
        (
            lambda: within_alphabet(drawn(), way=5, shot=7, trials=1, seed=0),
            r"by 8 drawers or more; the largest group, 'g0', has 0 of them: lower eval\.shot",
        ),
        (
            lambda: within_alphabet(drawn(known=False), way=10, shot=1, trials=1, seed=0),
            r"10 classes with 2 images or more",
        ),
        (
            lambda: random_class(drawn(), way=20, shot=1, trials=1, seed=0),
            r"need 20 classes with 2 images or more; there are 19 of them: set eval\.way to at most"
            r" 19$",
        ),
        (
            lambda: random_class(drawn(drawers=1), way=2, shot=1, trials=1, seed=0),
            r"there are 0 of them: give more images",
        ),
        (
            lambda: within_alphabet(drawn((2, 2)), way=3, shot=1, trials=1, seed=0),
            r"has 2 of them: set eval\.way to at most 2",
        ),
        (
            lambda: random_class(drawn(drawers=2), way=2, shot=2, trials=1, seed=0),
            r"there are 0 of them: lower eval\.shot, or give more images",
        ),
        (
            lambda: within_alphabet(drawn(), way=1, shot=1, trials=1, seed=0),
            "way must be at least 2; got 1",
        ),
        (
            lambda: random_class(drawn(), way=2, shot=0, trials=1, seed=0),
            "shot must be at least 1; got 0",
        ),
        (
            lambda: random_class(drawn(), way=2, shot=1, trials=0, seed=0),
            "trials must be at least 1; got 0",
        ),
        (
            lambda: koch_within(drawn((20,) * 9 + (19,)), seed=0),
            "10 alphabets with 20 characters .*; 9 of the 10 groups",
        ),
        (lambda: koch_within(drawn(known=False), seed=0), r"by drawers \[-1\] \(-1: unknown\)"),
        (lambda: koch_within(drawn(), seed=0, drawers=[1, 9]), r"asked for \[1, 9\]"),
        (lambda: koch_within(drawn(), seed=0, drawers=[1]), r"at least two drawers"),
    ],
)
def test_errors(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_koch_within_runs():
    images = drawn((20, 19, *(22,) * 11), drawers=6)
    e = koch_within(images, seed=4)
    assert e.protocol == "koch-within"
    check_trials(images, e, 20, 1, 400)
    runs = e.support.reshape(20, 20, 20)
    assert (runs == runs[:, :1]).all(), "the trials of a run share their support"
    queries = e.query.reshape(20, 20)
    asked, shown = images.drawers[queries], images.drawers[runs[:, 0]]
    assert (asked == asked[:, :1]).all(), "a run's queries are by one drawer"
    assert (shown == shown[:, :1]).all(), "a run's supports are by one drawer"
    assert (asked[:, 0] != shown[:, 0]).all()
    assert set(asked.ravel()) | set(shown.ravel()) == {2, 3, 4, 5}, "the last four drawers"
    assert all(len(set(row)) == 20 for row in images.labels[queries]), "each character asked once"
    alphabets = images.groups[queries[:, 0]].reshape(10, 2)
    assert (alphabets[:, 0] == alphabets[:, 1]).all(), "two runs of each alphabet"
    assert (np.diff(alphabets[:, 0]) > 0).all(), "ten different alphabets, in order"
    assert 1 not in alphabets, "19 characters are too few"


def test_koch_within_is_fixed_by_its_seed_and_takes_other_drawers():
    images = drawn((20,) * 10, drawers=6)
    same = [koch_within(images, seed=4, drawers=(0, 2, 5)) for _ in range(2)]
    assert np.array_equal(same[0].support, same[1].support)
    assert set(images.drawers[same[0].support].ravel()) == {0, 2, 5}
    assert not np.array_equal(same[0].support, koch_within(images, seed=5).support)


def test_the_two_koch_runs_of_an_alphabet_differ():
    images = drawn((20,) * 10, drawers=2)
    for seed in range(5):
        drawers = images.drawers[koch_within(images, seed=seed).query].reshape(10, 2, 20)[:, :, 0]
        assert (drawers[:, 0] != drawers[:, 1]).all()


def test_a_drawer_who_missed_a_character_is_in_no_koch_run_of_its_alphabet():
    images = drawn((20,) * 11, drawers=4, missing={(5, 0), (5, 1), (5, 2), (25, 3)})
    e = koch_within(images, seed=0)
    groups = images.groups[e.query]
    assert 0 not in groups, "one drawer alone drew all of it"
    assert 3 not in images.drawers[e.query][groups == 1]
    check_trials(images, e, 20, 1, 400)
