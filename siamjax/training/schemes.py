"""Pair schemes inside the compiled step: `(key, step, table) -> PairDraw | SetDraw`.

Every device draws the whole batch from the same key and keeps its share (`share`): a few
thousand integers cost nothing, and the numbers do not depend on how many devices there are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from siamjax import backend
from siamjax.data.pairs import ClassTable
from siamjax.types import PairDraw, PairTable, SetDraw

Draw = TypeVar("Draw", PairDraw, SetDraw)


def balanced(
    key: Array, step: Array | int, table: ClassTable, *, pairs: int, within_group: bool = False
) -> PairDraw:
    """Every second pair of one class, the others of two; classes uniform, then images uniform.

    A positive is never an image with itself. Classes with one image give negatives only; where the
    table counts them among `plural`, their one image also meets itself, each side warped anew.

    Args:
        key: typed random key.
        step: not used; schemes that read a table in order need it.
        table: members of the classes.
        pairs: b, the number of pairs.
        within_group: draw the two classes of a negative from one group (hard negatives).
    """
    table = jax.tree.map(jnp.asarray, table)
    keys = random.split(key, 6)
    same = jnp.arange(pairs) % 2 == 0
    pool = table.contested if within_group else table.classes
    anchor = jnp.where(same, _choose(keys[0], table.plural, pairs), _choose(keys[1], pool, pairs))
    place = random.randint(keys[2], (pairs,), 0, table.count[anchor])
    shift = 1 + random.randint(keys[3], (pairs,), 0, jnp.maximum(table.count[anchor] - 1, 1))
    partner = (place + shift) % table.count[anchor]
    other = _other_class(keys[4], table, anchor, within_group)
    elsewhere = random.randint(keys[5], (pairs,), 0, table.count[other])
    return PairDraw(
        left=table.images[table.start[anchor] + place],
        right=jnp.where(
            same,
            table.images[table.start[anchor] + partner],
            table.images[table.start[other] + elsewhere],
        ),
        same=same,
        weight=jnp.ones(pairs),
        slot=jnp.arange(pairs),
    )


def _choose(key: Array, values: Array, count: int) -> Array:
    return values[random.randint(key, (count,), 0, len(values))]


def _other_class(key: Array, table: ClassTable, anchor: Array, within_group: bool) -> Array:
    """A class that is not `anchor`, uniform over the rest (of its group)."""
    if not within_group:
        classes = len(table.count)
        return (anchor + 1 + random.randint(key, anchor.shape, 0, classes - 1)) % classes
    group = table.group[anchor]
    size = table.group_count[group]
    shift = 1 + random.randint(key, anchor.shape, 0, jnp.maximum(size - 1, 1))
    return table.classes[table.group_start[group] + (table.rank[anchor] + shift) % size]


def in_batch(
    key: Array,
    step: Array | int,
    table: ClassTable,
    *,
    pairs: int,
    groups: int,
    images_per_class: int,
    turned: float = 0.0,
) -> SetDraw:
    """`groups` groups, several classes of each, several images of each class.

    Every image is then compared with all others of its group: b runs of the tower give about
    b^2 / groups comparisons, and the negatives are hard by construction.

    Args:
        key: typed random key.
        step: not used.
        table: members of the classes.
        pairs: b; the draw holds 2 b images, as many as b pairs do.
        groups: drawn without replacement while there are enough.
        images_per_class: drawn without replacement; a class with fewer gets weight 0 on the rest,
            and so does a group with fewer classes than asked for.
        turned: share of groups turned as a whole by 90, 180 or 270 degrees. A turned character
            is another character (Santoro et al. 2016, section 4.1).
    """
    table = jax.tree.map(jnp.asarray, table)
    classes = 2 * pairs // (groups * images_per_class)
    key_group, key_slots = random.split(key)
    available = len(table.group_count)
    which = _distinct(key_group, jnp.asarray(available), groups) % available
    one = partial(_one_group, table, classes, images_per_class, turned)
    label, index, weight, turns = jax.vmap(one)(random.split(key_slots, groups), which)
    slot = jnp.arange(index.size)
    return SetDraw(*(a.reshape(groups, -1) for a in (index, label, turns, weight, slot)))


def _one_group(
    table: ClassTable, classes: int, images: int, turned: float, key: Array, group: Array
) -> tuple[Array, Array, Array, Array]:
    """label, index, weight, turns of one group's images, each `[classes, images]`."""
    key_class, key_image, key_turn, key_amount = random.split(key, 4)
    size = table.group_count[group]
    rank = _distinct(key_class, size, classes)
    label = table.classes[table.group_start[group] + rank % size]
    place = jax.vmap(partial(_distinct, amount=images))(
        random.split(key_image, classes), table.count[label]
    )
    index = table.images[table.start[label][:, None] + place % table.count[label][:, None]]
    weight = (rank < size)[:, None] & (place < table.count[label][:, None])
    turn = jnp.where(random.uniform(key_turn) < turned, random.randint(key_amount, (), 1, 4), 0)
    shape = (classes, images)
    label = jnp.broadcast_to(label[:, None], shape)
    return label, index, weight.astype(jnp.float32), jnp.full(shape, turn)


def _distinct(key: Array, size: Array, amount: int) -> Array:
    """`amount` distinct integers of `0 .. size - 1`, uniform, in random order.

    Where size < amount, the surplus are distinct integers from `size` on.
    """
    drawn = random.uniform(key, (amount,))
    nothing = jnp.iinfo(jnp.int32).max

    def one(i: int, taken: Array) -> Array:
        free = jnp.maximum(size - i, 1)
        r = jnp.minimum((drawn[i] * free).astype(jnp.int32), free - 1)
        # The r-th integer not taken yet: step over each taken one, in rising order.
        r = lax.fori_loop(0, amount, lambda j, r: r + (r >= taken[j]), r)
        return jnp.sort(taken.at[-1].set(jnp.where(i < size, r, i)))

    taken = lax.fori_loop(0, amount, one, jnp.full(amount, nothing, jnp.int32))
    # In random order, the surplus last.
    rank = random.uniform(random.fold_in(key, 1), (amount,)) + (taken >= size)
    return taken[jnp.argsort(rank)]


def triples(key: Array, step: Array | int, table: ClassTable, *, pairs: int) -> PairDraw:
    """Three images of one class and one of another: (a, b) same, (c, other) different.

    As bubbliiiing's Siamese-pytorch draws them. A class with fewer than three images can't give
    three different ones: c may then be a or b.

    Args:
        key: typed random key.
        step: not used.
        table: members of the classes.
        pairs: b; two pairs share a class.
    """
    table = jax.tree.map(jnp.asarray, table)
    half = (pairs + 1) // 2
    keys = random.split(key, 4)
    anchor = _choose(keys[0], table.plural, half)
    count = table.count[anchor]
    place = jax.vmap(partial(_distinct, amount=3))(random.split(keys[1], half), count)
    first, second, third = (table.images[table.start[anchor] + p % count] for p in place.T)
    other = _other_class(keys[2], table, anchor, within_group=False)
    elsewhere = random.randint(keys[3], (half,), 0, table.count[other])
    fourth = table.images[table.start[other] + elsewhere]
    return PairDraw(
        left=jnp.stack([first, third], 1).reshape(-1)[:pairs],
        right=jnp.stack([second, fourth], 1).reshape(-1)[:pairs],
        same=jnp.arange(pairs) % 2 == 0,
        weight=jnp.ones(pairs),
        slot=jnp.arange(pairs),
    )


def drawn_table(table: ClassTable, pairs: int, seed: int) -> PairTable:
    """So many balanced pairs, drawn once: a fixed table to validate on."""
    # One program: operation by operation, each would be compiled at every start.
    draw = backend.jit_once(partial(balanced, pairs=pairs))(random.key(seed), 0, table)
    return PairTable(*(np.asarray(a) for a in (draw.left, draw.right, draw.same)))


class PairRows(NamedTuple):
    """A fixed table of p pairs on the device, and the order of this epoch.

    Attributes:
        left, right: `int32 [p]`, image indices.
        same: `bool [p]`.
        order: `int32 [steps * b]`, rows in the order they are taken; the surplus over p, which
            fills the last batch, counts with weight 0.
    """

    left: Any
    right: Any
    same: Any
    order: Any


def from_table(key: Array, step: Array | int, table: PairRows, *, pairs: int) -> PairDraw:
    """The next b rows of a fixed table of pairs.

    Args:
        key: not used: the order is shuffled once an epoch, outside.
        step: steps taken so far.
        table: the pairs and this epoch's order.
        pairs: b.
    """
    start = (step % (len(table.order) // pairs)) * pairs
    row = lax.dynamic_slice_in_dim(jnp.asarray(table.order), start, pairs)
    place = start + jnp.arange(pairs)
    return PairDraw(
        left=jnp.asarray(table.left)[row],
        right=jnp.asarray(table.right)[row],
        same=jnp.asarray(table.same)[row],
        weight=(place < len(table.left)).astype(jnp.float32),
        slot=jnp.arange(pairs),
    )


def share(draw: Draw, part: Array | int, parts: int) -> Draw:
    """The `part`-th of `parts` equal, contiguous shares of a draw: of its pairs or its groups."""
    size = len(draw.weight) // parts
    cut = partial(lax.dynamic_slice_in_dim, start_index=part * size, slice_size=size)
    return jax.tree.map(cut, draw)


SCHEMES: dict[str, Callable] = {
    "balanced": balanced,
    "within-group": partial(balanced, within_group=True),
    "triples": triples,
    "in-batch": in_batch,
}
