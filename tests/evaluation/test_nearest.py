import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamjax.evaluation import nearest as module
from siamjax.evaluation.nearest import Nearest


def exact(queries, rows, cosine):
    """In float64."""
    a, b = queries.astype(np.float64)[:, None], rows.astype(np.float64)[None]
    if not cosine:
        return np.square(a - b).sum(-1)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return 2 - 2 * (a * b).sum(-1) / np.where(lengths > 0, lengths, 1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 100.0]), st.sampled_from([1e-4, 1e-2, 1.0]),
    st.booleans(),
)  # fmt: skip
def test_the_best_are_always_among_the_candidates(seed, offset, spread, cosine):
    rng = np.random.default_rng(seed)
    rows = (offset + spread * rng.standard_normal((60, 16))).astype(np.float32)
    queries = rows[:3] + np.float32(spread / 10) * rng.standard_normal((3, 16)).astype(np.float32)
    found = Nearest(rows, cosine=cosine).candidates(queries, 4)
    for candidates, distances in zip(found, exact(queries, rows, cosine), strict=True):
        assert set(np.argsort(distances)[:4]) <= set(candidates.tolist())
        assert (np.diff(candidates) > 0).all()


def test_few_are_proposed_where_rows_are_apart():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5000, 64)).astype(np.float32)
    for cosine in (False, True):
        found = Nearest(rows, cosine=cosine).candidates(rows[:50], 5)
        assert max(len(candidates) for candidates in found) <= 7
    # As far from the origin as they like: the middle of the rows is what counts.
    found = Nearest(rows + 50).candidates(rows[:50] + 50, 5)
    assert max(len(candidates) for candidates in found) <= 8


def test_blocks_and_turns_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((100, 8)).astype(np.float32)
    whole = Nearest(rows).candidates(rows, 3)
    monkeypatch.setattr(module, "BLOCK", 33)
    monkeypatch.setattr(module, "PRODUCT", 700)
    parts = Nearest(rows).candidates(rows, 3)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_below_the_floor_are_equal():
    rows = np.array([[0.03], [0.02], [0.01], [1.0]], np.float32)
    assert Nearest(rows).candidates(np.zeros((1, 1), np.float32), 1)[0].tolist() == [2]
    (tied,) = Nearest(rows, floor=1e-3).candidates(np.zeros((1, 1), np.float32), 1)
    assert tied.tolist() == [0, 1, 2]


def test_a_row_of_zeros_has_cosine_0():
    rows = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    query = np.array([[-2, 0]], np.float32)
    assert Nearest(rows, cosine=True).candidates(query, 1)[0].tolist() == [2]
    assert Nearest(rows, cosine=True).candidates(query, 2)[0].tolist() == [0, 2]
    assert Nearest(rows, cosine=True).candidates(0 * query, 1)[0].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_overflows_stays_a_candidate():
    rows = np.array([[1e30, 0], [1, 0], [2, 0]], np.float32)
    (found,) = Nearest(rows).candidates(np.array([[1e30, 0]], np.float32), 1)
    assert 0 in found
