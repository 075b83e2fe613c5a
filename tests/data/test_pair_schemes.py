from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamjax.data import mnist
from siamjax.data.pair_schemes import (
    PAIR_TABLES,
    all_once,
    check_table,
    connected,
    consecutive,
    distinct,
    epoch_order,
)
from siamjax.types import PairTable

nine = np.array([5, 2, 5, 2, 2, 9, 5, 9, 2], np.int32)
# At least two classes, of which the first has at least two images; labels with gaps, in any order.
labels_of = st.lists(st.integers(0, 6), max_size=30).map(lambda more: [3, 8, 3, *more])


def rows(table):
    return list(zip(table.left.tolist(), table.right.tolist(), table.same.tolist(), strict=True))


def every_scheme(labels, seed):
    yield all_once(labels, seed)
    yield all_once(labels, seed, allow_self=True)
    yield consecutive(labels, seed)


@settings(deadline=None, max_examples=60)
@given(labels_of, st.integers(0, 2**31 - 1))
def test_every_table_tells_the_truth(labels, seed):
    labels = np.array(labels, np.int32)
    for table, again in zip(every_scheme(labels, seed), every_scheme(labels, seed), strict=True):
        assert (table.left.dtype, table.right.dtype, table.same.dtype) == (np.int32, np.int32, bool)
        check_table(table, len(labels), labels)
        assert rows(table) == rows(again)  # nothing hangs on a global state


def test_another_seed_gives_other_pairs():
    labels = np.arange(200) % 10
    for scheme in (all_once, consecutive, lambda x, s: distinct(x, s, 100)):
        assert rows(scheme(labels, 0)) != rows(scheme(labels, 1))


def test_tables_of_a_seed_stay_what_they_were():
    labels = np.repeat(np.arange(4), 3)
    table = all_once(labels, 7)
    assert table.right.tolist()[:12] == [1, 10, 2, 5, 0, 10, 4, 1, 3, 6, 4, 11]
    table = consecutive(labels, 7)
    assert table.left.tolist() == [0, 0, 1, 1, 3, 3, 4, 4, 6, 6, 7, 7, 9, 9, 10, 10]
    assert table.right.tolist() == [1, 9, 2, 4, 4, 0, 5, 1, 7, 0, 8, 10, 10, 0, 11, 7]
    table = distinct(labels, 7, 8)
    assert table.left.tolist() == [9, 0, 6, 1, 2, 4, 3, 2]
    assert table.right.tolist() == [11, 2, 9, 2, 3, 10, 4, 6]
    assert table.same.tolist() == [True, True, False, True, False, False, True, False]


def test_the_names():
    assert list(PAIR_TABLES.items()) == [("all-once", all_once), ("consecutive", consecutive)]


# ---------------------------------------------------------------------- all-once


@settings(deadline=None, max_examples=60)
@given(labels_of, st.integers(0, 100))
def test_all_once_gives_each_image_one_pair_of_each_kind(labels, seed):
    labels = np.array(labels)
    size = Counter(labels.tolist())
    expected = []
    for i, label in enumerate(labels.tolist()):
        expected += [(i, True)] * (size[label] > 1) + [(i, False)]
    table = all_once(labels, seed)
    assert [(left, same) for left, _, same in rows(table)] == expected
    assert not (table.left == table.right).any()
    table = all_once(labels, seed, allow_self=True)
    assert table.left.tolist() == np.repeat(np.arange(len(labels)), 2).tolist()


def test_all_once_draws_every_partner_equally_often():
    drawn = {True: Counter(), False: Counter()}
    selves = Counter()
    for seed in range(3000):
        for left, right, same in rows(all_once(nine, seed)):
            if left == 1:
                drawn[same][right] += 1
        selves.update(r for x, r, s in rows(all_once(nine, seed, allow_self=True)) if x == 1 and s)
    # Image 1 is of class 2, with 3, 4 and 8; five images are of other classes.
    for counts, partners in (
        (drawn[True], [3, 4, 8]),
        (drawn[False], [0, 2, 5, 6, 7]),
        (selves, [1, 3, 4, 8]),
    ):
        assert sorted(counts) == partners
        share = 3000 / len(partners)
        assert all(abs(n - share) < 5 * share**0.5 for n in counts.values())


# ---------------------------------------------------------------------- consecutive


def keras_create_pairs(labels, others):
    """The reference's loop; `others` gives its random increments."""
    names = np.unique(labels)
    members = [np.where(labels == name)[0] for name in names]
    n = min(len(m) for m in members) - 1
    table = []
    for d in range(len(names)):
        for i in range(n):
            table.append((members[d][i], members[d][i + 1], True))
            dn = (d + next(others)) % len(names)
            table.append((members[d][i], members[dn][i], False))
    return table


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=20), st.integers(0, 100))
def test_consecutive_is_the_reference_loop(more, seed):
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3, *more]) * 3
    table = consecutive(labels, seed, use_all=False)
    classes, n = 4, min(Counter(labels.tolist()).values()) - 1
    # Read the increments off the table itself, so that the loop has to agree in all the rest.
    ids = labels // 3
    increments = (ids[table.right] - ids[table.left])[1::2] % classes
    assert (increments > 0).all()
    assert len(table.left) == 2 * classes * n
    assert rows(table) == keras_create_pairs(labels, iter(increments.tolist()))


def test_consecutive_chooses_the_other_class_equally_often():
    labels = np.repeat(np.arange(4), 2000)
    table = consecutive(labels, 0)
    other = labels[table.right[~table.same & (labels[table.left] == 1)]]
    counts = np.bincount(other, minlength=4)
    assert counts[1] == 0
    assert (np.abs(counts[[0, 2, 3]] - 1999 / 3) < 5 * (1999 / 3) ** 0.5).all()


def test_consecutive_with_all_images():
    table = consecutive(nine, 4)  # class 2: 1 3 4 8, class 5: 0 2 6, class 9: 5 7
    chains = [m for name in (2, 5, 9) for m in pairwise(np.flatnonzero(nine == name))]
    assert [(a, b) for a, b, same in rows(table) if same] == chains
    for left, right, same in rows(table):
        if not same:  # at the same place, counted round where the other class is shorter
            place = np.flatnonzero(nine == nine[left]).tolist().index(left)
            others = np.flatnonzero(nine == nine[right])
            assert right == others[place % len(others)]
    used = set(table.left.tolist()) | set(table.right.tolist())
    assert used == set(range(len(nine)))


def test_consecutive_and_a_class_of_one_image():
    labels = np.array([0, 0, 0, 1, 2, 2])
    assert len(consecutive(labels, 0).left) == 2 * (2 + 0 + 1)
    with pytest.raises(ValueError, match=r"1 classes have one image \(labels 1\).*use_all to True"):
        consecutive(labels, 0, use_all=False)


def test_the_published_counts_on_mnist(real_data):
    places = mnist.find(real_data)
    train = mnist.read_idx(places["train-labels-idx1-ubyte"]).astype(np.int32)
    test = mnist.read_idx(places["t10k-labels-idx1-ubyte"]).astype(np.int32)
    assert len(all_once(train, 0, allow_self=True).left) == 120_000
    assert len(all_once(test, 0, allow_self=True).left) == 20_000
    assert len(consecutive(train, 0, use_all=False).left) == 108_400
    assert len(consecutive(test, 0, use_all=False).left) == 17_820
    assert len(consecutive(train, 0).left) == 119_980


# ---------------------------------------------------------------------- distinct


def test_distinct_can_give_every_pair_there_is():
    labels = np.array([0, 0, 0, 1, 1])  # 3 + 1 same, 6 different
    table = distinct(labels, 7, 8)
    pairs = [(min(a, b), max(a, b), s) for a, b, s in rows(table)]
    assert len(set(pairs)) == 8
    assert {(a, b) for a, b, s in pairs if s} == {(0, 1), (0, 2), (1, 2), (3, 4)}
    check_table(table, 5, labels)
    with pytest.raises(ValueError, match="give 4 different pairs of one class; 5 are wanted"):
        distinct(labels, 7, 9)
    with pytest.raises(ValueError, match="give 4 different pairs of different classes; 5 are"):
        distinct(np.array([0, 0, 0, 0, 1]), 7, 10)


@pytest.mark.parametrize("pairs", [1, 2, 7, 100])
def test_distinct_is_half_and_half_in_mixed_order(pairs):
    table = distinct(np.arange(60) % 6, 3, pairs)
    assert len(table.left) == pairs
    assert int(table.same.sum()) == (pairs + 1) // 2
    if pairs == 100:
        assert 10 < table.same[:50].sum() < 40


# ---------------------------------------------------------------------- errors and checks


@pytest.mark.parametrize("scheme", [all_once, consecutive, lambda x, s: distinct(x, s, 4)])
def test_labels_that_give_no_pairs(scheme):
    with pytest.raises(ValueError, match="at least two classes; the labels hold 1"):
        scheme(np.zeros(4, np.int32), 0)
    with pytest.raises(ValueError, match="at least two images; each of the 4 classes has one"):
        scheme(np.arange(4), 0)


def table_of(*rows):
    left, right, same = zip(*rows, strict=True)
    return PairTable(np.array(left, np.int32), np.array(right, np.int32), np.array(same, bool))


def test_check_table_reports_all_faults_at_once():
    check_table(table_of((0, 1, True), (1, 2, False)), 3)
    check_table(table_of((0, 0, True), (1, 2, False)), 3, np.array([0, 0, 1]))
    with pytest.raises(ValueError) as error:
        check_table(table_of((0, 3, False), (1, 1, False), (-1, 0, False)), 3)
    assert str(error.value) == (
        "the pair table cannot be used:\n"
        "  - 2 rows point outside the 3 images: rows 0, 2\n"
        "  - 1 rows say that an image differs from itself: rows 1\n"
        "  - no pair is of one class: without one nothing can be learned"
    )
    with pytest.raises(ValueError, match=r"2 rows point outside the 3 images: rows 1, 2"):
        check_table(table_of((0, 1, True), (3, 2, False), (1, -1, False)), 3)
    with pytest.raises(ValueError, match="no pair is of different classes"):
        check_table(table_of((0, 1, True)), 3)
    with pytest.raises(ValueError, match="1 rows contradict the labels: rows 1"):
        check_table(table_of((0, 1, True), (1, 2, True), (0, 2, False)), 3, np.array([0, 0, 1]))
    with pytest.raises(ValueError, match=r"one length; got the shapes \(2,\), \(2,\), \(1,\)"):
        check_table(table_of((0, 1, True), (1, 2, False))._replace(same=np.ones(1, bool)), 3)


# ---------------------------------------------------------------------------- epochs and components


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_epoch_order(pairs, batch, seed, epoch):
    order = epoch_order(pairs, batch, seed, epoch)
    assert order.dtype == np.int32
    assert len(order) % batch == 0
    assert 0 <= len(order) - pairs < batch
    assert sorted(order[:pairs].tolist()) == list(range(pairs))
    np.testing.assert_array_equal(order[pairs:], np.resize(order[:pairs], len(order))[pairs:])
    assert order.tolist() == epoch_order(pairs, batch, seed, epoch).tolist()


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(50, 5, s, e).tolist()) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    assert epoch_order(3, 3, 1, 2, shuffle=False).tolist() == [0, 1, 2]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=20))
def test_connected_is_a_walk_over_the_pairs(pairs):
    expected = []
    for start in range(15):
        reached, todo = {start}, [start]
        while todo:
            at = todo.pop()
            for a, b in pairs:
                for here, there in ((a, b), (b, a)):
                    if here == at and there not in reached:
                        reached.add(there)
                        todo.append(there)
        expected.append(min(reached))
    left, right = np.array(pairs, int).reshape(-1, 2).T
    assert connected(15, left, right).tolist() == expected


def test_connected_follows_a_long_chain():
    order = np.random.default_rng(0).permutation(5000)
    assert not connected(5000, order[:-1], order[1:]).any()
