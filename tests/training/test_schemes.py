from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import labelled

from siamjax.data.pairs import class_table
from siamjax.training import schemes

DATA = labelled(classes=8, each=5, groups=2)
TABLE = class_table(DATA)


def draws(scheme, count=30):
    draw = jax.jit(scheme)
    return [jax.device_get(draw(jax.random.key(i), i, TABLE)) for i in range(count)]


@pytest.mark.parametrize("within_group", [False, True])
def test_balanced_pairs_are_what_they_say(within_group):
    seen = set()
    for draw in draws(partial(schemes.balanced, pairs=16, within_group=within_group)):
        left, right = DATA.labels[draw.left], DATA.labels[draw.right]
        np.testing.assert_array_equal(left == right, draw.same)
        assert draw.same.sum() == 8
        assert (draw.left != draw.right).all()
        if within_group:
            np.testing.assert_array_equal(DATA.groups[draw.left], DATA.groups[draw.right])
        seen |= set(draw.left.tolist()) | set(draw.right.tolist())
    assert seen == set(range(len(DATA)))


def test_a_drawn_table_is_the_draw_of_its_seed():
    draw = schemes.balanced(jax.random.key(5), 0, TABLE, pairs=40)
    table = schemes.drawn_table(TABLE, 40, seed=5)
    for name in ("left", "right", "same"):
        assert isinstance(getattr(table, name), np.ndarray)
        np.testing.assert_array_equal(getattr(table, name), getattr(draw, name))


def test_balanced_draws_classes_and_partners_uniformly():
    pairs = 40_000
    (draw,) = draws(partial(schemes.balanced, pairs=pairs), 1)
    other = DATA.labels[draw.right][~np.asarray(draw.same)]
    np.testing.assert_allclose(np.bincount(other), pairs / 2 / 8, rtol=0.08)
    # a positive's partner: each of the 4 others of 5 equally often
    shift = (np.asarray(draw.right) - np.asarray(draw.left))[np.asarray(draw.same)] % 5
    np.testing.assert_allclose(np.bincount(shift, minlength=5)[1:], pairs / 2 / 4, rtol=0.05)
    assert (shift != 0).all()


def pairs_of(draw, same):
    """(left, right) of one kind, as one number each."""
    chosen = np.asarray(draw.same) == same
    return np.asarray(draw.left)[chosen] * len(DATA) + np.asarray(draw.right)[chosen]


def uniform(drawn, cells):
    """Whether each of the cells was drawn equally often, and nothing else, at four sigma."""
    found, count = np.unique(drawn, return_counts=True)
    expected = len(drawn) / cells
    statistic = np.square(count - expected).sum() / expected
    return len(found) == cells and abs(statistic - cells) < 4 * np.sqrt(2 * cells)


@pytest.mark.parametrize(("scheme", "others"), [("balanced", 35), ("within-group", 15)])
def test_every_pair_of_images_is_drawn_equally_often(scheme, others):
    (draw,) = draws(partial(schemes.SCHEMES[scheme], pairs=60_000), 1)
    assert uniform(pairs_of(draw, True), 40 * 4)
    assert uniform(pairs_of(draw, False), 40 * others)


def test_triples_are_drawn_from_all_that_there_are_equally_often():
    (draw,) = draws(partial(schemes.triples, pairs=100_000), 1)
    left, right = (np.asarray(a).astype(np.int64) for a in (draw.left, draw.right))
    a, b, c, other = left[0::2], right[0::2], left[1::2], right[1::2]
    assert uniform((a * 5 + b % 5) * 5 + c % 5, 40 * 4 * 3)
    assert uniform(c * 40 + other, 40 * 35)
    assert uniform(a * 40 + other, 40 * 35)


@pytest.mark.parametrize("pairs", [1, 7, 8])
@pytest.mark.parametrize("scheme", ["balanced", "within-group", "triples"])
def test_as_many_pairs_as_asked_for_the_first_of_one_class(scheme, pairs):
    (draw,) = draws(partial(schemes.SCHEMES[scheme], pairs=pairs), 1)
    assert draw.same.tolist() == [i % 2 == 0 for i in range(pairs)]
    assert draw.weight.tolist() == [1] * pairs
    assert draw.slot.tolist() == list(range(pairs))
    assert len(draw.left) == len(draw.right) == pairs


@pytest.mark.parametrize(
    ("scheme", "first", "second"),
    [
        ("balanced", [21, 5, 33, 19, 32, 16, 38], [20, 18, 31, 34, 33, 12, 37]),
        ("within-group", [21, 20, 33, 29, 32, 26, 38], [20, 13, 31, 19, 33, 37, 37]),
        ("triples", [23, 22, 17, 15, 33, 34, 30], [20, 35, 16, 11, 32, 14, 31]),
    ],
)
def test_pairs_of_a_key_stay_what_they_were(scheme, first, second):
    """A run of an earlier version goes on with the same batches."""
    draw = jax.jit(partial(schemes.SCHEMES[scheme], pairs=7))(jax.random.key(3), 0, TABLE)
    assert (draw.left.tolist(), draw.right.tolist()) == (first, second)


def test_groups_of_a_key_stay_what_they_were():
    scheme = partial(schemes.in_batch, pairs=8, groups=2, images_per_class=2, turned=0.75)
    draw = jax.jit(scheme)(jax.random.key(3), 0, TABLE)
    assert draw.index.tolist() == [[11, 13, 31, 32, 1, 0, 22, 21], [5, 7, 29, 28, 35, 38, 17, 15]]
    assert draw.turns[:, 0].tolist() == [1, 3]
    unturned = jax.jit(partial(schemes.in_batch, pairs=8, groups=2, images_per_class=2))
    assert not unturned(jax.random.key(3), 0, TABLE).turns.any()


def test_a_class_of_one_image_gives_negatives_only():
    data = labelled(classes=4, each=3).select(np.array([0, 3, 4, 6, 7, 9, 10]))
    draw = jax.jit(partial(schemes.balanced, pairs=400))(jax.random.key(0), 0, class_table(data))
    positives = data.labels[np.asarray(draw.left)][np.asarray(draw.same)]
    assert 0 not in positives
    assert 0 in np.asarray(draw.left) or 0 in np.asarray(draw.right)


def test_in_batch_draws_distinct_images_of_distinct_classes_of_one_group():
    scheme = partial(schemes.in_batch, pairs=9, groups=2, images_per_class=3)
    for draw in draws(scheme):
        assert draw.weight.sum() == 18
        for slot in (0, 1):
            mine = draw.index[slot]
            assert len(set(mine.tolist())) == 9
            assert np.bincount(DATA.labels[mine]).max() == 3
            assert len(set(DATA.groups[mine].tolist())) == 1
        np.testing.assert_array_equal(draw.label, DATA.labels[draw.index])
        assert set(DATA.groups[draw.image_index]) == {0, 1}


def test_in_batch_gives_weight_0_to_what_is_not_there():
    # 4 classes of a group and 5 images of a class exist; 6 and 7 are asked for.
    (draw,) = draws(partial(schemes.in_batch, pairs=21, groups=1, images_per_class=7), 1)
    assert float(draw.weight.sum()) == 4 * 5
    there = np.asarray(draw.index)[np.asarray(draw.weight) > 0]
    assert len(set(there.tolist())) == 20


def test_turned_groups_turn_as_a_whole_and_as_often_as_asked():
    scheme = partial(schemes.in_batch, pairs=8, groups=2, images_per_class=2, turned=0.75)
    turns = np.array([draw.turns for draw in draws(scheme, 300)]).reshape(600, 8)
    assert (turns == turns[:, :1]).all()
    share = np.bincount(turns[:, 0], minlength=4) / 600
    np.testing.assert_allclose(share, [0.25] * 4, atol=0.06)


@pytest.mark.parametrize("size", [3, 5, 9])
def test_distinct_is_uniform_and_in_random_order(size):
    distinct = jax.jit(jax.vmap(partial(schemes._distinct, amount=5), (0, None)))
    rows = np.asarray(distinct(jax.random.split(jax.random.key(0), 4000), size))
    assert all(len(set(row.tolist())) == 5 for row in rows)
    first = np.bincount(rows[:, 0], minlength=size)
    np.testing.assert_allclose(first, 4000 / size, rtol=0.2)
    if size < 5:
        assert (rows[:, size:] >= size).all()
    else:
        np.testing.assert_allclose(np.bincount(rows.ravel()), 4000 * 5 / size, rtol=0.1)


def test_shares_put_together_are_the_whole():
    (draw,) = draws(partial(schemes.balanced, pairs=8), 1)
    cut = jax.jit(partial(schemes.share, parts=4))
    parts = [cut(draw, i) for i in range(4)]
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    jax.tree.map(np.testing.assert_array_equal, whole, draw)
    assert set(np.asarray(draw.image_slot).tolist()) == set(range(16))


def test_triples_share_a_class_of_three_different_images():
    for draw in draws(partial(schemes.triples, pairs=8), 10):
        left, right = DATA.labels[draw.left], DATA.labels[draw.right]
        np.testing.assert_array_equal(left == right, draw.same)
        np.testing.assert_array_equal(left[0::2], left[1::2])
        three = np.stack([draw.left[0::2], draw.right[0::2], draw.left[1::2]], 1)
        assert all(len(set(row.tolist())) == 3 for row in three)


def test_a_table_is_read_in_its_order_and_its_surplus_weighs_nothing():
    table = schemes.PairRows(
        left=np.array([10, 11, 12, 13, 14]),
        right=np.array([20, 21, 22, 23, 24]),
        same=np.array([True, False, True, False, True]),
        order=np.array([4, 2, 0, 1, 3, 4]),
    )
    read = jax.jit(partial(schemes.from_table, pairs=2))
    rows = [jax.device_get(read(jax.random.key(0), step, table)) for step in range(4)]
    assert [row.left.tolist() for row in rows] == [[14, 12], [10, 11], [13, 14], [14, 12]]
    assert rows[0].right.tolist() == [24, 22]
    assert rows[1].same.tolist() == [True, False]
    assert [row.weight.tolist() for row in rows] == [[1, 1], [1, 1], [1, 0], [1, 1]]
