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


def test_balanced_draws_classes_and_partners_uniformly():
    pairs = 40_000
    (draw,) = draws(partial(schemes.balanced, pairs=pairs), 1)
    other = DATA.labels[draw.right][~np.asarray(draw.same)]
    np.testing.assert_allclose(np.bincount(other), pairs / 2 / 8, rtol=0.08)
    # a positive's partner: each of the 4 others of 5 equally often
    shift = (np.asarray(draw.right) - np.asarray(draw.left))[np.asarray(draw.same)] % 5
    np.testing.assert_allclose(np.bincount(shift, minlength=5)[1:], pairs / 2 / 4, rtol=0.05)
    assert (shift != 0).all()


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
