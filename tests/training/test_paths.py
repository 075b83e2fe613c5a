import pytest

from siamjax.training.paths import merge, split

PARAMS = {
    "tower": {"backbone": {"conv": {"kernel": 1, "bias": 2}}, "dense": {"kernel": 3}},
    "head": {"kernel": 4},
}


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ((), {}),
        (("tower/backbone/.*",), {"tower": {"backbone": {"conv": {"kernel": 1, "bias": 2}}}}),
        (
            (".*/kernel",),
            {
                "tower": {"backbone": {"conv": {"kernel": 1}}, "dense": {"kernel": 3}},
                "head": {"kernel": 4},
            },
        ),
        (("tower/backbone",), {}),  # a path matches in full or not at all
        (
            ("head/kernel", "tower/dense/.*"),
            {"tower": {"dense": {"kernel": 3}}, "head": {"kernel": 4}},
        ),
    ],
)
def test_split_by_path_and_merge_back(patterns, frozen):
    trained, left_alone = split(PARAMS, patterns)
    assert left_alone == frozen
    assert merge(trained, left_alone) == PARAMS


def test_everything_may_be_frozen():
    assert split(PARAMS, (".*",)) == ({}, PARAMS)
