import numpy as np
import pytest
from synthetic import labelled

from siamjax.data.pairs import class_table
from siamjax.types import LabelledImages


def uneven():
    """Classes of 3, 1, 2 images in groups 1, 0, 1; images out of order."""
    labels = np.array([2, 0, 1, 0, 2, 0], np.int32)
    return LabelledImages(
        images=np.zeros((6, 2, 2, 1), np.uint8),
        labels=labels,
        groups=np.array([1, 0, 1], np.int32)[labels],
        drawers=np.full(6, -1, np.int32),
        class_names=("a", "b", "c"),
        group_names=("g", "h"),
    )


def test_table_of_uneven_classes_by_hand():
    table = class_table(uneven())
    assert table.count.tolist() == [3, 1, 2]
    assert table.start.tolist() == [0, 3, 4]
    assert table.images.tolist() == [1, 3, 5, 2, 0, 4]
    assert table.group.tolist() == [1, 0, 1]
    assert table.classes.tolist() == [1, 0, 2]
    assert table.group_start.tolist() == [0, 1]
    assert table.group_count.tolist() == [1, 2]
    assert table.rank.tolist() == [0, 0, 1]
    assert table.plural.tolist() == [0, 2]
    assert table.contested.tolist() == [0, 2]


def test_singletons_may_be_plural():
    table = class_table(uneven(), singletons=True)
    assert table.plural.tolist() == [0, 1, 2]
    assert table.contested.tolist() == [0, 2]
    assert class_table(labelled(classes=4, each=1), singletons=True).plural.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at least two classes; the data has 1"):
        class_table(labelled(classes=1, groups=1), singletons=True)


def test_two_classes_of_two_images_are_enough():
    table = class_table(labelled(classes=2, groups=1, each=2))
    assert table.plural.tolist() == table.contested.tolist() == [0, 1]


def test_a_class_without_images_is_in_no_positive_pair():
    data = LabelledImages(
        images=np.zeros((3, 2, 2, 1), np.uint8),
        labels=np.array([0, 0, 1], np.int32),
        groups=np.array([0, 0, 1], np.int32),
        drawers=np.full(3, -1, np.int32),
        class_names=("a", "b", "none"),
        group_names=("g", "h"),
    )
    table = class_table(data, singletons=True)
    assert table.count.tolist() == [2, 1, 0]
    assert table.plural.tolist() == [0, 1]
    assert table.group.tolist() == [0, 1, 1]


def test_data_without_pairs_is_refused():
    with pytest.raises(ValueError, match="at least two classes; the data has 1"):
        class_table(labelled(classes=1, groups=1))
    with pytest.raises(ValueError, match="each of the 4 classes has one"):
        class_table(labelled(classes=4, each=1))
